//! Layers that are kept as their tar show what they would show unpacked, and go like others.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use layer::tar::{EntryKind, Header, Writer};
use store::{Config, ImmutableRef, LayerForm, PruneOptions, RefOptions, Store, StoreError, fsck};
use testkit::requires;

use crate::support::{Lab, Shelf, copy_state, describe, list, plain, tree};

impl Lab {
    fn keeping(layers: LayerForm) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            layers,
            ..Config::new(dir.path())
        };
        let store = Store::open(config).unwrap();
        Self { dir, store }
    }

    /// None, reported as skipped, where the kernel mounts no files.
    async fn keeping_tars() -> Option<Self> {
        let lab = Self::keeping(LayerForm::Auto);
        let blob = lab.layer_of(&["probe=1"]);
        let shelf = Shelf::of(&blob);
        let layer = lab
            .store
            .import_layer(None, describe(&blob), shelf)
            .unwrap();
        layer.ensure().await.unwrap();
        if !lab.files().is_empty() {
            return Some(Self::keeping(LayerForm::Tar));
        }
        testkit::skip::skip("this kernel cannot mount layers where their tar lies");
        None
    }

    /// The tars and indexes that there are.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for snapshot in fs::read_dir(self.dir.path().join("snapshots")).unwrap() {
            for name in ["tar", "index"] {
                let path = snapshot.as_ref().unwrap().path().join(name);
                files.extend(path.exists().then_some(path));
            }
        }
        files
    }

    async fn pull(&self, parent: Option<&ImmutableRef>, blob: &[u8]) -> ImmutableRef {
        let shelf = Shelf::of(blob);
        let layer = self
            .store
            .import_layer(parent, describe(blob), shelf)
            .unwrap();
        layer.ensure().await.unwrap();
        layer
    }
}

/// A layer of these entries: `.wh.name` deletes, `name -> target` links.
fn layer_of(entries: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        let mut header = Header {
            mode: 0o644,
            ..Header::default()
        };
        let mut bytes = "";
        if let Some((name, target)) = entry.split_once(" => ") {
            (header.name, header.link) = (name.into(), target.into());
            header.kind = EntryKind::HardLink;
        } else if let Some((name, target)) = entry.split_once(" -> ") {
            (header.name, header.link) = (name.into(), target.into());
            header.kind = EntryKind::Symlink;
        } else if let Some(name) = entry.strip_suffix('/') {
            header.name = format!("{name}/").into();
            (header.kind, header.mode) = (EntryKind::Dir, 0o755);
        } else {
            let (name, content) = entry.split_once('=').unwrap_or((entry, ""));
            (header.name, bytes) = (name.into(), content);
            header.size = u64::try_from(content.len()).unwrap();
        }
        writer.append(&header).unwrap();
        writer.write_all(bytes.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

#[tokio::test]
async fn pulled_layers_and_steps_on_them_show_the_same_in_both_forms() {
    requires!(overlay);
    let Some(tars) = Lab::keeping_tars().await else {
        return;
    };
    let folders = Lab::keeping(LayerForm::Folder);
    let layers = [
        layer_of(&[
            "etc/",
            "etc/a=1",
            "etc/b=2",
            "old/x=3",
            "gone=4",
            "link -> etc/a",
        ]),
        layer_of(&["etc/.wh.b", "old/.wh..wh..opq", "old/y=5", ".wh.gone"]),
        layer_of(&["etc/", "etc/a=6", "new/deep/file=7"]),
    ];
    let mut trees = Vec::new();
    for lab in [&tars, &folders] {
        let mut parent = None;
        for layer in &layers {
            parent = Some(lab.pull(parent.as_ref(), layer).await);
        }
        let top = lab.step(parent.as_ref(), &["etc/a=8", "-new", "old/z=9"]);
        let again = lab.step(Some(&top), &["link2=10"]);
        trees.push((
            tree(&parent.unwrap()).await,
            tree(&top).await,
            tree(&again).await,
        ));
    }
    assert_eq!(trees[0], trees[1]);
    assert_eq!(
        trees[0].0,
        "etc/ etc/a=6 link:Symlink new/ new/deep/ new/deep/file=7 old/ old/y=5"
    );
    assert_eq!((tars.files().len(), folders.files().len()), (6, 0));
}

#[tokio::test]
async fn the_tar_is_the_layer_byte_for_byte() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let blob = lab.layer_of(&["a=1", "b/", "b/c=2"]);
    let _layer = lab.pull(None, &blob).await;
    let tar = lab.files().into_iter().find(|path| path.ends_with("tar"));
    assert_eq!(fs::read(tar.unwrap()).unwrap(), plain(&blob));
}

#[tokio::test]
async fn a_layer_that_no_index_can_show_is_unpacked() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let base = lab.pull(None, &layer_of(&["file=1"])).await;
    let linking = lab.pull(Some(&base), &layer_of(&["other => file"])).await;
    assert_eq!(tree(&linking).await, "file=1 other=1");
    assert_eq!(lab.files().len(), 2, "of the first only");
}

