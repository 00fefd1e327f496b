//! `--call` and `--check`: what a frontend is asked in the place of a build, and how its answer is shown.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{LineRange, SourceExcerpt};
use serde::Deserialize;

use crate::failure::{CliError, excerpt};
use crate::progress::text::{harmless, harmless_json, harmless_lines};

/// A question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrontendCall {
    /// As frontends know it.
    pub(crate) name: &'static str,
    json: bool,
    ignore_status: bool,
}

/// How an answer was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// The answer was printed, without findings.
    Fine,
    /// The frontend found something: the exit code that it wants.
    Findings(u8),
}

impl FrontendCall {
    /// Parses `METHOD[,format=json][,ignorestatus=true]`; none for a build.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, CliError> {
        let bad = |why: String| Err(CliError::Usage(why));
        let mut method = None;
        let (mut json, mut ignore_status) = (false, false);
        for field in text.split(',').filter(|f| !f.is_empty()) {
            match field.split_once('=') {
                Some(("format", format)) => json = format == "json",
                Some(("ignorestatus", value)) => match gostd::strconv::parse_bool(value) {
                    Ok(value) => ignore_status = value,
                    Err(_) => return bad(format!("invalid ignorestatus print value: {value}")),
                },
                Some(_) => return bad(format!("invalid print field: {field}")),
                None if method.is_some() => return bad(format!("invalid print value: {text}")),
                None => method = Some(field),
            }
        }
        let name = match method {
            None | Some("build") => return Ok(None),
            Some("check" | "lint") => "frontend.lint",
            Some("outline") => "frontend.outline",
            Some("targets") => "frontend.targets",
            Some("subrequests.describe" | "describe") => "frontend.subrequests.describe",
            Some(other) => {
                return bad(format!(
                    "unknown method {other:?} of --call: use build, check, outline, targets or subrequests.describe"
                ));
            }
        };
        Ok(Some(Self {
            name,
            json,
            ignore_status,
        }))
    }

    /// Writes an answer; `dockerfile` is what the user calls the file.
    pub(crate) fn show(
        self,
        answer: &BTreeMap<String, Vec<u8>>,
        dockerfile: &str,
        out: &mut dyn Write,
    ) -> Result<CallOutcome, CliError> {
        let write = CliError::io("cannot write to standard output");
        let text = |key: &str| {
            answer.get(key).map(Vec::as_slice).ok_or_else(|| {
                CliError::Usage(format!(
                    "the frontend did not answer with {key}: it may not know this call; --call=subrequests.describe lists those it knows"
                ))
            })
        };
        let lint = self.name == "frontend.lint";
        if self.json {
            let json = harmless_json(&String::from_utf8_lossy(text("result.json")?));
            out.write_all(json.as_bytes())
                .and_then(|()| writeln!(out))
                .map_err(write)?;
        } else if !lint {
            let page = harmless_lines(&String::from_utf8_lossy(text("result.txt")?));
            out.write_all(page.as_bytes()).map_err(write)?;
        }
        if lint {
            let findings: Findings = serde_json::from_slice(text("result.json")?)
                .map_err(|source| CliError::answer("the frontend's answer is no JSON", source))?;
            if !self.json {
                findings
                    .show(dockerfile, out)
                    .map_err(CliError::io("cannot write to standard output"))?;
            }
            if let Some(error) = findings.error {
                return Err(CliError::Usage(
                    error.sentence(&findings.sources, dockerfile),
                ));
            }
        }
        let code = answer
            .get("result.statuscode")
            .and_then(|c| std::str::from_utf8(c).ok()?.parse::<i64>().ok())
            .unwrap_or(0);
        Ok(if code == 0 || self.ignore_status {
            CallOutcome::Fine
        } else {
            CallOutcome::Findings(u8::try_from(code).unwrap_or(1))
        })
    }
}

