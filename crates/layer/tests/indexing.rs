//! The index of a layer shows what unpacking it would have left.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use fstree::Root;
use fstree::walk::{Filter, Walk};
use layer::index::{FolderReason, IndexError, IndexOptions, Indexed};
use layer::tar::{EntryKind, Header, Writer};
use layer::{ApplyOptions, CreateOptions};
use proptest::prelude::*;
use testkit::requires;

use crate::support::{Tree, empty, tree};

/// The time of folders that nobody describes; no layer of these tests has it.
const IMPLIED_TIME: i64 = 4_444_444_444;

fn entry(name: &str, kind: EntryKind, link_or_bytes: &str, number: u64) -> (Header, Vec<u8>) {
    let mut header = Header {
        name: name.into(),
        kind,
        mode: if number.is_multiple_of(3) {
            0o4751
        } else {
            0o640
        },
        uid: number % 5 * 20_000,
        gid: number,
        mtime: 1_000 + i64::try_from(number).unwrap(),
        ..Header::default()
    };
    let mut bytes = Vec::new();
    match kind {
        EntryKind::File => {
            bytes = link_or_bytes.into();
            header.size = u64::try_from(bytes.len()).unwrap();
        }
        EntryKind::HardLink | EntryKind::Symlink => header.link = link_or_bytes.into(),
        EntryKind::Char => (header.devmajor, header.devminor) = (number % 4000, number * 300),
        _ => {}
    }
    if number.is_multiple_of(4) && kind != EntryKind::HardLink {
        let records = [
            ("SCHILY.xattr.user.note", "note"),
            ("SCHILY.xattr.trusted.overlay.opaque", "y"),
            ("SCHILY.xattr.trusted.other", "t"),
        ];
        for (key, value) in records {
            header.records.insert(key.into(), value.into());
        }
    }
    (header, bytes)
}

