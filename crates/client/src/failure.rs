//! Why a call failed, with the details that show the cause.

use std::error::Error;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::ErrorKind;
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
    /// The lines that caused the failure.
    pub ranges: Vec<LineRange>,
}

/// Which side reported that a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The daemon answered with an error.
    Daemon,
    /// The connection broke, or what answers does not speak gRPC.
    Connection,
    /// This side, before or beside the call.
    Client,
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", sentence(message, source.as_deref().map(|source| oci::error::innermost(source))))]
pub struct Failure {
    /// From the gRPC code of an answer; [`ErrorKind::Unavailable`] for a connection that broke.
    pub kind: ErrorKind,
    /// Which side reported it.
    pub origin: Origin,
    /// The message: the daemon's, or this client's.
    pub message: String,
    /// What failed on this side, the connection included. The daemon's own causes are in its sentence.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
    /// The places in source files that caused it, the innermost last.
    pub sources: Vec<SourceExcerpt>,
    /// The digest of the vertex that failed.
    pub vertex: Option<String>,
    /// Exit code of the step's process.
    pub exit_code: Option<u32>,
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
            kind: ErrorKind::Failed,
            origin: Origin::Client,
            message: message.into(),
            source: None,
            sources: Vec::new(),
            vertex: None,
            exit_code: None,
        }
    }

    /// A failure on our side of the connection, with its cause.
    pub(crate) fn because(
        message: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind: ErrorKind::of_causes(&source),
            source: Some(Arc::new(source)),
            ..Self::local(message)
        }
    }

    pub(crate) fn of(status: &Status) -> Self {
        let mut failure = if status.source().is_some() {
            // A status off the wire has no cause: what made this one is the transport.
            Self {
                kind: ErrorKind::Unavailable,
                origin: Origin::Connection,
                source: Some(Arc::new(status.clone())),
                ..Self::local(status.message())
            }
        } else {
            Self {
                kind: kind_of(status.code()),
                origin: Origin::Daemon,
                ..Self::local(status.message())
            }
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
fn sentence(message: &str, cause: Option<String>) -> String {
    match cause {
        Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
        Some(_) | None => message.to_owned(),
    }
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::Ok | Code::Unknown | Code::FailedPrecondition | Code::Aborted => ErrorKind::Failed,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::DeadlineExceeded => ErrorKind::TimedOut,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::Exists,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Internal | Code::DataLoss => ErrorKind::Bug,
        Code::Unavailable => ErrorKind::Unavailable,
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
