//! [`KeyStore`]: keys, links and names of results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci::Digest;
use solver::{KeyLink, KeyStore, StoredResult, root_key};

/// Runs every case, each over a store that `open` has just made.
pub fn all(open: impl Fn() -> Arc<dyn KeyStore>) {
    for case in [
        an_unknown_key_is_nothing,
        results_hang_on_keys_and_are_told_apart,
        a_result_that_is_added_again_is_there_once,
        links_are_found_by_every_part_of_their_label,
        a_way_back_names_the_root_key_of_its_op,
        saving_adds_the_result_and_the_ways_to_it,
        releasing_a_result_takes_what_is_of_no_use_without_it,
        a_key_that_leads_elsewhere_or_has_another_result_stays,
        circles_of_links_end,
    ] {
        case(&*open());
    }
}

fn link(op: &str, input: usize, output: usize, selector: Option<&str>) -> KeyLink {
    KeyLink {
        input,
        output,
        digest: Digest::sha256(op),
        selector: selector.map(Digest::sha256),
    }
}

fn result(id: &str, seconds: u64) -> StoredResult {
    StoredResult {
        id: id.into(),
        created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
    }
}

fn ids(results: Vec<StoredResult>) -> BTreeSet<String> {
    results.into_iter().map(|result| result.id).collect()
}

fn set(words: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
    words.into_iter().map(Into::into).collect()
}

fn an_unknown_key_is_nothing(store: &dyn KeyStore) {
    let link = link("op", 0, 0, None);
    assert!(!store.exists("none").unwrap());
    assert_eq!(store.results("none").unwrap(), []);
    assert_eq!(store.load("none", "none").unwrap(), None);
    assert_eq!(store.keys_of_result("none").unwrap(), Vec::<String>::new());
    assert_eq!(store.links("none", &link).unwrap(), Vec::<String>::new());
    assert!(!store.has_link("none", &link, "other").unwrap());
    assert_eq!(store.backlinks("none").unwrap(), []);
    store.release("none").unwrap();
    assert_eq!(store.keys().unwrap(), Vec::<String>::new());
}

fn results_hang_on_keys_and_are_told_apart(store: &dyn KeyStore) {
    let (one, two) = (result("r1", 1), result("r2", 2));
    store.add_result("a", &one).unwrap();
    store.add_result("a", &two).unwrap();
    store.add_result("b", &one).unwrap();
    assert!(store.exists("a").unwrap() && store.exists("b").unwrap());
    assert_eq!(ids(store.results("a").unwrap()), set(["r1", "r2"]));
    assert_eq!(store.load("a", "r2").unwrap(), Some(two));
    assert_eq!(store.load("b", "r2").unwrap(), None);
    assert_eq!(set(store.keys_of_result("r1").unwrap()), set(["a", "b"]));
    assert_eq!(set(store.keys().unwrap()), set(["a", "b"]));
}

fn a_result_that_is_added_again_is_there_once(store: &dyn KeyStore) {
    store.add_result("a", &result("r1", 1)).unwrap();
    store.add_result("a", &result("r1", 1)).unwrap();
    assert_eq!(store.results("a").unwrap().len(), 1);
    assert_eq!(store.keys_of_result("r1").unwrap(), ["a"]);
}

fn links_are_found_by_every_part_of_their_label(store: &dyn KeyStore) {
    let labels = [
        link("op", 0, 0, None),
        link("op", 1, 0, None),
        link("op", 0, 1, None),
        link("op", 0, 0, Some("part")),
        link("op", 0, 0, Some("other part")),
        link("other op", 0, 0, None),
    ];
    for (n, label) in labels.iter().enumerate() {
        store.add_link("from", label, &format!("to{n}")).unwrap();
    }
    store.add_link("from", &labels[0], "also").unwrap();
    store.add_link("from", &labels[0], "also").unwrap();
    for (n, label) in labels.iter().enumerate() {
        let mut want = set([format!("to{n}")]);
        if n == 0 {
            want.insert("also".into());
        }
        assert_eq!(store.links("from", label).unwrap().len(), want.len());
        assert_eq!(set(store.links("from", label).unwrap()), want, "{label:?}");
        for other in 0..labels.len() {
            let is_linked = store.has_link("from", label, &format!("to{other}"));
            assert_eq!(is_linked.unwrap(), other == n, "{label:?} to{other}");
        }
    }
    assert!(store.exists("from").unwrap());
    assert!(!store.has_link("to0", &labels[0], "from").unwrap());
}

