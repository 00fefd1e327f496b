//! What is asked for, what is captured and what is written down, as cases over the public surface.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;

use attest::{
    Attests, Capture, Carriers, Image, Mode, ProvenanceOptions, PurlKind, Reproducibility,
    RequestProvenance, SlsaVersion, UnknownMaterials, build_config, filter_args, is_credential,
    of_image,
};
use llb::pb;
use oci::{Digest, Platform};
use prost::Message as _;

#[path = "suite/documents.rs"]
mod documents;
#[path = "suite/statements.rs"]
mod statements;

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn provenance(value: &str) -> Result<ProvenanceOptions, String> {
    let attests =
        Attests::parse(&map([("attest:provenance", value)])).map_err(|e| e.to_string())?;
    Ok(attests.provenance.unwrap())
}

#[test]
fn every_option_of_provenance_is_read_or_refused() {
    let with = |change: fn(&mut ProvenanceOptions)| {
        let mut options = ProvenanceOptions::default();
        change(&mut options);
        Ok(options)
    };
    let bool_error = |key: &str, value: &str| {
        Err(format!(
            "failed to parse {key} flag {value:?}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        ))
    };
    let cases: Vec<(&str, Result<ProvenanceOptions, String>)> = vec![
        ("", with(|_| {})),
        ("mode=min", with(|o| o.mode = Mode::Min)),
        ("mode=max", with(|_| {})),
        ("mode=full", with(|_| {})),
        ("mode=", Err("invalid mode \"\"".into())),
        ("mode=MIN", Err("invalid mode \"MIN\"".into())),
        ("version=v1", with(|_| {})),
        ("version=v0.2", with(|o| o.version = SlsaVersion::V02)),
        (
            "version=",
            Err("provenance SLSA version cannot be empty".into()),
        ),
        (
            "version=1",
            Err("invalid provenance SLSA version: 1".into()),
        ),
        ("inline-only=true", with(|o| o.carriers = Carriers::Images)),
        ("inline-only=perhaps", with(|_| {})),
        ("reproducible=T", with(|o| o.reproducibility = Reproducibility::Claimed)),
        ("reproducible=0", with(|_| {})),
        ("reproducible=yes", bool_error("reproducible", "yes")),
        (
            "complete-materials=1",
            with(|o| o.unknown_materials = UnknownMaterials::Refused),
        ),
        ("complete-materials=", bool_error("complete-materials", "")),
        (
            "builder-id=https://x?a=b",
            with(|o| o.builder_id = "https://x?a=b".into()),
        ),
        ("filename=p.json", with(|o| o.filename = "p.json".into())),
        ("unknown=x", with(|_| {})),
        (
            "\"builder-id=a,\"\"b\"\"\",mode=min",
            with(|o| {
                o.builder_id = "a,\"b\"".into();
                o.mode = Mode::Min;
            }),
        ),
        (
            "\"builder-id=a",
            Err("failed to parse provenance: parse error on line 1, column 2: extraneous or missing \" in quoted-field".into()),
        ),
        (
            "\"builder-id=a\"x",
            Err("failed to parse provenance: parse error on line 1, column 14: extraneous or missing \" in quoted-field".into()),
        ),
    ];
    for (value, want) in cases {
        assert_eq!(provenance(value), want, "{value}");
    }
    assert_eq!(
        SlsaVersion::V1.predicate_type(),
        "https://slsa.dev/provenance/v1"
    );
    assert_eq!(
        SlsaVersion::V02.predicate_type(),
        "https://slsa.dev/provenance/v0.2"
    );
}

#[test]
fn attestations_are_asked_for_by_option_and_by_build_argument_in_any_case() {
    let parse = |opts| Attests::parse(&opts).unwrap();
    assert_eq!(parse(map([])), Attests::default());
    assert_eq!(
        parse(map([("build-arg:OTHER", "x"), ("target", "y")])),
        Attests::default()
    );
    for key in [
        "attest:sbom",
        "attest:SBOM",
        "build-arg:BUILDKIT_ATTEST_SBOM",
    ] {
        let attests = parse(map([(key, "")]));
        assert_eq!(
            attests.sbom.unwrap().generator,
            "docker.io/docker/buildkit-syft-scanner:stable-1",
            "{key}"
        );
        assert!(attests.provenance.is_none());
    }
    let both = parse(
        map([("attest:sbom", "generator=x@y"), ("attest:provenance", "")])
            .into_iter()
            .filter(|(k, _)| k != "attest:sbom")
            .collect(),
    );
    assert!(both.provenance.is_some() && both.sbom.is_none());
    let error = Attests::parse(&map([("attest:sbom", "generator=A b")])).unwrap_err();
    assert!(error.to_string().contains("A b"), "{error}");
}

#[test]
fn arguments_are_told_without_credentials_and_without_what_says_nothing_of_the_result() {
    // The option, its value, and what is told; nothing is left out.
    let cases: [(&str, &str, Option<&str>); 14] = [
        ("target", "x", Some("x")),
        ("platform", "linux/amd64", None),
        ("cgroup-parent", "/x", None),
        ("image-resolve-mode", "pull", None),
        ("cache-imports", "[]", None),
        ("attest:sbom", "", None),
        ("build-arg:PASSWORD", "told", Some("told")),
        ("label:token", "told", Some("told")),
        ("secret_key", "hidden", Some("xxxxx")),
        ("Registry-PASSWD", "hidden", Some("xxxxx")),
        (
            "context",
            "https://user:hidden@host/x.git#main",
            Some("https://xxxxx:xxxxx@host/x.git#main"),
        ),
        (
            "context:dep",
            "https://user:hidden@host/y.git",
            Some("https://xxxxx:xxxxx@host/y.git"),
        ),
        (
            "build-arg:URL",
            "see https://user:hidden@host/z",
            Some("see https://xxxxx:xxxxx@host/z"),
        ),
        ("filename", "Dockerfile", Some("Dockerfile")),
    ];
    for (key, value, want) in cases {
        let told = filter_args(&map([(key, value)]));
        assert_eq!(told.get(key).map(String::as_str), want, "{key}={value}");
    }
    let told = filter_args(&map([
        ("contextkey", "src"),
        ("src", "https://u:hidden@h/x"),
        ("context", "plain"),
    ]));
    assert!(!format!("{told:?}").contains("hidden"), "{told:?}");
    for (key, is) in [
        ("TOKEN", true),
        ("my_account_key", true),
        ("credentials", true),
        ("key", false),
        ("user", false),
    ] {
        assert_eq!(is_credential(key), is, "{key}");
    }
}

fn source(identifier: &str) -> pb::Op {
    pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: identifier.into(),
            ..pb::SourceOp::default()
        })),
        ..pb::Op::default()
    }
}

