//! Jobs that share vertices, and ops that build something themselves.

use std::sync::Arc;
use std::time::Duration;

use solver::Activity;
use tokio::sync::Semaphore;

use crate::world::*;

#[tokio::test]
async fn two_jobs_share_a_run_and_the_last_one_leaving_drops_it() {
    let world = world();
    let gate = Arc::new(Semaphore::new(0));
    let slow = vertex(
        Fake {
            name: "slow",
            gate: Some(Arc::clone(&gate)),
            ..Fake::default()
        },
        &[],
    );
    let (a, b) = (world.job("a"), world.job("b"));
    {
        let (mut first, mut second) = (
            Box::pin(a.build(slow.clone())),
            Box::pin(b.build(slow.clone())),
        );
        for _ in 0..3 {
            assert!(
                tokio::time::timeout(Duration::from_millis(5), async {
                    tokio::select! { biased; _ = &mut first => (), _ = &mut second => () }
                })
                .await
                .is_err()
            );
        }
        drop(first);
        gate.add_permits(1);
        assert_eq!(second.await.unwrap().result.1, "slow()");
        assert_eq!(world.log.take(), "exec slow | sessions s-a,s-b");
    }
    drop((a, b));

    let abandoned = vertex(
        Fake {
            name: "other",
            gate: Some(Arc::clone(&gate)),
            ..Fake::default()
        },
        &[],
    );
    let job = world.job("a");
    assert!(
        tokio::time::timeout(Duration::from_millis(20), job.build(abandoned.clone()))
            .await
            .is_err()
    );
    task::clock::sleep(Duration::from_millis(5)).await;
    assert_eq!(world.log.take(), "exec other | drop other");
    gate.add_permits(1);
    assert_eq!(job.build(abandoned).await.unwrap().result.1, "other()");
}

#[tokio::test]
async fn equal_keys_of_different_vertices_are_one_run() {
    let world = world();
    let gate = Arc::new(Semaphore::new(1));
    let context = |name| {
        vertex(
            Fake {
                name,
                key: "same context",
                content: "files",
                gate: Some(Arc::clone(&gate)),
                ..Fake::default()
            },
            &[],
        )
    };
    let (a, b) = (
        op("app", &[&context("session one")]),
        op("app", &[&context("session two")]),
    );
    let (first, second) = (world.job("a"), world.job("b"));
    let (x, y) = tokio::join!(first.build(a), second.build(b));
    assert_eq!(
        (x.unwrap().result.0, y.unwrap().result.1.as_str()),
        (1, "app(files)")
    );
    let ran = world.log.take();
    assert_eq!(ran.matches("exec").count(), 2, "{ran}");
}

#[tokio::test]
async fn an_op_builds_as_a_part_of_its_vertex() {
    let world = world();
    let inner = op("inner", &[&op("base", &[])]);
    let outer = vertex(
        Fake {
            name: "outer",
            builds: Some(inner),
            ..Fake::default()
        },
        &[],
    );
    let (built, ran) = world.run(&outer).await;
    assert_eq!(
        (built.unwrap().as_str(), ran.as_str()),
        ("outer()", "exec outer | exec base | exec inner")
    );
    assert!(world.shown.take().contains("inner to one"));
}

#[tokio::test]
async fn hints_of_cache_maps_are_found_from_above() {
    let world = world();
    let top = vertex(
        Fake {
            name: "top",
            needs_hint: true,
            ..Fake::default()
        },
        &[&op("mid", &[&op("base", &[])])],
    );
    assert_eq!(
        world.run(&top).await.1,
        "exec base | exec mid | exec top | hint of base"
    );
}

#[tokio::test]
async fn the_graph_of_waiting_vertices_can_be_read_during_a_build() {
    let world = world();
    let gate = Arc::new(Semaphore::new(0));
    let slow = vertex(
        Fake {
            name: "slow",
            gate: Some(Arc::clone(&gate)),
            ..Fake::default()
        },
        &[],
    );
    let top = op("top", &[&slow]);
    let (a, b) = (world.job("a"), world.job("b"));
    let mut builds = Box::pin(async { tokio::join!(a.build(top.clone()), b.build(slow.clone())) });
    let graph = loop {
        assert!(futures::poll!(&mut builds).is_pending());
        tokio::task::yield_now().await;
        // The second job joins once other threads have answered its look-ups.
        let graph = world.solver.waits();
        let first = graph.nodes.first();
        if first.is_some_and(|node| node.jobs.len() == 2) && world.log.has("exec slow") {
            break graph;
        }
    };
    let nodes: Vec<_> = graph
        .nodes
        .iter()
        .map(|node| {
            // Threads decide which job joins first.
            let mut jobs = node.jobs.clone();
            jobs.sort();
            (node.name.as_str(), jobs.join(","), node.activity)
        })
        .collect();
    assert_eq!(
        nodes,
        [
            ("slow", "a,b".to_owned(), Activity::Executing),
            ("top", "a".to_owned(), Activity::Waiting),
        ]
    );
    assert_eq!(
        graph.nodes[1].waits_for,
        std::slice::from_ref(&slow.vertex.digest)
    );
    assert!(graph.nodes[0].waits_for.is_empty() && !graph.has_more);
    gate.add_permits(1);
    builds.await.0.unwrap();
    assert_eq!(world.solver.waits().nodes, []);
}
