use std::time::UNIX_EPOCH;

use super::*;
use crate::chains::ChainResult;
use crate::fixture::{MemoryPlace, Plain, context, digest, result as dated, way};

fn result(layers: &[&str]) -> Vec<ChainResult> {
    let layers = layers
        .iter()
        .map(|l| Arc::new(Descriptor::new("", digest(l), 1)));
    vec![ChainResult {
        created: UNIX_EPOCH,
        layers: layers.collect(),
    }]
}

#[test]
fn keys_are_found_by_links_and_results_come_with_those_below() {
    let mut chains = RecordChains::default();
    let add = |chains: &mut RecordChains, map: &str, ways: &[(usize, &str)], results| {
        let inputs: Vec<_> = ways
            .iter()
            .map(|(at, s)| vec![(*at, (*s).to_owned())])
            .collect();
        let key = root_key(&digest(map), 0);
        chains.add(&key, &inputs, results).unwrap().unwrap()
    };
    let base = add(&mut chains, "base", &[], Vec::new());
    let run = add(&mut chains, "run", &[(base, "")], result(&["a"]));
    let selected = digest("selected");
    add(
        &mut chains,
        "copy",
        &[(run, selected.as_str())],
        result(&["a", "b"]),
    );
    let keys = ImportedKeys::new(&chains);
    let link = |map: &str, selector: Option<&Digest>| KeyLink {
        input: 0,
        output: 0,
        digest: digest(map),
        selector: selector.cloned(),
    };
    let root = root_key(&digest("base"), 0).to_string();
    assert!(keys.exists(&root).unwrap());
    let run = keys.links(&root, &link("run", None)).unwrap();
    assert_eq!(run.len(), 1);
    assert_eq!(keys.links(&run[0], &link("copy", None)).unwrap(), [""; 0]);
    let copy = keys.links(&run[0], &link("copy", Some(&selected))).unwrap();
    let results = keys.results(&copy[0]).unwrap();
    let mut parts = keys.parts(&results[0].id);
    parts.sort_by_key(|p| p.1);
    assert_eq!(parts, [(run[0].clone(), 1), (copy[0].clone(), 2)]);
    let (from, way) = keys.backlinks(&copy[0]).unwrap().remove(0);
    assert_eq!(
        (from, way.digest),
        (run[0].clone(), root_key(&digest("copy"), 0))
    );
}

#[test]
fn imported_keys_do_not_change_and_equal_caches_have_equal_ids() {
    let keys = || {
        let mut chains = RecordChains::default();
        let base = chains.add(&digest("base"), &[], vec![]).unwrap().unwrap();
        let results = vec![dated(1, &["a"]), dated(2, &["a"]), dated(1, &["b"])];
        chains.add(&digest("run"), &[way(base)], results).unwrap();
        ImportedKeys::new(&chains)
    };
    let keys = [keys(), keys()];
    let names = keys.each_ref().map(|keys| keys.keys().unwrap());
    assert_eq!(names[0], names[1]);
    let [keys, _] = keys;
    let run = names[0]
        .iter()
        .find(|name| **name != digest("base").to_string())
        .unwrap();
    // The id of a result is made of its layers, so the first one with the same layers is kept.
    let results = keys.results(run).unwrap();
    assert_eq!(results.len(), 2);
    let stored = &results[0];
    assert_eq!(keys.load(run, &stored.id).unwrap().as_ref(), Some(stored));
    assert_eq!(keys.load(run, "other").unwrap(), None);
    assert_eq!(
        &keys.keys_of_result(&stored.id).unwrap(),
        std::slice::from_ref(run)
    );
    assert!(keys.keys_of_result("other").unwrap().is_empty());
    let link = KeyLink {
        input: 0,
        output: 0,
        digest: digest("new"),
        selector: None,
    };
    keys.add_link(run, &link, "new").unwrap();
    keys.add_result("new", stored).unwrap();
    keys.release(&stored.id).unwrap();
    assert_eq!(keys.keys().unwrap(), names[0]);
    assert!(!keys.has_link(run, &link, "new").unwrap());
    assert_eq!(keys.results(run).unwrap(), results);
    assert!(!keys.exists("new").unwrap());
    assert!(keys.results("new").unwrap().is_empty() && keys.backlinks("new").unwrap().is_empty());
}

