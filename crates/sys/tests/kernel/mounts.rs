//! Mounts, in a mount namespace of their own.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sys::mount::{self, AttrChange, Attrs, DetachedMount};
use sys::path;
use sys::process::{self, Namespaces, SingleThreaded};
use sys::userns::{self, IdRange};

use crate::child::{Scene, in_child, unsupported};

pub(crate) const SCENES: &[Scene] = &[
    ("mounts are seen where they are attached", attached),
    ("flags of a mount", flags),
    ("clones of trees", clones),
    ("a new root", new_root),
    ("ids of a mount", mapped),
    ("limits of a tmpfs", tmpfs),
];

fn own_mounts(alone: &SingleThreaded) -> PathBuf {
    let mount = Namespaces {
        mount: true,
        ..Namespaces::default()
    };
    process::unshare(alone, mount).unwrap();
    let change = AttrChange {
        private: true,
        recursive: true,
        ..AttrChange::default()
    };
    mount::mount_setattr(path::open_dir("/").unwrap(), change).unwrap();
    // A tmpfs over a folder of everybody's: nothing of this outlives the namespace.
    let place = path::open_dir("/mnt").unwrap();
    mount::move_mount(tmpfs_mount(), &place).unwrap();
    PathBuf::from("/mnt")
}

fn tmpfs_mount() -> DetachedMount {
    mount::new_mount(c"tmpfs", &[("mode", "755")], Attrs::default()).unwrap()
}

fn name(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn attached(alone: &SingleThreaded) {
    let dir = own_mounts(alone);
    let place = dir.join("place");
    fs::create_dir(&place).unwrap();
    fs::write(place.join("below"), "").unwrap();
    let detached = tmpfs_mount();
    sys::file::mkdirat(&detached, "made-before", 0o700).unwrap();
    assert!(!place.join("made-before").exists());
    mount::move_mount(&detached, path::open_dir(&place).unwrap()).unwrap();
    assert!(place.join("made-before").is_dir() && !place.join("below").exists());
    drop(detached);
    assert!(
        place.join("made-before").is_dir(),
        "an attached mount outlives its descriptor"
    );

    let busy = File::create(place.join("open")).unwrap();
    assert_eq!(errno(mount::umount(&name(&place))), Some(libc::EBUSY));
    mount::umount_detach(&name(&place)).unwrap();
    assert!(place.join("below").exists());
    drop(busy);
    assert_eq!(
        errno(mount::umount(&name(&place))),
        Some(libc::EINVAL),
        "nothing is mounted there"
    );
    assert_eq!(
        errno(mount::umount_detach(c"/mnt/nowhere")),
        Some(libc::ENOENT)
    );

    // The mount point is the link itself and nothing that it leads to.
    std::os::unix::fs::symlink("/mnt", dir.join("link")).unwrap();
    assert_eq!(
        errno(mount::umount_detach(&name(&dir.join("link")))),
        Some(libc::EINVAL)
    );

    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let target = path::open_host_path(&file).unwrap();
    assert_eq!(
        errno(mount::move_mount(tmpfs_mount(), &target)),
        Some(libc::EINVAL)
    );
}

fn flags(alone: &SingleThreaded) {
    let dir = own_mounts(alone);
    let set = |readonly, nosuid, nodev, noexec| Attrs {
        readonly,
        nosuid,
        nodev,
        noexec,
    };
    let shown = || {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = text
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some("/mnt/place"));
        let options = line.unwrap().split(' ').nth(5).unwrap().to_owned();
        ["ro", "nosuid", "nodev", "noexec"].map(|flag| options.split(',').any(|own| own == flag))
    };
    let place = dir.join("place");
    fs::create_dir(&place).unwrap();
    for flags in [
        [false, false, false, false],
        [true, false, false, false],
        [false, true, false, false],
        [false, false, true, false],
        [false, false, false, true],
        [true, true, true, true],
    ] {
        let [readonly, nosuid, nodev, noexec] = flags;
        let attrs = set(readonly, nosuid, nodev, noexec);
        let mounted = mount::new_mount(c"tmpfs", &[], attrs).unwrap();
        mount::move_mount(&mounted, path::open_dir(&place).unwrap()).unwrap();
        assert_eq!(shown(), flags);
        let cleared = AttrChange {
            clear: attrs,
            ..AttrChange::default()
        };
        mount::mount_setattr(&mounted, cleared).unwrap();
        assert_eq!(shown(), [false; 4]);
        let back = AttrChange {
            set: attrs,
            ..AttrChange::default()
        };
        mount::mount_setattr(&mounted, back).unwrap();
        assert_eq!(shown(), flags);
        mount::umount_detach(&name(&place)).unwrap();
    }
}

