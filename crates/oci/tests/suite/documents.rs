//! Media types, descriptors and documents that others wrote.

use gostd::json::{from_slice, to_vec};
use oci::image::{ContainerConfig, Empty, Healthcheck, History, RootFs, chain_id};
use oci::{Descriptor, Digest, ErrorKind, ImageConfig, Index, Manifest, Platform, media_type};
use proptest::prelude::*;

fn digest(text: &str) -> Digest {
    Digest::sha256(text)
}

fn json<T: serde::Serialize>(value: &T) -> String {
    String::from_utf8(to_vec(value)).expect("JSON is a text")
}

#[test]
fn each_media_type_is_of_one_kind() {
    for (name, kind) in [
        (media_type::OCI_MANIFEST, "manifest"),
        (media_type::DOCKER_MANIFEST, "manifest"),
        (media_type::OCI_INDEX, "index"),
        (media_type::DOCKER_INDEX, "index"),
        (media_type::OCI_LAYER, "layer"),
        (media_type::OCI_LAYER_GZIP, "layer"),
        (media_type::OCI_LAYER_ZSTD, "layer"),
        (media_type::DOCKER_LAYER, "layer"),
        (media_type::DOCKER_LAYER_GZIP, "layer"),
        (media_type::DOCKER_LAYER_ZSTD, "layer"),
        (media_type::OCI_LAYER_NONDIST, "layer kept elsewhere"),
        (media_type::OCI_LAYER_NONDIST_GZIP, "layer kept elsewhere"),
        (media_type::OCI_LAYER_NONDIST_ZSTD, "layer kept elsewhere"),
        (media_type::DOCKER_LAYER_FOREIGN, "layer kept elsewhere"),
        (
            media_type::DOCKER_LAYER_FOREIGN_GZIP,
            "layer kept elsewhere",
        ),
        (media_type::OCI_CONFIG, ""),
        (media_type::DOCKER_CONFIG, ""),
        (media_type::OCI_EMPTY, ""),
        (media_type::DOCKER_SCHEMA1, ""),
        ("", ""),
        (
            "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
            "",
        ),
    ] {
        let mut kinds = Vec::new();
        if media_type::is_manifest(name) {
            kinds.push("manifest");
        }
        if media_type::is_index(name) {
            kinds.push("index");
        }
        if media_type::is_layer(name) {
            kinds.push(match media_type::is_nondistributable(name) {
                true => "layer kept elsewhere",
                false => "layer",
            });
        }
        assert_eq!(kinds.join(" and "), kind, "{name}");
    }
}

#[test]
fn layers_keep_their_compression_when_they_change_families() {
    for (docker, oci) in [
        (media_type::DOCKER_LAYER, media_type::OCI_LAYER),
        (media_type::DOCKER_LAYER_GZIP, media_type::OCI_LAYER_GZIP),
        (media_type::DOCKER_LAYER_ZSTD, media_type::OCI_LAYER_ZSTD),
        (
            media_type::DOCKER_LAYER_FOREIGN,
            media_type::OCI_LAYER_NONDIST,
        ),
        (
            media_type::DOCKER_LAYER_FOREIGN_GZIP,
            media_type::OCI_LAYER_NONDIST_GZIP,
        ),
    ] {
        assert_eq!(media_type::layer_to_oci(docker), oci);
        assert_eq!(media_type::layer_to_docker(oci), docker);
        assert_eq!(media_type::layer_to_oci(oci), oci);
        assert_eq!(media_type::layer_to_docker(docker), docker);
    }
    // Docker has no such layer, so it stays what it is.
    let zstd = media_type::OCI_LAYER_NONDIST_ZSTD;
    assert_eq!(media_type::layer_to_docker(zstd), zstd);
    assert_eq!(media_type::layer_to_oci("text/plain"), "text/plain");
}

#[test]
fn a_hostile_size_is_no_size() {
    let descriptor = Descriptor::of_bytes("text/plain", b"abc");
    assert_eq!((descriptor.len(), descriptor.is_empty()), (3, false));
    let huge = Descriptor::new("", digest("x"), u64::MAX);
    assert_eq!(huge.size, i64::MAX);
    for size in [-1, i64::MIN, 0] {
        let text = format!(
            r#"{{"mediaType":"a","digest":"{}","size":{size}}}"#,
            digest("x")
        );
        let descriptor: Descriptor = from_slice(text.as_bytes()).expect("a descriptor");
        assert_eq!(
            (descriptor.len(), descriptor.is_empty()),
            (0, true),
            "{size}"
        );
    }
}

