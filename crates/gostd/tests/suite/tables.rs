//! Tables of what Go 1.26 answers, one function each. `!` is an error, with Go's words where ours are the same.

use gostd::{Timestamp, csv, path, strconv, time, url};

const CLEAN: &[(&str, &str)] = &[
    ("a/b/c", "a/b/c"),
    ("a//b/../c/.", "a/c"),
    ("/a/b/../../../c", "/c"),
    ("./", "."),
    ("./a", "a"),
    ("a/./", "a"),
    ("a/..//b", "b"),
    ("....", "...."),
    ("a/...", "a/..."),
    ("../a/../b", "../b"),
    ("/..a", "/..a"),
    ("a/b/..", "a"),
    ("a/../../..", "../.."),
    ("//", "/"),
    ("/a//", "/a"),
    ("a\\b", "a\\b"),
    ("a b/../c", "c"),
    ("\u{0}/..", "."),
    ("%2e%2e/a", "%2e%2e/a"),
    ("~/x", "~/x"),
    ("a/b/../../..", ".."),
    ("/./././a", "/a"),
    ("x/../../y/../z", "../z"),
    ("aa/bb/cc/../../dd/..", "aa"),
    ("/usr//local/./bin/../lib/", "/usr/local/lib"),
];

const BASE: &[(&str, &str)] = &[
    ("a/b/c", "c"),
    ("a//b/../c/.", "."),
    ("/a/b/../../../c", "c"),
    ("./", "."),
    ("./a", "a"),
    ("a/./", "."),
    ("a/..//b", "b"),
    ("....", "...."),
    ("a/...", "..."),
    ("../a/../b", "b"),
    ("/..a", "..a"),
    ("a/b/..", ".."),
    ("a/../../..", ".."),
    ("//", "/"),
    ("/a//", "a"),
    ("a\\b", "a\\b"),
    ("a b/../c", "c"),
    ("\u{0}/..", ".."),
    ("%2e%2e/a", "a"),
    ("~/x", "x"),
    ("a/b/../../..", ".."),
    ("/./././a", "a"),
    ("x/../../y/../z", "z"),
    ("aa/bb/cc/../../dd/..", ".."),
    ("/usr//local/./bin/../lib/", "lib"),
];

const DIR: &[(&str, &str)] = &[
    ("a/b/c", "a/b"),
    ("a//b/../c/.", "a/c"),
    ("/a/b/../../../c", "/"),
    ("./", "."),
    ("./a", "."),
    ("a/./", "a"),
    ("a/..//b", "."),
    ("....", "."),
    ("a/...", "a"),
    ("../a/../b", ".."),
    ("/..a", "/"),
    ("a/b/..", "a/b"),
    ("a/../../..", ".."),
    ("//", "/"),
    ("/a//", "/a"),
    ("a\\b", "."),
    ("a b/../c", "."),
    ("\u{0}/..", "\u{0}"),
    ("%2e%2e/a", "%2e%2e"),
    ("~/x", "~"),
    ("a/b/../../..", "."),
    ("/./././a", "/"),
    ("x/../../y/../z", ".."),
    ("aa/bb/cc/../../dd/..", "aa/dd"),
    ("/usr//local/./bin/../lib/", "/usr/local/lib"),
];

