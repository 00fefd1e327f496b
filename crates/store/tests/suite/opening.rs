//! Opening a directory: what is taken, what is refused, and with which words.

use std::path::Path;

use oci::ErrorKind;
use store::{Config, FsckReport, OpenError, Store, StoreError, fsck};
use testkit::requires;

fn refused(root: &Path) -> OpenError {
    match Store::open(Config::new(root)) {
        Ok(_) => panic!("{} opens", root.display()),
        Err(error) => error,
    }
}

#[test]
fn directories_that_are_not_ours_are_refused_and_stay_as_they_are() {
    requires!(overlay);
    type Prepare = fn(&Path);
    let cases: [(&str, Prepare, &str, ErrorKind); 6] = [
        (
            "a folder of snapshots without a format",
            |root| std::fs::create_dir(root.join("snapshots")).unwrap(),
            " is not empty and not a state directory",
            ErrorKind::Invalid,
        ),
        (
            "an index without a format",
            |root| std::fs::write(root.join("index.db"), "x").unwrap(),
            " is not empty and not a state directory",
            ErrorKind::Invalid,
        ),
        (
            "another program's format",
            |root| {
                let text = r#"{"kind":"other","version":1}"#;
                std::fs::write(root.join("format.json"), text).unwrap();
            },
            " is not empty and not a state directory",
            ErrorKind::Invalid,
        ),
        (
            "a later version",
            |root| {
                let text = r#"{"kind":"rbuild-state","version":7}"#;
                std::fs::write(root.join("format.json"), text).unwrap();
            },
            " has format 7, this version reads 1; use the version that wrote it or another directory",
            ErrorKind::Unsupported,
        ),
        (
            "a format that is cut",
            |root| std::fs::write(root.join("format.json"), r#"{"kind":"rbu"#).unwrap(),
            "format.json is not the format file of a state directory: EOF while parsing a string at line 1 column 12",
            ErrorKind::Invalid,
        ),
        (
            "a folder in the place of the format",
            |root| std::fs::create_dir(root.join("format.json")).unwrap(),
            "format.json: Is a directory (os error 21)",
            ErrorKind::System,
        ),
    ];
    for (what, prepare, text, kind) in cases {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .filter(|name| name != "lock")
                .collect();
            names.sort();
            names
        };
        let before = names();
        let error = refused(dir.path());
        assert!(error.to_string().ends_with(text), "{what}: {error}");
        assert_eq!(error.kind(), kind, "{what}");
        assert_eq!(names(), before, "{what}: nothing was made in it");
        let checked = fsck(dir.path(), false).unwrap_err();
        assert_eq!(checked.to_string(), error.to_string(), "{what}");
    }
}

#[test]
fn one_process_has_it_open_until_it_is_closed() {
    requires!(overlay);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::new(dir.path())).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().ends_with(" is in use by another process"));
    assert!(
        fsck(dir.path(), false).is_err(),
        "nor is it checked meanwhile"
    );
    store.close().unwrap();
    store.close().unwrap();
    let again = Store::open(Config::new(dir.path())).unwrap();
    drop(again);
    Store::open(Config::new(dir.path())).unwrap();
}

#[test]
fn a_new_directory_has_nothing_to_find_fault_with() {
    requires!(overlay);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/below");
    assert_eq!(fsck(&root, true).unwrap(), FsckReport::default());
    let store = Store::open(Config::new(&root)).unwrap();
    assert_eq!(store.root(), root);
    store.close().unwrap();
    drop(store);
    let report = fsck(&root, true).unwrap();
    assert_eq!(
        (report.records, report.blobs, report.is_damaged()),
        (0, 0, false)
    );
}