#[test]
fn a_link_is_found_only_by_its_own_input_output_digest_and_selector() {
    let mut chains = RecordChains::default();
    let left = chains.add(&digest("left"), &[], vec![]).unwrap().unwrap();
    let right = chains.add(&digest("right"), &[], vec![]).unwrap().unwrap();
    let selected = vec![(right, digest("part").to_string())];
    let key = root_key(&digest("join"), 2);
    chains
        .add(&key, &[way(left), selected], result(&["a"]))
        .unwrap();
    let keys = ImportedKeys::new(&chains);
    let part = digest("part");
    for (from, input, output, map, selector, is_there) in [
        ("left", 0, 2, "join", None, true),
        ("right", 1, 2, "join", Some(&part), true),
        ("right", 1, 2, "join", None, false),
        ("left", 0, 2, "join", Some(&part), false),
        ("left", 1, 2, "join", None, false),
        ("left", 0, 0, "join", None, false),
        ("left", 0, 2, "run", None, false),
        ("other", 0, 2, "join", None, false),
    ] {
        let link = KeyLink {
            input,
            output,
            digest: digest(map),
            selector: selector.cloned(),
        };
        let targets = keys.links(digest(from).as_str(), &link).unwrap();
        assert_eq!(targets.len(), usize::from(is_there), "{from} {link:?}");
        for target in targets {
            assert!(
                keys.has_link(digest(from).as_str(), &link, &target)
                    .unwrap()
            );
            assert_eq!(keys.backlinks(&target).unwrap().len(), 2);
        }
    }
}

#[test]
fn a_layer_without_an_uncompressed_digest_is_refused() {
    let layer = |kind: &str| Descriptor::new(kind, digest("a"), 1);
    assert!(described(&layer(oci::media_type::OCI_LAYER_GZIP)).is_err());
    let plain = described(&layer(oci::media_type::OCI_LAYER)).unwrap();
    assert_eq!(plain.diff_id, digest("a"));
    let mut annotated_layer = layer(oci::media_type::OCI_LAYER_GZIP);
    for (key, value) in [
        (UNCOMPRESSED, digest("b").to_string()),
        (CREATED_AT, "2026-01-02T03:04:05Z".to_owned()),
        ("containerd.io/distribution.source.x", "y".to_owned()),
    ] {
        annotated_layer.annotations.insert(key.into(), value);
    }
    let annotated_layer = described(&annotated_layer).unwrap();
    assert_eq!(annotated_layer.diff_id, digest("b"));
    assert!(annotated_layer.created.is_some() && annotated_layer.descriptor.annotations.is_empty());
}

#[test]
fn malformed_annotations_of_a_layer_are_refused() {
    let annotated = |key: &str, value: &str| {
        let mut layer = Descriptor::new(oci::media_type::OCI_LAYER, digest("a"), 1);
        layer.urls = vec!["https://elsewhere/".into()];
        layer.annotations.insert(key.into(), value.into());
        described(&layer)
    };
    for (key, value, reason) in [
        (UNCOMPRESSED, "sha256:short", ""),
        (UNCOMPRESSED, "", ""),
        (CREATED_AT, "yesterday", "invalid time \"yesterday\""),
        (CREATED_AT, "", "invalid time \"\""),
    ] {
        let error = annotated(key, value).unwrap_err().to_string();
        assert!(error.contains(reason), "{key} {value}: {error}");
    }
    let described = annotated(DESCRIPTION, "RUN make").unwrap();
    assert_eq!(described.description, "RUN make");
    assert!(described.descriptor.urls.is_empty());
    let toc_layer = annotated(KEPT_ANNOTATIONS[0], "toc").unwrap();
    assert_eq!(toc_layer.descriptor.annotations.len(), 1);
    assert!(toc_layer.description.starts_with("imported sha256:"));
}