#[test]
fn the_build_file_is_taken_out_of_the_arguments_with_what_is_known_of_its_source() {
    let mut capture = Capture::new();
    let commit = "0123456789012345678901234567890123456789";
    capture.op(&source("git://example.com/x.git#main"), commit);
    let zeros = Digest::sha256(b"zeros");
    capture.op(&source("https://example.com/ctx.tar"), zeros.as_str());
    let of = |opts| RequestProvenance::new("dockerfile.v0", opts, capture.sources());

    let local = of(map([("filename", "a/Dockerfile"), ("target", "x")]));
    assert_eq!(
        (
            local.config_source.uri.as_str(),
            local.config_source.path.as_str()
        ),
        ("", "a/Dockerfile")
    );
    let request = local.request.unwrap();
    assert_eq!(
        (request.frontend.as_str(), request.args),
        ("dockerfile.v0", map([("target", "x")]))
    );

    let http = of(map([("context", "https://example.com/ctx.tar")]));
    assert_eq!(http.config_source.uri, "https://example.com/ctx.tar");
    assert_eq!(http.config_source.digest, map([("sha256", zeros.hex())]));
    assert_eq!(http.request.unwrap().args, map([]));

    let unknown = of(map([("context", "https://example.com/other.tar")]));
    assert_eq!(unknown.config_source.uri, "https://example.com/other.tar");
    assert!(unknown.config_source.digest.is_empty());

    let renamed = of(map([
        ("contextkey", "src"),
        ("src", "https://u:p@example.com/s.tar"),
        ("context", "left"),
    ]));
    assert!(!renamed.config_source.uri.contains("u:p"), "{renamed:?}");
    assert_eq!(
        renamed
            .request
            .unwrap()
            .args
            .get("context")
            .map(String::as_str),
        Some("left")
    );
}

