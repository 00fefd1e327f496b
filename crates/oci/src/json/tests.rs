use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::{ImageConfig, Index, Manifest};

#[test]
fn strings_are_escaped_as_go_escapes_them() {
    let text = String::from_utf8(to_vec("a<b>&\u{2028}\n\u{8}\u{1}é\u{7f}")).unwrap();
    assert_eq!(
        text,
        "\"a\\u003cb\\u003e\\u0026\\u2028\\n\\b\\u0001é\u{7f}\""
    );
}

/// `\xNN` in the table stands for a byte.
fn bytes_of(line: &str) -> Vec<u8> {
    let mut parts = line.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part.split_at(2);
        out.push(u8::from_str_radix(byte, 16).unwrap());
        out.extend(rest.as_bytes());
    }
    out
}

fn again<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<String, DecodeError> {
    let text = String::from_utf8(to_vec(&from_slice::<T>(bytes)?)).unwrap();
    // Go has two empty lists.
    Ok(["layers", "manifests", "diff_ids"]
        .iter()
        .fold(text, |text, list| {
            text.replace(&format!("\"{list}\":[]"), &format!("\"{list}\":null"))
        }))
}

#[test]
fn documents_of_others_are_read_as_go_reads_them() {
    let mut kind = "";
    let mut document = "";
    let mut checked = 0;
    for line in include_str!("documents.txt").lines() {
        if let "[config]" | "[manifest]" | "[index]" = line {
            kind = line;
            continue;
        }
        let is_result = line.starts_with("= ") || line.starts_with("! ");
        if !is_result {
            document = line;
            continue;
        }
        let bytes = bytes_of(document);
        let got = match kind {
            "[config]" => again::<ImageConfig>(&bytes),
            "[manifest]" => again::<Manifest>(&bytes),
            _ => again::<Index>(&bytes),
        };
        checked += 1;
        if let Some(want) = line.strip_prefix("= ") {
            let want = ["layers", "manifests", "diff_ids"]
                .iter()
                .fold(want.to_owned(), |text, list| {
                    text.replace(&format!("\"{list}\":[]"), &format!("\"{list}\":null"))
                });
            assert_eq!(got.as_deref(), Ok(want.as_str()), "{document}");
            continue;
        }
        let want = line.strip_prefix("! ").unwrap_or_default();
        // Times are read where they count.
        if want.starts_with("parsing time") {
            continue;
        }
        let error = got.unwrap_err().to_string();
        if want.starts_with("json: ") {
            assert!(error.contains("where a"), "{document}: {error}");
        } else if !want.starts_with("Time.") {
            assert_eq!(error, want, "{document}");
        }
    }
    assert!(checked > 90, "{checked}");
}

#[test]
fn a_document_is_bounded_in_depth_and_in_values() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let inside = |depth: usize| format!("{{\"unknown\":{}}}", nested(depth));
    // Deeper than any stack, where nobody asks for it, and where it is kept.
    assert!(from_slice::<ImageConfig>(inside(9_999).as_bytes()).is_ok());
    let config = |text: &str| from_slice::<ImageConfig>(text.as_bytes()).unwrap_err();
    assert_eq!(config(&inside(10_000)), DecodeError::Depth);
    assert_eq!(config(&nested(5_000_000)), DecodeError::Depth);
    assert_eq!(config(&"{\"a\":".repeat(5_000_000)), DecodeError::Depth);
    let any = |text: &str| from_slice::<serde_json::Value>(text.as_bytes());
    assert!(any(&nested(128)).is_ok());
    assert_eq!(any(&nested(9_000)), Err(DecodeError::Depth));
    let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
    assert_eq!(config(&many), DecodeError::Values(MAX_VALUES));
    let many = format!("{{\"unknown\":[{}0]}}", "0,".repeat(MAX_VALUES - 4));
    assert!(from_slice::<ImageConfig>(many.as_bytes()).is_ok());
}

#[test]
fn what_is_in_the_way_of_a_field_is_named() {
    let error =
        from_slice::<ImageConfig>(br#"{"config":{"Healthcheck":{"Retries":"3"}}}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.Healthcheck.Retries: cannot unmarshal string where a number is wanted"
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
    let got: serde_json::Value = from_slice(text.as_bytes()).unwrap();
    let want: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(got, want);
    let got: BTreeMap<String, Option<Vec<i64>>> =
        from_slice(br#"{"a":null,"b":[1,null],"a":[2]}"#).unwrap();
    let want = [("a".into(), Some(vec![2])), ("b".into(), Some(vec![1, 0]))];
    assert_eq!(got, BTreeMap::from(want));
}