fn a_way_back_names_the_root_key_of_its_op(store: &dyn KeyStore) {
    let label = link("op", 3, 2, Some("part"));
    store.add_result("to", &result("r", 1)).unwrap();
    store.add_link("from", &label, "to").unwrap();
    let want = KeyLink {
        digest: root_key(&label.digest, 2),
        output: 0,
        ..label
    };
    assert_eq!(store.backlinks("to").unwrap(), [("from".to_owned(), want)]);
    assert_eq!(store.backlinks("from").unwrap(), []);
}

fn saving_adds_the_result_and_the_ways_to_it(store: &dyn KeyStore) {
    let label = link("op", 0, 0, None);
    let ways = [
        ("a".to_owned(), label.clone(), "to".to_owned()),
        ("b".to_owned(), label.clone(), "to".to_owned()),
    ];
    store.save("to", &result("r", 1), &ways).unwrap();
    assert_eq!(store.load("to", "r").unwrap(), Some(result("r", 1)));
    for from in ["a", "b"] {
        assert!(store.has_link(from, &label, "to").unwrap());
    }
    assert_eq!(store.backlinks("to").unwrap().len(), 2);
}

fn releasing_a_result_takes_what_is_of_no_use_without_it(store: &dyn KeyStore) {
    let label = link("op", 0, 0, None);
    store.add_link("a", &label, "b").unwrap();
    store.add_link("b", &label, "c").unwrap();
    store.add_result("c", &result("r", 1)).unwrap();
    store.add_result("d", &result("r", 1)).unwrap();
    store.release("r").unwrap();
    for key in ["a", "b", "c", "d"] {
        assert!(!store.exists(key).unwrap(), "{key}");
    }
    assert_eq!(store.links("a", &label).unwrap(), Vec::<String>::new());
    assert_eq!(store.keys_of_result("r").unwrap(), Vec::<String>::new());
    assert_eq!(store.keys().unwrap(), Vec::<String>::new());
}

fn a_key_that_leads_elsewhere_or_has_another_result_stays(store: &dyn KeyStore) {
    let label = link("op", 0, 0, None);
    store.add_link("a", &label, "gone").unwrap();
    store.add_link("a", &label, "kept").unwrap();
    store.add_result("gone", &result("r1", 1)).unwrap();
    store.add_result("kept", &result("r1", 1)).unwrap();
    store.add_result("kept", &result("r2", 2)).unwrap();
    store.release("r1").unwrap();
    assert!(store.exists("a").unwrap());
    assert_eq!(store.links("a", &label).unwrap(), ["kept"]);
    assert_eq!(ids(store.results("kept").unwrap()), set(["r2"]));
    assert!(!store.exists("gone").unwrap());
    assert_eq!(store.keys_of_result("r2").unwrap(), ["kept"]);
}

fn circles_of_links_end(store: &dyn KeyStore) {
    let label = link("op", 0, 0, None);
    store.add_link("a", &label, "b").unwrap();
    store.add_link("b", &label, "a").unwrap();
    store.add_result("b", &result("r", 1)).unwrap();
    store.release("r").unwrap();
    assert_eq!(store.results("b").unwrap(), []);
    assert_eq!(store.keys_of_result("r").unwrap(), Vec::<String>::new());
}