// Go writes an empty list as null.
fn list<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Findings {
    #[serde(deserialize_with = "list")]
    warnings: Vec<Finding>,
    #[serde(deserialize_with = "list")]
    sources: Vec<Source>,
    #[serde(rename = "buildError")]
    error: Option<BuildError>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Finding {
    rule_name: String,
    url: String,
    detail: String,
    location: Location,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct BuildError {
    message: String,
    location: Location,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Location {
    source_index: i64,
    #[serde(deserialize_with = "list")]
    ranges: Vec<Range>,
}

#[derive(Debug, Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct Position {
    line: i32,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Source {
    filename: String,
    data: String,
}

impl Findings {
    fn show(&self, dockerfile: &str, out: &mut dyn Write) -> io::Result<()> {
        match self.warnings.len() {
            0 if self.error.is_some() => {}
            0 => writeln!(out, "Check complete, no warnings found.")?,
            1 => writeln!(out, "Check complete, 1 warning has been found!")?,
            n => writeln!(out, "Check complete, {n} warnings have been found!")?,
        }
        let mut sorted: Vec<&Finding> = self.warnings.iter().collect();
        sorted.sort_by_cached_key(|w| {
            let source = w.location.source(&self.sources);
            let line = w.location.ranges.first().map(|r| r.start.line);
            // Findings without a place come first, by name; then by file and line.
            let name = line.is_none().then(|| w.rule_name.clone());
            (source.map(|s| s.filename.clone()), line, name)
        });
        for w in sorted {
            write!(out, "\nWARNING: {}", harmless(&w.rule_name))?;
            if !w.url.is_empty() {
                write!(out, " - {}", harmless(&w.url))?;
            }
            writeln!(out, "\n{}", harmless_lines(&w.detail))?;
            w.location.show(&self.sources, dockerfile, out)?;
        }
        if self.error.is_some() && !self.warnings.is_empty() {
            writeln!(out)?;
        }
        Ok(())
    }
}

impl BuildError {
    fn sentence(&self, sources: &[Source], dockerfile: &str) -> String {
        let mut text = Vec::new();
        let _in_memory = self.location.show(sources, dockerfile, &mut text);
        format!("{}\n{}", self.message, String::from_utf8_lossy(&text))
            .trim_end()
            .to_owned()
    }
}

impl Location {
    fn source<'a>(&self, sources: &'a [Source]) -> Option<&'a Source> {
        usize::try_from(self.source_index)
            .ok()
            .and_then(|i| sources.get(i))
    }

    fn show(&self, sources: &[Source], dockerfile: &str, out: &mut dyn Write) -> io::Result<()> {
        let Some(source) = self.source(sources) else {
            return Ok(());
        };
        let Ok(data) = STANDARD.decode(&source.data) else {
            return Ok(());
        };
        let filename = if dockerfile.is_empty() {
            source.filename.clone()
        } else {
            dockerfile.to_owned()
        };
        let lines = |r: &Range| LineRange::lines(r.start.line, r.end.line);
        let ranges = self.ranges.iter().map(lines);
        excerpt(
            &SourceExcerpt {
                filename,
                data,
                ranges: ranges.collect(),
            },
            out,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn answer(json: &str, code: &str) -> BTreeMap<String, Vec<u8>> {
        [("result.json", json), ("result.statuscode", code)]
            .map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()))
            .into()
    }

    #[test]
    fn findings_are_shown_by_place_and_under_the_users_name_for_the_file() -> TestResult {
        let call = FrontendCall::parse("check")?.ok_or("no call")?;
        let json = r#"{"warnings":[
            {"ruleName":"B","url":"https://b","detail":"later","location":{"ranges":[{"start":{"line":2},"end":{"line":2}}]}},
            {"ruleName":"A","detail":"first","location":{"ranges":[{"start":{"line":1},"end":{"line":1}}]}}],
            "sources":[{"filename":"Dockerfile","data":"RlJPTSBhClJVTiB4Cg=="}]}"#;
        let mut out = Vec::new();
        let outcome = call.show(&answer(json, "1"), "dir/Dockerfile", &mut out)?;
        assert_eq!(outcome, CallOutcome::Findings(1));
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Check complete, 2 warnings have been found!\n\
             \nWARNING: A\nfirst\ndir/Dockerfile:1\n--------------------\n   1 | >>> FROM a\n   2 |     RUN x\n   3 |     \n--------------------\n\
             \nWARNING: B - https://b\nlater\ndir/Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN x\n   3 |     \n--------------------\n"
        );
        let mut out = Vec::new();
        let none = r#"{"warnings": null, "sources": null}"#;
        assert_eq!(
            call.show(&answer(none, "0"), "", &mut out)?,
            CallOutcome::Fine
        );
        assert_eq!(out, b"Check complete, no warnings found.\n");
        let mut out = Vec::new();
        let call = FrontendCall::parse("check,ignorestatus=true,format=json")?.ok_or("no call")?;
        assert_eq!(
            call.show(&answer("{}", "1"), "", &mut out)?,
            CallOutcome::Fine
        );
        assert_eq!(out, b"{}\n");
        Ok(())
    }

    #[test]
    fn answers_do_not_act_on_a_terminal() -> TestResult {
        let evil = "x\u{1b}[2J\u{9b}1A\u{7}";
        let json = serde_json::json!({
            "warnings": [{ "ruleName": evil, "url": evil, "detail": evil, "location": { "ranges": [{}] } }],
            "sources": [{ "filename": evil, "data": STANDARD.encode(evil) }],
        });
        let mut answer_with_text = answer(&json.to_string(), "0");
        answer_with_text.insert("result.txt".into(), evil.into());
        for call in [
            "check",
            "check,format=json",
            "outline",
            "outline,format=json",
        ] {
            let mut out = Vec::new();
            let parsed = FrontendCall::parse(call)?.ok_or("no call")?;
            assert_eq!(
                parsed.show(&answer_with_text, "", &mut out)?,
                CallOutcome::Fine
            );
            let text = String::from_utf8(out)?;
            assert!(
                !text.chars().any(|c| c.is_control() && c != '\n'),
                "{call}: {text:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn calls_are_told_apart() -> TestResult {
        assert_eq!(FrontendCall::parse("")?, None);
        assert_eq!(FrontendCall::parse("build")?, None);
        for bad in [
            "outlines",
            "check,targets",
            "check,color=red",
            "check,ignorestatus=maybe",
        ] {
            assert!(FrontendCall::parse(bad).is_err(), "{bad}");
        }
        Ok(())
    }
}
