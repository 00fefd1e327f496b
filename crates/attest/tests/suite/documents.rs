//! Whole documents, from inputs as a build records them.

use std::collections::BTreeMap;

use attest::{
    Capture, Layers, Mode, Parameters, Provenance, ProvenanceOptions, Reproducibility,
    RequestProvenance, Run, SlsaVersion, UnknownMaterials, build_config, filter_args,
};
use llb::pb;
use oci::{Descriptor, Digest, Platform};
use serde_json::{Value, json};

use super::{definition, head, input, map, source};

const COMMIT: &str = "0123456789012345678901234567890123456789";

pub(super) fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

pub(super) fn with_attrs<const N: usize>(identifier: &str, attrs: [(&str, &str); N]) -> pb::Op {
    let mut op = source(identifier);
    if let Some(pb::op::Op::Source(source)) = &mut op.op {
        source.attrs = map(attrs);
    }
    op
}

pub(super) fn exec(change: impl FnOnce(&mut pb::ExecOp)) -> pb::Op {
    let mut exec = pb::ExecOp::default();
    change(&mut exec);
    pb::Op {
        op: Some(pb::op::Op::Exec(exec)),
        ..pb::Op::default()
    }
}

/// A build of a Dockerfile in a repository: an image, a file from the web, a step with a secret and an agent.
fn recorded() -> Capture {
    let mut capture = Capture::new();
    let mut image = source("docker-image://docker.io/library/alpine:3");
    image.platform = Some(pb::Platform {
        os: "linux".into(),
        architecture: "arm64".into(),
        ..pb::Platform::default()
    });
    capture.op(&image, digest("alpine").as_str());
    capture.op(&source("git://example.com/x.git#main"), COMMIT);
    capture.op(&source("https://example.com/f.tar"), digest("f").as_str());
    let step = exec(|exec| {
        exec.secretenv = vec![pb::SecretEnv {
            id: "token".into(),
            name: "TOKEN".into(),
            optional: false,
        }];
        exec.mounts = vec![pb::Mount {
            mount_type: pb::MountType::Ssh.into(),
            ssh_opt: Some(pb::SshOpt {
                optional: true,
                ..pb::SshOpt::default()
            }),
            ..pb::Mount::default()
        }];
    });
    capture.op(&step, "");
    capture.request.frontend = "dockerfile.v0".into();
    capture.request.args = filter_args(&map([
        ("context", "https://example.com/x.git#main:sub"),
        ("filename", "build/Dockerfile"),
        ("build-arg:VERSION", "1"),
        ("label:a", "b"),
        ("target", "release"),
        ("vcs:source", "https://example.com/x"),
        ("vcs:revision", COMMIT),
        ("vcs:empty", ""),
    ]));
    capture.settle().unwrap();
    capture.target_platform = "linux/arm64".into();
    capture
}

fn run() -> Run {
    Run {
        invocation: "the-invocation".into(),
        started: "2024-01-01T00:00:00Z".into(),
        finished: "2024-01-01T00:00:09Z".into(),
        dockerfile_version: "1.28.0".into(),
        environment: BTreeMap::from([("site".to_owned(), "here".into())]),
        compatibility_version: 20,
        ..Run::default()
    }
}

fn written(version: SlsaVersion, mode: Mode) -> Value {
    let options = ProvenanceOptions {
        version,
        mode,
        reproducibility: Reproducibility::Claimed,
        builder_id: "https://builder.example".into(),
        ..ProvenanceOptions::default()
    };
    let base = source("docker-image://docker.io/library/alpine:3");
    let config = build_config(&definition(&[base.clone(), head(&base)])).unwrap();
    let mut provenance = Provenance::new(&recorded(), &options, Some(config), run()).unwrap();
    if provenance.steps().is_some() {
        let layer = Descriptor::new("application/layer", digest("layer"), 7);
        provenance.set_layers(Layers::from([("step0:0".to_owned(), vec![vec![layer]])]));
    }
    assert_eq!(provenance.predicate_type(), version.predicate_type());
    serde_json::from_slice(&provenance.to_json()).unwrap()
}

