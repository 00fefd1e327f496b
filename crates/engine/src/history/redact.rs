//! The part of a request and of its failure that a record keeps: bounded, and without credentials.
//!
//! | limit | of | |
//! |---|---|---|
//! | [`MAX_NAME_BYTES`] | the name of a build | 512 bytes, longer ones are refused |
//! | [`MAX_VALUE_BYTES`] | one value, one message | 16 KiB, then it is cut |
//! | [`MAX_ATTRS_BYTES`] | all attributes of a record | 256 KiB, then they are left out |

// DIFFERS: BuildKit keeps attributes as they came.

use std::collections::BTreeMap;

use attest::is_credential;

use crate::api::{
    BuildRef, Detail, ExporterSpec, Failure, FailureKind, HistoryRecord, SolveRequest,
};

/// Size limit of a build's name.
const MAX_NAME_BYTES: usize = 512;
/// Size limit of one attribute's value.
const MAX_VALUE_BYTES: usize = 16 << 10;
/// Size limit of all attributes of a record.
const MAX_ATTRS_BYTES: usize = 256 << 10;
/// Bytes that one attribute counts beside its text.
const ATTR_OVERHEAD_BYTES: usize = 64;
/// The text that stands for a credential.
const MASK: &str = "xxxxx";

/// Refuses a name that is too long for a record.
pub(super) fn check_name(build: &BuildRef) -> Result<(), Failure> {
    let length = build.as_str().len();
    if length > MAX_NAME_BYTES {
        let message = format!(
            "the name of the build has {length} bytes: at most {MAX_NAME_BYTES} are accepted"
        );
        return Err(Failure::new(FailureKind::InvalidArgument, message));
    }
    Ok(())
}

/// The record of a build that starts with this request.
pub(super) fn prepare(request: &SolveRequest) -> HistoryRecord {
    let mut room = MAX_ATTRS_BYTES;
    HistoryRecord {
        build: request.build.clone(),
        frontend: cut(request.input.frontend_name()),
        frontend_attrs: redact_credentials(&request.frontend_opts, &mut room),
        exporters: request
            .exporters
            .iter()
            .map_while(|exporter| {
                let kind = cut(&exporter.kind);
                room = room.checked_sub(ATTR_OVERHEAD_BYTES + kind.len())?;
                Some(ExporterSpec {
                    kind,
                    attrs: redact_credentials(&exporter.attrs, &mut room),
                })
            })
            .collect(),
        generation: 1,
        ..HistoryRecord::default()
    }
}

/// The exporters' answers as a record keeps them.
pub(super) fn redact_response(response: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    redact_credentials(response, &mut MAX_ATTRS_BYTES.clone())
}

/// The failure as a record keeps it, beside its details.
pub(super) fn redact_failure(failure: &Failure) -> Failure {
    let sentence = cut(&oci::address::redacted(failure.message()));
    let details = failure.details.iter().cloned().filter_map(redact_detail);
    let details = details.collect();
    // The error itself is dropped: it may hold trees of the failed step, and its causes are not redacted.
    let mut failure = failure.clone().with_error(sentence);
    failure.details = details;
    failure
}

