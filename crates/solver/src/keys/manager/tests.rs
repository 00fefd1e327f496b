use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::domain::ResultsOnly;
use crate::domain::op::NullSink;
use crate::domain::vertex::Vertex;
use crate::keys::cachekey::KeyInfo;
use crate::keys::export::Exporter;
use crate::keys::memory::{MemoryKeyStore, MemoryResults};

type Plain = ResultsOnly<u64>;
type Key = Arc<CacheKey<Plain>>;

struct TestStore {
    manager: Arc<CacheManager<Plain>>,
    keys: Arc<MemoryKeyStore>,
    results: Arc<MemoryResults<u64>>,
}

fn store(id: &str) -> TestStore {
    let keys = Arc::new(MemoryKeyStore::new());
    let results = Arc::new(MemoryResults::new(u64::to_string));
    let manager = CacheManager::new(id, Arc::clone(&keys) as _, Arc::clone(&results) as _);
    TestStore {
        manager,
        keys,
        results,
    }
}

fn root(name: &str) -> Key {
    Arc::new(CacheKey::new(Digest::sha256(name), 0, None, Vec::new()))
}

fn dep(key: &Key, selector: &str) -> DepKey<Plain> {
    DepKey {
        selector: (!selector.is_empty()).then(|| Digest::sha256(selector)),
        key: KeyInfo {
            key: Arc::clone(key),
            exporter: Exporter::bare(key),
        },
    }
}