fn materials() -> Value {
    json!([
        {
            "uri": "pkg:docker/alpine@3?platform=linux%2Farm64",
            "digest": { "sha256": digest("alpine").hex() },
        },
        { "uri": "https://example.com/x.git#main", "digest": { "sha1": COMMIT } },
        { "uri": "https://example.com/f.tar", "digest": { "sha256": digest("f").hex() } },
    ])
}

fn steps() -> Value {
    let base = source("docker-image://docker.io/library/alpine:3");
    let [base_digest, head_digest] = [&base, &head(&base)].map(|op| input(op, 0).digest);
    json!({
        "llbDefinition": [
            { "id": "step0", "op": { "Op": { "source": { "identifier": "docker-image://docker.io/library/alpine:3" } } } },
            { "id": "step1", "op": { "Op": {} }, "inputs": ["step0:0"] },
        ],
        "digestMapping": { base_digest: "step0", head_digest: "step1" },
    })
}

fn layers() -> Value {
    json!({ "step0:0": [[{ "mediaType": "application/layer", "digest": digest("layer").as_str(), "size": 7 }]] })
}

fn vcs() -> Value {
    json!({ "source": "https://example.com/x", "revision": COMMIT })
}

/// What is told of the request in each mode.
fn request(mode: Mode) -> Value {
    match mode {
        Mode::Min => json!({
            "frontend": "dockerfile.v0",
            "args": { "target": "release" },
            "compatibilityVersion": 20,
        }),
        Mode::Max => json!({
            "frontend": "dockerfile.v0",
            "args": { "build-arg:VERSION": "1", "label:a": "b", "target": "release" },
            "secrets": [{ "id": "token" }],
            "ssh": [{ "id": "default", "optional": true }],
            "compatibilityVersion": 20,
        }),
    }
}

#[test]
fn version_one_says_all_that_was_recorded_and_in_mode_min_no_more_than_it_may() {
    let host = Platform::host().normalize().format();
    for mode in [Mode::Min, Mode::Max] {
        let mut internal = json!({
            "site": "here",
            "builderPlatform": host,
            "dockerfileVersion": "1.28.0",
            "targetPlatform": "linux/arm64",
        });
        let mut buildkit = json!({ "vcs": vcs() });
        if mode == Mode::Max {
            internal["buildConfig"] = steps();
            buildkit["layers"] = layers();
        }
        let want = json!({
            "buildDefinition": {
                "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
                "resolvedDependencies": materials(),
                "externalParameters": {
                    "configSource": {
                        "uri": "https://example.com/x.git#main:sub",
                        "digest": { "sha1": COMMIT },
                        "path": "build/Dockerfile",
                    },
                    "request": request(mode),
                },
                "internalParameters": internal,
            },
            "runDetails": {
                "builder": { "id": "https://builder.example" },
                "metadata": {
                    "invocationId": "the-invocation",
                    "startedOn": "2024-01-01T00:00:00Z",
                    "finishedOn": "2024-01-01T00:00:09Z",
                    "buildkit_metadata": buildkit,
                    "buildkit_completeness": { "request": mode == Mode::Max, "resolvedDependencies": true },
                    "buildkit_reproducible": true,
                },
            },
        });
        assert_eq!(written(SlsaVersion::V1, mode), want, "{mode:?}");
    }
}

#[test]
fn version_0_2_has_the_same_facts_under_its_own_names() {
    let host = Platform::host().normalize().format();
    for mode in [Mode::Min, Mode::Max] {
        let mut buildkit = json!({ "vcs": vcs() });
        if mode == Mode::Max {
            buildkit["layers"] = layers();
        }
        let mut want = json!({
            "builder": { "id": "https://builder.example" },
            "buildType": "https://mobyproject.org/buildkit@v1",
            "materials": materials(),
            "invocation": {
                "configSource": {
                    "uri": "https://example.com/x.git#main:sub",
                    "digest": { "sha1": COMMIT },
                    "entryPoint": "build/Dockerfile",
                },
                "parameters": request(mode),
                "environment": { "site": "here", "platform": host, "dockerfileVersion": "1.28.0" },
            },
            "metadata": {
                "buildInvocationID": "the-invocation",
                "buildStartedOn": "2024-01-01T00:00:00Z",
                "buildFinishedOn": "2024-01-01T00:00:09Z",
                "completeness": { "parameters": mode == Mode::Max, "environment": true, "materials": true },
                "reproducible": true,
                "https://mobyproject.org/buildkit@v1#metadata": buildkit,
            },
        });
        if mode == Mode::Max {
            want["buildConfig"] = steps();
        }
        assert_eq!(written(SlsaVersion::V02, mode), want, "{mode:?}");
    }
}

