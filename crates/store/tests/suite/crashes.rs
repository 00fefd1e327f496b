use std::io::Write;
use std::time::Duration;

use store::{Config, RefOptions, Store, fsck};

use testkit::requires;

use crate::support::{Lab, tree, write};

/// Every commit that returned is there after a kill; everything else is gone without a trace.
#[tokio::test]
async fn a_kill_loses_only_the_step_that_ran() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["x=1"]);
    let b = lab.step(Some(&a), &["y=2"]);
    let open = lab
        .store
        .new_mutable(Some(&b), RefOptions::default())
        .unwrap();
    write(&open, &["z=3"]);
    let lease = lab.store.lease();
    let mut blob = lab.store.blob_writer(&lease).unwrap();
    blob.write_all(b"half").unwrap();
    let after = lab.killed();
    let record = after.store.get(b.id()).unwrap();
    assert_eq!(tree(&record).await, "x=1 y=2");
    assert_eq!(after.snapshots(), 2);
    assert_eq!(
        std::fs::read_dir(after.dir.path().join("ingest"))
            .unwrap()
            .count(),
        0
    );
    drop(record);
    let dir = after.dir;
    after.store.close().unwrap();
    let report = fsck(dir.path(), true).unwrap();
    assert_eq!((report.records, report.findings), (2, vec![]));
}

/// After the machine went down, records whose files were not forced to disk are not trusted.
#[tokio::test]
async fn a_power_cut_drops_what_was_not_synced_and_what_stands_on_it() {
    requires!(overlay);
    let lab = Lab::new();
    let safe = lab.step(None, &["x=1"]);
    lab.store.sync().unwrap();
    let lost = lab.step(Some(&safe), &["y=2"]);
    let index = |lab: &Lab| rusqlite::Connection::open(lab.dir.path().join("index.db")).unwrap();
    index(&lab)
        .execute(
            "UPDATE info SET value = 'another boot' WHERE key = 'boot'",
            [],
        )
        .unwrap();
    let after = lab.killed();
    assert_eq!(tree(&after.store.get(safe.id()).unwrap()).await, "x=1");
    assert!(after.store.get(lost.id()).is_err());
    assert_eq!(after.snapshots(), 1);
}

#[tokio::test]
async fn the_check_finds_what_is_broken_and_opening_heals_it() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["x=1"]);
    let b = lab.step(Some(&a), &["y=2"]);
    let other = lab.step(None, &["z=3"]);
    let blob = lab
        .store
        .put_blob(&lab.store.lease(), b"bytes")
        .unwrap()
        .digest;
    lab.store.pin_blob("test", &blob).unwrap();
    let (a, b, other) = (a.id().clone(), b.id().clone(), other.id().clone());
    let Lab { dir, store } = lab;
    store.close().unwrap();
    drop(store);
    assert!(fsck(dir.path(), true).unwrap().findings.is_empty());
    std::fs::remove_dir_all(dir.path().join("snapshots").join(a.as_str())).unwrap();
    std::fs::create_dir(dir.path().join("snapshots/stray")).unwrap();
    let path = dir.path().join("blobs/sha256").join(blob.hex());
    std::fs::write(&path, b"bytez").unwrap();
    let report = fsck(dir.path(), true).unwrap();
    assert_eq!(report.findings.len(), 3, "{report:?}");
    assert!(
        report.is_damaged(),
        "a blob with other bytes is beyond repair"
    );
    std::fs::remove_file(path).unwrap();
    assert!(!fsck(dir.path(), true).unwrap().is_damaged());
    let store = Store::open(Config::new(dir.path())).unwrap();
    assert!(store.get(&a).is_err() && store.get(&b).is_err());
    assert!(store.get(&other).is_ok());
    assert!(store.blob_info(&blob).unwrap().is_none());
    store.close().unwrap();
    assert!(fsck(dir.path(), true).unwrap().findings.is_empty());
}

/// Not a benchmark, but a factor of ten here is a mistake.
#[tokio::test]
async fn a_step_costs_little_beside_what_it_runs() {
    requires!(overlay);
    let lab = Lab::new();
    let mut last = lab.step(None, &["x=1"]);
    let began = task::clock::monotonic();
    for _ in 0..50 {
        let mutable = lab
            .store
            .new_mutable(Some(&last), RefOptions::default())
            .unwrap();
        drop(mutable.mount().unwrap());
        last = mutable.commit().unwrap();
    }
    let each = began.elapsed() / 50;
    eprintln!("a step of nothing on up to 50 layers: {each:?}");
    assert!(each < Duration::from_millis(20), "{each:?}");
}
