use std::sync::Arc;

use oci::Digest;

use super::*;
use crate::domain::ResultsOnly;
use crate::keys::cachekey::{DepKey, KeyInfo};
use crate::keys::export::Exporter;

type TestKey = Arc<CacheKey<ResultsOnly<()>>>;

fn root(name: &str, output: i64) -> TestKey {
    Arc::new(CacheKey::new(
        Digest::sha256(name),
        output,
        None,
        Vec::new(),
    ))
}

/// A key over inputs; each input has some keys with a selector.
fn over(name: &str, inputs: &[&[(&TestKey, &str)]]) -> TestKey {
    let deps = inputs.iter().map(|keys| {
        let keys = keys.iter().map(|(key, selector)| DepKey {
            selector: (!selector.is_empty()).then(|| Digest::sha256(selector)),
            key: KeyInfo {
                key: Arc::clone(key),
                exporter: Exporter::bare(key),
            },
        });
        keys.collect()
    });
    Arc::new(CacheKey::new(Digest::sha256(name), 0, None, deps.collect()))
}

fn none(_edge: EdgeId) -> bool {
    false
}

#[test]
fn an_edge_is_found_by_an_equal_key_and_by_no_other() {
    let (a, b) = (root("a", 0), root("b", 0));
    let registered = over("run", &[&[(&a, "")], &[(&b, "part")]]);
    for (key, is_found) in [
        (over("run", &[&[(&a, "")], &[(&b, "part")]]), true),
        // Equal keys of other values match too.
        (
            over("run", &[&[(&root("a", 0), "")], &[(&root("b", 0), "part")]]),
            true,
        ),
        // One matching key of an input is enough.
        (
            over("run", &[&[(&root("x", 0), ""), (&a, "")], &[(&b, "part")]]),
            true,
        ),
        (over("run", &[&[(&a, "")], &[(&b, "")]]), false),
        (over("run", &[&[(&a, "")], &[(&b, "other")]]), false),
        (over("run", &[&[(&b, "part")], &[(&a, "")]]), false),
        (
            over("run", &[&[(&a, "")], &[(&root("b", 1), "part")]]),
            false,
        ),
        (over("go", &[&[(&a, "")], &[(&b, "part")]]), false),
        (
            over("run", &[&[(&root("x", 0), "")], &[(&b, "part")]]),
            false,
        ),
        (root("run", 0), false),
    ] {
        let mut index = Index::default();
        assert_eq!(index.load_or_store(&registered, 1, none), None);
        let registered = index.load_or_store(&key, 2, none);
        assert_eq!(registered, is_found.then_some(1), "{key:?}");
    }
}

#[test]
fn roots_differ_by_digest_and_output_but_random_ones_by_digest_only() {
    let mut index = Index::default();
    for (edge, key) in (1..).zip([root("a", 0), root("a", 1), root("b", 0)]) {
        assert_eq!(index.load_or_store(&key, edge, none), None);
    }
    assert_eq!(index.load_or_store(&root("a", 1), 9, none), Some(2));
    assert_eq!(
        index.load_or_store(&root("b", 0), 3, none),
        None,
        "it is the edge itself"
    );
}

#[test]
fn an_edge_that_ignores_the_cache_replaces_one_that_does_not_but_is_not_replaced_by_it() {
    // Whether the first and the second edge ignore the cache, and whether the second is merged into the first.
    for (first, second, goes) in [
        (false, false, true),
        (true, false, true),
        (true, true, true),
        (false, true, false),
    ] {
        let mut index = Index::default();
        let ignores = |edge| [first, second][usize::try_from(edge).unwrap() - 1];
        assert_eq!(index.load_or_store(&root("a", 0), 1, ignores), None);
        let registered = index.load_or_store(&root("a", 0), 2, ignores);
        assert_eq!(registered, goes.then_some(1), "{first} {second}");
        // A third edge finds the edge that was registered last.
        let third = index.load_or_store(&root("a", 0), 3, none);
        assert_eq!(third, Some(if goes { 1 } else { 2 }));
    }
}

#[test]
fn items_that_only_lead_to_a_released_edge_are_removed_with_it() {
    let mut index = Index::default();
    let (a, b) = (root("a", 0), root("b", 0));
    let run = over("run", &[&[(&a, "")]]);
    let top = over("top", &[&[(&run, "")], &[(&b, "")]]);
    let sibling = over("sibling", &[&[(&a, "")]]);
    assert_eq!(index.load_or_store(&top, 1, none), None);
    assert_eq!(index.load_or_store(&sibling, 2, none), None);
    index.release(1);
    assert_eq!(
        index.load_or_store(&top, 3, none),
        None,
        "the first is gone"
    );
    assert_eq!(index.load_or_store(&sibling, 4, none), Some(2));
    index.release(3);
    index.release(2);
    index.release(2);
    assert!(index.is_empty(), "{index:?}");
}

#[test]
fn a_key_that_equals_its_own_input_is_not_kept_for_ever() {
    let mut index = Index::default();
    let key = root("a", 0);
    let same = over("a", &[&[(&key, "")]]);
    assert_eq!(index.load_or_store(&key, 1, none), None);
    assert_eq!(index.load_or_store(&same, 1, none), None);
    assert_eq!(
        index.load_or_store(&over("a", &[&[(&same, "")]]), 1, none),
        None
    );
    index.release(1);
    index.clear();
    assert!(index.is_empty());
}

#[test]
fn the_keys_of_a_long_chain_are_registered_on_a_small_stack() {
    let register = || {
        let mut key = root("base", 0);
        for _ in 0..20_000 {
            key = over("step", &[&[(&key, "")]]);
        }
        let mut index = Index::default();
        assert_eq!(index.load_or_store(&key, 1, none), None);
        assert_eq!(index.load_or_store(&key, 2, none), Some(1));
        index.release(1);
    };
    let small = std::thread::Builder::new().stack_size(256 << 10);
    small.spawn(register).unwrap().join().unwrap();
}