fn tar(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (header, bytes) in entries {
        writer.append(header).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap()
}

fn index(layer: &[u8], below: &[Root]) -> Result<(Indexed, Vec<u8>), IndexError> {
    let below: Vec<Root> = below.to_vec();
    let mut tar = Vec::new();
    let options = IndexOptions {
        below: &below,
        root: erofs::Attributes::default(),
        now: IMPLIED_TIME,
        limit: None,
        limits: erofs::Limits::default(),
    };
    let indexed = layer::index::index(&mut &*layer, &mut tar, &options)?;
    Ok((indexed, tar))
}

/// Mounts the index over the tar; None, reported as skipped, where this kernel mounts no files.
fn mount(indexed: &Indexed, tar: &[u8]) -> Option<(Root, OwnedFd)> {
    let mut image = Vec::new();
    indexed.write(&mut image).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        File::open(&path).unwrap()
    };
    let (image, tar) = (store("index", &image), store("tar", tar));
    match sys::mount::erofs(image.as_fd(), &[tar.as_fd()]) {
        Ok(mount) => {
            let fd = mount.try_clone().unwrap();
            let root = Root::open(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
            Some((root, mount.into()))
        }
        // ENODEV, ENOTBLK
        Err(error) if matches!(error.raw_os_error(), Some(19 | 15)) => {
            testkit::skip::skip(&format!("this kernel mounts no EROFS from files: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A line for each file with everything that is seen of it, and its time.
fn lines(root: &Root) -> Vec<(String, i64)> {
    let mut lines = Vec::new();
    for stat in Walk::new(root, &Filter::default()).unwrap() {
        let stat = stat.unwrap();
        let (dir, name) = root.named("test", &stat.path).unwrap();
        let mut xattrs = dir.xattrs(&name).unwrap();
        xattrs.remove("security.selinux");
        let content = match stat.kind() {
            fstree::Kind::File => root.read(&stat.path, 1 << 30).unwrap(),
            _ => Vec::new(),
        };
        let line = format!(
            "{} {:o} {}:{} {}:{} -> {} = {} {xattrs:?} {}",
            stat.path.display(),
            stat.mode,
            stat.uid,
            stat.gid,
            stat.devmajor,
            stat.devminor,
            stat.linkname.display(),
            stat.is_hard_link(),
            oci::Digest::sha256(content),
        );
        lines.push((line, stat.mod_time));
    }
    lines
}

/// Unpacks and mounts, and compares. Returns whether there was something to compare.
fn compare(layer: &[u8], below: &Tree) -> bool {
    let unpacked = empty();
    let options = ApplyOptions {
        parents: vec![below.root.clone()],
        ..ApplyOptions::default()
    };
    let applied = layer::apply(&mut &*layer, &unpacked.root, &options);
    let indexed = index(layer, std::slice::from_ref(&below.root));
    let (indexed, tar) = match (&applied, indexed) {
        (_, Err(IndexError::NeedsFolder(_))) | (Err(_), Err(_)) => return false,
        (Ok(_), Err(error)) => panic!("unpacked, but not indexed: {error}"),
        (Err(error), Ok(_)) => panic!("indexed, but not unpacked: {error}"),
        (Ok(_), Ok(indexed)) => indexed,
    };
    assert_eq!(indexed.applied, applied.unwrap());
    let Some((mounted, _mount)) = mount(&indexed, &tar) else {
        return false;
    };
    let unpacked = lines(&unpacked.root).into_iter();
    let mounted = lines(&mounted);
    assert_eq!(unpacked.len(), mounted.len());
    for ((unpacked, unpacked_time), (mounted, mounted_time)) in unpacked.zip(mounted) {
        assert_eq!(mounted, unpacked);
        // A folder that is implied has the time of unpacking in a folder, as something was put into it.
        let implied = [IMPLIED_TIME * 1_000_000_000, crate::support::TIME];
        if !implied.contains(&mounted_time) {
            assert_eq!(mounted_time, unpacked_time, "{mounted}");
        }
    }
    true
}

const NAMES: [&str; 16] = [
    "a",
    "b",
    "a/b",
    "a/b/c",
    "b/a",
    "c/d/e",
    "./a",
    "/b",
    "a/../b",
    ".wh.a",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh..wh..opq",
    "b/.wh.a",
    "c/.wh.d",
    ".wh..wh.plnk",
];
const TARGETS: [&str; 9] = [
    "a", "/b", "../c", "b/a", "a/b", "./c/d", "loop", "/", "c/d/e",
];
const KINDS: [EntryKind; 6] = [
    EntryKind::Dir,
    EntryKind::File,
    EntryKind::Symlink,
    EntryKind::HardLink,
    EntryKind::Char,
    EntryKind::Fifo,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]
    #[test]
    fn an_index_shows_what_unpacking_leaves(
        picks in prop::collection::vec((0usize..16, 0usize..6, 0usize..9, 0u64..40), 0..14)
    ) {
        requires_root()?;
        let entries: Vec<_> = picks
            .iter()
            .map(|(name, kind, target, number)| {
                let name = NAMES[*name];
                let marks = name.contains(".wh.");
                let kind = if marks { EntryKind::File } else { KINDS[*kind] };
                let content = match kind {
                    EntryKind::File if marks => "",
                    EntryKind::File => "the content of a file, which lies in the tar",
                    _ => TARGETS[*target],
                };
                entry(name, kind, content, *number)
            })
            .collect();
        let below = tree("dir a 700 7 8\ndir c 750 9 10\ndir c/d 711 1 2\nfile c/d/e 644 0 0 below");
        compare(&tar(&entries), &below);
    }
}

/// Without root the cases are not run; the test beside them says that it is skipped.
fn requires_root() -> Result<(), TestCaseError> {
    testkit::skip::root().map_err(TestCaseError::reject)
}

#[test]
fn a_layer_of_all_kinds_is_mounted_as_it_would_be_unpacked() {
    requires!(root);
    let vectors = include_str!("data/layers.txt");
    let listing = |name: &str| {
        let start = vectors.split_once(&format!("[{name}]\n")).unwrap().1;
        let end = start.find("\n[").unwrap_or(start.len());
        tree(&start[..end])
    };
    let (upper, lower) = (listing("upper"), listing("lower"));
    let mut blob = Vec::new();
    let options = CreateOptions::default();
    layer::create(&upper.root, Some(&lower.root), &options, &mut blob).unwrap();
    assert!(compare(&blob, &lower));
}

#[test]
fn sparse_files_whose_parts_lie_on_blocks_are_mounted_and_others_are_unpacked() {
    requires!(root);
    let cases: [(&str, &[u8]); 4] = [
        ("GNU", include_bytes!("data/sparse-gnu.tar.gz")),
        ("PAX 0.0", include_bytes!("data/sparse-pax-0.0.tar.gz")),
        ("PAX 0.1", include_bytes!("data/sparse-pax-0.1.tar.gz")),
        ("PAX 1.0", include_bytes!("data/sparse-pax-1.0.tar.gz")),
    ];
    for (form, layer) in cases {
        match index(layer, &[]) {
            Ok(_) => assert!(compare(layer, &empty()), "{form}"),
            Err(IndexError::NeedsFolder(FolderReason::SparseFile)) => {}
            Err(error) => panic!("{form}: {error}"),
        }
    }
}

#[test]
fn what_an_index_cannot_show_is_said_to_need_unpacking() {
    let file = entry("file", EntryKind::File, "bytes", 1);
    let link = entry("link", EntryKind::HardLink, "absent", 1);
    let mut listed = entry("file", EntryKind::File, "bytes", 1);
    let list = "SCHILY.xattr.system.posix_acl_access";
    listed.0.records.insert(list.into(), vec![2, 0, 0, 0]);
    let mut cut = tar(std::slice::from_ref(&file));
    cut.truncate(512 + 5);
    let cases = [
        (tar(&[file, link]), FolderReason::LinkBelow),
        (tar(&[listed]), FolderReason::AccessControlList),
        // A stream that ends with its last content is unpacked as any other.
        (cut, FolderReason::CutBlock),
    ];
    for (layer, reason) in cases {
        match index(&layer, &[]) {
            Err(IndexError::NeedsFolder(given)) => assert_eq!(given, reason),
            result => panic!("{result:?}"),
        }
    }
}

#[test]
fn the_tar_is_kept_to_its_last_byte_and_names_the_layer() {
    let mut layer = tar(&[entry("file", EntryKind::File, "bytes", 1)]);
    layer.extend_from_slice(b"what follows the end of the archive");
    let (indexed, tar) = index(&layer, &[]).unwrap();
    assert_eq!(tar, layer);
    assert_eq!(indexed.applied.diff_id, oci::Digest::sha256(&layer));
    assert_eq!(
        indexed.applied.uncompressed_size,
        u64::try_from(layer.len()).unwrap()
    );
    assert_eq!(
        (indexed.applied.files_size, indexed.applied.entries),
        (5, 1)
    );
}

#[test]
fn a_full_disk_is_told_from_a_broken_stream() {
    #[derive(Debug)]
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let layer = tar(&[entry("file", EntryKind::File, "bytes", 1)]);
    let below: Vec<Root> = Vec::new();
    let options = IndexOptions {
        below: &below,
        root: erofs::Attributes::default(),
        now: 0,
        limit: None,
        limits: erofs::Limits::default(),
    };
    let error = layer::index::index(&mut &*layer, &mut Full, &options).unwrap_err();
    assert!(matches!(error, IndexError::Write(_)), "{error}");
    assert_eq!(error.kind(), oci::ErrorKind::Exhausted);
}

#[test]
fn entries_beyond_the_limits_are_refused_while_they_are_read() {
    let layer = tar(&[
        entry("one", EntryKind::File, "12345", 1),
        entry("two", EntryKind::File, "12345", 1),
    ]);
    let below: Vec<Root> = Vec::new();
    let options = |limit, nodes| IndexOptions {
        below: &below,
        root: erofs::Attributes::default(),
        now: 0,
        limit,
        limits: erofs::Limits {
            nodes,
            ..erofs::Limits::default()
        },
    };
    let run = |options: IndexOptions<'_>| {
        let error = layer::index::index(&mut &*layer, &mut Vec::new(), &options).unwrap_err();
        error.to_string()
    };
    assert_eq!(run(options(Some(9), 100)), "layer is larger than 9 bytes");
    let message = "invalid entry: a layer can have at most 2 files";
    assert_eq!(run(options(None, 2)), message);
}
