//! What steps, images and clients may do to a store, and it must hold.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::Digest;
use store::{
    BlobProvider, CompressionSpec, Config, ImmutableRef, LayerDesc, RefOptions, Store, StoreError,
};

use testkit::requires;

use crate::support::{Lab, Shelf, describe, plain, tree};

/// A blob that says it is the layer that another one is.
fn claiming(bad: &[u8], diff_id: &Digest) -> LayerDesc {
    let mut out = describe_bytes(bad);
    out.diff_id = diff_id.clone();
    out
}

fn describe_bytes(bytes: &[u8]) -> LayerDesc {
    let descriptor = oci::Descriptor::new(
        oci::media_type::OCI_LAYER_GZIP,
        Digest::sha256(bytes),
        bytes.len() as u64,
    );
    LayerDesc::new(descriptor, Digest::sha256(b""), "bad")
}

/// Blobs of which no layer of `good`'s diff id comes, by what is wrong with them.
fn bad_forms(lab: &Lab, good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let tar = plain(good);
    let mut longer = tar.clone();
    longer.extend_from_slice(&[7; 512]);
    vec![
        (
            "garbage",
            (0..2_000_u32).map(|i| (i * 7 % 251) as u8).collect(),
        ),
        ("nothing", Vec::new()),
        ("cut gzip", good[..good.len() / 2].to_vec()),
        ("gzip without its trailer", good[..good.len() - 8].to_vec()),
        ("cut tar", tar[..700].to_vec()),
        ("bytes after the end of the tar", longer),
        ("another tar", lab.layer_of(&["liar=2"])),
    ]
}

fn import(lab: &Lab, parent: Option<&ImmutableRef>, desc: LayerDesc, bytes: &[u8]) -> ImmutableRef {
    lab.store
        .import_layer(parent, desc, Shelf::of(bytes))
        .unwrap()
}

fn blobs(lab: &Lab) -> usize {
    std::fs::read_dir(lab.dir.path().join("blobs/sha256"))
        .unwrap()
        .count()
}

#[tokio::test]
async fn a_broken_image_leaves_nothing_and_spoils_no_image_that_has_the_same_layer() {
    requires!(overlay);
    for at in 0..7 {
        let lab = Lab::new();
        let good = lab.layer_of(&["x=1"]);
        let top = lab.layer_of(&["y=2"]);
        let (what, bad) = bad_forms(&lab, &good).swap_remove(at);
        let diff_id = describe(&good).diff_id;
        // Twice: the second attempt finds nothing of the first.
        for _ in 0..2 {
            let broken = import(&lab, None, claiming(&bad, &diff_id), &bad);
            let above = import(&lab, Some(&broken), describe(&top), &top);
            let failed = above.ensure().await;
            assert!(
                matches!(
                    failed,
                    Err(StoreError::Unpack { .. } | StoreError::DiffId { .. })
                ),
                "{what}: {failed:?}"
            );
        }
        // What is left is at most the blob of the upper layer, which is good: its fetch may have been given up with the lower one.
        let upper = lab
            .dir
            .path()
            .join("blobs/sha256")
            .join(Digest::sha256(&top).hex());
        assert_eq!(lab.snapshots(), 0, "{what}");
        assert_eq!(blobs(&lab), usize::from(upper.exists()), "{what}");

        let base = import(&lab, None, describe(&good), &good);
        let above = import(&lab, Some(&base), describe(&top), &top);
        assert_eq!(tree(&above).await, "x=1 y=2", "{what}");
        let exported = above.blobs(CompressionSpec::default()).await.unwrap();
        let names: Vec<_> = exported.iter().map(|b| &b.descriptor.digest).collect();
        assert_eq!(
            names,
            [&Digest::sha256(&good), &Digest::sha256(&top)],
            "{what}"
        );
        // Now that the layer is here, whose content the diff id vouches for, the other image has it too.
        let mended = import(&lab, None, claiming(&bad, &diff_id), &bad);
        assert_eq!(tree(&mended).await, "x=1", "{what}");
    }
}

