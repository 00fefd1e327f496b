use std::time::Duration;

use store::{CompressionSpec, PruneOptions, RecordType, RefOptions};

use testkit::requires;

use crate::support::{Lab, tree};

fn prune(lab: &Lab, options: &PruneOptions) -> Vec<String> {
    let mut out = Vec::new();
    lab.store
        .prune(options, &mut |u| out.push(u.description))
        .unwrap();
    out
}

#[tokio::test]
async fn what_is_held_and_what_it_stands_on_is_never_pruned() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["a=1"]);
    let b = lab.step(Some(&a), &["b=2"]);
    let blobs = b.blobs(CompressionSpec::default()).await.unwrap();
    drop(lab.step(Some(&b), &["c=3"]));
    drop(a);
    let all = PruneOptions {
        all: true,
        ..PruneOptions::default()
    };
    assert_eq!(prune(&lab, &all), ["c=3"]);
    assert_eq!(tree(&b).await, "a=1 b=2");
    drop(b);
    assert!(prune(&lab, &all).is_empty(), "blobs hold their layers");
    drop(blobs);
    assert_eq!(prune(&lab, &all), ["b=2", "a=1"]);
    assert_eq!(lab.snapshots(), 0);
    assert_eq!(
        std::fs::read_dir(lab.dir.path().join("blobs/sha256"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn filters_and_internal_records_are_respected() {
    requires!(overlay);
    let lab = Lab::new();
    for (name, record_type) in [
        ("i", RecordType::Internal),
        ("f", RecordType::Frontend),
        ("l", RecordType::LocalSource),
        ("r", RecordType::Regular),
    ] {
        let options = RefOptions {
            record_type,
            ..RefOptions::described(name)
        };
        drop(
            lab.store
                .new_mutable(None, options)
                .unwrap()
                .commit()
                .unwrap(),
        );
    }
    let with = |filter: &str| PruneOptions {
        filters: vec![filter.to_owned()],
        ..PruneOptions::default()
    };
    assert_eq!(prune(&lab, &with("type==source.local")), ["l"]);
    let week = PruneOptions {
        keep_duration: Duration::from_secs(604_800),
        ..PruneOptions::default()
    };
    assert!(prune(&lab, &week).is_empty());
    assert_eq!(prune(&lab, &PruneOptions::default()), ["r"]);
    let mut rest = prune(
        &lab,
        &PruneOptions {
            all: true,
            ..PruneOptions::default()
        },
    );
    rest.sort();
    assert_eq!(rest, ["f", "i"]);
}

#[tokio::test]
async fn pruning_to_a_size_takes_the_least_used_first_and_stops() {
    requires!(overlay);
    let lab = Lab::new();
    let big = "x".repeat(100_000);
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(lab.step(None, &[&format!("{name}={big}")]).id().clone());
    }
    for _ in 0..3 {
        drop(lab.store.get(&ids[0]).unwrap());
    }
    let total: i64 = lab
        .store
        .disk_usage(&[], Duration::ZERO)
        .unwrap()
        .iter()
        .map(|u| u.size)
        .sum();
    assert!(total > 300_000);
    let to = PruneOptions {
        max_used_space: total / 2,
        ..PruneOptions::default()
    };
    let gone: Vec<char> = prune(&lab, &to)
        .iter()
        .filter_map(|d| d.chars().next())
        .collect();
    assert_eq!(gone, ['b', 'c']);
    assert!(lab.store.get(&ids[0]).is_ok());
}

#[tokio::test]
async fn twins_are_listed_once_and_go_together() {
    requires!(overlay);
    let lab = Lab::new();
    let mutable = lab
        .store
        .new_mutable(None, RefOptions::described("local"))
        .unwrap();
    let id = mutable.id().clone();
    let twin = mutable.commit_shared().unwrap();
    let shown = |lab: &Lab| {
        let du = lab.store.disk_usage(&[], Duration::ZERO).unwrap();
        assert_eq!(du.len(), 1);
        (du[0].id.clone(), du[0].mutable, du[0].in_use)
    };
    assert_eq!(shown(&lab), (twin.id().clone(), false, true));
    drop(twin);
    assert_eq!(shown(&lab), (id, true, false));
    assert_eq!(prune(&lab, &PruneOptions::default()).len(), 1);
    assert!(
        lab.store
            .disk_usage(&[], Duration::ZERO)
            .unwrap()
            .is_empty()
    );
    assert_eq!(lab.snapshots(), 0);
}
