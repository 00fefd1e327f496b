//! Failures as gRPC statuses, with the typed details by which clients show the cause.
//!
//! A detail is an `Any` whose type URL is `github.com/moby/buildkit/<name>+json` and whose value is JSON, the way the
//! reference's error codec registers its types.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::api::frontend::BridgeError;
use engine::api::{Detail, Failure, FailureKind};
use llb::pb;
use prost::Message as _;
use proto::rpc;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

const BUILDKIT: &str = "github.com/moby/buildkit/";

fn code(kind: FailureKind) -> Code {
    match kind {
        FailureKind::Unknown => Code::Unknown,
        FailureKind::Canceled => Code::Cancelled,
        FailureKind::InvalidArgument => Code::InvalidArgument,
        FailureKind::DeadlineExceeded => Code::DeadlineExceeded,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::AlreadyExists => Code::AlreadyExists,
        FailureKind::PermissionDenied => Code::PermissionDenied,
        FailureKind::ResourceExhausted => Code::ResourceExhausted,
        FailureKind::Unimplemented => Code::Unimplemented,
        FailureKind::Internal => Code::Internal,
        FailureKind::Unavailable => Code::Unavailable,
    }
}

fn kind(code: i32) -> FailureKind {
    match Code::from(code) {
        Code::Cancelled => FailureKind::Canceled,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            FailureKind::InvalidArgument
        }
        Code::DeadlineExceeded => FailureKind::DeadlineExceeded,
        Code::NotFound => FailureKind::NotFound,
        Code::AlreadyExists => FailureKind::AlreadyExists,
        Code::PermissionDenied | Code::Unauthenticated => FailureKind::PermissionDenied,
        Code::ResourceExhausted => FailureKind::ResourceExhausted,
        Code::Unimplemented => FailureKind::Unimplemented,
        Code::Internal | Code::DataLoss => FailureKind::Internal,
        Code::Unavailable => FailureKind::Unavailable,
        Code::Ok | Code::Unknown | Code::Aborted => FailureKind::Unknown,
    }
}

/// The status of a failed call.
pub(crate) fn status(failure: &Failure) -> Status {
    let code = code(failure.kind);
    if failure.details.is_empty() {
        return Status::new(code, failure.message());
    }
    Status::with_details(
        code,
        failure.message(),
        wire(failure).encode_to_vec().into(),
    )
}

/// The wire's form of a failure.
pub(crate) fn wire(failure: &Failure) -> rpc::Status {
    rpc::Status {
        code: i32::from(code(failure.kind)),
        message: failure.message(),
        details: failure.details.iter().map(any).collect(),
    }
}

