//! Starts after a kill: every kind of damage to a state directory, and what is left of it.

use std::path::Path;
use std::time::Duration;

use oci::Digest;
use rusqlite::{Connection, params};
use store::{CompressionSpec, Config, PruneOptions, RecordType, RefId, RefOptions, Store, fsck};
use testkit::requires;

use crate::support::{Lab, Shelf, copy_state, describe, list, tree};

/// What is in the sample: `top` stands on `base`, `other` was exported, `lazy` was never fetched, `mount` is a kept mutable.
struct Sample {
    dir: tempfile::TempDir,
    ids: Vec<(&'static str, RefId)>,
    /// The blob of `other`.
    layer: Digest,
    /// A blob of the history.
    pinned: Digest,
}

impl Sample {
    fn id(&self, name: &str) -> &RefId {
        let record = self.ids.iter().find(|(record, _)| *record == name);
        &record.unwrap().1
    }
}

/// A copy of the sample that is about to be damaged.
struct DamagedState<'a> {
    dir: &'a Path,
    index: &'a Connection,
    sample: &'a Sample,
}

impl DamagedState<'_> {
    fn id(&self, name: &str) -> &str {
        self.sample.id(name).as_str()
    }

    fn snapshot(&self, name: &str) -> std::path::PathBuf {
        let sql = "SELECT snapshot FROM refs WHERE id = ?1";
        let snapshot: String = self
            .index
            .query_row(sql, [self.id(name)], |r| r.get(0))
            .unwrap();
        self.dir.join("snapshots").join(snapshot)
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn layer(&self) -> std::path::PathBuf {
        self.blob(&self.sample.layer)
    }

    /// Runs a statement with the id of a record as its parameter.
    fn row(&self, name: &str, sql: &str) {
        assert_eq!(
            self.index.execute(sql, [self.id(name)]).unwrap(),
            1,
            "{sql}"
        );
    }

    fn sql(&self, sql: &str) {
        self.index.execute_batch(sql).unwrap();
    }
}

const ALL: &str = "base lazy mount other top";

async fn sample() -> Sample {
    let lab = Lab::new();
    let layer = |parent: Option<&store::ImmutableRef>, name: &str, file: &str| {
        let options = RefOptions::described(name);
        let mutable = lab.store.new_mutable(parent, options).unwrap();
        crate::support::write(&mutable, &[file]);
        mutable.commit().unwrap()
    };
    let base = layer(None, "base", "x=1");
    let top = layer(Some(&base), "top", "y=2");
    let other = layer(None, "other", "z=3");
    let exported = other.blobs(CompressionSpec::default()).await.unwrap();
    let layer = exported[0].descriptor.digest.clone();
    let bytes = lab.layer_of(&["l=4"]);
    let mut desc = describe(&bytes);
    desc.description = "lazy".into();
    let lazy = lab
        .store
        .import_layer(None, desc, Shelf::of(&bytes))
        .unwrap();
    let options = RefOptions {
        record_type: RecordType::CacheMount,
        retain: true,
        ..RefOptions::described("mount")
    };
    let mount = lab.store.new_mutable(None, options).unwrap();
    crate::support::write(&mount, &["cached=5"]);
    let pinned = lab.store.put_blob(&lab.store.lease(), b"history").unwrap();
    lab.store.pin_blob("history:a", &pinned.digest).unwrap();
    let ids = [
        ("base", base.id()),
        ("top", top.id()),
        ("other", other.id()),
        ("lazy", lazy.id()),
        ("mount", mount.id()),
    ]
    .map(|(name, id)| (name, id.clone()))
    .to_vec();
    lab.store.close().unwrap();
    drop((base, top, other, exported, lazy, mount));
    Sample {
        dir: lab.dir,
        ids,
        layer,
        pinned: pinned.digest,
    }
}