#[test]
fn documents_that_are_none_are_refused_with_the_field() {
    for (text, want) in [
        (
            r#"{"config":{"digest":"x"}}"#,
            "config.digest: invalid checksum digest format",
        ),
        (
            r#"{"config":{"digest":5}}"#,
            "config.digest: cannot unmarshal number where a string is wanted",
        ),
        (
            r#"{"config":[]}"#,
            "config: cannot unmarshal array where an object is wanted",
        ),
        (
            r#"{"config":{"digest":"sha256:00"}}"#,
            "config.digest: invalid checksum digest length",
        ),
        ("{", "unexpected end of JSON input"),
        ("", "unexpected end of JSON input"),
        (
            "nope",
            "invalid character 'o' in literal null (expecting 'u')",
        ),
    ] {
        let error = from_slice::<Manifest>(text.as_bytes()).expect_err(text);
        assert_eq!(error.to_string(), want, "{text}");
    }
    for text in [
        r#"{"schemaVersion":"2"}"#,
        r#"{"manifests":{}}"#,
        r#"{"manifests":[{"size":1.5}]}"#,
        r#"{"manifests":[{"size":99999999999999999999}]}"#,
        r#"{"annotations":{"a":1}}"#,
    ] {
        assert!(from_slice::<Index>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_manifest_is_written_with_its_fields_in_gos_order() {
    let mut layer = Descriptor::new(media_type::OCI_LAYER_GZIP, digest("layer"), 5);
    layer.annotations.insert("b".into(), "2".into());
    layer.annotations.insert("a".into(), "1".into());
    layer.urls.push("https://host/<layer>".into());
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.into(),
        artifact_type: String::new(),
        config: Descriptor::new(media_type::OCI_CONFIG, digest("config"), 2),
        layers: vec![layer],
        subject: None,
        annotations: [("k".to_owned(), "v & w".to_owned())].into(),
    };
    let (config, layer) = (digest("config"), digest("layer"));
    let want = format!(
        concat!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"#,
            r#""layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":5,"#,
            r#""urls":["https://host/\u003clayer\u003e"],"annotations":{{"a":"1","b":"2"}}}}],"#,
            r#""annotations":{{"k":"v \u0026 w"}}}}"#,
        ),
        config, layer
    );
    assert_eq!(json(&manifest), want);
    assert_eq!(from_slice::<Manifest>(want.as_bytes()), Ok(manifest));
}

#[test]
fn a_config_is_written_with_its_fields_in_gos_order() {
    let config = ImageConfig {
        created: Some("2026-01-02T03:04:05Z".into()),
        author: "me".into(),
        platform: Platform::new("linux", "arm", "v7"),
        rootfs: RootFs {
            kind: "layers".into(),
            diff_ids: vec![digest("a")],
        },
        history: vec![History {
            created_by: "RUN x".into(),
            comment: "buildkit.dockerfile.v0".into(),
            empty_layer: true,
            ..History::default()
        }],
        config: ContainerConfig {
            user: "1:2".into(),
            exposed_ports: [("80/tcp".to_owned(), Empty {})].into(),
            env: vec!["A=b".into()],
            entrypoint: vec!["e".into()],
            cmd: vec!["c".into()],
            volumes: [("/v".to_owned(), Empty {})].into(),
            working_dir: "/w".into(),
            labels: [("l".to_owned(), "m".to_owned())].into(),
            stop_signal: "SIGINT".into(),
            args_escaped: true,
            healthcheck: Some(Healthcheck {
                test: vec!["CMD".into(), "x".into()],
                interval: 1_000_000_000,
                timeout: 2,
                start_period: 3,
                start_interval: 4,
                retries: 5,
            }),
            on_build: vec!["RUN y".into()],
            shell: vec!["sh".into()],
        },
    };
    let want = format!(
        concat!(
            r#"{{"created":"2026-01-02T03:04:05Z","author":"me","architecture":"arm","os":"linux","variant":"v7","#,
            r#""rootfs":{{"type":"layers","diff_ids":["{}"]}},"#,
            r#""history":[{{"created_by":"RUN x","comment":"buildkit.dockerfile.v0","empty_layer":true}}],"#,
            r#""config":{{"User":"1:2","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=b"],"Entrypoint":["e"],"Cmd":["c"],"#,
            r#""Volumes":{{"/v":{{}}}},"WorkingDir":"/w","Labels":{{"l":"m"}},"StopSignal":"SIGINT","ArgsEscaped":true,"#,
            r#""Healthcheck":{{"Test":["CMD","x"],"Interval":1000000000,"Timeout":2,"StartPeriod":3,"StartInterval":4,"Retries":5}},"#,
            r#""OnBuild":["RUN y"],"Shell":["sh"]}}}}"#,
        ),
        digest("a")
    );
    assert_eq!(json(&config), want);
    assert_eq!(from_slice::<ImageConfig>(want.as_bytes()), Ok(config));
}

#[test]
fn a_chain_is_named_by_all_layers_below() {
    let [a, b, c] = ["a", "b", "c"].map(digest);
    assert_eq!(chain_id(&[]), None);
    assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
    let two = Digest::sha256(format!("{a} {b}"));
    assert_eq!(chain_id(&[a.clone(), b.clone()]), Some(two.clone()));
    let three = Digest::sha256(format!("{two} {c}"));
    assert_eq!(chain_id(&[a.clone(), b.clone(), c.clone()]), Some(three));
    assert_ne!(chain_id(&[a.clone(), b.clone()]), chain_id(&[b, a]));
}

#[test]
fn kinds_of_errors_say_whose_they_are() {
    for (kind, word, ours) in [
        (ErrorKind::Failed, "failed", false),
        (ErrorKind::Invalid, "invalid", false),
        (ErrorKind::NotFound, "not found", false),
        (ErrorKind::Exists, "exists", false),
        (ErrorKind::Denied, "denied", false),
        (ErrorKind::Exhausted, "exhausted", true),
        (ErrorKind::Hostile, "hostile", false),
        (ErrorKind::Unavailable, "unavailable", false),
        (ErrorKind::TimedOut, "timed out", false),
        (ErrorKind::Cancelled, "cancelled", false),
        (ErrorKind::Unsupported, "unsupported", false),
        (ErrorKind::System, "system", true),
        (ErrorKind::Bug, "bug", true),
    ] {
        assert_eq!((kind.word(), kind.is_ours()), (word, ours));
    }
}

#[test]
fn what_is_ours_fails_by_the_host_alone() {
    for (errno, want) in [
        (2, ErrorKind::System),
        (13, ErrorKind::System),
        (17, ErrorKind::System),
        (28, ErrorKind::Exhausted),
        (24, ErrorKind::Exhausted),
        (5, ErrorKind::System),
    ] {
        let error = std::io::Error::from_raw_os_error(errno);
        assert_eq!(ErrorKind::of_host(&error), want, "{error}");
    }
}

#[test]
fn the_words_for_an_errno_are_gos() {
    for (errno, want) in [
        (2, "no such file or directory"),
        (13, "permission denied"),
        (20, "not a directory"),
        (23, "too many open files in system"),
        (28, "no space left on device"),
        (39, "directory not empty"),
        (40, "too many levels of symbolic links"),
        (95, "operation not supported"),
        (111, "connection refused"),
    ] {
        let error = std::io::Error::from_raw_os_error(errno);
        assert_eq!(oci::error::errno_text(&error), want);
    }
    let other = std::io::Error::other("Something Else");
    assert_eq!(oci::error::errno_text(&other), "Something Else");
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(from_slice::<Manifest>(&bytes));
        drop(from_slice::<Index>(&bytes));
        drop(from_slice::<ImageConfig>(&bytes));
    }

    #[test]
    fn any_text_gives_an_answer(text in r"[a-z0-9A-Z./:@_*()+%-]{0,60}") {
        if let Ok(reference) = oci::Reference::parse(&text) {
            prop_assert_eq!(oci::Reference::parse(&reference.to_string()), Ok(reference));
        }
        if let Ok(platform) = Platform::parse(&text) {
            prop_assert_eq!(Platform::parse(&platform.format_all()).map(|p| p.normalize()), Ok(platform.normalize()));
        }
        drop(Digest::parse(&text));
    }
}