#[test]
fn secrets_and_agents_of_all_steps_are_told_once_and_optional_if_all_could_do_without() {
    let secret = |id: &str, optional| pb::Mount {
        mount_type: pb::MountType::Secret.into(),
        secret_opt: Some(pb::SecretOpt {
            id: id.into(),
            optional,
            ..pb::SecretOpt::default()
        }),
        ..pb::Mount::default()
    };
    let ssh = |id: &str, optional| pb::Mount {
        mount_type: pb::MountType::Ssh.into(),
        ssh_opt: Some(pb::SshOpt {
            id: id.into(),
            optional,
            ..pb::SshOpt::default()
        }),
        ..pb::Mount::default()
    };
    let exec = |mounts: Vec<pb::Mount>, env: &[&str]| pb::Op {
        op: Some(pb::op::Op::Exec(pb::ExecOp {
            mounts,
            secretenv: env
                .iter()
                .map(|id| pb::SecretEnv {
                    id: (*id).into(),
                    ..pb::SecretEnv::default()
                })
                .collect(),
            ..pb::ExecOp::default()
        })),
        ..pb::Op::default()
    };
    let mut one = Capture::new();
    one.op(
        &exec(
            vec![secret("b", true), secret("a", true), ssh("", true)],
            &[],
        ),
        "",
    );
    let mut two = Capture::new();
    two.op(
        &exec(
            vec![secret("b", true), ssh("default", false), ssh("z", true)],
            &["a", "c"],
        ),
        "",
    );
    one.merge(&two);
    one.settle().unwrap();
    let told = |list: &[attest::Secret]| -> Vec<(String, bool)> {
        list.iter().map(|s| (s.id.clone(), s.optional)).collect()
    };
    let named = |list: &[(&str, bool)]| -> Vec<(String, bool)> {
        list.iter()
            .map(|(id, optional)| ((*id).to_owned(), *optional))
            .collect()
    };
    assert_eq!(
        told(&one.request.secrets),
        named(&[("a", false), ("b", true), ("c", false)])
    );
    assert_eq!(
        told(&one.request.ssh),
        named(&[("default", false), ("z", true)])
    );
    assert!(!one.incomplete);
    one.op(
        &pb::Op {
            op: Some(pb::op::Op::Build(pb::BuildOp::default())),
            ..pb::Op::default()
        },
        "",
    );
    assert!(one.incomplete, "what a nested build uses is not known");
}

#[test]
fn an_image_that_is_there_by_tag_is_not_told_again_by_digest() {
    let digest = Digest::sha256(b"image");
    let image = |reference: &str, architecture: &str, local| Image {
        reference: reference.into(),
        platform: Some(Platform::new("linux", architecture, "")),
        digest: digest.clone(),
        local,
    };
    let pinned = format!("docker.io/library/a:1@{digest}");
    let other = format!("docker.io/library/b:1@{digest}");
    let mut capture = Capture::new();
    for one in [
        image(&pinned, "amd64", false),
        image("docker.io/library/a:1", "amd64", false),
        image("docker.io/library/a:1", "amd64", false),
        image("docker.io/library/a:1", "arm64", false),
        image("docker.io/library/a:1", "amd64", true),
        image(&other, "amd64", false),
    ] {
        capture.image(one);
    }
    capture.settle().unwrap();
    let text = format!("{:?}", capture.sources());
    assert_eq!(
        text.matches("docker.io/library/a:1\"").count(),
        3,
        "one of each platform and place: {text}"
    );
    assert!(!text.contains(&pinned) && text.contains(&other), "{text}");
    let mut bad = Capture::new();
    bad.image(image("A b", "amd64", false));
    assert!(bad.settle().unwrap_err().to_string().contains("A b"));
}