#[tokio::test]
async fn of_two_images_that_nobody_unpacked_yet_each_has_its_own_blob() {
    requires!(overlay);
    let lab = Lab::new();
    let good = lab.layer_of(&["x=1"]);
    let top = lab.layer_of(&["y=2"]);
    let diff_id = describe(&good).diff_id;
    for (what, bad) in bad_forms(&lab, &good) {
        let lab = Lab::new();
        let (bad_shelf, good_shelf) = (Shelf::of(&bad), Shelf::of(&good));
        let broken = lab
            .store
            .import_layer(None, claiming(&bad, &diff_id), bad_shelf.clone())
            .unwrap();
        let broken_top = lab
            .store
            .import_layer(Some(&broken), describe(&top), Shelf::of(&top))
            .unwrap();
        let fine = lab
            .store
            .import_layer(None, describe(&good), good_shelf.clone())
            .unwrap();
        let fine_top = lab
            .store
            .import_layer(Some(&fine), describe(&top), Shelf::of(&top))
            .unwrap();
        assert_ne!(broken_top.id(), fine_top.id());
        // An image may be sent on without being unpacked: its own blobs are named.
        let blobs = fine_top.blobs(CompressionSpec::default()).await.unwrap();
        assert_eq!(blobs[0].descriptor.digest, Digest::sha256(&good), "{what}");
        assert_eq!(tree(&fine_top).await, "x=1 y=2", "{what}");
        assert_eq!((bad_shelf.times(), good_shelf.times()), (0, 1), "{what}");
        assert_eq!(tree(&broken_top).await, "x=1 y=2", "{what}");
        assert_eq!(
            bad_shelf.times(),
            0,
            "{what}: files are shared before anything is fetched"
        );
    }
}

type Lie = fn(&mut LayerDesc);

#[tokio::test]
async fn what_another_image_says_of_a_blob_is_not_believed() {
    requires!(overlay);
    let lab = Lab::new();
    let good = lab.layer_of(&["x=1"]);
    let lies: [(&str, Lie); 4] = [
        ("shorter", |d| d.descriptor.size = 10),
        ("longer", |d| d.descriptor.size += 1),
        ("of another type", |d| {
            d.descriptor.media_type = oci::media_type::OCI_LAYER_ZSTD.into();
        }),
        ("of another layer", |d| d.diff_id = Digest::sha256(b"else")),
    ];
    for (what, lie) in lies {
        let lab = Lab::new();
        let mut desc = describe(&good);
        lie(&mut desc);
        let liar = lab
            .store
            .import_layer(None, desc, Shelf::of(&good))
            .unwrap();
        let _failed_or_not = liar.ensure().await;
        let honest = lab
            .store
            .import_layer(None, describe(&good), Shelf::of(&good))
            .unwrap();
        assert_eq!(tree(&honest).await, "x=1", "{what}");
        let blobs = honest.blobs(CompressionSpec::default()).await.unwrap();
        assert_eq!(blobs[0].descriptor, describe(&good).descriptor, "{what}");
    }
}

#[tokio::test]
async fn bytes_that_one_source_cannot_give_come_from_the_other() {
    requires!(overlay);
    let lab = Lab::new();
    let good = lab.layer_of(&["x=1"]);
    for (what, bad) in bad_forms(&lab, &good) {
        let lab = Lab::new();
        let honest = lab
            .store
            .import_layer(None, describe(&good), Shelf::of(&good))
            .unwrap();
        // The same blob from a client's content store or a cache, which has not what it says.
        let wrong: Arc<dyn BlobProvider> = Shelf::of(&bad);
        let same = lab
            .store
            .import_layer(None, describe(&good), wrong)
            .unwrap();
        assert_eq!(same, honest);
        assert_eq!(tree(&honest).await, "x=1", "{what}");
    }
}

/// Makes directories one in the other below a directory of a tree.
fn nest(root: &fstree::Root, depth: usize) {
    let mut dir = root.dir("/").unwrap();
    for _ in 0..depth {
        dir = dir.create_dir("d".as_ref(), 0o755).unwrap();
    }
}

#[tokio::test]
async fn a_tree_that_is_nested_too_deep_is_refused_at_the_commit_and_goes() {
    requires!(overlay);
    let lab = Lab::new();
    let new = |retain| {
        let options = RefOptions {
            retain,
            ..RefOptions::default()
        };
        let mutable = lab.store.new_mutable(None, options).unwrap();
        nest(&mutable.root().unwrap(), 3_000);
        mutable
    };
    let refused = new(false).commit().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot keep the files that were written: commit d/d/d/d/d/d/d/d/…: nested too deep: a path may have 1024 names and 4096 bytes"
    );
    assert_eq!(lab.snapshots(), 0);
    // A cache mount is never committed. It is counted and pruned as it is.
    let cache_mount = new(true);
    let id = cache_mount.id().clone();
    drop(cache_mount);
    let usage = lab
        .store
        .disk_usage(&[], std::time::Duration::ZERO)
        .unwrap();
    assert!(
        usage.iter().any(|u| u.id == id && u.size > 3_000 * 512),
        "{usage:?}"
    );
    let all = store::PruneOptions {
        all: true,
        ..store::PruneOptions::default()
    };
    lab.store.prune(&all, &mut |_| {}).unwrap();
    assert_eq!(lab.snapshots(), 0);
    // And the next daemon begins with what is left in the trash.
    drop(lab.reopen());
}

