use std::collections::BTreeMap;

use base64::Engine as _;
use llb::pb;
use oci::Digest;

use serde_json::Value;

use super::{Provenance, Run};
use crate::capture::Capture;
use crate::error::AttestError;
use crate::options::{Mode, ProvenanceOptions, SlsaVersion, UnknownMaterials, UsageSamples};
use crate::request::filter_args;
use crate::sources::IncompleteMaterial;
use crate::steps::build_config;
use crate::usage::UsageValue;
use prost::Message as _;

fn zero() -> String {
    format!("sha256:{}", "0".repeat(64))
}

fn source(identifier: &str, pin: &str, capture: &mut Capture) -> pb::Op {
    let op = pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: identifier.into(),
            ..pb::SourceOp::default()
        })),
        platform: Some(pb::Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..pb::Platform::default()
        }),
        ..pb::Op::default()
    };
    capture.op(&op, pin);
    op
}

fn captured() -> (Capture, pb::Definition) {
    let mut capture = Capture::new();
    let image = source(
        "docker-image://docker.io/library/busybox:latest",
        &zero(),
        &mut capture,
    );
    source("git://example.com/x.git#v1", &"a".repeat(40), &mut capture);
    capture.request.frontend = "dockerfile.v0".into();
    let opts = [
        ("context", "https://u:p@example.com/x.git#v1:sub"),
        ("filename", "Dockerfile"),
        ("build-arg:A", "b"),
        ("platform", "linux/amd64"),
        ("attest:provenance", ""),
        ("vcs:source", "https://u:p@example.com/x"),
    ];
    let opts = opts.map(|(k, v)| (k.to_owned(), v.to_owned()));
    capture.request.args = filter_args(&opts.into_iter().collect());
    capture.settle().unwrap();
    let image = image.encode_to_vec();
    let last = pb::Op {
        inputs: vec![pb::Input {
            digest: Digest::sha256(&image).to_string(),
            index: 0,
        }],
        ..pb::Op::default()
    };
    let definition = pb::Definition {
        def: vec![image, last.encode_to_vec()],
        ..pb::Definition::default()
    };
    (capture, definition)
}

fn provenance(version: SlsaVersion, mode: Mode) -> serde_json::Value {
    let (capture, definition) = captured();
    let options = ProvenanceOptions {
        version,
        mode,
        ..ProvenanceOptions::default()
    };
    let run = Run {
        invocation: "id".into(),
        environment: BTreeMap::from([("own".to_owned(), 1.into())]),
        ..Run::default()
    };
    let config = build_config(&definition).unwrap();
    let provenance = Provenance::new(&capture, &options, Some(config), run).unwrap();
    serde_json::from_slice(&provenance.to_json()).unwrap()
}

#[test]
fn what_steps_and_the_machine_used_is_told_when_it_is_captured() {
    let (mut capture, definition) = captured();
    let step = Digest::sha256(&definition.def[0]);
    let used = UsageValue::Object(vec![("samples", UsageValue::Count(7))]);
    capture.usage(step, used);
    // Another result of the build knows of another step.
    let mut other = Capture::new();
    other.usage(Digest::sha256(b"other"), UsageValue::Null);
    capture.merge(&other);
    let run = || Run {
        machine: vec![UsageValue::Count(1)],
        ..Run::default()
    };
    for (version, steps, machine) in [
        (
            SlsaVersion::V1,
            "/buildDefinition/internalParameters/buildConfig/llbDefinition",
            "/runDetails/metadata/buildkit_metadata/sysUsage",
        ),
        (
            SlsaVersion::V02,
            "/buildConfig/llbDefinition",
            "/metadata/https:~1~1mobyproject.org~1buildkit@v1#metadata/sysUsage",
        ),
    ] {
        for (usage, of_step, of_machine) in [
            (UsageSamples::LeftOut, None, None),
            (
                UsageSamples::Captured,
                Some(serde_json::json!({"samples": 7})),
                Some(serde_json::json!([1])),
            ),
        ] {
            let options = ProvenanceOptions {
                version,
                usage,
                ..ProvenanceOptions::default()
            };
            let config = build_config(&definition).unwrap();
            let provenance = Provenance::new(&capture, &options, Some(config), run()).unwrap();
            let value: Value = serde_json::from_slice(&provenance.to_json()).unwrap();
            assert_eq!(
                value.pointer(&format!("{steps}/0/resourceUsage")),
                of_step.as_ref()
            );
            assert_eq!(value.pointer(&format!("{steps}/1/resourceUsage")), None);
            assert_eq!(value.pointer(machine), of_machine.as_ref());
        }
    }
}

