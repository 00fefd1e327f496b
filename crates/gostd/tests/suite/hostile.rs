//! Properties of any text, and documents that are made to hurt.

use std::collections::BTreeMap;

use gostd::json::{DecodeError, MAX_VALUES};
use gostd::{Timestamp, csv, json, path, strconv, time, url};
use proptest::prelude::*;

/// A line of values, each in quotes.
fn quoted_line(fields: &[String]) -> String {
    let quoted = fields
        .iter()
        .map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(",")
}

proptest! {
    #[test]
    fn a_clean_path_is_clean_and_has_no_ways_up_below_the_root(text in "[a-c./]{0,24}") {
        let clean = path::clean(&text);
        prop_assert_eq!(path::clean(&clean), clean.clone());
        prop_assert!(!clean.is_empty() && (clean == "/" || !clean.ends_with('/')));
        prop_assert_eq!(path::is_abs(&clean), path::is_abs(&text));
        let below = path::join_root(&text);
        prop_assert!(below.starts_with('/') && !below.split('/').any(|part| part == ".."));
        prop_assert_eq!(format!("/{}", path::names_below_root(&text).join("/")), below);
    }

    #[test]
    fn a_path_is_its_folder_and_its_name(text in "[a-c./]{1,24}") {
        let clean = path::clean(&text);
        let joined = path::join(&[&path::dir(&clean), path::base(&clean)]);
        prop_assert_eq!(joined, clean);
    }

    #[test]
    fn a_duration_is_read_as_it_was_written(nanos in any::<i64>()) {
        let text = time::format_duration(nanos);
        prop_assert_eq!(time::parse_duration(&text), Ok(nanos), "{}", text);
    }

    #[test]
    fn any_text_for_a_duration_gives_an_answer(text in "[-+0-9.a-zµ ]{0,16}") {
        if let Ok(nanos) = time::parse_duration(&text) {
            prop_assert_eq!(time::parse_std_duration(&text).is_some(), nanos >= 0);
        }
    }

    #[test]
    fn a_time_is_read_as_it_was_written(seconds in -62_135_596_800_i64..253_402_300_800) {
        let text = Timestamp::from_seconds(seconds).to_string();
        let again = Timestamp::parse(&text).expect("what is written can be read");
        prop_assert_eq!(again.seconds(), seconds);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn values_in_quotes_come_back(fields in prop::collection::vec("[a-z\",= \n\r]{0,8}", 1..5)) {
        prop_assert_eq!(csv::fields(&quoted_line(&fields)), Ok(fields));
    }

    #[test]
    fn an_escaped_value_comes_back(text in "\\PC{0,20}") {
        let escaped = url::query_escape(&text);
        prop_assert!(escaped.is_ascii());
        prop_assert_eq!(url::query_unescape(&escaped), Ok(text.into_bytes()));
    }

    #[test]
    fn escapes_are_taken_out_or_refused(text in "[%0-9a-g+é]{0,12}") {
        match url::path_unescape(&text) {
            Ok(bytes) => prop_assert_eq!(url::unescape_lossy(&text).into_owned(), bytes),
            Err(error) => {
                let cut_in_a_character = error.0.contains(char::REPLACEMENT_CHARACTER);
                prop_assert!(text.contains(&error.0) || cut_in_a_character);
            }
        }
    }

    #[test]
    fn a_quoted_text_has_no_bare_control_and_no_bare_quote(text in any::<String>()) {
        let quoted = strconv::quote(&text);
        let inside = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let inside = inside.expect("it is in quotes").replace("\\\\", "");
        prop_assert!(inside.chars().all(strconv::is_print), "{}", quoted);
        prop_assert_eq!(inside.matches('"').count(), inside.matches("\\\"").count());
    }

    #[test]
    fn what_is_written_is_read_alike_by_serde(map in prop::collection::btree_map("\\PC{0,6}", any::<i64>(), 0..6)) {
        let bytes = json::to_vec(&map);
        let read: BTreeMap<String, i64> = json::from_slice(&bytes).expect("it was written here");
        prop_assert_eq!(&read, &map);
        let by_serde: BTreeMap<String, i64> = serde_json::from_slice(&bytes).expect("it is JSON");
        prop_assert_eq!(by_serde, map);
    }

    #[test]
    fn what_serde_takes_is_taken(text in r#"[\[\]{}:,"a0-9.eE+\- ntrufals\\]{0,24}"#) {
        let ours = json::from_slice::<serde_json::Value>(text.as_bytes());
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
            prop_assert_eq!(ours, Ok(value));
        }
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        drop(json::from_slice::<serde_json::Value>(&bytes));
        drop(json::from_start::<serde_json::Value>(&bytes));
        drop(json::raw_members(&bytes));
        drop(json::raw_field(&bytes, "a"));
    }

    #[test]
    fn a_compact_value_means_the_same(list in prop::collection::vec(any::<Option<i32>>(), 0..6)) {
        let pretty = json::to_vec_indent(&list, "  ");
        let mut out = Vec::new();
        json::compact(&pretty, &mut out);
        prop_assert_eq!(out, json::to_vec(&list));
    }
}