fn over(name: &str, output: i64, deps: Vec<Vec<DepKey<Plain>>>) -> Key {
    Arc::new(CacheKey::new(Digest::sha256(name), output, None, deps))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

impl TestStore {
    fn save(&self, key: &Key, result: u64) -> CacheRecord<Plain> {
        self.manager.save(key, &result, at(result)).unwrap()
    }

    /// Ids of the keys of an output that `deps` lead to.
    fn query(
        &self,
        deps: &[DepKey<Plain>],
        input: usize,
        name: &str,
        output: usize,
    ) -> Vec<String> {
        let keys = self
            .manager
            .query(deps, input, &Digest::sha256(name), output);
        keys.unwrap()
            .iter()
            .map(|key| key.id().to_owned())
            .collect()
    }
}

#[test]
fn a_root_key_is_a_digest_of_cache_map_and_output_unless_it_is_random() {
    let digest = Digest::sha256("x");
    assert_eq!(root_key(&digest, 0), Digest::sha256(format!("{digest}@0")));
    assert_eq!(
        root_key(&digest, -1),
        Digest::sha256(format!("{digest}@-1"))
    );
    assert_eq!(root_key(&Digest::key("random:7"), 3).as_str(), "random:7");
    // Recorded: the digest of no bytes, as the first output and as content.
    let empty = Digest::sha256("");
    assert_eq!(empty.hex().get(..8), Some("e3b0c442"));
    assert_ne!(root_key(&empty, 0), root_key(&empty, 1));
}

#[test]
fn a_root_key_exists_if_it_has_a_result_or_a_link() {
    let store = store("local");
    assert!(store.query(&[], 0, "base", 0).is_empty());
    let base = root("base");
    let run = over("run", 0, vec![vec![dep(&base, "")]]);
    store.save(&run, 1);
    let id = root_key(&Digest::sha256("base"), 0).to_string();
    assert_eq!(store.query(&[], 0, "base", 0), [id]);
    assert!(store.query(&[], 0, "base", 1).is_empty());
    assert!(store.query(&[], 0, "run", 0).is_empty(), "it has an input");
}

#[test]
fn a_key_is_found_by_each_of_its_links_and_by_no_other() {
    let store = store("local");
    let (left, right) = (root("left"), root("right"));
    let join = over(
        "join",
        1,
        vec![vec![dep(&left, "")], vec![dep(&right, "part")]],
    );
    let record = store.save(&join, 1);
    let id = store.manager.id_of(&join).unwrap();
    assert_eq!(record.id, "1");
    for (key, selector, input, name, output, is_found) in [
        (&left, "", 0, "join", 1, true),
        (&right, "part", 1, "join", 1, true),
        (&left, "", 1, "join", 1, false),
        (&left, "part", 0, "join", 1, false),
        (&right, "", 1, "join", 1, false),
        (&left, "", 0, "join", 0, false),
        (&left, "", 0, "run", 1, false),
        (&root("other"), "", 0, "join", 1, false),
    ] {
        let ids = store.query(&[dep(key, selector)], input, name, output);
        let expected = if is_found {
            vec![id.clone()]
        } else {
            Vec::new()
        };
        assert_eq!(ids, expected, "{key:?} {selector} {input} {name} {output}");
    }
    // An equal key of the same inputs has the same id.
    let again = over(
        "join",
        1,
        vec![vec![dep(&left, "")], vec![dep(&right, "part")]],
    );
    assert_eq!(store.manager.id_of(&again).unwrap(), id);
    let other_selectors = over(
        "join",
        1,
        vec![
            vec![dep(&left, "")],
            vec![dep(&root("other_selectors"), "part")],
        ],
    );
    assert_ne!(store.manager.id_of(&other_selectors).unwrap(), id);
}

#[test]
fn keys_that_are_looked_up_together_are_linked_to_the_same_keys() {
    let store = store("local");
    let (definition, content) = (root("definition"), root("content"));
    let copy = over("copy", 0, vec![vec![dep(&content, "")]]);
    store.save(&copy, 1);
    assert!(
        store
            .query(&[dep(&definition, "src")], 0, "copy", 0)
            .is_empty()
    );
    let dep_keys = [dep(&definition, "src"), dep(&content, "")];
    let ids = store.query(&dep_keys, 0, "copy", 0);
    assert_eq!(ids.len(), 1);
    assert_eq!(store.query(&[dep(&definition, "src")], 0, "copy", 0), ids);
    assert!(
        store
            .query(&[dep(&definition, "")], 0, "copy", 0)
            .is_empty()
    );
}

#[test]
fn pruned_results_are_released_when_a_look_up_finds_them_and_their_keys_with_them() {
    let store = store("local");
    let base = root("base");
    let run = over("run", 0, vec![vec![dep(&base, "")]]);
    let (old, new) = (store.save(&run, 1), store.save(&run, 2));
    let id = store.manager.id_of(&run).unwrap();
    let records = store.manager.records(&id, &run, true).unwrap();
    assert_eq!(records.len(), 2);
    store.results.remove(&old.id);
    let records = store.manager.records(&id, &run, true).unwrap();
    assert_eq!(
        records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(),
        ["2"]
    );
    store.results.remove(&new.id);
    assert!(store.manager.records(&id, &run, true).unwrap().is_empty());
    assert!(
        store.keys.keys().unwrap().is_empty(),
        "nothing leads anywhere"
    );
}

#[test]
fn opening_releases_pruned_results_and_keeps_the_chains_of_others() {
    let store = store("local");
    let base = root("base");
    let run = over("run", 0, vec![vec![dep(&base, "")]]);
    let top = over("top", 0, vec![vec![dep(&run, "")]]);
    store.save(&run, 1);
    store.save(&top, 2);
    store.results.remove("1");
    store.manager.release_unreferenced().unwrap();
    assert_eq!(store.keys.keys().unwrap().len(), 3, "the way to the top");
    store.results.remove("2");
    store.manager.release_unreferenced().unwrap();
    assert!(store.keys.keys().unwrap().is_empty());
}

#[tokio::test]
async fn a_record_that_was_pruned_before_it_is_loaded_is_an_error() {
    let store = store("local");
    let run = over("run", 0, vec![vec![dep(&root("base"), "")]]);
    let record = store.save(&run, 7);
    let vertex = Vertex::new(Digest::sha256("v"), "v", Arc::new(()));
    let ctx = OpCtx::detached(Arc::new(vertex), Arc::new(NullSink), Vec::new());
    let loaded = store.manager.load(&record, &ctx).await.unwrap();
    assert_eq!(loaded[0].2, 7);
    store.keys.release(&record.id).unwrap();
    let error = store.manager.load(&record, &ctx).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to load deleted cache");
}

#[test]
fn a_key_in_two_stores_has_the_records_of_both_and_the_machine_s_own_wins() {
    let (local, remote) = (store("local"), store("remote"));
    let base = root("base");
    local.save(&base, 1);
    remote.save(&base, 1);
    remote.save(&base, 2);
    let managers = Managers {
        main: Arc::clone(&local.manager),
        imported: vec![Arc::clone(&remote.manager)],
    };
    let keys = managers.query(&[], 0, &Digest::sha256("base"), 0).unwrap();
    assert_eq!(keys.len(), 1);
    let records = managers.records(&keys[0]).unwrap();
    let from: Vec<_> = records.iter().map(|r| (r.id.as_str(), r.local)).collect();
    assert_eq!(from, [("1", true), ("2", false)]);
    let only_remote = Managers {
        main: Arc::clone(&store("local").manager),
        imported: vec![Arc::clone(&remote.manager)],
    };
    let keys = only_remote
        .query(&[], 0, &Digest::sha256("base"), 0)
        .unwrap();
    assert_eq!(only_remote.records(&keys[0]).unwrap().len(), 2);
}

#[test]
fn the_newest_record_is_preferred_and_of_equally_new_ones_that_of_another_store() {
    let key = root("base");
    let store = store("local");
    let record = |id: &str, seconds, local| CacheRecord {
        id: id.to_owned(),
        created_at: at(seconds),
        local,
        manager: Arc::clone(&store.manager),
        key: Arc::clone(&key),
    };
    let mut records = [
        record("a", 1, true),
        record("d", 2, true),
        record("c", 2, true),
        record("e", 2, false),
        record("b", 3, true),
    ];
    records.sort_by(CacheRecord::order);
    let order: String = records.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(order, "becda");
}

#[test]
fn random_ids_are_unique() {
    let names: BTreeSet<String> = (0..1_000).map(|_| random_id()).collect();
    assert_eq!(names.len(), 1_000);
    assert!(names.iter().all(|name| name.len() == 32));
}

#[test]
fn keys_of_a_long_chain_are_saved_on_a_small_stack() {
    let work = || {
        let store = store("local");
        let mut key = root("base");
        for _ in 0..5_000 {
            key = over("step", 0, vec![vec![dep(&key, "")]]);
        }
        store.save(&key, 1);
        assert_eq!(store.keys.keys().unwrap().len(), 5_001);
    };
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(work).unwrap().join().unwrap();
}
