//! `FROM --platform=… stage`.

use std::sync::Arc;

use dockerfile::lower::{self, LowerError, LowerOptions, Lowered};
use oci::Platform;
use parking_lot::Mutex;

use crate::host::Host;

/// Lowers for `target` on a builder for linux/amd64; also gives what the linter found.
fn built(text: &str, target: &str) -> (Result<Lowered, LowerError>, Vec<String>) {
    let options = LowerOptions {
        target_platform: Some(Platform::parse(target).expect("it is one")),
        build_platforms: vec![Platform::new("linux", "amd64", "")],
        ..LowerOptions::default()
    };
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&warnings);
    let warn = Arc::new(move |warning: dockerfile::lint::Warning| {
        if warning.rule.name != "InvalidBaseImagePlatform" {
            sink.lock().push(warning.short());
        }
    });
    let host = Host::default();
    let lowered = lower::lower(text.as_bytes(), options, &host, Some(warn));
    let lowered = futures::executor::block_on(lowered);
    let warnings = warnings.lock().clone();
    (lowered, warnings)
}

/// The steps with the architectures they are for, or the error and its lines.
fn steps(text: &str, target: &str) -> String {
    let lowered = match built(text, target).0 {
        Ok(lowered) => lowered,
        Err(error) => {
            let lines = error.locations.iter().flatten();
            let lines: Vec<usize> = lines.map(|range| range.start.line).collect();
            return format!("{error} {lines:?}");
        }
    };
    let definition = lowered.definition().expect("it can be written");
    let graph = llb::definition::Graph::load(&definition).expect("it is one");
    let steps = graph.nodes.iter().filter(|node| !node.name.is_empty());
    let steps = steps.map(|node| {
        let name = node.name.rsplit("] ").next().unwrap_or_default();
        // Copies have none.
        let platform = node.op.platform.as_ref().map(|p| p.architecture.as_str());
        let name = name.split('@').next().unwrap_or_default();
        format!("{name} {}", platform.unwrap_or_default())
    });
    steps.collect::<Vec<_>>().join(", ")
}

const TOOLS: &str = "FROM alpine AS tools\nRUN one\n";