#[test]
fn provenance_has_the_fields_of_both_versions() {
    let v1 = provenance(SlsaVersion::V1, Mode::Max);
    let at = |path: &str| v1.pointer(path).cloned().unwrap_or_default();
    let external = "/buildDefinition/externalParameters";
    assert_eq!(at(&format!("{external}/configSource/path")), "Dockerfile");
    assert_eq!(
        at(&format!("{external}/configSource/uri")),
        "https://xxxxx:xxxxx@example.com/x.git#v1:sub"
    );
    assert_eq!(
        at(&format!("{external}/request/args")).to_string(),
        "{\"build-arg:A\":\"b\"}"
    );
    assert_eq!(at("/buildDefinition/internalParameters/own"), 1);
    assert_eq!(
        at("/buildDefinition/resolvedDependencies/0/uri"),
        "pkg:docker/busybox@latest?platform=linux%2Famd64"
    );
    assert_eq!(
        at("/buildDefinition/resolvedDependencies/1/digest/sha1"),
        "a".repeat(40)
    );
    let steps = "/buildDefinition/internalParameters/buildConfig/llbDefinition";
    assert_eq!(at(steps).as_array().map(Vec::len), Some(2));
    assert_eq!(
        at(&format!("{steps}/0/op/Op/source/identifier")),
        "docker-image://docker.io/library/busybox:latest"
    );
    assert_eq!(at(&format!("{steps}/1/inputs/0")), "step0:0");
    let meta = "/runDetails/metadata";
    assert_eq!(at(&format!("{meta}/buildkit_hermetic")), true);
    assert_eq!(
        at(&format!("{meta}/buildkit_metadata/vcs/source")),
        "https://xxxxx:xxxxx@example.com/x"
    );

    let v02 = provenance(SlsaVersion::V02, Mode::Min);
    let at = |path: &str| v02.pointer(path).cloned();
    assert_eq!(at("/buildConfig"), None);
    assert_eq!(at("/invocation/parameters/args"), None);
    assert_eq!(at("/metadata/completeness/parameters"), Some(false.into()));
    assert_eq!(at("/invocation/environment/own"), Some(1.into()));
    assert_eq!(
        at("/invocation/configSource/entryPoint"),
        Some("Dockerfile".into())
    );
}

#[test]
fn what_has_no_address_leaves_materials_incomplete() {
    let mut capture = Capture::new();
    source("local://context", "", &mut capture);
    let options = ProvenanceOptions {
        unknown_materials: UnknownMaterials::Refused,
        ..ProvenanceOptions::default()
    };
    let error = Provenance::new(&capture, &options, None, Run::default()).unwrap_err();
    assert!(error.to_string().contains("- context\n"), "{error}");
}

#[test]
fn steps_are_told_once_and_inputs_first() {
    assert!(build_config(&pb::Definition::default()).is_ok());
    let (_, mut definition) = captured();
    definition.def.pop();
    assert!(build_config(&definition).is_err());
}

