//! Every answer that Go gave (`vectors.json`, written by `integration/tools/gostd`) is given here as well.

#[path = "suite/hostile.rs"]
mod hostile;
#[path = "suite/tables.rs"]
mod tables;
#[path = "suite/typed.rs"]
mod typed;

use std::collections::BTreeSet;

use gostd::{Timestamp, csv, json, path, strconv, time, url};
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Vector {
    func: String,
    r#in: Value,
    #[serde(default)]
    out: Value,
    #[serde(default)]
    error: String,
}

/// What the function answers: a value, or the text of its error.
fn answer(func: &str, input: &Value) -> Result<Value, String> {
    fn shown<T: Into<Value>>(result: Result<T, impl std::error::Error>) -> Result<Value, String> {
        result.map(Into::into).map_err(|error| error.to_string())
    }
    let text = input.as_str().unwrap_or_default();
    let list: Vec<&str> = input
        .as_array()
        .map(|items| items.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let number = || text.parse::<i64>().expect("a number");
    // Bytes of Go are base64 in JSON.
    let bytes =
        |result: Result<Vec<u8>, url::EscapeError>| {
            shown(result.map(|bytes| {
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
            }))
        };
    match func {
        "strconv.ParseBool" => shown(strconv::parse_bool(text)),
        "strconv.Quote" => Ok(strconv::quote(text).into()),
        "%q" => Ok(strconv::quote_list(&list).into()),
        "path.Clean" => Ok(path::clean(text).into()),
        "path.Base" => Ok(path::base(text).into()),
        "path.Dir" => Ok(path::dir(text).into()),
        "path.IsAbs" => Ok(path::is_abs(text).into()),
        "path.Join" => {
            let joined = path::join(&list);
            if let ["/", below] = *list.as_slice() {
                assert_eq!(path::join_root(below), joined);
                let names = path::names_below_root(below);
                assert_eq!(format!("/{}", names.join("/")), joined);
            }
            Ok(joined.into())
        }
        "time.ParseDuration" => shown(time::parse_duration(text)),
        "time.Duration.String" => Ok(time::format_duration(number()).into()),
        "time.Parse" => Timestamp::parse(text)
            .map(|time| json!([time.to_string(), time.seconds().to_string()]))
            .ok_or_else(|| "no time".to_owned()),
        "time.Unix" => Ok(Timestamp::from_seconds(number()).to_string().into()),
        "url.QueryEscape" => Ok(url::query_escape(text).into()),
        "url.QueryUnescape" => bytes(url::query_unescape(text)),
        "url.PathUnescape" => bytes(url::path_unescape(text)),
        "csvvalue.Fields" => shown(csv::fields(text)),
        "json.Marshal" => Ok(String::from_utf8(json::to_vec(text))
            .expect("a text")
            .into()),
        "json.Unmarshal" => json::from_slice::<Value>(text.as_bytes())
            .map(|value| {
                String::from_utf8(json::to_vec(&value))
                    .expect("a text")
                    .into()
            })
            .map_err(|error| error.to_string()),
        _ => panic!("nothing answers for {func}"),
    }
}

#[test]
fn every_answer_is_that_of_go() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let functions: BTreeSet<&str> = vectors.iter().map(|v| v.func.as_str()).collect();
    assert_eq!(functions.len(), 18);
    let mut differences = Vec::new();
    for vector in &vectors {
        let want = match vector.error.as_str() {
            "" => Ok(vector.out.clone()),
            error => Err(error.to_owned()),
        };
        let actual = answer(&vector.func, &vector.r#in);
        if actual != want {
            differences.push(format!(
                "{}({}): {actual:?}, Go says {want:?}",
                vector.func, vector.r#in
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn times_of_the_system_survive_as_timestamps() {
    for text in [
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59.5Z",
        "2026-01-02T03:04:05.000000006Z",
    ] {
        let time = std::time::SystemTime::from(Timestamp::parse(text).unwrap());
        assert_eq!(Timestamp::from(time).to_string(), text);
    }
}

#[test]
fn a_fraction_has_as_many_digits_as_are_asked_for() {
    let time = Timestamp::parse("2026-01-02T03:04:05.5+01:00").unwrap();
    assert_eq!(format!("{time:.9}"), "2026-01-02T03:04:05.500000000+01:00");
    assert_eq!(format!("{time:.0}"), "2026-01-02T03:04:05+01:00");
    assert_eq!(
        Timestamp::from_seconds(i64::MAX).to_string(),
        "9999-12-31T23:59:59Z"
    );
}

#[test]
fn negative_durations_are_none_where_they_make_no_sense() {
    let second = std::time::Duration::from_secs(1);
    assert_eq!(time::parse_std_duration("1s"), Some(second));
    assert_eq!(time::parse_std_duration("-1s"), None);
    assert_eq!(time::parse_std_duration("soon"), None);
}

#[test]
fn escapes_that_are_none_are_kept_where_texts_are_only_shown() {
    assert_eq!(url::unescape_lossy("a%20b%zz%").as_ref(), b"a b%zz%");
}