/// The wire's form of a failure for a build's record, which also says which program put it there, and where in the program.
///
/// Our errors carry no stack, so there is one frame: the caller's.
#[track_caller]
pub(crate) fn recorded(failure: &Failure) -> rpc::Status {
    let mut status = wire(failure);
    let here = std::panic::Location::caller();
    let frame =
        json!({ "Name": env!("CARGO_CRATE_NAME"), "File": here.file(), "Line": here.line() });
    let origin = json!({
        "frames": [frame],
        "cmdline": ["rbuildd"],
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    status.details.push(prost_types::Any {
        type_url: format!("{BUILDKIT}stack.Stack+json"),
        value: origin.to_string().into_bytes(),
    });
    status
}

/// A failure that came from elsewhere (a frontend in the client). Details are kept as they are.
pub(crate) fn from_wire(status: rpc::Status) -> Failure {
    let details = status
        .details
        .into_iter()
        .map(|a| Detail::Raw {
            type_url: a.type_url,
            value: a.value.into(),
        })
        .collect();
    let mut failure = Failure::new(kind(status.code), status.message);
    failure.details = details;
    failure
}

/// The status for a failure of the bridge: the engine's own failure where it is one.
pub(crate) fn bridge_status(error: &BridgeError) -> Status {
    status(&Failure::of_bridge(error))
}

fn any(detail: &Detail) -> prost_types::Any {
    let (name, value) = match detail {
        Detail::Vertex { digest } => ("errdefs.Vertex", json!({ "digest": digest.to_string() })),
        Detail::Source { info, ranges } => {
            let ranges: Vec<Value> = ranges.iter().map(range).collect();
            (
                "errdefs.Source",
                json!({ "info": source_info(info), "ranges": ranges }),
            )
        }
        Detail::Solve {
            inputs,
            mounts,
            op,
            description,
            file_action,
            content_input,
        } => (
            "errdefs.Solve",
            solve(
                inputs,
                mounts,
                op.as_deref(),
                description,
                *file_action,
                *content_input,
            ),
        ),
        Detail::Exit { code } => ("gatewayapi.ExitMessage", json!({ "Code": code })),
        Detail::Frontend { name, source } => (
            "errdefs.Frontend",
            json!({ "name": name, "source": source }),
        ),
        Detail::FrontendCap { name } => ("errdefs.FrontendCap", json!({ "name": name })),
        Detail::Subrequest { name } => ("errdefs.Subrequest", json!({ "name": name })),
        Detail::CompatibilityFeature { version, feature } => (
            "errdefs.CompatibilityFeature",
            json!({ "version": version, "feature": feature }),
        ),
        Detail::IncompleteMaterials { materials } => (
            "errdefs.ProvenanceMaterialsIncomplete",
            json!({ "incomplete": materials }),
        ),
        Detail::Raw { type_url, value } => {
            return prost_types::Any {
                type_url: type_url.clone(),
                value: value.to_vec(),
            };
        }
        other => ("errdefs.Unknown", json!({ "debug": format!("{other:?}") })),
    };
    prost_types::Any {
        type_url: format!("{BUILDKIT}{name}+json"),
        value: value.to_string().into_bytes(),
    }
}

// protojson: 64-bit numbers are strings.
fn solve(
    inputs: &[String],
    mounts: &[String],
    op: Option<&pb::Op>,
    description: &BTreeMap<String, String>,
    file_action: Option<i64>,
    content_input: Option<i64>,
) -> Value {
    let mut object = Map::new();
    object.insert("inputIDs".into(), json!(inputs));
    object.insert("mountIDs".into(), json!(mounts));
    if let Some(op) = op {
        object.insert("op".into(), crate::protojson::op(&op.encode_to_vec()));
    }
    object.insert("description".into(), json!(description));
    if let Some(index) = file_action {
        object.insert("file".into(), json!({ "index": index.to_string() }));
    } else if let Some(index) = content_input {
        object.insert("cache".into(), json!({ "index": index.to_string() }));
    }
    Value::Object(object)
}

// encoding/json of the reference's generated structs: bytes are base64, zero values may be left out.
fn source_info(info: &pb::SourceInfo) -> Value {
    let mut object = json!({ "filename": info.filename, "data": STANDARD.encode(&info.data), "language": info.language });
    if let (Some(definition), Value::Object(object)) = (&info.definition, &mut object) {
        let def: Vec<String> = definition.def.iter().map(|d| STANDARD.encode(d)).collect();
        object.insert("definition".into(), json!({ "def": def }));
    }
    object
}

fn range(range: &pb::Range) -> Value {
    let position = |p: Option<&pb::Position>| {
        p.map_or_else(
            || json!({}),
            |p| json!({ "line": p.line, "character": p.character }),
        )
    };
    json!({ "start": position(range.start.as_ref()), "end": position(range.end.as_ref()) })
}

/// The status that says that `feature` is not built.
pub(crate) fn not_built(feature: &str) -> Status {
    status(&Failure::not_built(feature))
}

/// The status for a request without a field that it needs.
pub(crate) fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is required"))
}

/// The encoded bytes of a message.
pub(crate) fn encoded(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_have_the_urls_and_words_that_clients_decode() {
        let info = pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: b"FROM x\n".to_vec(),
            ..Default::default()
        };
        let at = |line| Some(pb::Position { line, character: 0 });
        let failure = Failure::new(
            FailureKind::Unknown,
            "process did not complete successfully: exit code: 7",
        )
        .with(Detail::Vertex {
            digest: oci::Digest::sha256(b"x"),
        })
        .with(Detail::Source {
            info,
            ranges: vec![pb::Range {
                start: at(3),
                end: at(4),
            }],
        })
        .with(Detail::Exit { code: 7 })
        .with(Detail::Raw {
            type_url: "theirs".into(),
            value: Bytes::from_static(b"v"),
        });
        let status = status(&failure);
        let wire = rpc::Status::decode(status.details()).unwrap();
        let text = |i: usize| String::from_utf8(wire.details[i].value.clone()).unwrap();
        let urls: Vec<&str> = wire.details.iter().map(|d| d.type_url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "github.com/moby/buildkit/errdefs.Vertex+json",
                "github.com/moby/buildkit/errdefs.Source+json",
                "github.com/moby/buildkit/gatewayapi.ExitMessage+json",
                "theirs"
            ]
        );
        assert_eq!(text(2), r#"{"Code":7}"#);
        let source: Value = serde_json::from_str(&text(1)).unwrap();
        assert_eq!(source["info"]["data"], "RlJPTSB4Cg==");
        assert_eq!(source["ranges"][0]["end"]["line"], 4);
        assert_eq!(from_wire(wire).message(), failure.message());
    }

    #[test]
    fn materials_that_could_not_be_captured_are_a_detail_of_their_own() {
        use engine::api::IncompleteMaterial;
        let materials = vec![
            IncompleteMaterial {
                name: "context".into(),
                reason: "local_source".into(),
                ..IncompleteMaterial::default()
            },
            IncompleteMaterial {
                op: "sha256:aa".into(),
                name: "/bin/sh -c curl".into(),
                method: "POST".into(),
                uri: "https://example.com/x".into(),
                reason: "method_not_materializable".into(),
            },
        ];
        let failure = Failure::new(FailureKind::Unknown, "provenance materials are incomplete")
            .with(Detail::IncompleteMaterials { materials });
        let wire = rpc::Status::decode(status(&failure).details()).unwrap();
        let [detail] = &wire.details[..] else {
            panic!("{:?}", wire.details);
        };
        assert_eq!(
            detail.type_url,
            "github.com/moby/buildkit/errdefs.ProvenanceMaterialsIncomplete+json"
        );
        // The names of `errdefs.proto`, in which nothing that is empty is written.
        let value: Value = serde_json::from_slice(&detail.value).unwrap();
        assert_eq!(
            value,
            json!({ "incomplete": [
                { "name": "context", "reason": "local_source" },
                {
                    "op": "sha256:aa",
                    "name": "/bin/sh -c curl",
                    "method": "POST",
                    "uri": "https://example.com/x",
                    "reason": "method_not_materializable",
                },
            ] })
        );
    }
}