fn clones(alone: &SingleThreaded) {
    let dir = own_mounts(alone);
    fs::create_dir_all(dir.join("tree/inner")).unwrap();
    fs::write(dir.join("tree/outer"), "").unwrap();
    mount::move_mount(
        tmpfs_mount(),
        path::open_dir(dir.join("tree/inner")).unwrap(),
    )
    .unwrap();
    fs::write(dir.join("tree/inner/deep"), "").unwrap();
    let tree = path::open_dir(dir.join("tree")).unwrap();
    for (recursive, sees_below) in [(true, true), (false, false)] {
        let copy = mount::open_tree_clone(&tree, recursive).unwrap();
        assert!(path::open_path(&copy, "outer").is_ok());
        assert_eq!(
            path::open_path(&copy, "inner/deep").is_ok(),
            sees_below,
            "{recursive}"
        );
        let readonly = AttrChange {
            set: Attrs {
                readonly: true,
                ..Attrs::default()
            },
            recursive,
            ..AttrChange::default()
        };
        mount::mount_setattr(&copy, readonly).unwrap();
        assert_eq!(
            errno(sys::file::mkdirat(&copy, "x", 0o700)),
            Some(libc::EROFS)
        );
        if recursive {
            assert_eq!(
                errno(sys::file::mkdirat(&copy, "inner/x", 0o700)),
                Some(libc::EROFS)
            );
        }
    }
    // The original is as it was.
    sys::file::mkdirat(&tree, "inner/x", 0o700).unwrap();
    let file = path::open_host_path(dir.join("tree/outer")).unwrap();
    let of_file = mount::open_tree_clone(&file, false).unwrap();
    mount::move_mount(
        &of_file,
        path::open_host_path(dir.join("tree/inner/deep")).unwrap(),
    )
    .unwrap();
    let again = of_file.try_clone().unwrap();
    assert!(rustix::fs::fstat(&again).unwrap().st_ino == rustix::fs::fstat(&file).unwrap().st_ino);
}

fn new_root(alone: &SingleThreaded) {
    let dir = own_mounts(alone);
    fs::write(dir.join("only"), "").unwrap();
    std::env::set_current_dir(&dir).unwrap();
    mount::pivot_root_here().unwrap();
    mount::umount_detach(c".").unwrap();
    std::env::set_current_dir("/").unwrap();
    let names: Vec<_> = fs::read_dir("/")
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["only"]);
    assert!(fs::metadata("/../../etc/passwd").is_err());
}

fn tmpfs(alone: &SingleThreaded) {
    let dir = own_mounts(alone);
    let small = mount::new_mount(
        c"tmpfs",
        &[("size", "65536"), ("mode", "1711")],
        Attrs::default(),
    )
    .unwrap();
    mount::move_mount(&small, path::open_dir(&dir).unwrap()).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o1711);
    let mut file = File::create(dir.join("file")).unwrap();
    file.write_all(&[1; 32 << 10]).unwrap();
    assert_eq!(errno(file.write_all(&[1; 64 << 10])), Some(libc::ENOSPC));
    for (options, wanted) in [
        (&[("size", "no number")][..], libc::EINVAL),
        (&[("nothing", "")], libc::EINVAL),
    ] {
        assert_eq!(
            errno(mount::new_mount(c"tmpfs", options, Attrs::default())),
            Some(wanted),
            "{options:?}"
        );
    }
    assert_eq!(
        errno(mount::fsopen(c"no-such-filesystem")),
        Some(libc::ENODEV)
    );
}

fn mapped(alone: &SingleThreaded) {
    let dir = own_mounts(alone);
    let range = IdRange {
        base: 300_000,
        count: 1_000,
    };
    let user = Namespaces {
        user: true,
        ..Namespaces::default()
    };
    let (held, hold) = sys::socket::pair().unwrap();
    let namespace = match process::clone3(alone, user, None).unwrap() {
        process::Cloned::Child => {
            drop(hold);
            // Until the parent has what it wants.
            drop(sys::socket::receive(&held, &mut [0; 1]));
            process::exit_now(0);
        }
        process::Cloned::Parent { pid, .. } => {
            userns::write_maps(pid, range).unwrap();
            assert!(userns::write_maps(pid, range).is_err(), "once in its life");
            userns::open(pid).unwrap()
        }
    };
    fs::write(dir.join("root"), "").unwrap();
    fs::write(dir.join("seven"), "").unwrap();
    std::os::unix::fs::chown(dir.join("seven"), Some(7), Some(8)).unwrap();
    std::os::unix::fs::chown(dir.join("root"), Some(5_000), Some(0)).unwrap();
    let copy = mount::open_tree_clone(path::open_dir(&dir).unwrap(), false).unwrap();
    if let Err(error) = mount::map_ids(&copy, &namespace, false) {
        // Before Linux 6.3 a tmpfs has no mapped mounts.
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        unsupported();
    }
    let owner = |name: &str| {
        let stat = rustix::fs::statat(&copy, name, rustix::fs::AtFlags::empty()).unwrap();
        (stat.st_uid, stat.st_gid)
    };
    assert_eq!(owner("seven"), (300_007, 300_008));
    assert_eq!(
        owner("root"),
        (65_534, 300_000),
        "an id that is not mapped is nobody's"
    );
    assert_eq!(
        errno(mount::map_ids(&copy, &namespace, false)),
        Some(libc::EPERM),
        "once in its life"
    );
    drop((hold, namespace));
}

#[test]
fn mounts_are_seen_where_they_are_attached_and_end_with_their_last_user() {
    testkit::requires!(root);
    in_child("mounts are seen where they are attached");
}

#[test]
fn each_flag_of_a_mount_is_set_and_cleared_alone() {
    testkit::requires!(root);
    in_child("flags of a mount");
}

#[test]
fn a_clone_has_the_mounts_below_only_if_they_are_asked_for_and_flags_of_its_own() {
    testkit::requires!(root);
    in_child("clones of trees");
}

#[test]
fn a_new_root_has_nothing_of_the_old_one() {
    testkit::requires!(root);
    in_child("a new root");
}

#[test]
fn a_tmpfs_keeps_its_limit_and_unknown_options_are_refused() {
    testkit::requires!(root);
    in_child("limits of a tmpfs");
}

#[test]
fn ids_of_a_mapped_mount_are_those_of_the_host() {
    testkit::requires!(root);
    in_child("ids of a mount");
}
