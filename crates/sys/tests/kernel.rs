//! The calls against the kernel that runs here. What needs root skips without it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unsafe_code,
    reason = "tests fail by panicking; one of them is called before main"
)]

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};

use sys::mount::{self, AttrChange, Attrs, Overlay};
use sys::{path, process, reflink, socket, xattr};

#[path = "kernel/child.rs"]
mod child;
#[path = "kernel/files.rs"]
mod files;
#[path = "kernel/filters.rs"]
mod filters;
#[path = "kernel/mounts.rs"]
mod mounts;
#[path = "kernel/processes.rs"]
mod processes;

/// All that this binary plays in processes of one thread.
fn scenes() -> Vec<child::Scene> {
    [mounts::SCENES, processes::SCENES, filters::SCENES].concat()
}

#[test]
fn an_overlay_of_two_hundred_layers_is_a_detached_mount() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<OwnedFd> = (0..200)
        .map(|index| {
            let layer = dir.path().join(format!("a-layer-with-a-long-name-{index}"));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join(format!("file{index}")), index.to_string()).unwrap();
            fs::write(layer.join("top"), index.to_string()).unwrap();
            path::open_dir(&layer).unwrap()
        })
        .collect();
    let lower: Vec<BorrowedFd<'_>> = layers.iter().map(AsFd::as_fd).collect();
    for name in ["upper", "work"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let [upper, work] =
        ["upper", "work"].map(|name| path::open_dir(dir.path().join(name)).unwrap());
    let upper = Some((upper.as_fd(), work.as_fd()));
    let mounted = mount::overlay(&Overlay {
        lower: &lower,
        upper,
        volatile: false,
        options: &[],
        attrs: Attrs::default(),
    })
    .unwrap();
    let read = |name: &str| {
        let mut text = String::new();
        let fd = path::open_in_root(&mounted, name, path::OpenFlags::RDONLY, 0).unwrap();
        std::io::Read::read_to_string(&mut File::from(fd), &mut text).unwrap();
        text
    };
    assert_eq!(
        (read("file199").as_str(), read("top").as_str()),
        ("199", "0")
    );
    sys::file::mkdirat(&mounted, "made", 0o700).unwrap();
    assert!(dir.path().join("upper/made").is_dir());
    let set = Attrs {
        readonly: true,
        ..Attrs::default()
    };
    mount::mount_setattr(
        &mounted,
        AttrChange {
            set,
            ..AttrChange::default()
        },
    )
    .unwrap();
    assert_eq!(
        sys::file::mkdirat(&mounted, "more", 0o700)
            .unwrap_err()
            .raw_os_error(),
        Some(libc::EROFS)
    );
}

#[test]
fn names_stay_inside_the_root_they_start_in() {
    let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("file"), "").unwrap();
    symlink(outside.path().join("file"), inside.path().join("absolute")).unwrap();
    symlink(
        "../../../../../../../../etc/passwd",
        inside.path().join("dots"),
    )
    .unwrap();
    symlink("/proc/self/root", inside.path().join("magic")).unwrap();
    let root = path::open_dir(inside.path()).unwrap();
    for name in ["absolute", "dots", "magic", "../../../../etc/passwd"] {
        assert!(path::open_path(&root, name).is_err(), "{name}");
    }
    let proc = path::open_dir("/proc").unwrap();
    assert!(
        path::open_path(&proc, "self/exe").is_err(),
        "magic links are refused"
    );
    path::open_path_nofollow(&root, "dots").unwrap();
}

#[test]
fn attributes_of_links_and_of_places_are_their_own() {
    testkit::requires!(root);
    // Where there is room for trusted attributes; tmpfs has none of user's.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    symlink("file", dir.path().join("link")).unwrap();
    let root = path::open_dir(dir.path()).unwrap();
    let file = path::open_path(&root, "file").unwrap();
    let long = vec![7; 3000];
    xattr::set(&file, "trusted.file", &long).unwrap();
    xattr::lset(&root, b"link", "trusted.link", b"x").unwrap();
    assert_eq!(
        xattr::get(&file, "trusted.file").unwrap().as_deref(),
        Some(long.as_slice())
    );
    assert_eq!(xattr::get(&file, "trusted.link").unwrap(), None);
    assert_eq!(
        xattr::lget(&root, b"link", "trusted.link")
            .unwrap()
            .as_deref(),
        Some(&b"x"[..])
    );
    assert_eq!(xattr::lget(&root, b"link", "trusted.file").unwrap(), None);
    let names = |list: Vec<std::ffi::CString>| {
        list.iter()
            .filter(|name| name.to_bytes().starts_with(b"trusted."))
            .count()
    };
    assert_eq!(
        (
            names(xattr::list(&file).unwrap()),
            names(xattr::llist(&root, b"link").unwrap())
        ),
        (1, 1)
    );
    for hostile in [&b"../file"[..], b"..", b"", b"a/b"] {
        assert!(xattr::lset(&root, hostile, "trusted.x", b"").is_err());
    }
}

#[test]
fn copies_keep_holes_and_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(dir.path().join(name))
            .unwrap()
    };
    let mut source = open("source");
    source.write_all(&[1; 5000]).unwrap();
    source.seek(SeekFrom::Start(64 << 20)).unwrap();
    source.write_all(b"end").unwrap();
    source.set_len((80 << 20) + 1).unwrap();
    source.sync_all().unwrap();
    let target = open("target");
    assert_eq!(
        reflink::copy_contents(&source, &target).unwrap(),
        (80 << 20) + 1
    );
    assert!(
        fs::read(dir.path().join("source")).unwrap()
            == fs::read(dir.path().join("target")).unwrap()
    );
    assert!(
        target.metadata().unwrap().blocks() * 512 < 1 << 20,
        "the holes stay"
    );
}

#[test]
fn messages_carry_descriptors_and_keep_their_borders() {
    let (left, right) = socket::pair().unwrap();
    let file = sys::file::memfd("x").unwrap();
    let many: Vec<BorrowedFd<'_>> = vec![file.as_fd(); socket::MAX_FDS];
    socket::send(&left, b"one", &many).unwrap();
    socket::send(&left, b"two", &[]).unwrap();
    let mut buffer = [0; 8];
    let (length, fds) = socket::receive(&right, &mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], fds.len()),
        (&b"one"[..], socket::MAX_FDS)
    );
    assert_eq!(socket::receive(&right, &mut buffer).unwrap().0, 3);
    socket::send(&left, b"far too long", &[]).unwrap();
    assert!(socket::receive(&right, &mut buffer).is_err());
    drop(left);
    assert_eq!(socket::receive(&right, &mut buffer).unwrap().0, 0);
}

#[test]
fn a_process_with_threads_is_not_copied() {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || stopped.recv());
    assert!(process::SingleThreaded::claim().is_err());
    drop(stop);
    assert!(thread.join().unwrap().is_err());
}
