use std::time::SystemTime;

use oci::Digest;
use solver::{KeyLink, ResultsOnly, StoredResult, root_key};
use store::PruneOptions;

use testkit::requires;

use crate::support::Lab;

fn link(text: &str, selector: Option<&str>) -> KeyLink {
    KeyLink {
        input: 1,
        output: 2,
        digest: Digest::sha256(text),
        selector: selector.map(Digest::sha256),
    }
}

#[tokio::test]
async fn keys_lead_to_results_survive_restarts_and_go_with_their_records() {
    requires!(overlay);
    let lab = Lab::new();
    let record = lab.step(None, &["x=1"]);
    let keys = lab.store.key_store();
    let results = lab
        .store
        .result_storage::<ResultsOnly<store::StoreResult>>();
    let saved = results
        .save(&Some(record.clone()), SystemTime::UNIX_EPOCH)
        .unwrap();
    let selected = link("op", Some("selector"));
    keys.save(
        "child",
        &saved,
        &[("root".into(), selected.clone(), "child".into())],
    )
    .unwrap();
    keys.add_link("top", &link("op", None), "root").unwrap();
    let check = |lab: &Lab, there: bool| {
        let keys = lab.store.key_store();
        assert_eq!(keys.exists("child").unwrap(), there);
        assert_eq!(keys.exists("top").unwrap(), there);
        assert_eq!(
            keys.links("root", &selected).unwrap().len(),
            usize::from(there)
        );
        assert_eq!(keys.links("root", &link("op", None)).unwrap().len(), 0);
        assert_eq!(keys.has_link("root", &selected, "child").unwrap(), there);
        assert_eq!(
            keys.keys_of_result(&saved.id).unwrap().len(),
            usize::from(there)
        );
        assert_eq!(keys.load("child", &saved.id).unwrap().is_some(), there);
        assert_eq!(keys.results("child").unwrap().len(), usize::from(there));
        let back = keys.backlinks("child").unwrap();
        assert_eq!(back.len(), usize::from(there));
        for (from, found) in back {
            assert_eq!((from.as_str(), found.output), ("root", 0));
            assert_eq!(found.digest, root_key(&selected.digest, 2));
        }
    };
    check(&lab, true);
    drop((record, keys, results));
    let lab = lab.reopen();
    check(&lab, true);
    assert!(
        lab.store
            .result_storage::<ResultsOnly<store::StoreResult>>()
            .exists(&saved.id)
    );
    lab.store
        .prune(
            &PruneOptions {
                all: true,
                ..PruneOptions::default()
            },
            &mut |_| {},
        )
        .unwrap();
    check(&lab, false);
    assert!(
        !lab.store
            .result_storage::<ResultsOnly<store::StoreResult>>()
            .exists(&saved.id)
    );
    assert!(
        lab.store
            .result_storage::<ResultsOnly<store::StoreResult>>()
            .exists(""),
        "the empty tree is always there"
    );
}

#[tokio::test]
async fn a_key_with_another_result_or_way_stays() {
    requires!(overlay);
    let lab = Lab::new();
    let keys = lab.store.key_store();
    let result = |id: &str| StoredResult {
        id: id.into(),
        created_at: SystemTime::UNIX_EPOCH,
    };
    for id in ["a", "b"] {
        keys.add_result("twice", &result(id)).unwrap();
    }
    keys.add_result("leaf", &result("c")).unwrap();
    keys.add_link("fork", &link("one", None), "twice").unwrap();
    keys.add_link("fork", &link("two", None), "leaf").unwrap();
    keys.release("a").unwrap();
    keys.release("c").unwrap();
    assert!(keys.exists("twice").unwrap());
    assert!(!keys.exists("leaf").unwrap());
    assert!(keys.links("fork", &link("two", None)).unwrap().is_empty());
    assert!(keys.exists("fork").unwrap());
    keys.release("b").unwrap();
    assert!(keys.keys().unwrap().is_empty());
}

/// Fifty steps' worth of keys; not a benchmark, but a factor of ten here is a mistake.
#[tokio::test]
async fn keys_cost_little() {
    requires!(overlay);
    let lab = Lab::new();
    let keys = lab.store.key_store();
    let began = task::clock::monotonic();
    for n in 0..500 {
        let result = StoredResult {
            id: format!("r{n}"),
            created_at: SystemTime::UNIX_EPOCH,
        };
        let link = link(&n.to_string(), None);
        keys.save(
            &format!("k{}", n + 1),
            &result,
            &[(format!("k{n}"), link.clone(), format!("k{}", n + 1))],
        )
        .unwrap();
        assert_eq!(keys.links(&format!("k{n}"), &link).unwrap().len(), 1);
    }
    let each = began.elapsed() / 500;
    eprintln!("saving and finding a key: {each:?}");
    assert!(each < std::time::Duration::from_millis(2), "{each:?}");
}

#[test]
fn the_index_does_what_every_key_store_does() {
    let dir = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    testkit::conformance::key_store::all(|| {
        number.set(number.get() + 1);
        let folder = dir.path().join(number.get().to_string());
        store::Store::open(store::Config::new(folder))
            .unwrap()
            .key_store()
    });
}