#[test]
fn a_build_is_hermetic_if_no_step_had_a_network_and_all_sources_are_known() {
    let none = exec(|exec| exec.network = pb::NetMode::None.into());
    let networked = exec(|_| {});
    let nested = pb::Op {
        op: Some(pb::op::Op::Build(pb::BuildOp::default())),
        ..pb::Op::default()
    };
    // The ops, whether it is hermetic, and whether all materials are told.
    let cases: [(&str, Vec<pb::Op>, bool, bool); 5] = [
        ("nothing", vec![], true, true),
        ("without a network", vec![none.clone()], true, true),
        ("with a network", vec![none.clone(), networked], false, true),
        (
            "a folder of the client",
            vec![none, source("local://context")],
            false,
            false,
        ),
        ("a nested build", vec![nested], false, false),
    ];
    for (what, ops, hermetic, complete) in cases {
        let mut capture = Capture::new();
        ops.iter().for_each(|op| capture.op(op, ""));
        let provenance = Provenance::new(
            &capture,
            &ProvenanceOptions::default(),
            None,
            Run::default(),
        )
        .unwrap();
        let json: Value = serde_json::from_slice(&provenance.to_json()).unwrap();
        let metadata = &json["runDetails"]["metadata"];
        assert_eq!(metadata["buildkit_hermetic"] == true, hermetic, "{what}");
        let told = &metadata["buildkit_completeness"]["resolvedDependencies"];
        assert_eq!(*told, complete, "{what}");

        let options = ProvenanceOptions {
            unknown_materials: UnknownMaterials::Refused,
            ..ProvenanceOptions::default()
        };
        let demanded = Provenance::new(&capture, &options, None, Run::default());
        assert_eq!(demanded.is_ok(), complete, "{what}");
    }
}

#[test]
fn an_error_of_incomplete_materials_names_each_folder_of_the_client() {
    let mut capture = Capture::new();
    for name in ["local://b", "local://a", "local://a"] {
        capture.op(&source(name), "");
    }
    capture.settle().unwrap();
    let options = ProvenanceOptions {
        unknown_materials: UnknownMaterials::Refused,
        ..ProvenanceOptions::default()
    };
    let error = Provenance::new(&capture, &options, None, Run::default()).unwrap_err();
    assert_eq!(error.kind(), oci::ErrorKind::Invalid);
    assert_eq!(
        error.to_string(),
        "provenance materials are incomplete\n\nThe build requested complete provenance materials, but not all dependencies \
         could be captured.\n\nUncaptured local sources:\n  - a\n    reason: local_source\n  - b\n    reason: local_source"
    );
}

/// The only material of a source.
fn material(op: &pb::Op, pin: &str) -> Value {
    let mut capture = Capture::new();
    capture.op(op, pin);
    let provenance = Provenance::new(
        &capture,
        &ProvenanceOptions::default(),
        None,
        Run::default(),
    )
    .unwrap();
    let json: Value = serde_json::from_slice(&provenance.to_json()).unwrap();
    json["buildDefinition"]["resolvedDependencies"].clone()
}

