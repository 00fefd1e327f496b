use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[test]
fn strings_are_escaped_as_go_escapes_them() {
    let text = String::from_utf8(to_vec("a<b>&\u{2028}\n\u{8}\u{1}é\u{7f}")).unwrap();
    assert_eq!(
        text,
        "\"a\\u003cb\\u003e\\u0026\\u2028\\n\\b\\u0001é\u{7f}\""
    );
}

#[test]
fn a_stream_ends_for_go_with_its_first_value() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Token {
        token: String,
    }
    let token = from_start::<Token>(b" {\"Token\":\"t\"}\n{\"token\":").unwrap();
    assert_eq!(token.token, "t");
    assert!(from_slice::<Token>(b"{\"token\":\"t\"}{}").is_err());
    assert_eq!(from_start::<Token>(b"  "), Err(DecodeError::End));
}

#[test]
fn raw_members_keep_their_bytes() {
    let document = b" { \"a\" : [ 1 , \"\xff<\\u003c\" ] , \"A\":null,\"a\": 2 } ";
    let members = raw_members(document).unwrap().unwrap();
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "A", "a"]);
    let mut out = Vec::new();
    compact(members[0].1, &mut out);
    compact(
        b" \"\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa \\\" <\"",
        &mut out,
    );
    assert_eq!(
        out,
        b"[1,\"\xff\\u003c\\u003c\"]\"\\u2028\\u2029\xe2\x80\xaa \\\" \\u003c\""
    );
    assert_eq!(raw_field(document, "A"), Ok(Some(&b"2"[..])));
    assert_eq!(raw_field(document, "b"), Ok(None));
    assert_eq!(raw_members(b"null"), Ok(None));
    assert!(raw_members(b"[]").is_err());
}

#[test]
fn any_value_is_what_serde_makes_of_it() {
    let text = r#"{"a":[1,-2,2.5,1e3,18446744073709551615,true,null,"x\n"],"b":{"c":{}}}"#;
    let decoded: serde_json::Value = from_slice(text.as_bytes()).unwrap();
    let expected: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(decoded, expected);
    let decoded: BTreeMap<String, Option<Vec<i64>>> =
        from_slice(br#"{"a":null,"b":[1,null],"a":[2]}"#).unwrap();
    let expected = [("a".into(), Some(vec![2])), ("b".into(), Some(vec![1, 0]))];
    assert_eq!(decoded, BTreeMap::from(expected));
}