#[test]
fn no_credential_of_an_address_is_in_provenance() {
    let url = "https://u:CANARY@example.com/x.git";
    let mut capture = Capture::new();
    let git = source(
        "git://u:CANARY@example.com/x.git#v1",
        &"a".repeat(40),
        &mut capture,
    );
    let http = source(&format!("{url}?f"), &zero(), &mut capture);
    let mut attributed = git.clone();
    if let Some(pb::op::Op::Source(op)) = &mut attributed.op {
        op.attrs.insert("git.fullurl".into(), url.into());
    }
    let exec = pb::Op {
        op: Some(pb::op::Op::Exec(pb::ExecOp {
            meta: Some(pb::Meta {
                args: vec!["sh".into(), "-c".into(), format!("curl {url} '{url}'")],
                env: vec![format!("FROM={url}")],
                proxy_env: Some(pb::ProxyEnv {
                    http_proxy: url.into(),
                    ..pb::ProxyEnv::default()
                }),
                ..pb::Meta::default()
            }),
            ..pb::ExecOp::default()
        })),
        ..pb::Op::default()
    };
    let mut def: Vec<Vec<u8>> = Vec::new();
    let mut last = None;
    for mut op in [git, http, attributed, exec] {
        op.inputs = last.into_iter().collect();
        let raw = op.encode_to_vec();
        last = Some(pb::Input {
            digest: Digest::sha256(&raw).to_string(),
            index: 0,
        });
        def.push(raw);
    }
    let end = pb::Op {
        inputs: last.into_iter().collect(),
        ..pb::Op::default()
    };
    def.push(end.encode_to_vec());
    let definition = pb::Definition {
        def,
        source: Some(pb::Source {
            infos: vec![pb::SourceInfo {
                filename: "Dockerfile".into(),
                data: format!("FROM x\nADD {url} /\n").into_bytes(),
                ..pb::SourceInfo::default()
            }],
            ..pb::Source::default()
        }),
        ..pb::Definition::default()
    };
    capture.request.frontend = "dockerfile.v0".into();
    let opts = [
        ("context", url),
        ("context:other", url),
        ("build-arg:URL", url),
        ("vcs:source", url),
    ];
    let opts = opts.map(|(k, v)| (k.to_owned(), v.to_owned()));
    capture.request.args = filter_args(&opts.into_iter().collect());
    capture.settle().unwrap();
    for version in [SlsaVersion::V02, SlsaVersion::V1] {
        let options = ProvenanceOptions {
            mode: Mode::Max,
            version,
            ..ProvenanceOptions::default()
        };
        let config = build_config(&definition).unwrap();
        let provenance = Provenance::new(&capture, &options, Some(config), Run::default()).unwrap();
        let text = String::from_utf8(provenance.to_json()).unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode("CANARY");
        assert!(!text.contains("CANARY") && !text.contains(&data), "{text}");
        for part in text.split('"') {
            let decoded = base64::engine::general_purpose::STANDARD.decode(part);
            let decoded = String::from_utf8(decoded.unwrap_or_default()).unwrap_or_default();
            assert!(!decoded.contains("CANARY"), "{decoded}");
        }
        assert!(text.contains("xxxxx:xxxxx@example.com"), "{text}");
    }
}

#[test]
fn requests_of_the_proxy_network_are_materials_or_say_why_not() {
    let request = |uri: &str, reason: &str| IncompleteMaterial {
        op: "sha256:00".into(),
        name: "sh -c fetch".into(),
        method: "GET".into(),
        uri: uri.into(),
        reason: reason.into(),
    };
    let mut capture = Capture::new();
    capture.proxy_network();
    capture.download("http://a.example/x", Digest::sha256(b"x"));
    let options = ProvenanceOptions::default();
    let json = |capture: &Capture| -> Value {
        let made = Provenance::new(capture, &options, None, Run::default()).unwrap();
        serde_json::from_slice(&made.to_json()).unwrap()
    };
    let network = "/runDetails/metadata/buildkit_metadata/network";
    let complete = json(&capture);
    assert_eq!(
        complete.pointer(network),
        Some(&serde_json::json!({"mode": "proxy"}))
    );
    let materials = complete.pointer("/buildDefinition/resolvedDependencies");
    let materials = materials.unwrap().to_string();
    assert!(materials.contains("http://a.example/x"), "{materials}");

    let mut other = Capture::new();
    other.incomplete_material(request("http://b.example/", "upstream_error"));
    other.incomplete_material(request("http://a.example/", "unsuccessful_response"));
    capture.merge(&other);
    capture.settle().unwrap();
    let incomplete = json(&capture);
    let first = format!("{network}/proxy/incomplete/0");
    assert_eq!(
        incomplete.pointer(&first),
        Some(&serde_json::json!({
            "op": "sha256:00",
            "name": "sh -c fetch",
            "method": "GET",
            "uri": "http://a.example/",
            "reason": "unsuccessful_response"
        }))
    );
    let strict = ProvenanceOptions {
        unknown_materials: UnknownMaterials::Refused,
        ..ProvenanceOptions::default()
    };
    let error = Provenance::new(&capture, &strict, None, Run::default()).unwrap_err();
    assert!(
        error.to_string().ends_with(
            "Uncaptured requests:\n  - sh -c fetch\n    method: GET\n    url: http://a.example/\n    reason: unsuccessful_response\n  - sh -c fetch\n    method: GET\n    url: http://b.example/\n    reason: upstream_error"
        ),
        "{error}"
    );
    let AttestError::Incomplete { materials, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(materials.len(), 2);
}