#[test]
fn every_kind_of_source_is_a_material_by_its_own_rules() {
    let blob = digest("blob");
    let bundle = format!("docker-image+blob://docker.io/library/bundle@{blob}");
    let pin = digest("pin");
    let hex = pin.hex();
    let cases: Vec<(pb::Op, &str, Value)> = vec![
        (
            source("docker-image://r.example/a:1"),
            pin.as_str(),
            json!([{ "uri": "pkg:docker/r.example/a@1", "digest": { "sha256": hex } }]),
        ),
        (
            source(&format!("oci-layout://r.example/a@{pin}")),
            pin.as_str(),
            json!([{ "uri": format!("pkg:oci/r.example/a?digest={}", pin), "digest": { "sha256": hex } }]),
        ),
        (
            source(&format!("docker-image+blob://r.example/a@{blob}")),
            pin.as_str(),
            json!([{ "uri": format!("pkg:docker/r.example/a?digest={blob}&ref_type=blob"), "digest": { "sha256": hex } }]),
        ),
        (
            source("git://example.com/x.git"),
            COMMIT,
            json!([{ "uri": "https://example.com/x.git", "digest": { "sha1": COMMIT } }]),
        ),
        (
            source("git://example.com/x.git"),
            hex,
            json!([{ "uri": "https://example.com/x.git", "digest": { "sha256": hex } }]),
        ),
        (
            with_attrs(
                "git://example.com/x.git",
                [("git.bundle", bundle.as_str()), ("git.checksum", COMMIT)],
            ),
            COMMIT,
            json!([
                { "uri": "https://example.com/x.git", "digest": { "sha1": COMMIT } },
                {
                    "uri": format!("pkg:docker/bundle@latest?ref_type=bundle&vcs_url=https:%2F%2Fexample.com%2Fx.git"),
                    "digest": { "sha256": blob.hex() },
                },
            ]),
        ),
        (
            source("https://u:p@example.com/f"),
            pin.as_str(),
            json!([{ "uri": "https://xxxxx:xxxxx@example.com/f", "digest": { "sha256": hex } }]),
        ),
        // What has not been read has no part in the result.
        (source("docker-image://r.example/a:1"), "", Value::Null),
        (source("https://example.com/f"), "no digest", Value::Null),
        (source("git://example.com/x.git"), "", Value::Null),
        (source("unknown://x"), pin.as_str(), Value::Null),
        (source("local://x"), "", Value::Null),
    ];
    for (op, pin, want) in cases {
        assert_eq!(material(&op, pin), want, "{op:?} {pin}");
    }
}

#[test]
fn credentials_of_repositories_are_told_as_optional_secrets() {
    let mut capture = Capture::new();
    let op = with_attrs(
        "git://example.com/x.git",
        [
            ("git.authtokensecret", "GIT_TOKEN"),
            ("git.authheadersecret", "GIT_HEADER"),
            ("git.mountsshsock", "agent"),
        ],
    );
    capture.op(&op, COMMIT);
    let told = |list: &[attest::Secret]| -> Vec<(String, bool)> {
        list.iter().map(|s| (s.id.clone(), s.optional)).collect()
    };
    assert_eq!(
        told(&capture.request.secrets),
        [
            ("GIT_TOKEN".to_owned(), true),
            ("GIT_HEADER".to_owned(), true)
        ]
    );
    assert_eq!(told(&capture.request.ssh), [("agent".to_owned(), true)]);
}

#[test]
fn mode_min_tells_no_arguments_of_the_requests_that_made_the_inputs_either() {
    let inner = |args: BTreeMap<String, String>| {
        let mut request = Parameters::default();
        request.frontend = "dockerfile.v0".into();
        request.args = args;
        request.secrets = recorded().request.secrets;
        RequestProvenance {
            request: Some(request),
            ..RequestProvenance::default()
        }
    };
    let options = ProvenanceOptions {
        mode: Mode::Min,
        ..ProvenanceOptions::default()
    };
    let written = |inputs: RequestProvenance, root: RequestProvenance| -> Value {
        let mut capture = Capture::new();
        capture.request.frontend = "gateway.v0".into();
        capture.request.inputs = BTreeMap::from([("base".to_owned(), inputs)]);
        capture.request.root = Some(Box::new(root));
        let provenance = Provenance::new(&capture, &options, None, Run::default()).unwrap();
        serde_json::from_slice(&provenance.to_json()).unwrap()
    };
    let hidden = || inner(map([("build-arg:KEY", "canary"), ("target", "x")]));
    let plain = || inner(map([("target", "x")]));
    for (inputs, root, complete) in [
        (plain(), plain(), true),
        (hidden(), plain(), false),
        (plain(), hidden(), false),
    ] {
        let json = written(inputs, root);
        let text = json.to_string();
        assert!(
            !text.contains("canary") && !text.contains("token"),
            "{text}"
        );
        assert!(text.contains("\"target\":\"x\""), "{text}");
        let told = &json["runDetails"]["metadata"]["buildkit_completeness"]["request"];
        assert_eq!(*told, complete, "{text}");
    }
}