/// A detail as a record keeps it: without the op, whose environment and addresses may hold credentials, and without logins
/// in its text. Text that cannot be parsed is left out where it may be a command line.
fn redact_detail(detail: Detail) -> Option<Detail> {
    Some(match detail {
        Detail::Solve {
            inputs,
            mounts,
            op: _,
            description,
            file_action,
            content_input,
        } => Detail::Solve {
            inputs,
            mounts,
            op: None,
            description: description
                .into_iter()
                .map(|(key, value)| (key, oci::address::redacted(value)))
                .collect(),
            file_action,
            content_input,
        },
        Detail::Source { mut info, ranges } => {
            if let Ok(text) = String::from_utf8(info.data.to_vec()) {
                info.data = oci::address::redacted(text).into_bytes();
            }
            Detail::Source { info, ranges }
        }
        Detail::Raw { type_url, value } => match String::from_utf8(value.to_vec()) {
            Ok(text) => Detail::Raw {
                type_url,
                value: oci::address::redacted(text).into_bytes().into(),
            },
            Err(_) if type_url.contains("stack.Stack") => return None,
            Err(_) => Detail::Raw { type_url, value },
        },
        Detail::IncompleteMaterials { materials } => Detail::IncompleteMaterials {
            materials: materials
                .into_iter()
                .map(|mut material| {
                    material.name = oci::address::redacted(material.name);
                    material
                })
                .collect(),
        },
        Detail::Vertex { .. }
        | Detail::Exit { .. }
        | Detail::Frontend { .. }
        | Detail::FrontendCap { .. }
        | Detail::Subrequest { .. }
        | Detail::CompatibilityFeature { .. } => detail,
    })
}

fn redact_credentials(
    all: &BTreeMap<String, String>,
    room: &mut usize,
) -> BTreeMap<String, String> {
    let attrs = all.iter().filter(|(key, _)| !is_credential(key));
    attrs
        .filter_map(|(key, value)| {
            if key.len() > MAX_VALUE_BYTES {
                return None;
            }
            let value = without_login(&cut(value));
            *room = room.checked_sub(ATTR_OVERHEAD_BYTES + key.len() + value.len())?;
            Some((key.clone(), value))
        })
        .collect()
}

/// The text, shortened to the limit with a mark at its end.
fn cut(text: &str) -> String {
    if text.len() <= MAX_VALUE_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_VALUE_BYTES);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// The text without user and password in its addresses and without credentials in its `key=value` parts; options such as
/// `cache-imports` are JSON with options inside.
fn without_login(text: &str) -> String {
    let text = oci::address::redact_text(text).into_owned();
    if !text.contains(['=', ':']) || !is_credential(&text) {
        return text;
    }
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(mut document @ (serde_json::Value::Array(_) | serde_json::Value::Object(_))) => {
            mask(&mut document);
            document.to_string()
        }
        _ => text
            .split(',')
            .map(|part| match part.split_once('=') {
                Some((key, _)) if is_credential(key) => format!("{key}={MASK}"),
                _ => part.to_owned(),
            })
            .collect::<Vec<_>>()
            .join(","),
    }
}

