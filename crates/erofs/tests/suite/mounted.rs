//! The kernel shows the tree that was described.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use erofs::{BlockSize, DeviceNumber, FileKind};
use sys::mount::DetachedMount;
use testkit::requires;

use crate::model::Model;

/// Mounts image and device; None, reported as skipped, where this kernel mounts no files.
fn mount(model: &Model, block_size: BlockSize) -> Option<DetachedMount> {
    let (image, _) = model.image(block_size);
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        File::open(&path).unwrap()
    };
    let (index, device) = (store("index", &image), store("device", &model.device));
    match sys::mount::erofs(index.as_fd(), &[device.as_fd()]) {
        Ok(mount) => Some(mount),
        // ENODEV, ENOTBLK
        Err(error) if matches!(error.raw_os_error(), Some(19 | 15)) => {
            testkit::skip::skip(&format!("this kernel mounts no EROFS from files: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn at(mount: &DetachedMount, path: &[u8]) -> PathBuf {
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_fd().as_raw_fd()));
    let relative = path.strip_prefix(b"/").unwrap_or(path);
    root.join(Path::new(std::ffi::OsStr::from_bytes(relative)))
}

fn compare(mount: &DetachedMount, model: &Model) {
    let names = model.nodes.keys().chain(model.links.keys());
    for path in names {
        let target = model.links.get(path).unwrap_or(path);
        let node = &model.nodes[target];
        let what = path.escape_ascii().to_string();
        let mut place = at(mount, path);
        if path.is_empty() {
            place.push(".");
        }
        let stat = fs::symlink_metadata(&place).unwrap_or_else(|error| panic!("{what}: {error}"));
        let kind = stat.file_type();
        let is_kind = match node.kind {
            FileKind::File => kind.is_file(),
            FileKind::Folder => kind.is_dir(),
            FileKind::CharDevice => kind.is_char_device(),
            FileKind::BlockDevice => kind.is_block_device(),
            FileKind::Fifo => kind.is_fifo(),
            FileKind::Socket => kind.is_socket(),
            FileKind::Symlink => kind.is_symlink(),
        };
        assert!(is_kind, "{what}");
        let attributes = &node.attributes;
        assert_eq!(
            stat.mode() & 0o7777,
            u32::from(attributes.permissions),
            "{what}"
        );
        assert_eq!(
            (stat.uid(), stat.gid()),
            (attributes.uid, attributes.gid),
            "{what}"
        );
        let time = (stat.mtime(), stat.mtime_nsec());
        assert_eq!(
            time,
            (attributes.seconds, i64::from(attributes.nanoseconds)),
            "{what}"
        );
        assert_eq!(stat.nlink(), u64::from(model.links_of(target)), "{what}");
        for (name, value) in attributes.xattrs() {
            let name = std::str::from_utf8(name).unwrap();
            let mut bytes = vec![0; 70_000];
            let length = rustix::fs::lgetxattr(&place, name, &mut bytes).unwrap();
            assert_eq!(&bytes[..length], &**value, "{what} {name}");
        }
        match node.kind {
            FileKind::File => {
                let mut bytes = Vec::new();
                File::open(&place).unwrap().read_to_end(&mut bytes).unwrap();
                assert!(bytes == node.bytes, "{what}: the content differs");
            }
            FileKind::Symlink => {
                assert_eq!(
                    fs::read_link(&place).unwrap().as_os_str().as_bytes(),
                    node.bytes,
                    "{what}"
                );
            }
            FileKind::Folder => {
                let listed = fs::read_dir(&place).unwrap().count();
                let all = model.nodes.keys().skip(1).chain(model.links.keys());
                let children = all.filter(|other| crate::model::split(other).0 == path.as_slice());
                assert_eq!(listed, children.count(), "{what}");
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                let number = DeviceNumber {
                    major: rustix::fs::major(stat.rdev()),
                    minor: rustix::fs::minor(stat.rdev()),
                };
                assert_eq!(Some(number), node.number, "{what}");
            }
            FileKind::Fifo | FileKind::Socket => {}
        }
    }
}

#[test]
fn random_trees_are_mounted_as_they_were_built() {
    requires!(root);
    for block_size in [BlockSize::TAR, BlockSize::PAGE] {
        for seed in 1..12 {
            let model = Model::random(seed, seed * 25, block_size);
            let Some(mount) = mount(&model, block_size) else {
                return;
            };
            compare(&mount, &model);
        }
    }
}

#[test]
fn a_mounted_folder_of_many_names_is_complete() {
    requires!(root);
    let mut model = Model::new();
    for number in 0..20_000 {
        model.file(
            format!("/file number {number}").as_bytes(),
            b"",
            BlockSize::TAR,
        );
    }
    if let Some(mount) = mount(&model, BlockSize::TAR) {
        compare(&mount, &model);
    }
}

#[test]
fn files_of_many_sizes_are_read_to_their_end_and_no_further() {
    requires!(root);
    let mut model = Model::new();
    for length in (0..3000).chain([4095, 4096, 4097, 65_535, 65_536, 1 << 20, 65_537]) {
        let bytes: Vec<u8> = (0..length)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        model.file(format!("/{length}").as_bytes(), &bytes, BlockSize::TAR);
    }
    let Some(mount) = mount(&model, BlockSize::TAR) else {
        return;
    };
    compare(&mount, &model);
}

#[test]
fn a_mounted_tree_is_a_lower_layer_with_whiteouts() {
    requires!(root, overlay);
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    for name in ["hidden", "kept", "opaque/inside"] {
        fs::create_dir_all(below.join(name).parent().unwrap()).unwrap();
        fs::write(below.join(name), name).unwrap();
    }
    let mut model = Model::new();
    let mut whiteout = crate::model::ModelNode::new(FileKind::CharDevice);
    whiteout.number = Some(DeviceNumber { major: 0, minor: 0 });
    model.nodes.insert(b"/hidden".to_vec(), whiteout);
    let mut opaque = crate::model::ModelNode::new(FileKind::Folder);
    let marker = (Box::from(*b"trusted.overlay.opaque"), Box::from(*b"y"));
    opaque.attributes.xattrs = Some(Box::new(vec![marker]));
    model.nodes.insert(b"/opaque".to_vec(), opaque);
    model.file(b"/opaque/new", b"new", BlockSize::TAR);
    let Some(layer) = mount(&model, BlockSize::TAR) else {
        return;
    };
    let below = File::open(&below).unwrap();
    let overlay = sys::mount::overlay(&sys::mount::Overlay {
        lower: &[layer.as_fd(), below.as_fd()],
        upper: None,
        volatile: false,
        options: &[],
        attrs: sys::mount::Attrs::default(),
    })
    .unwrap();
    let names = |path: &str| {
        let place = at(&overlay, path.as_bytes());
        let mut names: Vec<_> = fs::read_dir(place)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("./"), ["kept", "opaque"]);
    assert_eq!(names("opaque"), ["new"]);
}