const DURATIONS: &[(&str, &str)] = &[
    ("1h", "3600000000000 1h0m0s"),
    ("1h1m1s", "3661000000000 1h1m1s"),
    ("1ms1us1ns", "1001001 1.001001ms"),
    ("1.5h", "5400000000000 1h30m0s"),
    ("0.5ms", "500000 500µs"),
    ("1h0.5m", "3630000000000 1h0m30s"),
    ("-1.5h", "-5400000000000 -1h30m0s"),
    ("+1m", "60000000000 1m0s"),
    ("1m-1s", r#"! time: unknown unit "m-" in duration "1m-1s""#),
    ("1h 1m", r#"! time: unknown unit "h " in duration "1h 1m""#),
    (
        "1hour",
        r#"! time: unknown unit "hour" in duration "1hour""#,
    ),
    ("1min", r#"! time: unknown unit "min" in duration "1min""#),
    ("1sec", r#"! time: unknown unit "sec" in duration "1sec""#),
    ("1", r#"! time: missing unit in duration "1""#),
    ("0", "0 0s"),
    ("00", r#"! time: missing unit in duration "00""#),
    ("0x1s", r#"! time: unknown unit "x" in duration "0x1s""#),
    ("1e1s", r#"! time: unknown unit "e" in duration "1e1s""#),
    (".5h", "1800000000000 30m0s"),
    ("5.h", "18000000000000 5h0m0s"),
    ("h", r#"! time: invalid duration "h""#),
    ("1hh", r#"! time: unknown unit "hh" in duration "1hh""#),
    ("1h.", r#"! time: invalid duration "1h.""#),
    ("1.2.3s", r#"! time: missing unit in duration "1.2.3s""#),
    ("٣s", "! time: invalid duration \"\\xd9\\xa3s\""),
    ("1µs1μs", "2000 2µs"),
    (
        "106751d",
        r#"! time: unknown unit "d" in duration "106751d""#,
    ),
    (
        "2562047h47m16.854775807s",
        "9223372036854775807 2562047h47m16.854775807s",
    ),
    (
        "2562047h47m16.854775808s",
        r#"! time: invalid duration "2562047h47m16.854775808s""#,
    ),
    (
        "-2562047h47m16.854775808s",
        "-9223372036854775808 -2562047h47m16.854775808s",
    ),
    (
        "1s\n",
        "! time: unknown unit \"s\\x0a\" in duration \"1s\\x0a\"",
    ),
    ("\t1s", "! time: invalid duration \"\\x091s\""),
    ("1S", r#"! time: unknown unit "S" in duration "1S""#),
    ("1Ms", r#"! time: unknown unit "Ms" in duration "1Ms""#),
    (
        "999999999999999999ns",
        "999999999999999999 277777h46m39.999999999s",
    ),
    ("0.0000000001s", "0 0s"),
    ("1.0000000009s", "1000000000 1s"),
    (
        "123456789.123456789s",
        "123456789123456789 34293h33m9.123456789s",
    ),
];

const CSV: &[(&str, &str)] = &[
    ("a", r#"["a"]"#),
    ("a,b", r#"["a","b"]"#),
    ("a,,b", r#"["a","","b"]"#),
    (r#""a""#, r#"["a"]"#),
    (r#""a,b""#, r#"["a,b"]"#),
    (r#""a""b""#, "[\"a\\\"b\"]"),
    (r#""""#, r#"[""]"#),
    (r#""""""#, "[\"\\\"\"]"),
    (
        r#"a""#,
        r#"! parse error on line 1, column 2: bare " in non-quoted-field"#,
    ),
    (
        r#""a"#,
        r#"! parse error on line 1, column 2: extraneous or missing " in quoted-field"#,
    ),
    (
        r#""a"b"#,
        r#"! parse error on line 1, column 3: extraneous or missing " in quoted-field"#,
    ),
    (r#""a","#, r#"["a",""]"#),
    (
        r#"a,"b"#,
        r#"! parse error on line 1, column 4: extraneous or missing " in quoted-field"#,
    ),
    (
        r#"a,b""#,
        r#"! parse error on line 1, column 4: bare " in non-quoted-field"#,
    ),
    ("a ,b", r#"["a ","b"]"#),
    (" a, b ", r#"[" a"," b "]"#),
    ("type=local,dest=/x", r#"["type=local","dest=/x"]"#),
    (
        r#""type=local,dest=a""b",x=y"#,
        "[\"type=local,dest=a\\\"b\",\"x=y\"]",
    ),
    ("a\tb", "[\"a\\tb\"]"),
    ("é,ü", r#"["é","ü"]"#),
    ("a\n", r#"["a"]"#),
    ("a\nb", "[\"a\\nb\"]"),
    ("\r\n", "! EOF"),
    ("a,\n", r#"["a",""]"#),
    (",a", r#"["","a"]"#),
    (r#"",""#, r#"[","]"#),
    (r#"a,"",b"#, r#"["a","","b"]"#),
    ("\"a\nb\"", "[\"a\\nb\"]"),
    ("'a,b'", r#"["'a","b'"]"#),
    ("a\\,b", "[\"a\\\\\",\"b\"]"),
    ("#a,b", "[\"#a\",\"b\"]"),
    (
        r#""a" "#,
        r#"! parse error on line 1, column 3: extraneous or missing " in quoted-field"#,
    ),
];

const QUERY_ESCAPE: &[(&str, &str)] = &[
    ("a b&c=d", "a+b%26c%3Dd"),
    ("/path?x#y", "%2Fpath%3Fx%23y"),
    ("100%", "100%25"),
    ("é", "%C3%A9"),
    ("~-_.", "~-_."),
    ("a+b", "a%2Bb"),
    ("\n", "%0A"),
    (r#"'"<>"#, "%27%22%3C%3E"),
    ("(a)", "%28a%29"),
    ("*", "%2A"),
    ("[]", "%5B%5D"),
    ("|", "%7C"),
    ("\\", "%5C"),
    ("日本", "%E6%97%A5%E6%9C%AC"),
];

const QUERY_UNESCAPE: &[(&str, &str)] = &[
    ("a%20b", "a b"),
    ("a+b", "a b"),
    ("%41%42", "AB"),
    ("%", r#"! invalid URL escape "%""#),
    ("%4", r#"! invalid URL escape "%4""#),
    ("%4g", r#"! invalid URL escape "%4g""#),
    ("%%41", r#"! invalid URL escape "%%4""#),
    ("a%0Ab", "a\nb"),
    ("%2f", "/"),
    ("100%25", "100%"),
    (" ", " "),
    ("%C3%A9+x", "é x"),
];

const PATH_UNESCAPE: &[(&str, &str)] = &[
    ("a%20b", "a b"),
    ("a+b", "a+b"),
    ("%41%42", "AB"),
    ("%", r#"! invalid URL escape "%""#),
    ("%4", r#"! invalid URL escape "%4""#),
    ("%4g", r#"! invalid URL escape "%4g""#),
    ("%%41", r#"! invalid URL escape "%%4""#),
    ("a%0Ab", "a\nb"),
    ("%2f", "/"),
    ("100%25", "100%"),
    (" ", " "),
    ("%C3%A9+x", "é+x"),
];

const QUOTE: &[(&str, &str)] = &[
    ("a", r#""a""#),
    (r#"a"b"#, "\"a\\\"b\""),
    ("\u{1}", "\"\\x01\""),
    ("\u{1f}", "\"\\x1f\""),
    ("\u{7f}", "\"\\x7f\""),
    ("\u{80}", "\"\\u0080\""),
    ("\u{a0}", "\"\\u00a0\""),
    ("é", r#""é""#),
    ("\u{200e}", "\"\\u200e\""),
    ("\u{2028}", "\"\\u2028\""),
    ("\u{feff}", "\"\\ufeff\""),
    ("\u{fffd}", "\"\u{fffd}\""),
    ("😀", r#""😀""#),
    ("\u{e0001}", "\"\\U000e0001\""),
    ("\\n", "\"\\\\n\""),
    ("\r\n", "\"\\r\\n\""),
    ("`", r#""`""#),
    ("'", r#""'""#),
    ("\u{7}\u{8}\u{c}\u{b}", "\"\\a\\b\\f\\v\""),
];

/// Without a comma before the fraction, which Go takes in most places and not in documents.
const TIMES: &[(&str, &str)] = &[
    ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z 1709208000 0"),
    (
        "2024-02-29T12:00:00.1Z",
        "2024-02-29T12:00:00.1Z 1709208000 100000000",
    ),
    (
        "2024-02-29T12:00:00.100Z",
        "2024-02-29T12:00:00.1Z 1709208000 100000000",
    ),
    (
        "2024-02-29T12:00:00+01:30",
        "2024-02-29T12:00:00+01:30 1709202600 0",
    ),
    (
        "2024-02-29T12:00:00-23:59",
        "2024-02-29T12:00:00-23:59 1709294340 0",
    ),
    (
        "2024-02-29T12:00:00+24:00",
        "2024-02-29T12:00:00+24:00 1709121600 0",
    ),
    (
        "2024-02-29T12:00:00+00:60",
        "2024-02-29T12:00:00+01:00 1709204400 0",
    ),
    (
        "2024-02-29T12:00:00-00:00",
        "2024-02-29T12:00:00Z 1709208000 0",
    ),
    ("2023-02-29T12:00:00Z", "!"),
    ("2024-04-31T12:00:00Z", "!"),
    (
        "2024-12-31T23:59:59.999999999Z",
        "2024-12-31T23:59:59.999999999Z 1735689599 999999999",
    ),
    (
        "2024-12-31T23:59:59.9999999999Z",
        "2024-12-31T23:59:59.999999999Z 1735689599 999999999",
    ),
    (
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z -62135596800 0",
    ),
    (
        "0000-02-29T00:00:00Z",
        "0000-02-29T00:00:00Z -62162121600 0",
    ),
    (
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59Z 253402300799 0",
    ),
    ("10000-01-01T00:00:00Z", "!"),
    ("2024-02-29 12:00:00Z", "!"),
    ("2024-02-29T12:00Z", "!"),
    ("2024-02-29", "!"),
    ("2024-02-29T12:00:00", "!"),
    ("2024-02-29T12:00:00z", "!"),
    ("T", "!"),
    ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z -1 0"),
    ("1900-01-01T00:00:00Z", "1900-01-01T00:00:00Z -2208988800 0"),
];

/// Compares each row with what `answer` gives.
#[track_caller]
fn compare(rows: &[(&str, &str)], answer: impl Fn(&str) -> String) {
    let mut differences = Vec::new();
    for (input, want) in rows {
        let actual = answer(input);
        if actual != *want {
            differences.push(format!("{input:?}: {actual:?}, Go says {want:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn shown<T>(result: Result<T, impl std::error::Error>, show: impl FnOnce(T) -> String) -> String {
    result.map_or_else(|error| format!("! {error}"), show)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the rows have no other bytes")
}

#[test]
fn paths_are_those_of_go() {
    compare(CLEAN, path::clean);
    compare(BASE, |input| path::base(input).to_owned());
    compare(DIR, path::dir);
}

#[test]
fn durations_are_those_of_go() {
    compare(DURATIONS, |input| {
        shown(time::parse_duration(input), |nanos| {
            format!("{nanos} {}", time::format_duration(nanos))
        })
    });
}

#[test]
fn lines_of_values_are_those_of_go() {
    compare(CSV, |input| {
        shown(csv::fields(input), |fields| {
            String::from_utf8(gostd::json::to_vec(&fields)).expect("JSON is a text")
        })
    });
}

#[test]
fn escapes_are_those_of_go() {
    compare(QUERY_ESCAPE, url::query_escape);
    compare(QUERY_UNESCAPE, |input| {
        shown(url::query_unescape(input), text)
    });
    compare(PATH_UNESCAPE, |input| {
        shown(url::path_unescape(input), text)
    });
}

#[test]
fn quotes_are_those_of_go() {
    compare(QUOTE, |input| strconv::quote(input));
}

#[test]
fn times_are_those_of_go() {
    compare(TIMES, |input| {
        Timestamp::parse(input).map_or_else(
            || "!".to_owned(),
            |time| format!("{time} {} {}", time.seconds(), time.nanos()),
        )
    });
}