#[test]
fn an_index_that_is_no_database_is_told_of() {
    requires!(overlay);
    let dir = tempfile::tempdir().unwrap();
    Store::open(Config::new(dir.path()))
        .unwrap()
        .close()
        .unwrap();
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        std::fs::remove_file(dir.path().join(name)).ok();
    }
    std::fs::write(dir.path().join("index.db"), "this is no database, but it is long enough to be read as the header of one, which has a hundred bytes").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Index(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "cannot open the index: file is not a database"
    );
    assert_eq!(error.kind(), ErrorKind::System);
}

#[test]
fn handles_outlive_a_store_that_is_closed_and_can_still_be_read() {
    requires!(overlay);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::new(dir.path())).unwrap();
    let mutable = store
        .new_mutable(None, store::RefOptions::default())
        .unwrap();
    mutable.root().unwrap().create("f", 0o644).unwrap();
    let record = mutable.commit().unwrap();
    store.close().unwrap();
    assert_eq!(record.root().unwrap().lstat("f").unwrap().size, 0);
    let id = record.id().clone();
    drop((record, store));
    let store = Store::open(Config::new(dir.path())).unwrap();
    assert!(store.get(&id).is_ok());
}

#[test]
fn every_error_of_the_store_has_a_kind_and_one_sentence() {
    let digest = oci::Digest::sha256("x");
    let other = oci::Digest::sha256("y");
    let id: store::RefId = "abc".parse().unwrap();
    let full = || std::io::Error::from_raw_os_error(28);
    let cases = [
        (
            StoreError::NotFound { id: "abc".into() },
            "abc: not found".to_owned(),
            ErrorKind::NotFound,
        ),
        (
            StoreError::NoBlob {
                digest: digest.clone(),
            },
            format!("content {digest}: not found"),
            ErrorKind::NotFound,
        ),
        (
            StoreError::Locked { id: id.clone() },
            "abc: locked".into(),
            ErrorKind::Failed,
        ),
        (
            StoreError::Closed,
            "the store is closed".into(),
            ErrorKind::Unavailable,
        ),
        (
            StoreError::DigestMismatch {
                want: digest.clone(),
                got: other.clone(),
            },
            format!("blob {digest} arrived as {other}"),
            ErrorKind::Hostile,
        ),
        (
            StoreError::SizeMismatch {
                digest: digest.clone(),
                want: 1,
                got: 2,
            },
            format!("blob {digest} has 2 bytes where 1 were announced"),
            ErrorKind::Hostile,
        ),
        (
            StoreError::DiffId {
                layer: digest.clone(),
                want: other.clone(),
                got: digest.clone(),
            },
            format!("failed to verify layer {digest}: expected diffID {other}, got {digest}"),
            ErrorKind::Hostile,
        ),
        (
            StoreError::NotBuilt {
                feature: "time travel",
            },
            "time travel is not supported".into(),
            ErrorKind::Unsupported,
        ),
        (
            StoreError::Io {
                what: "write",
                path: "/x".into(),
                source: full().into(),
            },
            "cannot write /x: No space left on device (os error 28)".into(),
            ErrorKind::Exhausted,
        ),
        (
            StoreError::Layer {
                what: "pack",
                of: "abc".into(),
                source: std::sync::Arc::new(full()),
            },
            "cannot pack layer abc: No space left on device (os error 28)".into(),
            ErrorKind::Exhausted,
        ),
        (
            StoreError::Fetch {
                digest: digest.clone(),
                source: std::sync::Arc::from(Box::from("gone") as store::FetchError),
            },
            format!("cannot fetch {digest}: gone"),
            ErrorKind::Failed,
        ),
        (
            StoreError::from("no/id".parse::<store::RefId>().unwrap_err()),
            "\"no/id\" is not a record name".into(),
            ErrorKind::Invalid,
        ),
        (
            StoreError::from(store::Filters::parse(&["x=="]).unwrap_err()),
            "invalid filter \"x==\": expected a value".into(),
            ErrorKind::Invalid,
        ),
    ];
    for (error, text, kind) in cases {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), kind, "{text}");
    }
}
