//! What of a build can be exported as cache records.

use std::sync::Arc;

use oci::Digest;
use solver::export::{self, Chains, Mode, Options};
use solver::{CacheManager, root_key};

use crate::world::*;

fn options(mode: Mode) -> Options {
    Options {
        mode,
        roots: false,
        ignore_backlinks: true,
    }
}

/// Builds an edge in a job of its own and exports what it is known by.
async fn exported(world: &World, edge: &Edge, options: Options) -> Chains<Test> {
    let job = world.job("exporting");
    let built = job.build(edge.clone()).await.unwrap();
    export::export(&built.keys, options).unwrap()
}

/// Each record by name: what it comes from, and its results, in brackets those that must have blobs already.
fn shape(chains: &Chains<Test>, names: &[&'static str]) -> String {
    let name = |digest: &Digest| {
        let of = |name: &&&str| root_key(&Digest::sha256(**name), 0) == *digest;
        names.iter().find(of).map_or("?", |name| *name)
    };
    let records = chains.records.iter().map(|record| {
        let inputs: Vec<String> = record
            .inputs
            .iter()
            .map(|ways| {
                let ways = ways.iter().map(|way| {
                    let selected = if way.selector.is_some() { "*" } else { "" };
                    let from = name(&chains.records[way.record].digest);
                    format!("{from}{selected}")
                });
                ways.collect::<Vec<_>>().join("|")
            })
            .collect();
        let results: Vec<&str> = record
            .results
            .iter()
            .map(|result| if result.only_with_blobs { "(r)" } else { "r" })
            .collect();
        format!(
            "{}<{}>{}",
            name(&record.digest),
            inputs.join(","),
            results.join("")
        )
    });
    records.collect::<Vec<_>>().join(" ")
}

const NAMES: &[&str] = &[
    "base", "dep", "app", "context", "copy", "left", "right", "join",
];

fn chain() -> Edge {
    op("app", &[&op("dep", &[&op("base", &[])])])
}

#[tokio::test]
async fn a_mode_decides_which_results_have_to_be_made_for_the_export() {
    for (mode, roots, expected) in [
        (Mode::Max, false, "base<> dep<base>r app<dep>r"),
        (Mode::Max, true, "base<>r dep<base>r app<dep>r"),
        (Mode::Min, false, "base<> dep<base>(r) app<dep>r"),
        (Mode::Min, true, "base<>(r) dep<base>(r) app<dep>r"),
        (Mode::RemoteOnly, false, "base<> dep<base>(r) app<dep>(r)"),
    ] {
        let world = world();
        let options = Options {
            roots,
            ..options(mode)
        };
        // What was made just now and what was found are exported alike.
        for _ in 0..2 {
            let chains = exported(&world, &chain(), options).await;
            assert_eq!(shape(&chains, NAMES), expected, "{mode:?} {roots}");
            let last = chains.records.len() - 1;
            assert_eq!(chains.tops, [last]);
        }
    }
}

#[tokio::test]
async fn a_step_that_the_client_keeps_out_of_exports_is_a_record_without_a_result() {
    let world = world();
    let dep = {
        let mut vertex = Vertex::clone(&op("dep", &[&op("base", &[])]).vertex);
        vertex.options.export_cache = Some(false);
        Edge {
            vertex: Arc::new(vertex),
            index: 0,
        }
    };
    let app = op("app", &[&dep]);
    world.run(&app).await.0.unwrap();
    let chains = exported(&world, &app, options(Mode::Max)).await;
    assert_eq!(shape(&chains, NAMES), "base<> dep<base> app<dep>r");
}

#[tokio::test]
async fn what_reads_content_follows_from_the_definition_and_from_the_content() {
    let world = world();
    let context = vertex(
        Fake {
            name: "context",
            content: "files",
            ..Fake::default()
        },
        &[],
    );
    let copy = vertex(
        Fake {
            name: "copy",
            slow: true,
            selector: "src",
            ..Fake::default()
        },
        &[&context],
    );
    let chains = exported(&world, &copy, options(Mode::Max)).await;
    // The content's record has a digest that no op has.
    assert_eq!(shape(&chains, NAMES), "context<> ?<> copy<context*|?>r");
    let content = root_key(&Digest::sha256("files"), -1);
    assert_eq!(chains.records[1].digest, content);
}

#[tokio::test]
async fn a_record_that_two_steps_stand_on_is_exported_once() {
    let world = world();
    let base = op("base", &[]);
    let join = op("join", &[&op("left", &[&base]), &op("right", &[&base])]);
    let chains = exported(&world, &join, options(Mode::Max)).await;
    let base = root_key(&Digest::sha256("base"), 0);
    let join = root_key(&Digest::sha256("join"), 0);
    let count = |digest: &Digest| {
        chains
            .records
            .iter()
            .filter(|r| r.digest == *digest)
            .count()
    };
    assert_eq!(count(&join), 1);
    // Each side has its own key for the base, of which the document makes one record.
    assert!((1..=2).contains(&count(&base)), "{}", shape(&chains, NAMES));
    for record in &chains.records {
        for way in record.inputs.iter().flatten() {
            assert!(way.record < chains.records.len());
        }
    }
}

#[tokio::test]
async fn records_come_after_those_they_follow_from() {
    let world = world();
    let base = op("base", &[]);
    let left = op("left", &[&base]);
    let join = op("join", &[&left, &op("right", &[&base, &left])]);
    for ignore_backlinks in [true, false] {
        let options = Options {
            ignore_backlinks,
            ..options(Mode::Max)
        };
        let chains = exported(&world, &join, options).await;
        for (at, record) in chains.records.iter().enumerate() {
            assert!(record.inputs.iter().all(|ways| !ways.is_empty()));
            assert!(record.inputs.iter().flatten().all(|way| way.record < at));
        }
    }
}

#[tokio::test]
async fn results_of_a_cache_that_was_read_are_exported_from_there() {
    let (remote, local) = (world(), world());
    local.ids.store(1_000, std::sync::atomic::Ordering::SeqCst);
    remote.run(&chain()).await.0.unwrap();
    let source = CacheManager::new(
        "remote",
        Arc::clone(&remote.keys) as _,
        Arc::clone(&remote.results) as _,
    );
    let job = local.job("a");
    let built = job.build_from(chain(), &[source]).await.unwrap();
    let chains = export::export(&built.keys, options(Mode::Max)).unwrap();
    let places: Vec<&str> = chains
        .records
        .iter()
        .flat_map(|record| &record.results)
        .map(|result| result.manager.id())
        .collect();
    assert!(
        !places.is_empty() && places.contains(&"remote"),
        "{places:?}"
    );
}

#[tokio::test]
async fn a_result_that_was_pruned_meanwhile_is_left_out_of_the_export() {
    let world = world();
    let job = world.job("a");
    let built = job.build(chain()).await.unwrap();
    for id in world.results.ids() {
        solver::KeyStore::release(&*world.keys, &id).unwrap();
    }
    let chains = export::export(&built.keys, options(Mode::Max)).unwrap();
    assert!(
        chains
            .records
            .iter()
            .all(|record| record.results.is_empty())
    );
}
