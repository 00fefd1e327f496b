//! Cache records that a build exports.

use std::sync::Arc;

use oci::Digest;
use solver::export::{self, Backlinks, Chains, ExportMode, ExportOptions, RootResults};
use solver::{CacheManager, root_key};

use crate::world::*;

fn options(mode: ExportMode) -> ExportOptions {
    ExportOptions {
        mode,
        roots: RootResults::LeftOut,
        backlinks: Backlinks::Ignored,
    }
}

/// Builds an edge in a job of its own and exports its keys.
async fn exported(world: &World, edge: &Edge, options: ExportOptions) -> Chains<Test> {
    let job = world.job("exporting");
    let built = job.build(edge.clone()).await.unwrap();
    export::export(&built.keys, options).unwrap()
}

/// Each record by name: its inputs, and its results, in brackets those that must have blobs already.
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
async fn the_mode_decides_which_results_need_new_blobs() {
    for (mode, roots, expected) in [
        (
            ExportMode::Max,
            RootResults::LeftOut,
            "base<> dep<base>r app<dep>r",
        ),
        (
            ExportMode::Max,
            RootResults::Exported,
            "base<>r dep<base>r app<dep>r",
        ),
        (
            ExportMode::Min,
            RootResults::LeftOut,
            "base<> dep<base>(r) app<dep>r",
        ),
        (
            ExportMode::Min,
            RootResults::Exported,
            "base<>(r) dep<base>(r) app<dep>r",
        ),
        (
            ExportMode::RemoteOnly,
            RootResults::LeftOut,
            "base<> dep<base>(r) app<dep>(r)",
        ),
    ] {
        let world = world();
        let options = ExportOptions {
            roots,
            ..options(mode)
        };
        // Computed and loaded results are exported alike.
        for _ in 0..2 {
            let chains = exported(&world, &chain(), options).await;
            assert_eq!(shape(&chains, NAMES), expected, "{mode:?} {roots:?}");
            let last = chains.records.len() - 1;
            assert_eq!(chains.tops, [last]);
        }
    }
}

#[tokio::test]
async fn a_step_that_is_excluded_from_export_is_a_record_without_a_result() {
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
    let chains = exported(&world, &app, options(ExportMode::Max)).await;
    assert_eq!(shape(&chains, NAMES), "base<> dep<base> app<dep>r");
}

#[tokio::test]
async fn a_step_that_reads_content_has_links_from_the_definition_and_from_the_content() {
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
    let chains = exported(&world, &copy, options(ExportMode::Max)).await;
    // The record of the content has a digest of no op.
    assert_eq!(shape(&chains, NAMES), "context<> ?<> copy<context*|?>r");
    let content = root_key(&Digest::sha256("files"), -1);
    assert_eq!(chains.records[1].digest, content);
}

#[tokio::test]
async fn a_record_that_two_steps_have_as_input_is_exported_once() {
    let world = world();
    let base = op("base", &[]);
    let join = op("join", &[&op("left", &[&base]), &op("right", &[&base])]);
    let chains = exported(&world, &join, options(ExportMode::Max)).await;
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
    // Each side has its own key for the base, and the export has one record for both.
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
    for backlinks in [Backlinks::Ignored, Backlinks::Followed] {
        let options = ExportOptions {
            backlinks,
            ..options(ExportMode::Max)
        };
        let chains = exported(&world, &join, options).await;
        for (at, record) in chains.records.iter().enumerate() {
            assert!(record.inputs.iter().all(|ways| !ways.is_empty()));
            assert!(record.inputs.iter().flatten().all(|way| way.record < at));
        }
    }
}

#[tokio::test]
async fn results_of_an_imported_cache_are_exported_from_there() {
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
    let chains = export::export(&built.keys, options(ExportMode::Max)).unwrap();
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
async fn a_pruned_result_is_left_out_of_the_export() {
    let world = world();
    let job = world.job("a");
    let built = job.build(chain()).await.unwrap();
    for id in world.results.ids() {
        solver::KeyStore::release(&*world.keys, &id).unwrap();
    }
    let chains = export::export(&built.keys, options(ExportMode::Max)).unwrap();
    assert!(
        chains
            .records
            .iter()
            .all(|record| record.results.is_empty())
    );
}
