//! What a Dockerfile offers, for people and programs: its outline, its targets, its lint findings.
//!
//! Each answer has two forms, as clients of BuildKit know them: JSON (indented by two, Go's field order) and a table.

mod lint;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

pub use lint::{LintReport, lint};

use crate::instruction;
use crate::lint::Linter;
use crate::lower::{LowerError, LowerOptions, Lowering, MetaResolver, WarnFn, lower_stages};
use crate::syntax::{self, Range};
use table::Table;

/// The answer to a subrequest, as JSON and as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The answer as JSON, for programs.
    pub json: Vec<u8>,
    /// The answer as a table, for people.
    pub text: Vec<u8>,
    /// Version of the JSON schema.
    pub version: &'static str,
}

const VERSION: &str = "1.0.0";

#[derive(Debug, Serialize)]
pub(crate) struct Location {
    #[serde(rename = "sourceIndex", skip_serializing_if = "is_zero")]
    pub(crate) source_index: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ranges: Vec<RangeJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(Debug, Serialize)]
struct PositionJson {
    #[serde(skip_serializing_if = "is_zero_size")]
    line: usize,
    #[serde(skip_serializing_if = "is_zero_size")]
    character: usize,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes references"
)]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes references"
)]
fn is_zero_size(value: &usize) -> bool {
    *value == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if passes references"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

impl Location {
    fn of(ranges: &[Range]) -> Option<Self> {
        (!ranges.is_empty()).then(|| Self {
            source_index: 0,
            ranges: ranges_json(ranges),
        })
    }

    fn line(&self) -> usize {
        self.ranges.first().map_or(0, |range| range.start.line)
    }
}

pub(crate) fn ranges_json(ranges: &[Range]) -> Vec<RangeJson> {
    let position = |p: syntax::Position| PositionJson {
        line: p.line,
        character: p.character,
    };
    ranges
        .iter()
        .map(|range| RangeJson {
            start: position(range.start),
            end: position(range.end),
        })
        .collect()
}

pub(crate) fn base64(data: &[u8]) -> String {
    STANDARD.encode(data)
}

#[derive(Debug, Serialize)]
struct Outline {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<NeedJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<NeedJson>,
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ArgJson {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

#[derive(Debug, Serialize)]
struct NeedJson {
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

/// Returns the outline of the target: its arguments, secrets and ssh agents.
pub async fn outline(
    dockerfile: &[u8],
    options: LowerOptions,
    host: &dyn MetaResolver,
) -> Result<Report, LowerError> {
    // The outline does not report findings, but `# check=error=true` makes them errors here too.
    let unheard: WarnFn = Arc::new(|_| {});
    let (lowering, target) = lower_stages(dockerfile, options, host, Some(unheard)).await?;
    let stage = &lowering.stages[target].stage;
    let outline = Outline {
        name: stage.name.clone(),
        description: stage.doc_comment.clone(),
        args: args_of(&lowering, target),
        secrets: needs_of(&lowering, target, |outline| &outline.secrets),
        ssh: needs_of(&lowering, target, |outline| &outline.ssh),
        sources: vec![base64(dockerfile)],
    };
    Ok(Report {
        json: gostd::json::to_vec_indent(&outline, "  "),
        text: outline_text(&outline),
        version: VERSION,
    })
}

/// Returns the stages that a target needs, the target first, each once.
fn order(lowering: &Lowering<'_>, target: usize) -> Vec<usize> {
    let mut visited = BTreeSet::new();
    let mut out = Vec::new();
    let mut stack = vec![target];
    while let Some(at) = stack.pop() {
        if visited.insert(at) {
            out.push(at);
            let stage = &lowering.stages[at];
            stack.extend(stage.deps.keys().rev());
            stack.extend(stage.base);
        }
    }
    out
}

fn line_of(location: Option<&Location>) -> usize {
    location.map_or(0, Location::line)
}

fn args_of(lowering: &Lowering<'_>, target: usize) -> Vec<ArgJson> {
    let mut names = BTreeSet::new();
    let mut args = Vec::new();
    for at in order(lowering, target) {
        let outline = &lowering.stages[at].outline;
        let mut used = BTreeSet::new();
        let mut next: Vec<&String> = outline.used_args.iter().collect();
        while let Some(name) = next.pop() {
            if used.insert(name)
                && let Some(info) = outline.all_args.get(name)
            {
                next.extend(&info.deps);
            }
        }
        for name in used {
            let Some(info) = outline.all_args.get(name) else {
                continue;
            };
            if names.insert(name.clone()) {
                args.push(ArgJson {
                    name: info.definition.key.clone(),
                    description: info.definition.doc_comment.clone(),
                    value: info.value.clone(),
                    location: Location::of(&info.ranges),
                });
            }
        }
    }
    args.sort_by_key(|arg| line_of(arg.location.as_ref()));
    args
}

fn needs_of<'a>(
    lowering: &'a Lowering<'_>,
    target: usize,
    pick: impl Fn(
        &'a crate::lower::OutlineCapture,
    ) -> &'a std::collections::BTreeMap<String, (bool, Vec<Range>)>,
) -> Vec<NeedJson> {
    let mut names = BTreeSet::new();
    let mut needs = Vec::new();
    for at in order(lowering, target) {
        for (name, (required, ranges)) in pick(&lowering.stages[at].outline) {
            if names.insert(name.clone()) {
                needs.push(NeedJson {
                    name: name.clone(),
                    required: *required,
                    location: Location::of(ranges),
                });
            }
        }
    }
    needs.sort_by_key(|need| line_of(need.location.as_ref()));
    needs
}

fn outline_text(outline: &Outline) -> Vec<u8> {
    let mut out = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let mut table = Table::new(1);
        let name = if outline.name.is_empty() {
            "(default)"
        } else {
            &outline.name
        };
        table.row(["TARGET:", name]);
        if !outline.description.is_empty() {
            table.row(["DESCRIPTION:", &outline.description]);
        }
        out.push_str(&table.print());
        out.push('\n');
    }
    if !outline.args.is_empty() {
        let mut table = Table::new(3);
        table.row(["BUILD ARG", "VALUE", "DESCRIPTION"]);
        for arg in &outline.args {
            table.row([&arg.name, &arg.value, &arg.description]);
        }
        out.push_str(&table.print());
        out.push('\n');
    }
    for (title, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !needs.is_empty() {
            let mut table = Table::new(3);
            table.row([title, "REQUIRED"]);
            for need in needs {
                table.row([need.name.as_str(), if need.required { "true" } else { "" }]);
            }
            out.push_str(&table.print());
            out.push('\n');
        }
    }
    out.into_bytes()
}

#[derive(Debug, Serialize)]
struct TargetList {
    // Null when there are none, as Go writes it.
    targets: Option<Vec<TargetJson>>,
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TargetJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_false")]
    default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    base: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
}

/// Returns the stages that can be the target of a build.
pub fn targets(dockerfile: &[u8]) -> Result<Report, LowerError> {
    let tree = syntax::parse(dockerfile)?;
    let (stages, _) = instruction::parse(&tree.root, &Linter::silent())?;
    let last = stages.len().saturating_sub(1);
    let targets: Vec<TargetJson> = stages
        .into_iter()
        .enumerate()
        .map(|(at, stage)| TargetJson {
            name: stage.name,
            default: at == last,
            description: stage.doc_comment,
            base: stage.base_name,
            platform: stage.platform,
            location: Location::of(&stage.origin.ranges),
        })
        .collect();
    let mut table = Table::new(1);
    table.row(["TARGET", "DESCRIPTION"]);
    for target in &targets {
        let name = match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        table.row([&name, &target.description]);
    }
    let text = table.print().into_bytes();
    let list = TargetList {
        targets: (!targets.is_empty()).then_some(targets),
        sources: vec![base64(dockerfile)],
    };
    Ok(Report {
        json: gostd::json::to_vec_indent(&list, "  "),
        text,
        version: VERSION,
    })
}

#[derive(Debug, Serialize)]
struct Subrequest {
    name: &'static str,
    version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    description: &'static str,
    opts: Option<Vec<Named>>,
    inputs: Option<Vec<Named>>,
    metadata: Option<Vec<Named>>,
    refs: Option<Vec<Named>>,
}

#[derive(Debug, Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

/// Returns the subrequests that the Dockerfile frontend answers.
pub fn describe() -> Report {
    let results = || {
        Some(
            ["result.json", "result.txt"]
                .map(|name| Named {
                    name,
                    description: "",
                })
                .into(),
        )
    };
    let request = |name, description, opts| Subrequest {
        name,
        version: VERSION,
        kind: "rpc",
        description,
        opts,
        inputs: None,
        metadata: results(),
        refs: None,
    };
    let target = Named {
        name: "target",
        description: "Target build stage",
    };
    let all = [
        request(
            "frontend.outline",
            "List all parameters current build target supports",
            Some(vec![target]),
        ),
        request(
            "frontend.targets",
            "List all targets current build supports",
            Some(Vec::new()),
        ),
        request(
            "frontend.subrequests.describe",
            "List available subrequest types",
            None,
        ),
    ];
    let mut table = Table::new(1);
    table.row(["NAME", "VERSION", "DESCRIPTION"]);
    for request in &all {
        let name = request
            .name
            .strip_prefix("frontend.")
            .unwrap_or(request.name);
        table.row([name, request.version, request.description]);
    }
    let text = table.print().into_bytes();
    Report {
        json: gostd::json::to_vec_indent(&all, "  "),
        text,
        version: VERSION,
    }
}
