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

struct Place {
    manager: Arc<CacheManager<Plain>>,
    keys: Arc<MemoryKeyStore>,
    results: Arc<MemoryResults<u64>>,
}

fn place(id: &str) -> Place {
    let keys = Arc::new(MemoryKeyStore::new());
    let results = Arc::new(MemoryResults::new(u64::to_string));
    let manager = CacheManager::new(id, Arc::clone(&keys) as _, Arc::clone(&results) as _);
    Place {
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

impl Place {
    fn save(&self, key: &Key, result: u64) -> CacheRecord<Plain> {
        self.manager.save(key, &result, at(result)).unwrap()
    }

    /// The ids of the keys of an output that `deps` lead to.
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
fn a_root_key_is_the_digest_of_what_it_is_made_of_but_for_random_ones() {
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
fn a_root_key_is_known_when_a_result_hangs_on_it_or_another_key_follows_from_it() {
    let place = place("local");
    assert!(place.query(&[], 0, "base", 0).is_empty());
    let base = root("base");
    let run = over("run", 0, vec![vec![dep(&base, "")]]);
    place.save(&run, 1);
    let id = root_key(&Digest::sha256("base"), 0).to_string();
    assert_eq!(place.query(&[], 0, "base", 0), [id]);
    assert!(place.query(&[], 0, "base", 1).is_empty());
    assert!(place.query(&[], 0, "run", 0).is_empty(), "it has an input");
}

#[test]
fn a_key_is_found_by_each_part_of_the_way_to_it_and_by_no_other_way() {
    let place = place("local");
    let (left, right) = (root("left"), root("right"));
    let join = over(
        "join",
        1,
        vec![vec![dep(&left, "")], vec![dep(&right, "part")]],
    );
    let record = place.save(&join, 1);
    let id = place.manager.id_of(&join).unwrap();
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
        let found = place.query(&[dep(key, selector)], input, name, output);
        let expected = if is_found {
            vec![id.clone()]
        } else {
            Vec::new()
        };
        assert_eq!(
            found, expected,
            "{key:?} {selector} {input} {name} {output}"
        );
    }
    // A key that is made anew of the same inputs is the same.
    let again = over(
        "join",
        1,
        vec![vec![dep(&left, "")], vec![dep(&right, "part")]],
    );
    assert_eq!(place.manager.id_of(&again).unwrap(), id);
    let other = over(
        "join",
        1,
        vec![vec![dep(&left, "")], vec![dep(&root("other"), "part")]],
    );
    assert_ne!(place.manager.id_of(&other).unwrap(), id);
}

#[test]
fn keys_that_are_asked_for_together_lead_to_the_same_from_then_on() {
    let place = place("local");
    let (definition, content) = (root("definition"), root("content"));
    let copy = over("copy", 0, vec![vec![dep(&content, "")]]);
    place.save(&copy, 1);
    assert!(
        place
            .query(&[dep(&definition, "src")], 0, "copy", 0)
            .is_empty()
    );
    let both = [dep(&definition, "src"), dep(&content, "")];
    let found = place.query(&both, 0, "copy", 0);
    assert_eq!(found.len(), 1);
    assert_eq!(place.query(&[dep(&definition, "src")], 0, "copy", 0), found);
    assert!(
        place
            .query(&[dep(&definition, "")], 0, "copy", 0)
            .is_empty()
    );
}

#[test]
fn results_that_are_gone_are_forgotten_when_they_are_met_and_their_keys_with_them() {
    let place = place("local");
    let base = root("base");
    let run = over("run", 0, vec![vec![dep(&base, "")]]);
    let (old, new) = (place.save(&run, 1), place.save(&run, 2));
    let id = place.manager.id_of(&run).unwrap();
    let records = place.manager.records(&id, &run, true).unwrap();
    assert_eq!(records.len(), 2);
    place.results.remove(&old.id);
    let records = place.manager.records(&id, &run, true).unwrap();
    assert_eq!(
        records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(),
        ["2"]
    );
    place.results.remove(&new.id);
    assert!(place.manager.records(&id, &run, true).unwrap().is_empty());
    assert!(
        place.keys.keys().unwrap().is_empty(),
        "nothing leads anywhere"
    );
}

#[test]
fn a_start_releases_results_that_are_gone_and_keeps_what_leads_to_those_that_are_there() {
    let place = place("local");
    let base = root("base");
    let run = over("run", 0, vec![vec![dep(&base, "")]]);
    let top = over("top", 0, vec![vec![dep(&run, "")]]);
    place.save(&run, 1);
    place.save(&top, 2);
    place.results.remove("1");
    place.manager.release_unreferenced().unwrap();
    assert_eq!(place.keys.keys().unwrap().len(), 3, "the way to the top");
    place.results.remove("2");
    place.manager.release_unreferenced().unwrap();
    assert!(place.keys.keys().unwrap().is_empty());
}

#[tokio::test]
async fn a_record_that_was_pruned_before_it_is_loaded_is_an_error() {
    let place = place("local");
    let run = over("run", 0, vec![vec![dep(&root("base"), "")]]);
    let record = place.save(&run, 7);
    let vertex = Vertex::new(Digest::sha256("v"), "v", Arc::new(()));
    let ctx = OpCtx::detached(Arc::new(vertex), Arc::new(NullSink), Vec::new());
    let loaded = place.manager.load(&record, &ctx).await.unwrap();
    assert_eq!(loaded[0].2, 7);
    place.keys.release(&record.id).unwrap();
    let error = place.manager.load(&record, &ctx).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to load deleted cache");
}

#[test]
fn a_key_that_two_places_know_has_the_records_of_both_and_the_machines_own_wins() {
    let (local, remote) = (place("local"), place("remote"));
    let base = root("base");
    local.save(&base, 1);
    remote.save(&base, 1);
    remote.save(&base, 2);
    let managers = Managers {
        main: Arc::clone(&local.manager),
        others: vec![Arc::clone(&remote.manager)],
    };
    let keys = managers.query(&[], 0, &Digest::sha256("base"), 0).unwrap();
    assert_eq!(keys.len(), 1);
    let records = managers.records(&keys[0]).unwrap();
    let from: Vec<_> = records.iter().map(|r| (r.id.as_str(), r.local)).collect();
    assert_eq!(from, [("1", true), ("2", false)]);
    let only_remote = Managers {
        main: Arc::clone(&place("local").manager),
        others: vec![Arc::clone(&remote.manager)],
    };
    let keys = only_remote
        .query(&[], 0, &Digest::sha256("base"), 0)
        .unwrap();
    assert_eq!(only_remote.records(&keys[0]).unwrap().len(), 2);
}

#[test]
fn the_newest_record_is_preferred_and_of_equally_new_ones_that_of_another_place() {
    let key = root("base");
    let place = place("local");
    let record = |id: &str, seconds, local| CacheRecord {
        id: id.to_owned(),
        created_at: at(seconds),
        local,
        manager: Arc::clone(&place.manager),
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
fn names_that_nobody_has_used_are_used_by_nobody_else() {
    let names: BTreeSet<String> = (0..1_000).map(|_| random_id()).collect();
    assert_eq!(names.len(), 1_000);
    assert!(names.iter().all(|name| name.len() == 32));
}

#[test]
fn keys_of_a_long_chain_are_named_and_saved_on_a_small_stack() {
    let work = || {
        let place = place("local");
        let mut key = root("base");
        for _ in 0..5_000 {
            key = over("step", 0, vec![vec![dep(&key, "")]]);
        }
        place.save(&key, 1);
        assert_eq!(place.keys.keys().unwrap().len(), 5_001);
    };
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(work).unwrap().join().unwrap();
}
