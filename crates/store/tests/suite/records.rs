use std::time::{Duration, SystemTime};

use store::{Config, HistoryRecord, RecordType, RefOptions, Store, StoreError};

use testkit::requires;

use crate::support::{Lab, list, tree, write};

#[tokio::test]
async fn a_chain_of_steps_shows_what_each_step_left() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["x=1", "d/", "d/y=2"]);
    let b = lab.step(Some(&a), &["x=3", "-d/y", "d/z=4"]);
    let c = lab.step(Some(&b), &["-d", "w=5"]);
    assert_eq!(tree(&a).await, "d/ d/y=2 x=1");
    assert_eq!(tree(&b).await, "d/ d/z=4 x=3");
    assert_eq!(tree(&c).await, "w=5 x=3");
    let ids: Vec<_> = c.chain().iter().map(|r| r.id().clone()).collect();
    assert_eq!(ids, [a.id().clone(), b.id().clone(), c.id().clone()]);
    assert!(
        !std::fs::read_to_string("/proc/self/mounts")
            .unwrap()
            .contains(lab.dir.path().to_str().unwrap())
    );
}

#[tokio::test]
async fn the_empty_tree_can_be_mounted_by_merging_nothing() {
    requires!(overlay);
    let lab = Lab::new();
    assert!(
        lab.store
            .merge(&[], RefOptions::default())
            .unwrap()
            .is_none()
    );
    let empty = lab.step(None, &[]);
    assert_eq!(tree(&empty).await, "");
    assert!(
        empty.root().unwrap().create("x", 0o644).is_err(),
        "a view is read-only"
    );
}

#[tokio::test]
async fn a_mutable_can_be_mounted_twice_and_both_see_the_same() {
    requires!(overlay);
    let lab = Lab::new();
    let base = lab.step(None, &["x=1"]);
    let mutable = lab
        .store
        .new_mutable(Some(&base), RefOptions::default())
        .unwrap();
    let (one, two) = (mutable.root().unwrap(), mutable.root().unwrap());
    one.create("new", 0o644).unwrap();
    assert_eq!(list(&two), "new= x=1");
}

#[tokio::test]
async fn an_abandoned_step_leaves_nothing() {
    requires!(overlay);
    let lab = Lab::new();
    let before = lab.snapshots();
    let mutable = lab.store.new_mutable(None, RefOptions::default()).unwrap();
    write(&mutable, &["x=1"]);
    let id = mutable.id().clone();
    drop(mutable);
    assert_eq!(lab.snapshots(), before);
    assert!(matches!(
        lab.store.get(&id),
        Err(StoreError::NotFound { .. })
    ));
}

#[tokio::test]
async fn what_is_committed_in_passing_shows_its_files_and_goes_with_its_last_handle() {
    requires!(overlay);
    let lab = Lab::new();
    let before = lab.snapshots();
    let mutable = lab.store.new_mutable(None, RefOptions::default()).unwrap();
    write(&mutable, &["x=1"]);
    let left = mutable.commit_passing().unwrap();
    assert_eq!(tree(&left).await, "x=1");
    // What a build makes on top of it to look at it does not keep it either.
    let above = lab.step(Some(&left), &["y=2"]);
    drop(left);
    assert_eq!(tree(&above).await, "x=1 y=2");
    drop(above);
    let lab = lab.reopen();
    assert_eq!(lab.snapshots(), before);
    let records = lab.store.disk_usage(&[], std::time::Duration::ZERO);
    assert!(records.unwrap().is_empty());
}

#[tokio::test]
async fn a_kept_mutable_is_opened_by_one_at_a_time_and_survives_restarts() {
    requires!(overlay);
    let lab = Lab::new();
    let options = RefOptions {
        record_type: RecordType::CacheMount,
        retain: true,
        ..RefOptions::described("cached mount")
    };
    let mutable = lab.store.new_mutable(None, options).unwrap();
    mutable.set_meta("cache-dir", b"/root/.cache").unwrap();
    write(&mutable, &["x=1"]);
    let id = mutable.id().clone();
    assert!(matches!(
        lab.store.get_mutable(&id),
        Err(StoreError::Locked { .. })
    ));
    drop(mutable);
    let lab = lab.reopen();
    assert_eq!(
        lab.store.find_meta("cache-dir", b"/root/.cache").unwrap(),
        std::slice::from_ref(&id)
    );
    let mutable = lab.store.get_mutable(&id).unwrap();
    assert_eq!(list(&mutable.root().unwrap()), "x=1");
    mutable.set_retain(false).unwrap();
    drop(mutable);
    assert!(
        lab.store
            .find_meta("cache-dir", b"/root/.cache")
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_twin_locks_its_mutable_while_held_and_goes_when_that_is_opened() {
    requires!(overlay);
    let lab = Lab::new();
    let mutable = lab
        .store
        .new_mutable(None, RefOptions::described("local"))
        .unwrap();
    write(&mutable, &["x=1"]);
    let id = mutable.id().clone();
    let twin = mutable.commit_shared().unwrap();
    assert_eq!(tree(&twin).await, "x=1");
    assert!(matches!(
        lab.store.get_mutable(&id),
        Err(StoreError::Locked { .. })
    ));
    let twin_id = twin.id().clone();
    drop(twin);
    let mutable = lab.store.get_mutable(&id).unwrap();
    assert!(matches!(
        lab.store.get(&twin_id),
        Err(StoreError::NotFound { .. })
    ));
    write(&mutable, &["x=2"]);
    let twin = mutable.commit_shared().unwrap();
    // Building on the twin ends the mutable; the files stay.
    let child = lab.step(Some(&twin), &["y=3"]);
    assert!(matches!(
        lab.store.get_mutable(&id),
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(tree(&child).await, "x=2 y=3");
}

#[tokio::test]
async fn two_handles_hold_one_record() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["x=1"]);
    let b = lab.store.get(a.id()).unwrap();
    assert_eq!(a, b);
    let id = a.id().clone();
    drop(a);
    assert!(
        lab.store
            .disk_usage(&[], std::time::Duration::ZERO)
            .unwrap()[0]
            .in_use
    );
    drop(b);
    assert!(
        !lab.store
            .disk_usage(&[], std::time::Duration::ZERO)
            .unwrap()[0]
            .in_use
    );
    assert_eq!(tree(&lab.store.get(&id).unwrap()).await, "x=1");
}

#[tokio::test]
async fn a_merge_deletes_what_its_layers_deleted_and_nothing_else() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["d/", "d/keep=a", "d/gone=a", "f=a"]);
    let b0 = lab.step(None, &["d/", "d/gone=b", "f=b"]);
    // Replaces the whole directory: what it held here is deleted, what others put there is not.
    let b1 = lab.step(Some(&b0), &["-d", "d/", "d/new=b", "-f"]);
    let merged = lab
        .store
        .merge(&[a.clone(), b1], RefOptions::default())
        .unwrap()
        .unwrap();
    assert_eq!(tree(&merged).await, "d/ d/keep=a d/new=b");
    assert_eq!(crate::support::unpacked(&merged).await, tree(&merged).await);
    let on_top = lab.step(Some(&merged), &["g=1", "-d/keep"]);
    assert_eq!(tree(&on_top).await, "d/ d/new=b g=1");
    let nested = lab
        .store
        .merge(&[on_top, a], RefOptions::default())
        .unwrap()
        .unwrap();
    assert_eq!(tree(&nested).await, "d/ d/gone=a d/keep=a d/new=b f=a g=1");
    assert_eq!(crate::support::unpacked(&nested).await, tree(&nested).await);
}