#[test]
fn more_sources_than_are_told_make_it_incomplete() {
    let mut capture = Capture::new();
    for n in 0..1024 {
        capture.op(&source(&format!("local://folder{n}")), "");
    }
    assert!(!capture.incomplete);
    capture.op(&source("local://folder7"), "");
    assert!(!capture.incomplete, "it is known");
    capture.op(&source("local://one-more"), "");
    assert!(capture.incomplete);
}

fn definition(ops: &[pb::Op]) -> pb::Definition {
    pb::Definition {
        def: ops.iter().map(|op| op.encode_to_vec()).collect(),
        ..pb::Definition::default()
    }
}

fn input(op: &pb::Op, index: i64) -> pb::Input {
    pb::Input {
        digest: Digest::sha256(op.encode_to_vec()).to_string(),
        index,
    }
}

fn head(op: &pb::Op) -> pb::Op {
    pb::Op {
        inputs: vec![input(op, 0)],
        ..pb::Op::default()
    }
}

#[test]
fn steps_are_numbered_with_inputs_first() {
    let base = source("docker-image://docker.io/library/a:1");
    let context = source("local://context");
    let copy = pb::Op {
        inputs: vec![input(&base, 0), input(&context, 1)],
        op: Some(pb::op::Op::File(pb::FileOp::default())),
        ..pb::Op::default()
    };
    let last = head(&copy);
    // In any order in the definition, but for the head.
    let config = build_config(&definition(&[
        copy.clone(),
        context.clone(),
        base.clone(),
        last.clone(),
    ]))
    .unwrap();
    for (n, op) in [&base, &context, &copy, &last].into_iter().enumerate() {
        let digest = Digest::sha256(op.encode_to_vec());
        assert_eq!(
            config.steps.name(&digest),
            Some(format!("step{n}").as_str())
        );
    }
    let json = serde_json::to_value(&config.steps).unwrap();
    assert_eq!(
        json["llbDefinition"][2]["inputs"],
        serde_json::json!(["step0:0", "step1:1"])
    );
    assert_eq!(config.steps.name(&Digest::sha256(b"other")), None);
}

#[test]
fn definitions_that_are_none_are_refused_and_deep_ones_need_no_stack() {
    let base = source("local://x");
    let not_a_head = definition(std::slice::from_ref(&base));
    let missing = definition(&[head(&base)]);
    let garbage = pb::Definition {
        def: vec![vec![0xff]],
        ..pb::Definition::default()
    };
    for (definition, want) in [
        (not_a_head, "invalid last vertex"),
        (missing, "failed to find input sha256:"),
        (garbage, "failed to parse llb proto op"),
    ] {
        let error = build_config(&definition).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert_eq!(build_config(&definition(&[])).unwrap(), Default::default());
    let mut ops = vec![base];
    for _ in 0..20_000 {
        let last = ops.last().unwrap();
        ops.push(pb::Op {
            inputs: vec![input(last, 0)],
            op: Some(pb::op::Op::File(pb::FileOp::default())),
            ..pb::Op::default()
        });
    }
    ops.push(head(ops.last().unwrap()));
    let config = build_config(&definition(&ops)).unwrap();
    let digest = Digest::sha256(ops.last().unwrap().encode_to_vec());
    assert_eq!(config.steps.name(&digest), Some("step20001"));
}

#[test]
fn names_of_images_are_escaped_in_package_urls() {
    let arm = Platform::new("linux", "arm", "v7");
    for (kind, reference, platform, extra, want) in [
        (
            PurlKind::Docker,
            "alpine",
            None,
            &[][..],
            "pkg:docker/alpine@latest",
        ),
        (
            PurlKind::Docker,
            "r.example/a_b/c:v1.0_x",
            None,
            &[],
            "pkg:docker/r.example/a_b/c@v1.0_x",
        ),
        (
            PurlKind::Oci,
            "alpine",
            Some(&arm),
            &[],
            "pkg:oci/alpine@latest?platform=linux%2Farm%2Fv7",
        ),
        (
            PurlKind::Docker,
            "alpine",
            Some(&arm),
            &[("ref", "a b"), ("z", "&")],
            "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7&ref=a%20b&z=%26",
        ),
    ] {
        assert_eq!(of_image(kind, reference, platform, extra).unwrap(), want);
    }
}