#[test]
fn a_document_is_bounded_in_values_and_in_depth() {
    let list = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    let read = |text: &str, most| json::from_slice_with::<Vec<i64>>(text.as_bytes(), most);
    // The list itself is a value.
    assert_eq!(read(&list(9), 10).map(|list| list.len()), Ok(9));
    assert_eq!(read(&list(10), 10), Err(DecodeError::Values(10)));
    let all = json::from_slice::<Vec<i64>>(list(MAX_VALUES).as_bytes());
    assert_eq!(all, Err(DecodeError::Values(MAX_VALUES)));
    for open in ["[", "{\"a\":", "[{\"a\":["] {
        let deep = open.repeat(20_000);
        let error = json::from_slice::<serde_json::Value>(deep.as_bytes());
        assert_eq!(error, Err(DecodeError::Depth), "{open}");
    }
}

#[test]
fn where_a_document_breaks_is_told() {
    let offset = |text: &str| match json::from_slice::<serde_json::Value>(text.as_bytes()) {
        Err(DecodeError::Syntax { found, offset, .. }) => Some((found, offset)),
        Ok(_) | Err(_) => None,
    };
    for (text, want) in [
        ("x", Some(('x', 0))),
        ("{\"a\":x}", Some(('x', 5))),
        ("[1,]", Some((']', 3))),
        ("{} x", Some(('x', 3))),
        ("[1 2]", Some(('2', 3))),
        ("[", None),
        ("[]", None),
    ] {
        assert_eq!(offset(text), want, "{text}");
    }
}

#[test]
fn members_keep_their_bytes_and_their_order() {
    let document = br#"{"b": {"x" : [1, 2]}, "a":"\u00e9", "b":null, "B":5}"#;
    let members = json::raw_members(document)
        .expect("it is JSON")
        .expect("it is an object");
    let shown: Vec<(&str, &str)> = members
        .iter()
        .map(|(name, raw)| (name.as_str(), std::str::from_utf8(raw).expect("a text")))
        .collect();
    let want = [
        ("b", r#"{"x" : [1, 2]}"#),
        ("a", r#""\u00e9""#),
        ("b", "null"),
        ("B", "5"),
    ];
    assert_eq!(shown, want);
    // A field takes the last of its name in any case.
    assert_eq!(json::raw_field(document, "b"), Ok(Some(&b"5"[..])));
    assert_eq!(json::raw_field(document, "c"), Ok(None));
    assert!(json::raw_members(b"{\"a\":}").is_err());
    assert!(json::raw_members(b"5").is_err());
}

#[test]
fn only_the_first_value_of_a_stream_is_read() {
    let first = |text: &str| json::from_start::<i64>(text.as_bytes());
    assert_eq!(first("5 6"), Ok(5));
    assert_eq!(first(" 5\n{"), Ok(5));
    assert!(first("[] 5").is_err());
    assert_eq!(first(""), Err(DecodeError::End));
    assert!(json::from_slice::<i64>(b"5 6").is_err());
}

#[test]
fn errors_of_lines_say_the_column() {
    for (line, want) in [
        ("a\"", csv::CsvError::BareQuote { column: 2 }),
        ("é,b\"", csv::CsvError::BareQuote { column: 5 }),
        ("\"a", csv::CsvError::Quote { column: 2 }),
        ("\"a\"b", csv::CsvError::Quote { column: 3 }),
        ("x,\"a\" ,b", csv::CsvError::Quote { column: 5 }),
        ("", csv::CsvError::Empty),
        ("\n", csv::CsvError::Empty),
    ] {
        assert_eq!(csv::fields(line), Err(want), "{line:?}");
    }
}

#[test]
fn words_for_yes_are_six_and_all_else_is_no() {
    for yes in ["1", "t", "T", "true", "True", "TRUE"] {
        assert!(strconv::is_true(yes), "{yes}");
        assert_eq!(strconv::parse_bool(yes), Ok(true));
    }
    for no in ["0", "f", "F", "false", "False", "FALSE"] {
        assert!(!strconv::is_true(no), "{no}");
        assert_eq!(strconv::parse_bool(no), Ok(false));
    }
    for neither in ["", "yes", "on", "2", "tRUE", " 1", "1 ", "t\u{0}", "ｔ"] {
        assert!(!strconv::is_true(neither), "{neither}");
        let error = strconv::parse_bool(neither).expect_err("it is no truth value");
        assert_eq!(error.0, neither);
    }
}

#[test]
fn moments_are_ordered_by_when_they_are_not_by_how_they_are_written() {
    let time = |text: &str| Timestamp::parse(text).expect("a time");
    for (earlier, later) in [
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.000000001Z"),
        ("2024-01-01T01:00:00+02:00", "2024-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.9Z", "1970-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    ] {
        assert!(time(later).is_after(&time(earlier)), "{later}");
        assert!(!time(earlier).is_after(&time(later)), "{earlier}");
        assert!(!time(later).is_after(&time(later)), "{later}");
    }
    let same = [
        time("2024-01-01T02:00:00+02:00"),
        time("2024-01-01T00:00:00Z"),
    ];
    assert!(!same[0].is_after(&same[1]) && !same[1].is_after(&same[0]));
}

#[test]
fn indented_documents_are_those_of_go() {
    let document: BTreeMap<&str, Vec<i64>> =
        [("a", vec![1, 2]), ("b", vec![]), ("<", vec![3])].into();
    let text = String::from_utf8(json::to_vec_indent(&document, "  ")).expect("JSON is a text");
    let want = "{\n  \"\\u003c\": [\n    3\n  ],\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": []\n}";
    assert_eq!(text, want);
}