#[test]
fn a_stage_is_built_for_the_platform_that_is_written_where_it_is_used() {
    for (text, target, want) in [
        // The platform is the one it has: it goes on as it is.
        (
            "FROM --platform=$BUILDPLATFORM tools\nRUN two",
            "linux/amd64",
            "FROM docker.io/library/alpine:latest amd64, RUN one amd64, RUN two amd64",
        ),
        (
            "FROM --platform=$TARGETPLATFORM tools\nRUN two",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest arm64, RUN one arm64, RUN two arm64",
        ),
        (
            "FROM tools\nRUN two",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest arm64, RUN one arm64, RUN two arm64",
        ),
        // Another one: all of it is built for that one.
        (
            "FROM --platform=$BUILDPLATFORM tools\nRUN two",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest amd64, RUN one amd64, RUN two amd64",
        ),
        (
            "FROM --platform=linux/arm64/v8 tools\nRUN two",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest arm64, RUN one arm64, RUN two arm64",
        ),
        (
            "FROM --platform=linux/s390x tools AS a\nRUN two\nFROM a\nRUN three",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest s390x, RUN one s390x, RUN two s390x, RUN three s390x",
        ),
        (
            "FROM tools AS a\nRUN two\nFROM --platform=linux/s390x a\nRUN three",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest s390x, RUN one s390x, RUN two s390x, RUN three s390x",
        ),
        // Both are there, and what is copied comes from the one that is named.
        (
            "FROM --platform=linux/s390x tools AS a\nRUN two\nFROM tools\nCOPY --from=a /x /x\nCOPY --from=0 /y /y",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest arm64, RUN one arm64, FROM docker.io/library/alpine:latest s390x, RUN one s390x, \
             RUN two s390x, COPY --from=a /x /x , COPY --from=0 /y /y ",
        ),
        // Repetitions have no number.
        (
            "FROM --platform=linux/s390x tools AS a\nRUN two\nFROM scratch\nCOPY --from=1 /x /x",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest s390x, RUN one s390x, RUN two s390x, COPY --from=1 /x /x ",
        ),
        (
            "FROM --platform=linux/s390x tools AS a\nFROM scratch\nCOPY --from=3 /x /x",
            "linux/arm64",
            "invalid stage index 3 []",
        ),
        (
            "FROM --platform=linux/s390x tools AS a\nFROM --platform=linux/s390x tools AS b\nCOPY --from=a /x /x",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest s390x, RUN one s390x, COPY --from=a /x /x ",
        ),
        // What has no image.
        (
            "FROM scratch AS files\nCOPY a b\nFROM --platform=$BUILDPLATFORM files\nRUN two",
            "linux/arm64",
            "COPY a b , RUN two amd64",
        ),
        // ONBUILD of a stage is run in the repetition's child, as in the stage's.
        (
            "FROM alpine AS onb\nONBUILD RUN later\nFROM --platform=$BUILDPLATFORM onb\nRUN two",
            "linux/arm64",
            "FROM docker.io/library/alpine:latest amd64, ONBUILD RUN later amd64, RUN two amd64",
        ),
        // A stage that says its own cannot be another.
        (
            "FROM --platform=linux/s390x alpine AS own\nFROM --platform=$BUILDPLATFORM own",
            "linux/amd64",
            "stage \"own\" is built for linux/s390x, as line 3 says, and cannot go on for linux/amd64: remove one of the two --platform flags [4]",
        ),
        (
            "FROM --platform=linux/s390x alpine AS own\nFROM own AS more\n\nFROM --platform=$BUILDPLATFORM more",
            "linux/amd64",
            "stage \"more\" is built for linux/s390x, as line 3 says, and cannot go on for linux/amd64: remove one of the two --platform flags [6]",
        ),
        (
            "FROM --platform=linux/s390x tools AS own\nFROM --platform=$BUILDPLATFORM own",
            "linux/amd64",
            "stage \"own\" is built for linux/s390x, as line 3 says, and cannot go on for linux/amd64: remove one of the two --platform flags [4]",
        ),
        (
            "FROM --platform=linux/s390x alpine AS own\nRUN two\nFROM --platform=linux/s390x own\nRUN three",
            "linux/amd64",
            "FROM docker.io/library/alpine:latest s390x, RUN two s390x, RUN three s390x",
        ),
    ] {
        let text = format!("{TOOLS}{text}\n");
        assert_eq!(steps(&text, target), want, "for {target}:\n{text}");
    }
}

#[test]
fn a_repeated_stage_is_told_of_once() {
    let text = "FROM alpine AS tools\nMAINTAINER me\nENV A=$B\nFROM --platform=linux/s390x tools AS a\nFROM tools\nCOPY --from=a / /\n";
    let (lowered, found) = built(text, "linux/arm64");
    lowered.expect("the file is well formed");
    let undefined = found.iter().filter(|text| text.starts_with("UndefinedVar"));
    assert_eq!(undefined.count(), 1, "{found:?}");
    // Where the stage itself is not needed, its repetition is heard.
    let (lowered, found) = built(&text.replace("FROM tools", "FROM scratch"), "linux/arm64");
    lowered.expect("the file is well formed");
    assert!(
        found.iter().any(|text| text.starts_with("UndefinedVar")),
        "{found:?}"
    );
}

#[test]
fn a_small_file_cannot_repeat_its_stages_without_end() {
    let chain: String = (1..150)
        .map(|n| format!("FROM s{} AS s{n}\nRUN {n}\n", n - 1))
        .collect();
    let repeated: String = (0..150)
        .map(|n| format!("FROM --platform=linux/p{n} s149 AS r{n}\n"))
        .collect();
    let text = format!("FROM alpine AS s0\n{chain}{repeated}");
    let error = built(&text, "linux/amd64").0.expect_err("it is too much");
    assert!(
        error
            .to_string()
            .ends_with("instructions and variables, at most 20000 are accepted"),
        "{error}"
    );
}