/// A cache of two steps, the second on top of the first, whose layers are at `place`.
fn cache(
    place: MemoryPlace,
    dir: &std::path::Path,
) -> (Arc<MemoryPlace>, Arc<CacheManager<Plain>>) {
    let (first, second) = (place.put_bytes(b"one"), place.put_bytes(b"two"));
    let mut chains = RecordChains::default();
    let result = |layers: Vec<Arc<Descriptor>>| ChainResult {
        created: UNIX_EPOCH,
        layers: layers.into(),
    };
    let base = chains.add(&digest("base"), &[], vec![]).unwrap().unwrap();
    let run = vec![result(vec![Arc::clone(&first)])];
    let run = chains
        .add(&digest("run"), &[way(base)], run)
        .unwrap()
        .unwrap();
    chains
        .add(
            &digest("top"),
            &[way(run)],
            vec![result(vec![first, second])],
        )
        .unwrap();
    let store = Store::open(store::Config::new(dir)).unwrap();
    let place = Arc::new(place);
    let parts = (store, SessionManager::new());
    let manager = manager("cache".into(), &chains, Arc::clone(&place) as _, parts);
    (place, manager)
}

/// The result of the upper step, and its key; the step below has a result too.
fn top(manager: &CacheManager<Plain>) -> (String, StoredResult) {
    let store = manager.store();
    let is_top = |key: &String| {
        let below = store.backlinks(key).unwrap();
        below
            .iter()
            .any(|(from, _)| !store.results(from).unwrap().is_empty())
    };
    let key = store.keys().unwrap().into_iter().find(is_top).unwrap();
    let stored = store.results(&key).unwrap().remove(0);
    (key, stored)
}

#[tokio::test]
async fn a_result_comes_with_those_below_and_is_downloaded_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (place, manager) = cache(MemoryPlace::default(), dir.path());
    let (key, stored) = top(&manager);
    let ctx = context();
    assert!(manager.results().exists(&stored.id));
    let loaded = manager.results().load_with_parents(&key, &stored, &ctx);
    let loaded = loaded.await.unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded[0].0, key);
    let lengths: Vec<_> = loaded
        .iter()
        .map(|(_, result)| result.as_ref().unwrap().chain().len())
        .collect();
    assert_eq!(lengths, [2, 1]);
    assert!(
        loaded
            .iter()
            .all(|(_, result)| result.as_ref().unwrap().is_lazy())
    );
    assert_eq!(place.log(), [""; 0]);
    let alone = manager.results().load(&stored, &context()).await.unwrap();
    assert_eq!(alone.unwrap().id(), loaded[0].1.as_ref().unwrap().id());
}

#[tokio::test]
async fn layers_in_a_client_s_folder_are_downloaded_when_a_result_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (place, manager) = cache(MemoryPlace::temporary(), dir.path());
    let (key, stored) = top(&manager);
    let ctx = context();
    let loaded = manager.results().load_with_parents(&key, &stored, &ctx);
    loaded.await.unwrap();
    assert_eq!(place.log().len(), 2);
}

#[tokio::test]
async fn a_layer_that_the_client_has_lost_is_an_error_of_the_load() {
    let dir = tempfile::tempdir().unwrap();
    let (place, manager) = cache(MemoryPlace::temporary(), dir.path());
    place.lose_layers();
    let (key, stored) = top(&manager);
    let ctx = context();
    let loaded = manager.results().load_with_parents(&key, &stored, &ctx);
    let error = loaded.await.unwrap_err().to_string();
    assert!(error.contains("is gone"), "{error}");
}

#[tokio::test]
async fn an_imported_cache_cannot_be_changed_and_unknown_results_are_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let (_, manager) = cache(MemoryPlace::default(), dir.path());
    let saved = manager.results().save(&None, UNIX_EPOCH);
    assert_eq!(saved.unwrap_err().to_string(), "importer is immutable");
    let unknown = StoredResult {
        id: "x".into(),
        created_at: UNIX_EPOCH,
    };
    assert!(!manager.results().exists("x"));
    let error = manager.results().load(&unknown, &context()).await;
    assert_eq!(error.unwrap_err().to_string(), "not found");
}