/// A copy of the sample as a kill leaves it, damaged, and opened again.
fn restart(sample: &Sample, damage: &dyn Fn(&DamagedState<'_>)) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    copy_state(sample.dir.path(), dir.path());
    let index = Connection::open(dir.path().join("index.db")).unwrap();
    index
        .execute("UPDATE info SET value = '0' WHERE key = 'clean'", [])
        .unwrap();
    damage(&DamagedState {
        dir: dir.path(),
        index: &index,
        sample,
    });
    drop(index);
    let store = Store::open(Config::new(dir.path())).unwrap();
    Lab { dir, store }
}

/// The descriptions of all records, sorted.
fn records(store: &Store) -> String {
    let usage = store.disk_usage(&[], Duration::ZERO).unwrap();
    let mut names: Vec<String> = usage.into_iter().map(|u| u.description).collect();
    names.sort();
    names.join(" ")
}

/// Closes the store in order; `fsck` finds nothing wrong afterwards.
fn end(lab: Lab, case: &str) {
    let Lab { dir, store } = lab;
    store.close().unwrap();
    drop(store);
    let report = fsck(dir.path(), true).unwrap();
    assert_eq!(report.findings, [], "{case}");
}

/// What is done to a state directory.
enum Damage {
    None,
    /// A statement about one record, whose id is its parameter.
    Row(&'static str, &'static str),
    /// Statements about the whole index.
    Sql(&'static str),
    /// The path is removed, below the snapshot of a record; an empty path is the snapshot.
    NoFiles(&'static str, &'static str),
    /// A folder of the state directory is removed.
    NoFolder(&'static str),
    Other(fn(&DamagedState<'_>)),
}

impl Damage {
    fn apply(&self, state: &DamagedState<'_>) {
        match self {
            Self::None => {}
            Self::Row(name, sql) => state.row(name, sql),
            Self::Sql(sql) => state.sql(sql),
            Self::NoFiles(name, path) => {
                std::fs::remove_dir_all(state.snapshot(name).join(path)).unwrap();
            }
            Self::NoFolder(name) => std::fs::remove_dir_all(state.dir.join(name)).unwrap(),
            Self::Other(damage) => damage(state),
        }
    }
}

/// The name of a case, the damage, and the records that are lost by it.
type Case = (&'static str, Damage, &'static str);

/// Starts on each damaged copy: the other records can be used, everything can be pruned, and `fsck` is content afterwards.
fn check(sample: &Sample, cases: &[Case]) {
    for (case, damage, lost) in cases {
        let lab = restart(sample, &|state| damage.apply(state));
        let remaining: Vec<&str> = ALL
            .split(' ')
            .filter(|name| !lost.split(' ').any(|lost_name| lost_name == *name))
            .collect();
        assert_eq!(records(&lab.store), remaining.join(" "), "{case}");
        for (name, id) in &sample.ids {
            if let Ok(record) = lab.store.get(id)
                && *name != "lazy"
            {
                assert_ne!(list(&record.root().unwrap()), "", "{case}: {name}");
            }
        }
        let everything = PruneOptions {
            all: true,
            ..PruneOptions::default()
        };
        lab.store.prune(&everything, &mut |_| {}).unwrap();
        assert_eq!(
            records(&lab.store),
            "",
            "{case}: something cannot be pruned"
        );
        end(lab, case);
    }
}

#[tokio::test]
async fn files_that_are_missing_take_their_records_along_and_nothing_else() {
    requires!(overlay);
    use Damage::{NoFiles, NoFolder, Other};
    let sample = sample().await;
    check(
        &sample,
        &[
            ("no damage", Damage::None, ""),
            ("the snapshot of a base", NoFiles("base", ""), "base top"),
            ("the files of a base", NoFiles("base", "fs"), "base top"),
            (
                "a file where the files of a record were",
                Other(|state| {
                    let fs = state.snapshot("top").join("fs");
                    std::fs::remove_dir_all(&fs).unwrap();
                    std::fs::write(fs, "").unwrap();
                }),
                "top",
            ),
            ("the files of a cache mount", NoFiles("mount", ""), "mount"),
            (
                "all snapshots",
                NoFolder("snapshots"),
                "base mount other top",
            ),
            ("all blobs", NoFolder("blobs"), ""),
        ],
    );
}

#[tokio::test]
async fn rows_that_mean_nothing_are_dropped_and_keep_no_daemon_from_starting() {
    requires!(overlay);
    use Damage::{Other, Row, Sql};
    let sample = sample().await;
    check(
        &sample,
        &[
            (
                "a parent that is gone",
                Row("other", "INSERT INTO parents VALUES(?1, 0, 'nobody')"),
                "other",
            ),
            (
                "an unpacked layer without a snapshot",
                Row("other", "UPDATE refs SET snapshot = NULL WHERE id = ?1"),
                "other",
            ),
            (
                "a lazy layer without a blob",
                Row("lazy", "DELETE FROM layer_blobs WHERE ref = ?1"),
                "lazy",
            ),
            (
                "a lazy layer whose blob cannot be read",
                Row(
                    "lazy",
                    "UPDATE layer_blobs SET descriptor = '{' WHERE ref = ?1",
                ),
                "lazy",
            ),
            (
                "a malformed diff id of a lazy layer",
                Row(
                    "lazy",
                    "UPDATE layer_blobs SET diff_id = 'x' WHERE ref = ?1",
                ),
                "lazy",
            ),
            (
                "records that stand on each other",
                Other(|state| {
                    let (base, top) = (state.id("base"), state.id("top"));
                    let sql = "INSERT INTO parents VALUES(?1, 0, ?2)";
                    state.index.execute(sql, [base, top]).unwrap();
                }),
                "base top",
            ),
            (
                "a record that stands on itself",
                Row("other", "INSERT INTO parents VALUES(?1, 0, ?1)"),
                "other",
            ),
            (
                "an unknown kind",
                Row("other", "UPDATE refs SET kind = 9 WHERE id = ?1"),
                "other",
            ),
            (
                "a malformed time",
                Row(
                    "other",
                    "UPDATE refs SET created = 'long ago' WHERE id = ?1",
                ),
                "other",
            ),
            (
                "a malformed size",
                Row("top", "UPDATE refs SET size = 'much' WHERE id = ?1"),
                "top",
            ),
            (
                "a malformed name of a snapshot",
                Row("other", "UPDATE refs SET snapshot = x'00ff' WHERE id = ?1"),
                "other",
            ),
            (
                "a name that leads out of the directory",
                Row("other", "UPDATE refs SET id = '../../etc' WHERE id = ?1"),
                "other",
            ),
            (
                "a snapshot that leads out of the directory",
                Row(
                    "other",
                    "UPDATE refs SET snapshot = '../empty' WHERE id = ?1",
                ),
                "other",
            ),
            (
                "a twin that is gone",
                Row("other", "UPDATE refs SET twin = 'nobody' WHERE id = ?1"),
                "",
            ),
            (
                "blobs without a digest",
                Sql("INSERT INTO blobs VALUES('nonsense', 1, 1, 1), ('../../x', 1, 1, 1)"),
                "",
            ),
            (
                "values, forms and pins of nobody",
                Sql("INSERT INTO meta VALUES('nobody', 'k', x'00');
                     INSERT INTO layer_blobs VALUES('nobody', 'sha256:x', 0, 'gzip', '{}', 'x');
                     INSERT INTO pins VALUES('history:z', 'sha256:gone');"),
                "",
            ),
        ],
    );
}

#[tokio::test]
async fn a_layer_made_here_whose_blob_is_lost_or_torn_is_packed_again() {
    requires!(overlay);
    let sample = sample().await;
    use Damage::{Other, Sql};
    let cases = [
        (
            "missing",
            Other(|state| std::fs::remove_file(state.layer()).unwrap()),
        ),
        (
            "empty",
            Other(|state| std::fs::write(state.layer(), "").unwrap()),
        ),
        (
            "cut",
            Other(|state| {
                let bytes = std::fs::read(state.layer()).unwrap();
                std::fs::write(state.layer(), &bytes[..bytes.len() / 2]).unwrap();
            }),
        ),
        (
            "too long",
            Other(|state| {
                let mut bytes = std::fs::read(state.layer()).unwrap();
                bytes.push(0);
                std::fs::write(state.layer(), bytes).unwrap();
            }),
        ),
        ("of negative size", Sql("UPDATE blobs SET size = -5")),
        ("without its row", Sql("DELETE FROM blobs")),
    ];
    for (case, damage) in cases {
        let lab = restart(&sample, &|state| damage.apply(state));
        assert_eq!(records(&lab.store), ALL, "{case}");
        check_packed_again(&lab, &sample, case).await;
        end(lab, case);
    }
}

/// The blob of `other` is made again, with the bytes that it had.
async fn check_packed_again(lab: &Lab, sample: &Sample, case: &str) {
    let other = lab.store.get(sample.id("other")).unwrap();
    let layers = other.blobs(CompressionSpec::default()).await.unwrap();
    let descriptor = &layers[0].descriptor;
    assert_eq!(descriptor.digest, sample.layer, "{case}");
    let file = layers[0].open().await.unwrap();
    assert_eq!(file.metadata().unwrap().len(), descriptor.len(), "{case}");
}

#[tokio::test]
async fn a_blob_of_the_history_that_is_torn_is_forgotten_with_its_pin() {
    requires!(overlay);
    let sample = sample().await;
    let lab = restart(&sample, &|state| {
        std::fs::write(state.blob(&state.sample.pinned), "hist").unwrap();
    });
    assert_eq!(lab.store.blob_info(&sample.pinned).unwrap(), None);
    assert!(lab.store.open_blob(&sample.pinned).is_err());
    let pins: i64 = Connection::open(lab.dir.path().join("index.db"))
        .unwrap()
        .query_row("SELECT count(*) FROM pins", [], |r| r.get(0))
        .unwrap();
    assert_eq!(pins, 0);
    end(lab, "a torn blob of the history");
}

#[tokio::test]
async fn files_that_no_row_names_are_deleted() {
    requires!(overlay);
    let sample = sample().await;
    let stray = ["snapshots/stray/fs", "snapshots/probe-x/fs"];
    let lab = restart(&sample, &|state| {
        for folder in stray {
            std::fs::create_dir_all(state.dir.join(folder)).unwrap();
        }
        std::fs::write(state.dir.join("ingest/half"), "half").unwrap();
        std::fs::write(state.dir.join("blobs/sha256/ab"), "x").unwrap();
    });
    for path in stray.iter().chain(&["ingest/half", "blobs/sha256/ab"]) {
        assert!(!lab.dir.path().join(path).exists(), "{path}");
    }
    assert_eq!(records(&lab.store), ALL);
    end(lab, "stray files");
}

#[tokio::test]
async fn cache_keys_that_lead_to_nothing_are_forgotten_and_others_stay() {
    requires!(overlay);
    let sample = sample().await;
    let lab = restart(&sample, &|state| {
        let digest = Digest::sha256("op");
        let link = |key: &str, target: &str| {
            let sql = "INSERT INTO key_links VALUES(?1, 0, 0, ?2, '', ?3)";
            state
                .index
                .execute(sql, params![key, digest.as_str(), target])
                .unwrap();
        };
        let result = |key: &str, id: &str| {
            let sql = "INSERT INTO key_results VALUES(?1, ?2, 1)";
            state.index.execute(sql, [key, id]).unwrap();
        };
        // The chain a - b - c ends in a record that is gone; that of d - e in one that is there.
        link("a", "b");
        link("b", "c");
        result("c", "gone");
        link("d", "e");
        result("e", state.id("top"));
        link("a", "nowhere");
        result("empty", "");
    });
    let mut keys = lab.store.key_store().keys().unwrap();
    keys.sort();
    assert_eq!(keys, ["d", "e", "empty"]);
    end(lab, "keys");
}

#[tokio::test]
async fn a_patch_that_is_gone_is_made_again() {
    requires!(overlay);
    let lab = Lab::new();
    let a = lab.step(None, &["d/", "d/keep=a"]);
    let b0 = lab.step(None, &["d/", "d/gone=b"]);
    let b1 = lab.step(Some(&b0), &["-d", "d/", "d/new=b"]);
    let merge = |lab: &Lab, ids: &[RefId]| {
        let parts: Vec<_> = ids.iter().map(|id| lab.store.get(id).unwrap()).collect();
        lab.store
            .merge(&parts, RefOptions::default())
            .unwrap()
            .unwrap()
    };
    let ids = [a.id().clone(), b1.id().clone()];
    let merged = merge(&lab, &ids);
    let before = tree(&merged).await;
    drop((a, b0, b1, merged));
    let Lab { dir, store } = lab;
    store.close().unwrap();
    drop(store);
    let index = Connection::open(dir.path().join("index.db")).unwrap();
    let patch: String = index
        .query_row(
            "SELECT CAST(value AS TEXT) FROM meta WHERE key = 'store.patch' AND length(value) > 0",
            [],
            |r| r.get(0),
        )
        .unwrap();
    drop(index);
    std::fs::remove_dir_all(dir.path().join("snapshots").join(patch)).unwrap();
    let report = fsck(dir.path(), false).unwrap();
    assert!(!report.is_damaged(), "{report:?}");
    assert_eq!(report.findings.len(), 1, "{report:?}");
    let store = Store::open(Config::new(dir.path())).unwrap();
    let lab = Lab { dir, store };
    let merged = merge(&lab, &ids);
    assert_eq!(tree(&merged).await, before);
    drop(merged);
    end(lab, "a patch");
}

#[tokio::test]
async fn after_closing_in_order_the_check_is_made_only_if_fsck_found_something() {
    requires!(overlay);
    let sample = sample().await;
    let dir = sample.dir.path();
    let blob = dir.join("blobs/sha256").join(sample.pinned.hex());
    std::fs::write(&blob, "hist").unwrap();
    let has_blob = |store: &Store| store.blob_info(&sample.pinned).unwrap().is_some();
    let store = Store::open(Config::new(dir)).unwrap();
    assert!(
        has_blob(&store),
        "sizes are not looked at after a close in order"
    );
    store.close().unwrap();
    drop(store);
    let report = fsck(dir, false).unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(!report.is_damaged());
    let store = Store::open(Config::new(dir)).unwrap();
    assert!(!has_blob(&store));
    store.close().unwrap();
    drop(store);
    assert_eq!(fsck(dir, true).unwrap().findings, []);
}

#[tokio::test]
async fn the_machine_going_down_drops_what_was_not_synced_and_the_layer_is_packed_again() {
    requires!(overlay);
    let sample = sample().await;
    let lab = restart(&sample, &|state| {
        state.sql(
            "UPDATE info SET value = 'another' WHERE key = 'boot'; UPDATE blobs SET synced = 0",
        );
        state.row("top", "UPDATE refs SET synced = 0 WHERE id = ?1");
    });
    assert_eq!(records(&lab.store), "base lazy mount other");
    check_packed_again(&lab, &sample, "the machine went down").await;
    end(lab, "the machine went down");
}