/// Masks the credentials of a document. The reader of documents bounds how deep they are.
fn mask(document: &mut serde_json::Value) {
    use serde_json::Value;
    let mut stack = vec![document];
    while let Some(at) = stack.pop() {
        match at {
            Value::Array(list) => stack.extend(list.iter_mut()),
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    if is_credential(key) && !value.is_null() {
                        *value = Value::String(MASK.into());
                    } else {
                        stack.push(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SolveInput;

    #[test]
    fn a_record_keeps_no_credential_of_a_request() {
        let redacted = |key: &str, value: &str| {
            let all = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            redact_credentials(&all, &mut MAX_ATTRS_BYTES.clone())
        };
        let json = r#"[{"Type":"s3","Attrs":{"bucket":"b","secret_access_key":"canary","nested":[{"session_token":"canary"}]}}]"#;
        for (key, value) in [
            ("secret_access_key", "canary"),
            ("ACCESS_KEY_ID", "canary"),
            ("session_token", "canary"),
            ("build-arg:GITHUB_TOKEN", "canary"),
            ("account_key", "canary"),
            ("context", "https://user:canary@host/x.git#main"),
            (
                "context:base",
                "before git+https://canary@host/x and https://u:canary@h, after",
            ),
            ("cache-imports", json),
            (
                "cache-to",
                "type=s3,bucket=b,secret_access_key=canary,region=r",
            ),
        ] {
            let redacted = redacted(key, value);
            assert!(
                !format!("{redacted:?}").contains("canary"),
                "{key}: {redacted:?}"
            );
        }
        for (key, value) in [
            ("filename", "Dockerfile.token"),
            ("build-arg:VERSION", "1=2,3"),
            ("context", "https://host/x.git#main"),
            ("label:x", "ä://ö"),
            ("platform", "linux/amd64,linux/arm64"),
        ] {
            assert_eq!(
                redacted(key, value).get(key).map(String::as_str),
                Some(value)
            );
        }
    }

    #[test]
    fn a_record_keeps_no_credential_of_a_failure() {
        let source = llb::pb::SourceOp {
            identifier: "http://u:canary@host/x".into(),
            ..Default::default()
        };
        let op = llb::pb::Op {
            op: Some(llb::pb::op::Op::Source(source)),
            ..Default::default()
        };
        let address = "cannot get http://u:canary@host/x, sorry";
        let details = vec![
            Detail::Solve {
                inputs: Vec::new(),
                mounts: Vec::new(),
                op: Some(Box::new(op)),
                description: [("llb.customname".to_owned(), address.to_owned())].into(),
                file_action: None,
                content_input: None,
            },
            Detail::Source {
                info: llb::pb::SourceInfo {
                    data: b"ADD http://u:canary@host/x /\n".to_vec(),
                    ..Default::default()
                },
                ranges: Vec::new(),
            },
            Detail::Raw {
                type_url: "github.com/moby/buildkit/stack.Stack+json".into(),
                value: br#"{"cmdline":["--opt","context=http://u:canary@host/x.git"]}"#
                    .to_vec()
                    .into(),
            },
            Detail::Raw {
                type_url: "github.com/moby/buildkit/stack.Stack".into(),
                value: b"\xffhttp://u:canary@host/x.git".to_vec().into(),
            },
        ];
        let mut failure = Failure::new(FailureKind::Unknown, address);
        failure.details = details;
        for detail in redact_failure(&failure).details {
            let text = match &detail {
                Detail::Source { info, .. } => String::from_utf8_lossy(&info.data).into_owned(),
                Detail::Raw { value, .. } => String::from_utf8_lossy(value).into_owned(),
                Detail::Vertex { .. }
                | Detail::Solve { .. }
                | Detail::Exit { .. }
                | Detail::Frontend { .. }
                | Detail::FrontendCap { .. }
                | Detail::Subrequest { .. }
                | Detail::IncompleteMaterials { .. }
                | Detail::CompatibilityFeature { .. } => format!("{detail:?}"),
            };
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn a_record_is_bounded_whatever_a_request_holds() {
        let long = "ö".repeat(5 << 20);
        let many = || (0..20_000).map(|n| (format!("{n}"), String::new()));
        let exporter = |attrs| ExporterSpec {
            kind: long.clone(),
            attrs,
        };
        let requests = [
            SolveRequest {
                input: SolveInput::Frontend(long.clone()),
                frontend_opts: (0..100).map(|n| (n.to_string(), long.clone())).collect(),
                ..SolveRequest::default()
            },
            SolveRequest {
                frontend_opts: many().chain([(long.clone(), long.clone())]).collect(),
                exporters: vec![exporter(many().collect()); 50],
                ..SolveRequest::default()
            },
        ];
        for request in requests {
            let record = prepare(&request);
            let size = |attrs: &BTreeMap<String, String>| {
                attrs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>()
            };
            let exporters: usize = record
                .exporters
                .iter()
                .map(|e| e.kind.len() + size(&e.attrs))
                .sum();
            let total = record.frontend.len() + size(&record.frontend_attrs) + exporters;
            assert!(total <= MAX_ATTRS_BYTES + 2 * MAX_VALUE_BYTES, "{total}");
        }
        let failure = Failure::new(FailureKind::Unknown, long.clone());
        assert!(redact_failure(&failure).message().len() <= MAX_VALUE_BYTES + 4);
        assert!(check_name(&long.into()).is_err() && check_name(&"x".into()).is_ok());
    }
}
