//! What Go 1.26 makes of documents for one struct with a field of each kind, written again. `!` is an error: the words are Go's where
//! the syntax is wrong, and ours where a value is of another type.

use std::collections::BTreeMap;

use gostd::json;
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct Inner {
    #[serde(skip_serializing_if = "String::is_empty")]
    a: String,
    #[serde(skip_serializing_if = "is_zero")]
    n: i64,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct Document {
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    #[serde(skip_serializing_if = "is_zero")]
    number: i64,
    #[serde(skip_serializing_if = "is_zero")]
    small: i8,
    #[serde(skip_serializing_if = "is_zero")]
    big: u64,
    #[serde(skip_serializing_if = "is_zero")]
    flag: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    list: Vec<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    words: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    map: BTreeMap<String, String>,
    inner: Inner,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt: Option<Inner>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    items: Vec<Inner>,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    any: serde_json::Value,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const ROWS: &[(&str, &str)] = &[
    ("{}", r#"{"inner":{}}"#),
    ("null", r#"{"inner":{}}"#),
    (r#"{"text":"a"}"#, r#"{"text":"a","inner":{}}"#),
    (r#"{"TEXT":"a"}"#, r#"{"text":"a","inner":{}}"#),
    (r#"{"Text":"a","text":"b"}"#, r#"{"text":"b","inner":{}}"#),
    (r#"{"text":"b","Text":"a"}"#, r#"{"text":"a","inner":{}}"#),
    (r#"{"text":null}"#, r#"{"inner":{}}"#),
    (
        r#"{"text":5}"#,
        "! json: cannot unmarshal number into Go struct field Doc.text of type string",
    ),
    (
        r#"{"text":true}"#,
        "! json: cannot unmarshal bool into Go struct field Doc.text of type string",
    ),
    (
        r#"{"text":[]}"#,
        "! json: cannot unmarshal array into Go struct field Doc.text of type string",
    ),
    (
        r#"{"text":{}}"#,
        "! json: cannot unmarshal object into Go struct field Doc.text of type string",
    ),
    (r#"{"text":"a","text":null}"#, r#"{"text":"a","inner":{}}"#),
    (r#"{"text":"a","text":"b"}"#, r#"{"text":"b","inner":{}}"#),
    ("{\"te\\u0078t\":\"a\"}", r#"{"text":"a","inner":{}}"#),
    (r#"{"ſmall":1}"#, r#"{"small":1,"inner":{}}"#),
    (
        "{\"text\":\"\\u00e9\\n\\t\\\"\\\\\\/\"}",
        "{\"text\":\"é\\n\\t\\\"\\\\/\",\"inner\":{}}",
    ),
    (
        "{\"text\":\"\\ud83d\\ude00\"}",
        r#"{"text":"😀","inner":{}}"#,
    ),
    (
        "{\"text\":\"\\ud83d\"}",
        "{\"text\":\"\u{fffd}\",\"inner\":{}}",
    ),
    (
        "{\"text\":\"\\ude00x\"}",
        "{\"text\":\"\u{fffd}x\",\"inner\":{}}",
    ),
    (
        "{\"text\":\"\\ud83dx\"}",
        "{\"text\":\"\u{fffd}x\",\"inner\":{}}",
    ),
    (
        r#"{"text":"<>&"}"#,
        "{\"text\":\"\\u003c\\u003e\\u0026\",\"inner\":{}}",
    ),
    (
        "{\"text\":\"\u{2028}\"}",
        "{\"text\":\"\\u2028\",\"inner\":{}}",
    ),
    (
        "{\"text\":\"\\u0000\"}",
        "{\"text\":\"\\u0000\",\"inner\":{}}",
    ),
    (r#"{"number":5}"#, r#"{"number":5,"inner":{}}"#),
    (r#"{"number":-5}"#, r#"{"number":-5,"inner":{}}"#),
    (
        r#"{"number":5.0}"#,
        "! json: cannot unmarshal number 5.0 into Go struct field Doc.number of type int64",
    ),
    (
        r#"{"number":5.5}"#,
        "! json: cannot unmarshal number 5.5 into Go struct field Doc.number of type int64",
    ),
    (
        r#"{"number":1e2}"#,
        "! json: cannot unmarshal number 1e2 into Go struct field Doc.number of type int64",
    ),
    (
        r#"{"number":9223372036854775807}"#,
        r#"{"number":9223372036854775807,"inner":{}}"#,
    ),
    (
        r#"{"number":9223372036854775808}"#,
        "! json: cannot unmarshal number 9223372036854775808 into Go struct field Doc.number of type int64",
    ),
    (
        r#"{"number":-9223372036854775808}"#,
        r#"{"number":-9223372036854775808,"inner":{}}"#,
    ),
    (
        r#"{"number":"5"}"#,
        "! json: cannot unmarshal string into Go struct field Doc.number of type int64",
    ),
    (r#"{"number":-0}"#, r#"{"inner":{}}"#),
    (r#"{"number":null}"#, r#"{"inner":{}}"#),
    (r#"{"small":127}"#, r#"{"small":127,"inner":{}}"#),
    (
        r#"{"small":128}"#,
        "! json: cannot unmarshal number 128 into Go struct field Doc.small of type int8",
    ),
    (
        r#"{"small":-129}"#,
        "! json: cannot unmarshal number -129 into Go struct field Doc.small of type int8",
    ),
    (
        r#"{"big":18446744073709551615}"#,
        r#"{"big":18446744073709551615,"inner":{}}"#,
    ),
    (
        r#"{"big":-1}"#,
        "! json: cannot unmarshal number -1 into Go struct field Doc.big of type uint64",
    ),
    (
        r#"{"big":18446744073709551616}"#,
        "! json: cannot unmarshal number 18446744073709551616 into Go struct field Doc.big of type uint64",
    ),
    (r#"{"flag":true}"#, r#"{"flag":true,"inner":{}}"#),
    (r#"{"flag":false}"#, r#"{"inner":{}}"#),
    (r#"{"flag":null}"#, r#"{"inner":{}}"#),
    (
        r#"{"flag":1}"#,
        "! json: cannot unmarshal number into Go struct field Doc.flag of type bool",
    ),
    (
        r#"{"flag":"true"}"#,
        "! json: cannot unmarshal string into Go struct field Doc.flag of type bool",
    ),
    (r#"{"list":[1,2]}"#, r#"{"list":[1,2],"inner":{}}"#),
    (r#"{"list":[]}"#, r#"{"inner":{}}"#),
    (r#"{"list":null}"#, r#"{"inner":{}}"#),
    (r#"{"list":[1,null,3]}"#, r#"{"list":[1,0,3],"inner":{}}"#),
    (
        r#"{"list":[1,"2"]}"#,
        "! json: cannot unmarshal string into Go struct field Doc.list of type int64",
    ),
    (
        r#"{"list":{}}"#,
        "! json: cannot unmarshal object into Go struct field Doc.list of type []int64",
    ),
    (
        r#"{"list":"x"}"#,
        "! json: cannot unmarshal string into Go struct field Doc.list of type []int64",
    ),
    (
        r#"{"list":[1],"list":[2,3]}"#,
        r#"{"list":[2,3],"inner":{}}"#,
    ),
    (
        r#"{"list":[1,2,3],"list":[4]}"#,
        r#"{"list":[4],"inner":{}}"#,
    ),
    (
        r#"{"words":["a",null,"b"]}"#,
        r#"{"words":["a","","b"],"inner":{}}"#,
    ),
    (
        r#"{"words":"a"}"#,
        "! json: cannot unmarshal string into Go struct field Doc.words of type []string",
    ),
    (
        r#"{"map":{"b":"2","a":"1"}}"#,
        r#"{"map":{"a":"1","b":"2"},"inner":{}}"#,
    ),
    (r#"{"map":{}}"#, r#"{"inner":{}}"#),
    (r#"{"map":null}"#, r#"{"inner":{}}"#),
    (r#"{"map":{"a":null}}"#, r#"{"map":{"a":""},"inner":{}}"#),
    (
        r#"{"map":{"a":1}}"#,
        "! json: cannot unmarshal number into Go struct field Doc.map of type string",
    ),
    (
        r#"{"map":[]}"#,
        "! json: cannot unmarshal array into Go struct field Doc.map of type map[string]string",
    ),
    (
        r#"{"map":{"a":"1"},"map":{"b":"2"}}"#,
        r#"{"map":{"a":"1","b":"2"},"inner":{}}"#,
    ),
    (
        r#"{"map":{"a":"1","a":"2"}}"#,
        r#"{"map":{"a":"2"},"inner":{}}"#,
    ),
    (r#"{"inner":{"a":"x"}}"#, r#"{"inner":{"a":"x"}}"#),
    (r#"{"inner":null}"#, r#"{"inner":{}}"#),
    (
        r#"{"inner":[]}"#,
        "! json: cannot unmarshal array into Go struct field Doc.inner of type main.Inner",
    ),
    (
        r#"{"inner":{"a":"x"},"inner":{"n":5}}"#,
        r#"{"inner":{"a":"x","n":5}}"#,
    ),
    (r#"{"INNER":{"A":"x"}}"#, r#"{"inner":{"a":"x"}}"#),
    (r#"{"inner":{"unknown":[1,{"x":2}]}}"#, r#"{"inner":{}}"#),
    (r#"{"opt":{"a":"x"}}"#, r#"{"inner":{},"opt":{"a":"x"}}"#),
    (r#"{"opt":null}"#, r#"{"inner":{}}"#),
    (r#"{"opt":{}}"#, r#"{"inner":{},"opt":{}}"#),
    (r#"{"opt":{"a":"x"},"opt":null}"#, r#"{"inner":{}}"#),
    (
        r#"{"opt":{"a":"x"},"opt":{"n":1}}"#,
        r#"{"inner":{},"opt":{"a":"x","n":1}}"#,
    ),
    (
        r#"{"opt":5}"#,
        "! json: cannot unmarshal number into Go struct field Doc.opt of type main.Inner",
    ),
    (
        r#"{"items":[{"a":"x"},null,{"n":1}]}"#,
        r#"{"inner":{},"items":[{"a":"x"},{},{"n":1}]}"#,
    ),
    (
        r#"{"items":[[]]}"#,
        "! json: cannot unmarshal array into Go struct field Doc.items of type main.Inner",
    ),
    (
        r#"{"items":[{"a":1}]}"#,
        "! json: cannot unmarshal number into Go struct field Inner.items.a of type string",
    ),
    (r#"{"any":5}"#, r#"{"inner":{},"any":5}"#),
    (r#"{"any":5.5}"#, r#"{"inner":{},"any":5.5}"#),
    (r#"{"any":"x"}"#, r#"{"inner":{},"any":"x"}"#),
    (
        r#"{"any":[1,"a",null,{"b":true}]}"#,
        r#"{"inner":{},"any":[1,"a",null,{"b":true}]}"#,
    ),
    (
        r#"{"any":{"b":1,"a":2}}"#,
        r#"{"inner":{},"any":{"a":2,"b":1}}"#,
    ),
    (r#"{"any":null}"#, r#"{"inner":{}}"#),
    (r#"{"unknown":5,"text":"a"}"#, r#"{"text":"a","inner":{}}"#),
    (
        r#"{"unknown":{"text":"b"},"text":"a"}"#,
        r#"{"text":"a","inner":{}}"#,
    ),
    (
        "[]",
        "! json: cannot unmarshal array into Go value of type main.Doc",
    ),
    (
        r#""x""#,
        "! json: cannot unmarshal string into Go value of type main.Doc",
    ),
    (
        "5",
        "! json: cannot unmarshal number into Go value of type main.Doc",
    ),
    (
        "true",
        "! json: cannot unmarshal bool into Go value of type main.Doc",
    ),
    (r#" {"text":"a"} "#, r#"{"text":"a","inner":{}}"#),
    ("\n{\t\"text\"\r:\"a\"}\n", r#"{"text":"a","inner":{}}"#),
    (
        r#"{"text":"a"}x"#,
        "! invalid character 'x' after top-level value",
    ),
    (
        r#"{"text":"a",}"#,
        "! invalid character '}' looking for beginning of object key string",
    ),
    (
        r#"{"text" "a"}"#,
        r#"! invalid character '"' after object key"#,
    ),
    (
        r#"{text:"a"}"#,
        "! invalid character 't' looking for beginning of object key string",
    ),
    (
        "{'text':'a'}",
        "! invalid character '\\'' looking for beginning of object key string",
    ),
    (
        r#"{"text":a}"#,
        "! invalid character 'a' looking for beginning of value",
    ),
    (
        r#"{"number":01}"#,
        "! invalid character '1' after object key:value pair",
    ),
    (
        r#"{"number":+1}"#,
        "! invalid character '+' looking for beginning of value",
    ),
    (
        r#"{"number":.5}"#,
        "! invalid character '.' looking for beginning of value",
    ),
    (
        r#"{"number":1.}"#,
        "! invalid character '}' after decimal point in numeric literal",
    ),
    (
        r#"{"number":1e}"#,
        "! invalid character '}' in exponent of numeric literal",
    ),
    (
        r#"{"number":--1}"#,
        "! invalid character '-' in numeric literal",
    ),
    (
        r#"{"list":[1,]}"#,
        "! invalid character ']' looking for beginning of value",
    ),
    (
        r#"{"list":[,1]}"#,
        "! invalid character ',' looking for beginning of value",
    ),
    (
        r#"{"list":[1 2]}"#,
        "! invalid character '2' after array element",
    ),
    (
        r#"{"flag":TRUE}"#,
        "! invalid character 'T' looking for beginning of value",
    ),
    (
        r#"{"flag":truex}"#,
        "! invalid character 'x' after object key:value pair",
    ),
    (
        r#"{"flag":nul}"#,
        "! invalid character '}' in literal null (expecting 'l')",
    ),
    (r#"{"text":"a"#, "! unexpected end of JSON input"),
    (
        "{\"text\":\"\\q\"}",
        "! invalid character 'q' in string escape code",
    ),
    (
        "{\"text\":\"\\u12\"}",
        "! invalid character '\"' in \\u hexadecimal character escape",
    ),
    (
        "{\"text\":\"a\nb\"}",
        "! invalid character '\\n' in string literal",
    ),
    ("{", "! unexpected end of JSON input"),
    (r#"{""#, "! unexpected end of JSON input"),
    (r#"{"a"#, "! unexpected end of JSON input"),
    (r#"{"a""#, "! unexpected end of JSON input"),
    (r#"{"a":"#, "! unexpected end of JSON input"),
    (r#"{"a":1"#, "! unexpected end of JSON input"),
    ("[", "! unexpected end of JSON input"),
    ("", "! unexpected end of JSON input"),
    (" ", "! unexpected end of JSON input"),
    (
        "\u{feff}{}",
        "! invalid character 'ï' looking for beginning of value",
    ),
    ("{}{}", "! invalid character '{' after top-level value"),
    (
        r#"{"a":1 "b":2}"#,
        r#"! invalid character '"' after object key:value pair"#,
    ),
    (
        "//x",
        "! invalid character '/' looking for beginning of value",
    ),
    (
        r#"{"a":1/**/}"#,
        "! invalid character '/' after object key:value pair",
    ),
    (
        r#"{"a":NaN}"#,
        "! invalid character 'N' looking for beginning of value",
    ),
    (
        r#"{"a":Infinity}"#,
        "! invalid character 'I' looking for beginning of value",
    ),
];

#[test]
fn documents_become_what_go_makes_of_them() {
    let mut differences = Vec::new();
    for (input, want) in ROWS {
        let actual = match json::from_slice::<Document>(input.as_bytes()) {
            Ok(document) => String::from_utf8(json::to_vec(&document)).expect("JSON is a text"),
            Err(error) => format!("! {error}"),
        };
        // Go names its own types where a value has the wrong one.
        let is_type_error = want.starts_with("! json: cannot unmarshal");
        if actual != *want && !(is_type_error && actual.starts_with('!')) {
            differences.push(format!("{input}\n  {actual}\n  Go says\n  {want}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
