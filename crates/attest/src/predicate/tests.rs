use std::collections::BTreeMap;

use llb::pb;
use oci::Digest;

use super::{Provenance, Run};
use crate::capture::Capture;
use crate::options::{Mode, ProvenanceOptions, SlsaVersion};
use crate::request::filter_args;
use crate::steps::build_config;
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

fn made(version: SlsaVersion, mode: Mode) -> serde_json::Value {
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
    let made = Provenance::new(&capture, &options, Some(config), run).unwrap();
    serde_json::from_slice(&made.to_json()).unwrap()
}

#[test]
fn provenance_has_the_fields_of_both_versions() {
    let v1 = made(SlsaVersion::V1, Mode::Max);
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

    let v02 = made(SlsaVersion::V02, Mode::Min);
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
        complete_materials: true,
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
