//! Remote caches that a build writes and reads, and the effect of their errors on the build.

use std::collections::BTreeMap;

use engine::api::{Backend, CacheSpec, FailureKind, SolveRequest};
use progress::Event;

use crate::{engine, request, two_layers};

fn spec<const N: usize>(kind: &str, attrs: [(&str, &str); N]) -> CacheSpec {
    CacheSpec {
        kind: kind.into(),
        attrs: attrs.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    }
}

fn files() -> std::sync::Arc<llb::pb::Definition> {
    two_layers()
}

/// The names of completed vertices with their errors.
async fn vertices(engine: &engine::Engine, build: &str) -> Vec<(String, String)> {
    let mut status = engine.status(&build.into()).await.unwrap();
    let mut ended = BTreeMap::new();
    while let Some(event) = status.next().await {
        if let Event::Vertex(vertex) = event
            && vertex.completed.is_some()
        {
            ended.insert(vertex.name, vertex.error);
        }
    }
    ended.into_iter().collect()
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    for (cache, kind, words) in [
        (
            spec("nothing", []),
            FailureKind::Unknown,
            "unknown cache exporter: \"nothing\"",
        ),
        (
            spec("local", []),
            FailureKind::Unknown,
            "local cache exporter requires dest",
        ),
        (
            spec("registry", []),
            FailureKind::Unknown,
            "registry cache exporter",
        ),
        (
            spec("registry", [("ref", "A b")]),
            FailureKind::Unknown,
            "failed to configure registry cache exporter",
        ),
        (
            spec("registry", [("ref", "x"), ("registry.insecure", "maybe")]),
            FailureKind::Unknown,
            "failed to configure registry cache exporter",
        ),
        (
            spec("gha", []),
            FailureKind::Unimplemented,
            "is not supported by this daemon",
        ),
        (
            spec("s3", [("bucket", "b")]),
            FailureKind::Unimplemented,
            "is not supported by this daemon",
        ),
        // Only kinds of caches that are not built may be left out.
        (
            spec("local", [("ignore-error", "true")]),
            FailureKind::Unknown,
            "local cache exporter requires dest",
        ),
    ] {
        let request = SolveRequest {
            cache_exports: vec![cache.clone()],
            ..request("one", files())
        };
        let failure = engine.solve(request).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{cache:?}: {failure}");
        assert!(failure.message().contains(words), "{cache:?}: {failure}");
        assert_eq!(vertices(&engine, "one").await, [], "{cache:?}");
    }
}

#[tokio::test]
async fn errors_of_a_cache_fail_the_build_unless_they_are_to_be_ignored() {
    testkit::requires!(root);
    for (ignore, good) in [
        ("true", true),
        ("1", true),
        ("false", false),
        ("yes", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(&dir);
        // No session could take the cache.
        let cache = spec(
            "local",
            [
                ("dest", "/cache"),
                ("ignore-error", ignore),
                ("mode", "max"),
            ],
        );
        let request = SolveRequest {
            cache_exports: vec![cache],
            ..request("one", files())
        };
        let answer = engine.solve(request).await;
        assert_eq!(answer.is_ok(), good, "{ignore}: {answer:?}");
        let vertices = vertices(&engine, "one").await;
        let cache = vertices
            .iter()
            .find(|(name, _)| name == "exporting cache to client directory");
        // The error is shown whether it is ignored or not.
        let (_, error) = cache.unwrap_or_else(|| panic!("{vertices:?}"));
        assert!(error.contains("requires session"), "{error}");
    }
}

#[tokio::test]
async fn a_cache_that_is_not_built_is_left_out_if_its_errors_are_to_be_ignored() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let request = SolveRequest {
        cache_exports: vec![spec("gha", [("ignore-error", "true")]), spec("inline", [])],
        ..request("one", files())
    };
    engine.solve(request).await.unwrap();
    assert_eq!(
        vertices(&engine, "one").await,
        ["mkfile /a", "mkfile /b"].map(|name| (name.to_owned(), String::new()))
    );
}

#[tokio::test]
async fn a_cache_that_cannot_be_read_is_shown_and_left_out() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let request = SolveRequest {
        cache_imports: vec![
            spec("nothing", [("ref", "a")]),
            spec("local", [("src", "/cache")]),
            spec("registry", [("ref", "A b")]),
            // A cache that is named twice is read once.
            spec("nothing", [("ref", "a")]),
        ],
        ..request("one", files())
    };
    engine.solve(request).await.unwrap();
    let vertices = vertices(&engine, "one").await;
    let failed: Vec<_> = vertices
        .iter()
        .filter(|(_, error)| !error.is_empty())
        .collect();
    assert_eq!(failed.len(), 3, "{vertices:?}");
    for (name, _) in &failed {
        assert!(name.starts_with("importing cache manifest from "), "{name}");
    }
    assert!(vertices.contains(&("mkfile /a".to_owned(), String::new())));
}
