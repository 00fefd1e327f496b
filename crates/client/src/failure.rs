//! Why a call failed, with the details that show the cause.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::Deserialize;
use tonic::{Code, Status};

/// Lines of a file, counted from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRange {
    /// First line.
    pub start: i32,
    /// Last line.
    pub end: i32,
    /// The part of the line that is wrong, in characters from zero, the end not included.
    pub columns: Option<(usize, usize)>,
}

impl LineRange {
    /// Whole lines.
    pub fn lines(start: i32, end: i32) -> Self {
        Self {
            start,
            end,
            columns: None,
        }
    }

    /// What is between two points, each a line and a column. Between columns zero it is whole lines.
    fn between(start: (i32, i32), end: (i32, i32)) -> Self {
        let column = |of: i32| usize::try_from(of).ok();
        let part = column(start.1).zip(column(end.1));
        Self {
            columns: part.filter(|(from, to)| start.0 == end.0 && from < to),
            ..Self::lines(start.0, end.0)
        }
    }
}

/// The place in the user's files that an error comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceExcerpt {
    /// Name of the file.
    pub filename: String,
    /// The whole file.
    pub data: Vec<u8>,
    /// The lines it is about.
    pub ranges: Vec<LineRange>,
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// gRPC's word for the kind of failure.
    pub code: String,
    /// The daemon's sentence.
    pub message: String,
    /// Where the cause is, innermost last.
    pub sources: Vec<SourceExcerpt>,
    /// The step that failed.
    pub vertex: Option<String>,
    /// Exit code of the step's process.
    pub exit_code: Option<u32>,
    /// The call was given up.
    pub canceled: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Source {
    info: Option<Info>,
    ranges: Vec<Range>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Info {
    filename: String,
    data: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Range {
    start: Option<Position>,
    end: Option<Position>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Position {
    line: i32,
    character: i32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Vertex {
    digest: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Exit {
    #[serde(rename = "Code")]
    code: u32,
}

impl Failure {
    /// A failure on our side of the connection.
    pub fn local(message: impl Into<String>) -> Self {
        Self {
            code: "Local".into(),
            message: message.into(),
            sources: Vec::new(),
            vertex: None,
            exit_code: None,
            canceled: false,
        }
    }

    pub(crate) fn of(status: &Status) -> Self {
        let mut failure = Self {
            code: format!("{:?}", status.code()),
            canceled: status.code() == Code::Cancelled,
            ..Self::local(told(status))
        };
        let Ok(wire) = proto::rpc::Status::decode(status.details()) else {
            return failure;
        };
        for detail in &wire.details {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            match name {
                "errdefs.Source+json" => failure.sources.extend(source(&detail.value)),
                "errdefs.Vertex+json" => {
                    let vertex = serde_json::from_slice::<Vertex>(&detail.value);
                    failure.vertex = vertex.ok().map(|v| v.digest);
                }
                "gatewayapi.ExitMessage+json" => {
                    let exit = serde_json::from_slice::<Exit>(&detail.value);
                    failure.exit_code = exit.ok().map(|e| e.code);
                }
                _ => {}
            }
        }
        failure
    }
}

// A connection that broke says so and no more: what it broke with is the last of its causes.
fn told(status: &Status) -> String {
    let message = status.message().to_owned();
    let mut last = std::error::Error::source(status);
    while let Some(next) = last.and_then(std::error::Error::source) {
        last = Some(next);
    }
    match last.map(ToString::to_string) {
        Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
        _ => message,
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::of(&status)
    }
}

fn source(json: &[u8]) -> Option<SourceExcerpt> {
    let wire: Source = serde_json::from_slice(json).ok()?;
    let info = wire.info?;
    let point = |p: &Option<Position>| p.as_ref().map_or((0, 0), |p| (p.line, p.character));
    Some(SourceExcerpt {
        filename: info.filename,
        data: STANDARD.decode(info.data).ok()?,
        ranges: wire
            .ranges
            .iter()
            .map(|r| LineRange::between(point(&r.start), point(&r.end)))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_a_status_are_found() {
        let any = |name: &str, value: &str| prost_types::Any {
            type_url: format!("github.com/moby/buildkit/{name}+json"),
            value: value.as_bytes().to_vec(),
        };
        let wire = proto::rpc::Status {
            code: 2,
            message: "failed".into(),
            details: vec![
                any("errdefs.Vertex", r#"{"digest":"sha256:aa"}"#),
                any(
                    "errdefs.Source",
                    r#"{"info":{"filename":"Dockerfile","data":"RlJPTSB4Cg=="},"ranges":[{"start":{"line":3},"end":{"line":4}}]}"#,
                ),
                any("errdefs.Source", "not json"),
            ],
        };
        let status = Status::with_details(Code::Unknown, "failed", wire.encode_to_vec().into());
        let failure = Failure::of(&status);
        assert_eq!(failure.vertex.as_deref(), Some("sha256:aa"));
        assert_eq!(failure.sources.len(), 1);
        assert_eq!(failure.sources[0].data, b"FROM x\n");
        assert_eq!(failure.sources[0].ranges, [LineRange::lines(3, 4)]);
        assert_eq!(LineRange::between((3, 4), (3, 9)).columns, Some((4, 9)));
        for (start, end) in [((3, 0), (3, 0)), ((3, 4), (4, 9)), ((3, -4), (3, 9))] {
            assert_eq!(LineRange::between(start, end).columns, None);
        }
    }
}
