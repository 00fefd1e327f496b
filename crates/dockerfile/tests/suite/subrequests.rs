//! Answers about a file: what its target takes, which targets it has, and how an error or a finding is placed.

use dockerfile::lower::LowerOptions;
use dockerfile::outline;
use oci::Platform;
use serde_json::{Value, json};

use crate::host::Host;

const FILE: &str = "# TAG is the version
ARG TAG=3
# base is where all begins
FROM alpine:$TAG AS base
# NAME is who it is for
ARG NAME=me
ARG UNUSED
RUN --mount=type=secret,id=token,required --mount=type=ssh echo $NAME

# out is the result
FROM base AS out
ARG LATE=$NAME
RUN --mount=type=secret,id=other --mount=type=ssh,id=key,required true
";

fn options(target: &str) -> LowerOptions {
    LowerOptions {
        target: target.to_owned(),
        build_platforms: vec![Platform::new("linux", "amd64", "")],
        ..LowerOptions::default()
    }
}

fn outlined(text: &str, target: &str) -> Value {
    let host = Host::default();
    let report = outline::outline(text.as_bytes(), options(target), &host);
    let report = futures::executor::block_on(report).expect("the file is well formed");
    serde_json::from_slice(&report.json).expect("the report is JSON")
}

/// The names of a list of the outline, with what is said of each.
fn names(outline: &Value, list: &str, more: &str) -> Vec<String> {
    let items = outline[list].as_array().cloned().unwrap_or_default();
    let shown = items.iter().map(|item| {
        let name = item["name"].as_str().unwrap_or_default();
        let more = item.get(more).map(|more| format!("={more}"));
        format!("{name}{}", more.unwrap_or_default())
    });
    shown.collect()
}

#[test]
fn an_outline_names_what_a_target_takes() {
    let base = outlined(FILE, "base");
    assert_eq!(base["name"], "base");
    assert_eq!(base["description"], "is where all begins");
    assert_eq!(
        names(&base, "args", "value"),
        ["TAG=\"3\"", "NAME=\"me\"", "UNUSED"]
    );
    assert_eq!(names(&base, "secrets", "required"), ["token=true"]);
    assert_eq!(names(&base, "ssh", "required"), ["default"]);
    // A target takes what the stages below it take.
    let out = outlined(FILE, "out");
    assert_eq!(out["description"], "is the result");
    assert_eq!(names(&out, "secrets", "required"), ["token=true", "other"]);
    assert_eq!(names(&out, "ssh", "required"), ["default", "key=true"]);
    assert_eq!(
        names(&out, "args", "description"),
        [
            "TAG=\"is the version\"",
            "NAME=\"is who it is for\"",
            "UNUSED",
            "LATE"
        ]
    );
}

#[test]
fn what_an_outline_names_has_a_place() {
    let out = outlined(FILE, "out");
    for list in ["args", "secrets", "ssh"] {
        for item in out[list].as_array().expect("a list") {
            let line = &item["location"]["ranges"][0]["start"]["line"];
            let line = usize::try_from(line.as_u64().expect("a line")).expect("a small number");
            let text = FILE.lines().nth(line - 1).expect("the line is there");
            let name = item["name"].as_str().expect("a text");
            assert!(
                text.contains(name) || name == "default",
                "{list} {name}: {text}"
            );
        }
    }
}

#[test]
fn targets_are_listed_with_what_is_said_of_them() {
    let targets = |text: &str| {
        let report = outline::targets(text.as_bytes()).expect("the file is well formed");
        serde_json::from_slice::<Value>(&report.json).expect("the report is JSON")["targets"].take()
    };
    let listed = targets(FILE);
    let shown: Vec<Value> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|target| json!([target["name"], target["default"], target["description"]]))
        .collect();
    assert_eq!(
        shown,
        [
            json!(["base", null, "is where all begins"]),
            json!(["out", true, "is the result"])
        ]
    );
    let unnamed = targets("FROM alpine\nFROM --platform=$P busybox\n");
    assert_eq!(unnamed.as_array().map(Vec::len), Some(2));
    assert_eq!(unnamed[1]["default"], true);
    for wrong in ["", "RUN x", "FROM a b", "FROM a AS 1"] {
        assert!(outline::targets(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn a_file_is_linted_with_its_error() {
    let lint = |text: &str| {
        let host = Host::default();
        let report = outline::lint(text.as_bytes(), options(""), &host);
        let report = futures::executor::block_on(report);
        let json: Value = serde_json::from_slice(&report.report.json).expect("JSON");
        (report.status, json)
    };
    let (status, clean) = lint("FROM alpine\n");
    assert_eq!((status, &clean["warnings"]), (0, &Value::Null));
    let (status, findings) = lint("FROM alpine AS Base\nMAINTAINER me\n");
    assert_eq!(status, 1);
    let rules: Vec<&str> = findings["warnings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|warning| warning["ruleName"].as_str())
        .collect();
    assert_eq!(rules, ["StageNameCasing", "MaintainerDeprecated"]);
    let (status, broken) = lint("FROM alpine\n\nCOPY --nope a b\n");
    assert_eq!(status, 1);
    let error = &broken["buildError"];
    assert_eq!(
        error["message"],
        "dockerfile parse error on line 3: unknown flag: --nope"
    );
    assert_eq!(error["location"]["ranges"][0]["start"]["line"], 3);
}

#[test]
fn requests_are_described() {
    let report = outline::describe();
    let listed: Value = serde_json::from_slice(&report.json).expect("the report is JSON");
    let names: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|request| request["name"].as_str())
        .collect();
    assert!(names.contains(&"frontend.outline"), "{names:?}");
    assert!(names.contains(&"frontend.targets"), "{names:?}");
    for name in names {
        let short = name.strip_prefix("frontend.").unwrap_or(name);
        let text = String::from_utf8_lossy(&report.text);
        assert!(text.contains(short), "{text}");
    }
}