#[tokio::test]
async fn a_layer_that_is_not_what_it_was_said_to_be_leaves_nothing() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let blob = layer_of(&["file=1"]);
    let mut other = describe(&blob);
    other.diff_id = oci::Digest::sha256("another layer");
    let layer = lab
        .store
        .import_layer(None, other, Shelf::of(&blob))
        .unwrap();
    let error = layer.ensure().await.unwrap_err();
    assert!(matches!(error, StoreError::DiffId { .. }), "{error}");
    let broken = layer_of(&["file=1"])[..300].to_vec();
    let layer = lab
        .store
        .import_layer(None, describe(&broken), Shelf::of(&broken))
        .unwrap();
    drop(layer.ensure().await.unwrap_err());
    assert_eq!(lab.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_is_pruned_is_gone_from_the_disk_while_its_readers_read_on() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let layer = lab.pull(None, &layer_of(&["file=1"])).await;
    let root = layer.root().unwrap();
    drop(layer);
    lab.store
        .prune(&PruneOptions::default(), &mut |_| {})
        .unwrap();
    assert_eq!(lab.files(), Vec::<PathBuf>::new());
    assert_eq!(list(&root), "file=1");
}

#[tokio::test]
async fn a_store_that_was_killed_has_its_tar_layers_and_drops_what_is_half_there() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let base = lab.pull(None, &layer_of(&["file=1"])).await;
    let id = base.id().clone();
    let killed = lab.killed();
    let again = killed.store.get(&id).unwrap();
    assert_eq!(tree(&again).await, "file=1");

    let dir = tempfile::tempdir().unwrap();
    copy_state(lab.dir.path(), dir.path());
    let snapshot = fs::read_dir(dir.path().join("snapshots")).unwrap().next();
    fs::remove_file(snapshot.unwrap().unwrap().path().join("index")).unwrap();
    let store = Store::open(Config::new(dir.path())).unwrap();
    let error = store.get(&id).unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_state_directory_goes_on_in_the_other_form() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let base = lab.pull(None, &layer_of(&["file=1"])).await;
    let id = base.id().clone();
    let dir = tempfile::tempdir().unwrap();
    copy_state(lab.dir.path(), dir.path());
    let config = Config {
        layers: LayerForm::Folder,
        ..Config::new(dir.path())
    };
    let store = Store::open(config).unwrap();
    let lab = Lab { dir, store };
    let base = lab.store.get(&id).unwrap();
    let top = lab.pull(Some(&base), &layer_of(&["more=2"])).await;
    assert_eq!(tree(&top).await, "file=1 more=2");
    assert_eq!(lab.files().len(), 2, "of the first only");
}

#[tokio::test]
async fn a_check_of_the_state_directory_finds_a_changed_byte_in_tar_and_index() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let _base = lab.pull(None, &layer_of(&["file=1"])).await;
    for (name, at, problem) in [
        ("tar", 512, "its tar has the digest"),
        ("index", 1536 + 44, "the number of its links is wrong"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy_state(lab.dir.path(), dir.path());
        assert!(!fsck(dir.path(), true).unwrap().is_damaged());
        let snapshot = fs::read_dir(dir.path().join("snapshots")).unwrap().next();
        let path = snapshot.unwrap().unwrap().path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let report = fsck(dir.path(), true).unwrap();
        let problems: Vec<&str> = report
            .findings
            .iter()
            .map(|finding| &*finding.problem)
            .collect();
        assert!(
            problems.iter().any(|text| text.contains(problem)),
            "{problems:?}"
        );
        assert!(report.is_damaged());
    }
}

#[tokio::test]
async fn the_size_of_a_layer_is_that_of_its_two_files() {
    requires!(overlay);
    let Some(lab) = Lab::keeping_tars().await else {
        return;
    };
    let content = "x".repeat(100_000);
    let blob = layer_of(&[&format!("file={content}")]);
    let layer = lab.pull(None, &blob).await;
    let on_disk = |path: &PathBuf| {
        i64::try_from(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap()) * 512)
            .unwrap()
    };
    let files: i64 = lab.files().iter().map(on_disk).sum();
    let usage = lab
        .store
        .disk_usage(&[], std::time::Duration::ZERO)
        .unwrap();
    let size = usage
        .iter()
        .find(|record| record.id == *layer.id())
        .unwrap()
        .size;
    assert_eq!(size, files + i64::try_from(blob.len()).unwrap());
    let step = lab
        .store
        .new_mutable(Some(&layer), RefOptions::described("a step"))
        .unwrap();
    drop(step);
}
