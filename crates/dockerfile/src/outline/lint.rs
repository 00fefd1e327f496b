//! Lint findings as an answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use llb::pb;
use parking_lot::Mutex;
use serde::Serialize;

use super::{Location, Report, VERSION, base64, ranges_json};
use crate::lint::Warning;
use crate::lower::{LowerOptions, MetaResolver, lower};
use crate::syntax::Range;

/// The longest text of findings, in bytes.
// DIFFERS: BuildKit shows the lines of each finding however long they are.
const MAX_TEXT: usize = 4 << 20;

/// Findings in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintReport {
    /// The findings.
    pub report: Report,
    /// 1 when there are findings or the file does not lower.
    pub status: i32,
}

#[derive(Debug, Serialize)]
struct Results {
    /// `null` when there are none, as Go has it.
    warnings: Option<Vec<WarningJson>>,
    sources: Vec<SourceJson>,
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson>,
}

#[derive(Debug, Serialize)]
struct WarningJson {
    #[serde(rename = "ruleName")]
    rule: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    url: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    location: Location,
}

#[derive(Debug, Serialize)]
struct SourceJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<DefinitionJson>,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
}

/// The definition the file was read from, as Go's encoder shows the message.
#[derive(Debug, Serialize)]
struct DefinitionJson {
    def: Vec<String>,
    metadata: BTreeMap<String, MetadataJson>,
    #[serde(rename = "Source")]
    source: SourcesJson,
}

#[derive(Debug, Serialize)]
struct MetadataJson {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    description: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    caps: BTreeMap<String, bool>,
}

#[derive(Debug, Serialize)]
struct SourcesJson {
    locations: BTreeMap<String, Nothing>,
}

#[derive(Debug, Serialize)]
struct Nothing {}

impl DefinitionJson {
    fn of(definition: &pb::Definition) -> Self {
        let metadata = |m: &pb::OpMetadata| MetadataJson {
            description: m.description.clone(),
            caps: m.caps.clone(),
        };
        let locations = definition
            .source
            .iter()
            .flat_map(|source| source.locations.keys());
        Self {
            def: definition.def.iter().map(|op| base64(op)).collect(),
            metadata: definition
                .metadata
                .iter()
                .map(|(digest, m)| (digest.clone(), metadata(m)))
                .collect(),
            source: SourcesJson {
                locations: locations
                    .map(|digest| (digest.clone(), Nothing {}))
                    .collect(),
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct ErrorJson {
    message: String,
    location: Location,
}

/// Lints a Dockerfile: its target, or all stages without one. A file that does not lower is a finding, not a failure.
pub async fn lint(
    dockerfile: &[u8],
    mut options: LowerOptions,
    host: &dyn MetaResolver,
) -> LintReport {
    options.all_stages |= options.target.is_empty();
    let filename = options
        .source_map
        .as_ref()
        .map(|map| map.filename.clone())
        .unwrap_or_default();
    let definition = options
        .source_map
        .as_ref()
        .and_then(|map| map.definition.as_deref().map(DefinitionJson::of));
    let findings: Arc<Mutex<Vec<Warning>>> = Arc::default();
    let sink = Arc::clone(&findings);
    let error = lower(
        dockerfile,
        options,
        host,
        Some(Arc::new(move |warning| sink.lock().push(warning))),
    )
    .await
    .err();
    let warnings = std::mem::take(&mut *findings.lock());
    let text = print(&warnings, &filename, dockerfile);
    let location = |ranges: &[Range]| Location {
        source_index: 0,
        ranges: ranges_json(ranges),
    };
    let error = error.map(|error| ErrorJson {
        message: error.to_string(),
        // Whole lines: programs know nothing else of this answer.
        location: location(&merge(
            error
                .locations
                .iter()
                .flatten()
                .map(|range| range.whole_lines())
                .collect(),
        )),
    });
    let status = i32::from(!warnings.is_empty() || error.is_some());
    let warnings: Vec<WarningJson> = warnings
        .into_iter()
        .map(|warning| WarningJson {
            rule: warning.rule.name,
            description: warning.rule.description,
            url: warning.rule.url,
            location: location(&warning.ranges),
            detail: warning.message,
        })
        .collect();
    let source = SourceJson {
        filename,
        data: base64(dockerfile),
        definition,
        language: "Dockerfile".to_owned(),
    };
    let results = Results {
        warnings: (!warnings.is_empty()).then_some(warnings),
        sources: vec![source],
        error,
    };
    let json = gostd::json::to_vec_indent(&results, "  ");
    LintReport {
        report: Report {
            json,
            text: text.into_bytes(),
            version: VERSION,
        },
        status,
    }
}

fn print(warnings: &[Warning], filename: &str, data: &[u8]) -> String {
    let mut sorted: Vec<&Warning> = warnings.iter().collect();
    sorted.sort_by_key(|warning| warning.ranges.first().map_or(0, |range| range.start.line));
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').collect();
    let mut out = String::new();
    for (printed, warning) in sorted.iter().enumerate() {
        if out.len() > MAX_TEXT {
            let _ = writeln!(out, "\n{} more findings", sorted.len() - printed);
            break;
        }
        let _ = write!(out, "\nWARNING: {}", warning.rule.name);
        if !warning.rule.url.is_empty() {
            let _ = write!(out, " - {}", warning.rule.url);
        }
        let _ = writeln!(out, "\n{}", warning.message);
        print_source(&mut out, filename, &lines, &warning.ranges);
    }
    out
}

/// Prints the lines of a finding with their context.
fn print_source(out: &mut String, filename: &str, lines: &[&str], ranges: &[Range]) {
    let Some(first) = ranges.iter().map(|range| range.start.line).min() else {
        return;
    };
    let last = ranges
        .iter()
        .map(|range| range.end.line.max(range.start.line))
        .max()
        .unwrap_or(first);
    if first < 1 || first > lines.len() {
        return;
    }
    let (mut start, mut end) = (first, last.min(lines.len()));
    let around = if start == end { 4 } else { 2 };
    let mut added = 0;
    while added < around {
        if start > 1 {
            start -= 1;
            added += 1;
        }
        if end != lines.len() {
            end += 1;
            added += 1;
        }
        added += 1;
    }
    let _ = write!(out, "{filename}:{first}\n--------------------\n");
    for number in start..=end {
        if out.len() > MAX_TEXT {
            break;
        }
        // Of an instruction with very many lines each is one of its own.
        let inside = (ranges.len() > 1_000 && (first..=last).contains(&number))
            || ranges.iter().take(1_000).any(|range| {
                (range.start.line..=range.end.line.max(range.start.line)).contains(&number)
            });
        let mark = if inside { ">>>" } else { "   " };
        let line = lines.get(number - 1).copied().unwrap_or_default();
        let _ = writeln!(out, " {number:3} | {mark} {line}");
    }
    out.push_str("--------------------\n");
}

/// Joins ranges that overlap.
fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_by_key(|range| range.start.line);
    let mut out: Vec<Range> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start.line <= last.end.line => {
                last.end.line = last.end.line.max(range.end.line)
            }
            _ => out.push(range),
        }
    }
    out
}
