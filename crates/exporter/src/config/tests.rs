use gostd::Timestamp;
use oci::Digest;

use super::{LayerFacts, Patch, default_config, patch};

fn layer(name: &str, second: i64) -> LayerFacts {
    LayerFacts {
        diff_id: Digest::sha256(name),
        description: format!("RUN {name}"),
        created: Some(Timestamp::from_seconds(second)),
    }
}

fn check(config: &str, layers: &[LayerFacts], epoch: Option<i64>, want: &str) {
    let spec = Patch {
        layers,
        epoch: epoch.map(Timestamp::from_seconds),
        ..Patch::default()
    };
    let patched = String::from_utf8(patch(config.as_bytes(), &spec).unwrap()).unwrap();
    let want = want
        .replace("$A", Digest::sha256("a").as_str())
        .replace("$B", Digest::sha256("b").as_str());
    assert_eq!(patched, want);
}

#[test]
fn unknown_fields_survive_and_keys_are_sorted() {
    check(
        r#"{ "os":"linux", "x" : {"k": [1, 2.50, "a<b \" \\"]}, "architecture":"amd64", "created": "2020-01-01T00:00:00.10Z" }"#,
        &[],
        None,
        r#"{"architecture":"amd64","created":"2020-01-01T00:00:00.10Z","history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":null},"x":{"k":[1,2.50,"a\u003cb \" \\"]}}"#,
    );
}

#[test]
fn missing_history_is_made_from_the_layers() {
    check(
        r#"{"os":"linux","architecture":"amd64","history":[{"created_by":"ENV","empty_layer":true},{"created_by":"COPY . .","comment":"c"}]}"#,
        &[layer("a", 10), layer("b", 20)],
        None,
        r#"{"architecture":"amd64","created":"1970-01-01T00:00:20Z","history":[{"created":"1970-01-01T00:00:10Z","created_by":"ENV","empty_layer":true},{"created":"1970-01-01T00:00:10Z","created_by":"COPY . .","comment":"c"},{"created":"1970-01-01T00:00:20Z","created_by":"RUN b","comment":"buildkit.exporter.image.v0"}],"os":"linux","rootfs":{"type":"layers","diff_ids":["$A","$B"]}}"#,
    );
}

#[test]
fn surplus_history_is_said_to_be_empty() {
    check(
        r#"{"os":"linux","architecture":"amd64","created":null,"history":[{"created_by":"one"},{"created_by":"two"}]}"#,
        &[layer("a", 10)],
        None,
        r#"{"architecture":"amd64","created":null,"history":[{"created":"1970-01-01T00:00:10Z","created_by":"one"},{"created":"1970-01-01T00:00:10Z","created_by":"two","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["$A"]}}"#,
    );
}

#[test]
fn no_time_is_later_than_the_epoch() {
    check(
        r#"{"os":"linux","architecture":"amd64","created":"1970-01-01T00:01:00Z","history":[{"created":"1970-01-01T00:00:03Z"},{"created":"1970-01-01T00:00:50Z","empty_layer":true}]}"#,
        &[layer("a", 10)],
        Some(5),
        r#"{"architecture":"amd64","created":"1970-01-01T00:00:05Z","history":[{"created":"1970-01-01T00:00:03Z"},{"created":"1970-01-01T00:00:05Z","empty_layer":true}],"os":"linux","rootfs":{"type":"layers","diff_ids":["$A"]}}"#,
    );
}

#[test]
fn a_config_without_a_platform_is_refused() {
    for (config, want) in [
        ("null", "invalid null image config for export"),
        (
            r#"{"architecture":"amd64"}"#,
            "invalid image config for export: missing os",
        ),
        (
            r#"{"os":"linux"}"#,
            "invalid image config for export: missing architecture",
        ),
    ] {
        assert_eq!(
            patch(config.as_bytes(), &Patch::default())
                .unwrap_err()
                .to_string(),
            want
        );
    }
    patch(&default_config(), &Patch::default()).unwrap();
}

#[test]
fn what_a_frontend_gave_is_passed_on_as_bytes() {
    for (config, want) in [
        (
            &b"{\"os\":\"linux\",\"architecture\":\"amd64\",\"author\":null,\"config\":null,\"history\":null,\"rootfs\":null}"[..],
            &b"{\"architecture\":\"amd64\",\"author\":null,\"config\":null,\"created\":null,\"history\":null,\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":null}}"[..],
        ),
        (
            b"{\"os\":\"linux\",\"architecture\":\"amd64\",\"x\":\"\xff\\ud800\",\"x\":\"\xfe\\ud801 <\",\"history\":[null]}",
            b"{\"architecture\":\"amd64\",\"created\":null,\"history\":[{\"empty_layer\":true}],\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":null},\"x\":\"\xfe\\ud801 \\u003c\"}",
        ),
        (
            b"{\"OS\":\"linux\",\"Architecture\":\"amd64\",\"History\":[{\"created_by\":\"a\\ud800\",\"empty_layer\":true}]}",
            "{\"Architecture\":\"amd64\",\"History\":[{\"created_by\":\"a\\ud800\",\"empty_layer\":true}],\"OS\":\"linux\",\"created\":null,\"history\":[{\"created_by\":\"a\u{fffd}\",\"empty_layer\":true}],\"rootfs\":{\"type\":\"layers\",\"diff_ids\":null}}".as_bytes(),
        ),
    ] {
        let patched = patch(config, &Patch::default()).unwrap();
        assert_eq!(
            patched.escape_ascii().to_string(),
            want.escape_ascii().to_string()
        );
    }
}

/// Recorded from BuildKit v0.34.2: its own functions, called with these configs, numbers of layers and epochs.
#[test]
fn configs_are_byte_for_byte_those_of_the_reference() {
    #[derive(serde::Deserialize)]
    struct Case {
        config: String,
        layers: usize,
        epoch: i64,
        want: String,
    }
    for line in include_str!("golden.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let layers: Vec<_> = (0..case.layers)
            .map(|i| LayerFacts {
                diff_id: Digest::sha256(format!("d{i}")),
                description: String::new(),
                created: None,
            })
            .collect();
        let epoch = (case.epoch >= 0).then(|| Timestamp::from_seconds(case.epoch));
        let patched = patch(
            case.config.as_bytes(),
            &Patch {
                layers: &layers,
                epoch,
                ..Patch::default()
            },
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(patched).unwrap(),
            case.want,
            "{} with {} layers",
            case.config,
            case.layers
        );
    }
}