#[tokio::test]
async fn a_layer_that_is_nested_too_deep_is_refused_when_it_is_unpacked() {
    requires!(overlay);
    let lab = Lab::new();
    // Each entry adds a hundred levels through a link to the last one.
    let hundred = "d/".repeat(100);
    let mut tar = layer::tar::Writer::new(Vec::new());
    for i in 0..20 {
        let from = if i == 0 {
            String::new()
        } else {
            format!("l{}/", i - 1)
        };
        for depth in 1..=100 {
            tar.append(&layer::tar::Header {
                name: format!("{from}{}", "d/".repeat(depth)).into_bytes(),
                kind: layer::tar::EntryKind::Dir,
                mode: 0o755,
                ..layer::tar::Header::default()
            })
            .unwrap();
        }
        let target = format!("{from}{hundred}");
        tar.append(&layer::tar::Header {
            name: format!("l{i}").into_bytes(),
            kind: layer::tar::EntryKind::Symlink,
            link: target.trim_end_matches('/').as_bytes().to_vec(),
            mode: 0o777,
            ..layer::tar::Header::default()
        })
        .unwrap();
    }
    let bytes = tar.finish().unwrap();
    let mut desc = describe_bytes(&bytes);
    desc.descriptor.media_type = oci::media_type::OCI_LAYER.into();
    desc.diff_id = Digest::sha256(&bytes);
    let lazy = lab
        .store
        .import_layer(None, desc, Shelf::of(&bytes))
        .unwrap();
    let refused = lazy.ensure().await.unwrap_err().to_string();
    assert!(refused.contains("nested too deep"), "{refused}");
    assert_eq!(lab.snapshots(), 0);
}

#[tokio::test]
async fn diffs_of_diffs_are_made_one_inside_the_other_up_to_a_bound() {
    requires!(overlay);
    let lab = Lab::new();
    let beside = lab.step(None, &["x=1"]);
    let mut top = lab.step(None, &["y=2"]);
    let refused = loop {
        let options = RefOptions::default();
        match lab.store.diff(Some(&beside), Some(&top), options) {
            Ok(diff) => top = diff.unwrap(),
            Err(error) => break error,
        }
    };
    assert!(
        refused
            .to_string()
            .contains("64 diffs one inside the other"),
        "{refused}"
    );
    assert_eq!(tree(&top).await, "y=2");
    // What has been made can be built on.
    let above = lab
        .store
        .diff(Some(&beside), Some(&top), RefOptions::default());
    assert_eq!(tree(&above.unwrap().unwrap()).await, "y=2");
}

#[test]
fn what_was_given_up_in_the_trash_is_told_and_keeps_no_daemon_from_starting() {
    requires!(overlay);
    let lab = Lab::new();
    let bad = lab.dir.path().join("trash/abc~5");
    std::fs::create_dir_all(bad.join("sub")).unwrap();
    std::fs::write(bad.join("sub/file"), vec![0; 1_000_000]).unwrap();
    let lab = lab.reopen();
    assert!(lab.store.used().unwrap() > 1_000_000);
    let Lab { dir, store } = lab;
    store.close().unwrap();
    drop(store);
    let report = store::fsck(dir.path(), false).unwrap();
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.subject.as_str(), f.heals))
        .collect();
    assert_eq!(findings, [("trash/abc~5", false)]);
    assert!(bad.exists());
}

/// Permission bits of everything directly under a directory, but for those below `skip`.
fn modes(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        out.push((
            entry.path(),
            entry.metadata().unwrap().permissions().mode() & 0o7777,
        ));
    }
    out
}

#[test]
fn nobody_else_reads_the_state_directory_also_one_that_was_open() {
    requires!(overlay);
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("missing/state");
    for round in ["made", "tightened"] {
        let store = Store::open(Config::new(&root)).unwrap();
        let lease = store.lease();
        store.put_blob(&lease, b"secret").unwrap();
        let mode = root.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{round}");
        for (path, mode) in modes(&root) {
            // The empty tree is shown to steps.
            let want = match (path.is_dir(), path.ends_with("empty")) {
                (true, true) => 0o755,
                (true, false) => 0o700,
                (false, _) => 0o600,
            };
            assert_eq!(mode, want, "{round}: {}", path.display());
        }
        for (path, mode) in modes(&root.join("blobs/sha256")) {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
        drop(lease);
        store.close().unwrap();
        drop(store);
        // As an earlier version left it.
        for folder in ["agents", "runtime"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("workerid"), "w").unwrap();
        for (path, _) in modes(&root) {
            let open = if path.is_dir() { 0o755 } else { 0o644 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(open)).unwrap();
        }
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_directory_that_others_use_is_not_closed_to_them() {
    requires!(overlay);
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("of others"), "x").unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let store = Store::open(Config::new(shared.path())).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(shared.path()), 0o1777);
    assert_eq!(mode(&shared.path().join("snapshots")), 0o700);
    assert_eq!(mode(&shared.path().join("index.db")), 0o600);
    drop(store);
}