#[tokio::test]
async fn a_diff_is_the_layers_in_between_or_one_that_is_computed() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["x=1", "d/", "d/y=1"]);
    let b = lab.step(Some(&a), &["x=2"]);
    let c = lab.step(Some(&b), &["z=3", "-d/y"]);
    let one = lab
        .store
        .diff(Some(&a), Some(&b), RefOptions::default())
        .unwrap()
        .unwrap();
    assert_eq!(
        (tree(&one).await.as_str(), one.chain()[0].id()),
        ("x=2", b.id())
    );
    let two = lab
        .store
        .diff(Some(&a), Some(&c), RefOptions::default())
        .unwrap()
        .unwrap();
    assert_eq!(
        (tree(&two).await.as_str(), two.chain().len()),
        ("d/ x=2 z=3", 2)
    );
    let other = lab.step(None, &["x=1", "q=1", "d/", "d/y=9"]);
    let computed = lab
        .store
        .diff(Some(&other), Some(&c), RefOptions::default())
        .unwrap()
        .unwrap();
    let back = lab
        .store
        .merge(&[other, computed.clone()], RefOptions::default())
        .unwrap()
        .unwrap();
    assert_eq!(tree(&back).await, "d/ x=2 z=3");
    assert_eq!(crate::support::unpacked(&back).await, "d/ x=2 z=3");
    assert_eq!(computed.chain().len(), 1);
}

#[tokio::test]
async fn content_digests_are_remembered_and_follow_the_files() {
    requires!(overlay);
    let lab = Lab::new();
    let hash = |r: store::ImmutableRef| async move {
        r.content_hash("/", store::HashOptions::default())
            .await
            .unwrap()
    };
    let mutable = lab
        .store
        .new_mutable(None, RefOptions::described("local"))
        .unwrap();
    write(&mutable, &["x=1"]);
    let id = mutable.id().clone();
    let twin = mutable.commit_shared().unwrap();
    let first = hash(twin.clone()).await;
    assert_eq!(first, hash(twin.clone()).await);
    drop(twin);
    let mutable = lab.store.get_mutable(&id).unwrap();
    write(&mutable, &["x=2"]);
    let twin = mutable.commit_shared().unwrap();
    let second = hash(twin.clone()).await;
    assert_ne!(first, second);
    let twin_id = twin.id().clone();
    drop(twin);
    let lab = lab.reopen();
    let twin = lab.store.get(&twin_id).unwrap();
    assert_eq!(second, hash(twin).await);
}

#[tokio::test]
async fn an_open_directory_is_refused_to_others_and_strangers_are_left_alone() {
    requires!(overlay);
    let lab = Lab::new();
    let again = store::Store::open(store::Config::new(lab.dir.path()));
    assert!(matches!(again, Err(store::OpenError::InUse { .. })));
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("snapshots")).unwrap();
    let stranger = store::Store::open(store::Config::new(other.path()));
    assert!(matches!(stranger, Err(store::OpenError::Foreign { .. })));
}

#[test]
fn an_index_that_nobody_writes_to_any_more_has_a_short_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config {
        sync_interval: Duration::from_millis(100),
        ..Config::new(dir.path())
    })
    .unwrap();
    for number in 0..40 {
        let record = HistoryRecord {
            id: number.to_string(),
            created: SystemTime::UNIX_EPOCH,
            completed: None,
            pinned: false,
            record: vec![b'x'; 100_000],
        };
        store.put_history(&record).unwrap();
    }
    let log = dir.path().join("index.db-wal");
    let len = || log.metadata().map_or(0, |log| log.len());
    let begun = task::clock::monotonic();
    while len() > 1 << 20 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the log still has {} bytes",
            len()
        );
        std::thread::yield_now();
    }
}
