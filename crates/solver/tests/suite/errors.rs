//! Errors of ops, and the progress of vertices.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use solver::Phase;

use crate::world::*;

#[tokio::test]
async fn an_error_names_its_vertex_and_is_forgotten_with_the_job() {
    let world = world();
    let fails = Arc::new(AtomicUsize::new(1));
    let bad = vertex(
        Fake {
            name: "bad",
            fails: Some(fails),
            ..Fake::default()
        },
        &[&op("base", &[])],
    );
    let top = op("top", &[&bad]);
    let (built, ran) = world.run(&top).await;
    let error = built.unwrap_err();
    assert_eq!(error.to_string(), "exit code: 1");
    assert!(
        matches!(&error, SolveError::Op { vertex, phase: Phase::Exec, .. } if *vertex == bad.vertex.digest)
    );
    assert_eq!(ran, "exec base | exec bad");
    assert!(
        world
            .shown
            .take()
            .contains("bad started | bad completed: exit code: 1")
    );
    let (built, ran) = world.run(&top).await;
    assert_eq!(
        (built.unwrap().as_str(), ran.as_str()),
        ("top(bad(base()))", "exec bad | exec top")
    );
}

#[tokio::test]
async fn errors_of_content_keys_and_panics_are_errors_of_the_build() {
    let world = world();
    let context = vertex(
        Fake {
            name: "context",
            content: "unreadable",
            ..Fake::default()
        },
        &[],
    );
    let copy = vertex(
        Fake {
            name: "copy",
            slow: true,
            ..Fake::default()
        },
        &[&context],
    );
    assert_eq!(
        world.run(&copy).await.0.unwrap_err().to_string(),
        "failed to compute cache key: \"/x\": not found"
    );
    let panics = vertex(
        Fake {
            name: "panics",
            panics: true,
            ..Fake::default()
        },
        &[],
    );
    assert_eq!(
        world.run(&panics).await.0.unwrap_err().to_string(),
        "panic in `panics`: the op panicked"
    );
}

#[tokio::test]
async fn vertices_are_shown_as_they_are_worked_on() {
    let world = world();
    let app = op("app", &[&op("base", &[])]);
    world.run(&app).await.0.unwrap();
    assert_eq!(
        world.shown.take(),
        "base to one | app to one | base started | base completed | base started | base completed | app started | app completed"
    );
    world.run(&app).await.0.unwrap();
    assert_eq!(
        world.shown.take(),
        "base to one | app to one | base started | base completed | app started cached | app completed cached"
    );
}
