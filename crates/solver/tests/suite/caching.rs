//! Which ops run and which results are loaded: keys, results, remote caches, chains.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use oci::Digest;
use solver::export::{self, Backlinks, ExportMode, RootResults};
use solver::{CacheManager, KeyStore as _};

use crate::world::*;

#[tokio::test]
async fn an_op_that_ran_before_does_not_run_again() {
    let base = op("base", &[]);
    let app = op("app", &[&op("dep", &[&base])]);
    let copy = |content| {
        let context = vertex(
            Fake {
                name: "context",
                key: content,
                content: if content == "B" { "files" } else { content },
                ..Fake::default()
            },
            &[],
        );
        vertex(
            Fake {
                name: "copy",
                slow: true,
                ..Fake::default()
            },
            &[&context],
        )
    };
    let select = |from: &'static str, selector| {
        vertex(
            Fake {
                name: "select",
                selector,
                ..Fake::default()
            },
            &[&op(from, &[])],
        )
    };
    let cases: Vec<(&str, Vec<(Edge, &str)>)> = vec![
        (
            "same definition",
            vec![
                (app.clone(), "exec base | exec dep | exec app"),
                (app.clone(), ""),
            ],
        ),
        (
            "a longer one",
            vec![
                (op("dep", &[&base]), "exec base | exec dep"),
                (app.clone(), "exec app"),
                (op("base", &[]), ""),
            ],
        ),
        (
            "other definition, equal content",
            vec![
                (copy("files"), "exec context | exec copy"),
                (copy("B"), "exec context"),
                (copy("B"), ""),
            ],
        ),
        (
            "other content",
            vec![
                (copy("files"), "exec context | exec copy"),
                (copy("C"), "exec context | exec copy"),
                (copy("files"), ""),
            ],
        ),
        (
            "selectors tell parts of one input apart",
            vec![
                (select("a", "x"), "exec a | exec select"),
                (select("a", "y"), "exec select"),
                (select("a", "x"), ""),
            ],
        ),
        (
            "a vertex that ignores the cache runs, and what follows from it",
            vec![
                (app.clone(), "exec base | exec dep | exec app"),
                (ignoring(&app), "exec app"),
                (
                    op("app", &[&ignoring(&op("dep", &[&base]))]),
                    "exec dep | exec app",
                ),
                (app.clone(), ""),
            ],
        ),
        (
            "random keys never match",
            vec![
                (
                    vertex(
                        Fake {
                            name: "r",
                            key: "random:1",
                            ..Fake::default()
                        },
                        &[],
                    ),
                    "exec r",
                ),
                (
                    vertex(
                        Fake {
                            name: "r",
                            key: "random:2",
                            ..Fake::default()
                        },
                        &[],
                    ),
                    "exec r",
                ),
            ],
        ),
    ];
    for (name, builds) in cases {
        let world = world();
        for (edge, want) in builds {
            let (built, ran) = world.run(&edge).await;
            built.unwrap();
            assert_eq!(ran, want, "{name}");
        }
    }
}

#[tokio::test]
async fn results_that_fail_to_load_or_were_pruned_are_computed_again() {
    let world = world();
    let app = op("app", &[&op("base", &[])]);
    assert_eq!(world.run(&app).await.1, "exec base | exec app");
    for id in world.results.ids() {
        world.results.remove(&id);
    }
    assert_eq!(world.run(&app).await.1, "exec base | exec app");
    assert_eq!(world.run(&app).await.1, "");
}

#[tokio::test]
async fn keys_and_results_outlive_the_solver_and_keys_without_results_go() {
    let first = world();
    let app = op("app", &[&op("base", &[])]);
    assert_eq!(first.run(&app).await.1, "exec base | exec app");
    let second = open(
        Arc::clone(&first.keys),
        Arc::clone(&first.results),
        Arc::clone(&first.ids),
    );
    assert_eq!(second.run(&app).await.1, "");
    for id in first.results.ids() {
        first.results.remove(&id);
    }
    assert!(!first.keys.keys().unwrap().is_empty());
    let (keys, results) = (Arc::clone(&first.keys), Arc::clone(&first.results));
    CacheManager::<Test>::open("local", keys as _, results as _);
    while !first.keys.keys().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn results_of_a_remote_cache_are_loaded_and_saved() {
    let (remote, local) = (world(), world());
    local.ids.store(1000, Ordering::SeqCst);
    let app = op("app", &[&op("base", &[])]);
    remote.run(&app).await.0.unwrap();
    let source = CacheManager::new(
        "remote",
        Arc::clone(&remote.keys) as _,
        Arc::clone(&remote.results) as _,
    );
    let job = local.job("a");
    let built = job.build_from(app.clone(), &[source]).await.unwrap();
    assert_eq!(
        (built.result.1.as_str(), local.log.take().as_str()),
        ("app(base())", "")
    );
    drop(job);
    assert_eq!(local.run(&app).await.1, "");
}

#[tokio::test]
async fn the_chain_of_a_result_can_be_exported() {
    let world = world();
    let job = world.job("a");
    let built = job
        .build(op("app", &[&op("dep", &[&op("base", &[])])]))
        .await
        .unwrap();
    let chains = export::export(
        &built.keys,
        export::ExportOptions {
            mode: ExportMode::Max,
            roots: RootResults::LeftOut,
            backlinks: Backlinks::Ignored,
        },
    )
    .unwrap();
    let shape: Vec<_> = chains
        .records
        .iter()
        .map(|r| {
            (
                r.inputs
                    .clone()
                    .concat()
                    .iter()
                    .map(|l| l.record)
                    .collect::<BTreeSet<_>>(),
                r.results.len(),
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            (BTreeSet::new(), 0),
            (BTreeSet::from([0]), 1),
            (BTreeSet::from([1]), 1)
        ]
    );
    assert_eq!(
        chains.records[2].digest,
        solver::root_key(&Digest::sha256("app"), 0)
    );
    assert_eq!(chains.tops, [2]);
    assert_eq!(job.ops(&built.vertex).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_chains_cost_little_and_overflow_nothing() {
    let world = world();
    let mut edge = op("base", &[]);
    for _ in 0..2000 {
        edge = op("step", &[&edge]);
    }
    let started = task::clock::monotonic();
    let (built, _) = world.run(&edge).await;
    built.unwrap();
    let cold = started.elapsed();
    let started = task::clock::monotonic();
    assert_eq!(world.run(&edge).await.1, "");
    let warm = started.elapsed();
    let job = world.job("export");
    let built = job.build(edge).await.unwrap();
    let chains = export::export(
        &built.keys,
        export::ExportOptions {
            mode: ExportMode::Max,
            roots: RootResults::Exported,
            backlinks: Backlinks::Followed,
        },
    );
    assert!(chains.unwrap().records.len() > 2000);

    assert!(
        cold < Duration::from_secs(10) && warm < Duration::from_secs(10),
        "cold {cold:?}, all known {warm:?}"
    );
}
