//! One open directory, and a root: each call on each kind of name, and what others change meanwhile.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fstree::dir::{self, Times};
use fstree::{Descent, Dir, Entry, Kind, Owner, PathError, Root, depth, descent, remove};
use testkit::requires;

use crate::support::{os, show, tree};

const ALL: &str = "dir d 755 0 0\nfile d/in 644 0 0 inside\nfile f 640 0 0 text\nlink l f\nlink up ../..\nlink gone nowhere\n\
                   fifo p 600 0 0\nchar c 600 0 0 1 3\nblock b 600 0 0 7 1\n";

fn top(root: &Root) -> Dir {
    root.dir("/").unwrap()
}

#[test]
fn names_come_in_byte_order_with_their_kinds() {
    requires!(root);
    let t = tree(ALL);
    let entries = top(&t.root).entries().unwrap();
    let names: Vec<(String, Kind)> = entries
        .into_iter()
        .map(|Entry { name, kind }| (name.into_string().unwrap(), kind))
        .collect();
    let want = [
        ("b", Kind::Block),
        ("c", Kind::Char),
        ("d", Kind::Dir),
        ("f", Kind::File),
        ("gone", Kind::Symlink),
        ("l", Kind::Symlink),
        ("p", Kind::Fifo),
        ("up", Kind::Symlink),
    ];
    assert_eq!(names, want.map(|(name, kind)| (name.to_owned(), kind)));
}

#[test]
fn only_regular_files_are_opened_and_nothing_waits_for_a_pipe() {
    requires!(root);
    let t = tree(ALL);
    let dir = top(&t.root);
    for name in ["b", "c", "d", "gone", "l", "p", "up", "missing"] {
        assert!(dir.open_file(os(name)).is_err(), "{name}");
    }
    let mut text = String::new();
    dir.open_file(os("f"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "text");
    // A root follows links inside the tree.
    for (path, contents) in [
        ("l", Some("text")),
        ("d/in", Some("inside")),
        ("d/../f", Some("text")),
    ] {
        let bytes = t.root.read(path, 100).ok();
        assert_eq!(bytes.as_deref(), contents.map(str::as_bytes), "{path}");
    }
    for (path, error) in [
        ("p", "open p: invalid argument"),
        ("c", "open c: invalid argument"),
        ("d", "open d: is a directory"),
        ("gone", "open gone: no such file or directory"),
        ("f/x", "open f/x: not a directory"),
    ] {
        assert_eq!(t.root.read(path, 100).unwrap_err().to_string(), error);
    }
}

#[test]
fn a_file_is_read_up_to_a_limit_and_not_a_byte_beyond() {
    requires!(root);
    let t = tree("file f 644 0 0 12345\nfile empty 644 0 0\n");
    for (limit, fits) in [(6, true), (5, true), (4, false), (0, false)] {
        let read = t.root.read("f", limit);
        assert_eq!(read.is_ok(), fits, "{limit}");
        if let Err(error) = read {
            assert_eq!(error.to_string(), "read f: file too large");
            assert_eq!(error.op, "read");
        }
    }
    assert_eq!(t.root.read("empty", 0).unwrap(), b"");
    assert_eq!(t.root.read("f", u64::MAX).unwrap(), b"12345");
}

#[test]
fn what_is_missing_is_told_from_what_cannot_be_looked_at() {
    requires!(root);
    let t = tree(ALL);
    let long = "n".repeat(256);
    for (path, lstat, stat) in [
        ("f", Some(Kind::File), Some(Kind::File)),
        ("l", Some(Kind::Symlink), Some(Kind::File)),
        ("up", Some(Kind::Symlink), Some(Kind::Dir)),
        ("gone", Some(Kind::Symlink), None),
        ("missing", None, None),
        ("missing/x", None, None),
        ("f/x", None, None),
        ("", Some(Kind::Dir), Some(Kind::Dir)),
        ("..", Some(Kind::Dir), Some(Kind::Dir)),
    ] {
        let kind = |meta: Option<fstree::Meta>| meta.map(|meta| meta.kind());
        assert_eq!(kind(t.root.lstat_opt(path).unwrap()), lstat, "{path}");
        assert_eq!(kind(t.root.stat_opt(path).unwrap()), stat, "{path}");
        assert_eq!(t.root.lstat(path).is_ok(), lstat.is_some(), "{path}");
    }
    let error = t.root.lstat_opt(&long).unwrap_err();
    assert!(
        error.to_string().ends_with(": file name too long"),
        "{error}"
    );
    assert!(top(&t.root).stat_opt(os(&long)).is_err());
}

#[test]
fn what_exists_is_not_made_again_and_what_is_made_has_exactly_its_mode() {
    requires!(root);
    let t = tree("file there 644 0 0 old\ndir d 700 0 0\n");
    let dir = top(&t.root);
    let exists =
        |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::AlreadyExists;
    assert!(exists(dir.create_file(os("there"), 0o600).map(drop)));
    assert!(exists(dir.create_file_for(os("there"), 0o600).map(drop)));
    assert!(exists(dir.create_dir(os("d"), 0o700).map(drop)));
    assert!(exists(dir.symlink(Path::new("x"), os("there"))));
    assert!(exists(dir.mknod(os("there"), Kind::Fifo, 0o600, (0, 0))));
    assert!(exists(dir.whiteout(os("there"))));
    assert!(exists(dir.link(&dir, os("there"), os("there"))));
    assert_eq!(t.root.read("there", 10).unwrap(), b"old");
    let mode = |path: &str| t.root.lstat(path).unwrap().mode & 0o7777;
    for bits in [0o000, 0o600, 0o666, 0o4755, 0o2711, 0o1777] {
        dir.create_file(os("f"), bits).unwrap();
        dir.create_dir(os("g"), bits).unwrap();
        dir.mknod(os("p"), Kind::Fifo, bits, (0, 0)).unwrap();
        assert_eq!((mode("f"), mode("g")), (bits, bits));
        assert_eq!(mode("p"), bits);
        for name in ["f", "g", "p"] {
            dir.remove_all(os(name)).unwrap();
        }
    }
    for kind in [Kind::Dir, Kind::Symlink] {
        let error = dir.mknod(os("x"), kind, 0o600, (0, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    dir.whiteout(os("w")).unwrap();
    assert!(dir.stat(os("w")).unwrap().is_whiteout());
    assert!(!t.root.lstat("there").unwrap().is_whiteout());
}

#[test]
fn owners_modes_and_times_are_those_of_the_name_itself() {
    requires!(root);
    let t = tree(ALL);
    let dir = top(&t.root);
    let before = t.root.lstat("f").unwrap();
    dir.chown(os("l"), 7, 8).unwrap();
    dir.set_times(os("l"), Times::both(-1)).unwrap();
    let link = t.root.lstat("l").unwrap();
    assert_eq!((link.uid, link.gid, link.mtime), (7, 8, -1));
    let error = dir.chmod(os("l"), 0o777).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(95), "a link has no mode");
    assert_eq!(
        t.root.lstat("f").unwrap(),
        before,
        "the target of the link stays"
    );
    for name in ["b", "c", "d", "f", "p"] {
        dir.chmod(os(name), 0o1234).unwrap();
        dir.chown(os(name), 1, u32::MAX).unwrap();
        dir.set_times(
            os(name),
            Times {
                atime: None,
                mtime: Some(1_500_000_000),
            },
        )
        .unwrap();
        let meta = t.root.lstat(name).unwrap();
        assert_eq!(
            (meta.uid, meta.gid, meta.mtime),
            (1, 0, 1_500_000_000),
            "{name}"
        );
        assert_eq!(meta.mode & 0o7777, 0o1234, "{name}");
    }
    for time in [
        i64::MIN / 2,
        -1_000_000_000,
        0,
        1,
        4_000_000_000_000_000_000,
    ] {
        let set = dir.set_times(os("f"), Times::both(time));
        // A filesystem may not go that far, but never to somewhere else.
        if set.is_ok() && time >= 0 {
            let now = t.root.lstat("f").unwrap().mtime;
            assert!(now <= time, "{time} became {now}");
        }
    }
}

#[test]
fn access_of_an_open_file_is_set_whole_although_a_new_owner_takes_bits_away() {
    requires!(root);
    let t = tree("file f 600 0 0 x\n");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(t.dir.path().join("f"))
        .unwrap();
    for (uid, gid, mode) in [
        (0, 0, 0o6755),
        (5, 6, 0o4711),
        (5, 6, 0o4711),
        (5, 7, 0o2755),
        (0, 0, 0),
    ] {
        dir::set_file_access(&file, uid, gid, mode).unwrap();
        let meta = dir::file_meta(&file).unwrap();
        assert_eq!((meta.uid, meta.gid, meta.mode & 0o7777), (uid, gid, mode));
    }
}

#[test]
fn attributes_are_listed_whole_however_many_and_large_they_are() {
    requires!(root);
    let t = tree("file f 644 0 0 x\nfile plain 644 0 0 x\ndir d 755 0 0\n");
    let dir = top(&t.root);
    let mut want = BTreeMap::new();
    for number in 0..40 {
        let (key, value) = (format!("user.key-number-{number:03}"), vec![number; 30]);
        dir.set_xattr(os("f"), &key, &value).unwrap();
        want.insert(key, value);
    }
    let large = vec![b'x'; 1500];
    dir.set_xattr(os("f"), "user.large", &large).unwrap();
    want.insert("user.large".into(), large.clone());
    let mut xattrs = dir.xattrs(os("f")).unwrap();
    xattrs.retain(|key, _| key.starts_with("user."));
    assert_eq!(xattrs, want);
    assert_eq!(dir.xattr(os("f"), "user.large").unwrap(), Some(large));
    assert_eq!(dir.xattr(os("f"), "user.none").unwrap(), None);
    assert!(dir.xattr(os("missing"), "user.none").is_err());
    let file = dir.open_file(os("f")).unwrap();
    let mut by_file = dir::file_xattrs(&file).unwrap();
    by_file.retain(|key, _| key.starts_with("user."));
    assert_eq!(by_file, want);
    let own = dir.open_dir(os("d")).unwrap();
    own.set_own_xattr("user.own", b"").unwrap();
    assert_eq!(own.own_xattr("user.own").unwrap(), Some(Vec::new()));
    assert_eq!(own.own_xattrs().unwrap().get("user.own"), Some(&Vec::new()));
    assert_eq!(dir.xattr(os("plain"), "user.own").unwrap(), None);
}

#[test]
fn renames_replace_what_rename_replaces() {
    requires!(root);
    for (from, to, error) in [
        ("f", "new", None),
        ("f", "d/in", None),
        ("f", "l", None),
        ("d", "new", None),
        ("f", "d", Some("rename d: is a directory")),
        ("d", "f", Some("rename f: not a directory")),
        ("missing", "x", Some("rename x: no such file or directory")),
        ("d", "d/into", Some("rename d/into: invalid argument")),
    ] {
        let t = tree("dir d 755 0 0\nfile d/in 644 0 0 i\nfile f 644 0 0 f\nlink l f\n");
        let renamed = t.root.rename(from, to).map_err(|e| e.to_string());
        assert_eq!(renamed.err().as_deref(), error, "{from} to {to}");
        assert_eq!(
            t.root.lstat_opt(from).unwrap().is_some(),
            error.is_some() && from != "missing"
        );
    }
}

#[test]
fn folders_towards_a_path_are_made_with_what_is_asked_and_those_that_are_there_stay() {
    requires!(root);
    let t = tree("dir there 700 9 9\nlink in there\nfile f 644 0 0 x\nlink loop loop\n");
    let owner = Some(Owner { uid: 3, gid: 4 });
    let created = t
        .root
        .mkdir_all("in/a/../b/c", 0o711, owner, Some(7_000_000_000))
        .unwrap();
    let paths: Vec<String> = created.iter().map(|p| p.display().to_string()).collect();
    assert_eq!(paths, ["/there/b", "/there/b/c"]);
    for path in ["there/b", "there/b/c"] {
        let meta = t.root.lstat(path).unwrap();
        assert_eq!((meta.mode & 0o7777, meta.uid, meta.gid), (0o711, 3, 4));
    }
    assert_eq!(t.root.lstat("there/b/c").unwrap().mtime, 7_000_000_000);
    assert_eq!(t.root.lstat("there").unwrap().mode & 0o7777, 0o700);
    assert!(
        t.root
            .mkdir_all("there/b", 0o700, None, None)
            .unwrap()
            .is_empty()
    );
    assert!(t.root.mkdir_all("/", 0o700, None, None).unwrap().is_empty());
    for (path, error) in [
        ("f", "mkdir /f: not a directory"),
        ("f/x", "mkdir /f: not a directory"),
        (
            "loop/x",
            "readlink loop/x: too many levels of symbolic links",
        ),
    ] {
        let created = t.root.mkdir_all(path, 0o755, None, None);
        assert_eq!(created.unwrap_err().to_string(), error);
    }
}

#[test]
fn removing_takes_whole_trees_and_is_content_with_nothing() {
    requires!(root);
    for name in ["b", "c", "d", "f", "gone", "l", "p", "up", "missing"] {
        let t = tree(ALL);
        t.root.remove_all(name).unwrap();
        assert_eq!(t.root.lstat_opt(name).unwrap(), None, "{name}");
        let left = top(&t.root).entries().unwrap().len();
        assert_eq!(left, if name == "missing" { 8 } else { 7 }, "{name}");
    }
    let t = tree(ALL);
    assert_eq!(
        t.root.remove_all("f/x").unwrap_err().to_string(),
        "open f: not a directory"
    );
    for path in ["/", "", "..", "d/.."] {
        assert!(t.root.remove_all(path).is_err(), "{path}");
    }
    assert_eq!(top(&t.root).entries().unwrap().len(), 8);
}

#[test]
fn a_tree_of_the_host_is_removed_by_its_path_and_bad_paths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    std::fs::create_dir_all(path.join("a/b/c")).unwrap();
    std::fs::write(path.join("a/b/f"), "x").unwrap();
    remove::remove_dir_all(&path).unwrap();
    assert!(!path.exists());
    remove::remove_dir_all(&path).unwrap();
    std::fs::write(&path, "a file").unwrap();
    remove::remove_dir_all(&path).unwrap();
    assert!(!path.exists());
    for path in ["/", "..", ""] {
        let error = remove::remove_dir_all(Path::new(path)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
    }
}

#[test]
fn removing_stops_when_it_is_told_to_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..10 {
        std::fs::create_dir_all(dir.path().join(format!("t/{number}/x"))).unwrap();
    }
    let top = Root::open(dir.path()).unwrap().dir("/").unwrap();
    let left = std::cell::Cell::new(6);
    let stop = || {
        left.set(left.get() - 1);
        left.get() < 0
    };
    let mut fresh = || "fresh".into();
    let stopped = remove::remove_tree(&top, os("t"), &mut fresh, &stop);
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(dir.path().join("t").exists());
    remove::remove_tree(&top, os("t"), &mut fresh, &|| false).unwrap();
    assert!(!dir.path().join("t").exists());
}

#[test]
fn no_moment_of_a_swap_shows_what_is_outside() {
    requires!(root);
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(outside.path().join("d")).unwrap();
    std::fs::write(outside.path().join("d/f"), "outside").unwrap();
    let t = tree("dir a 755 0 0\ndir a/d 755 0 0\nfile a/d/f 644 0 0 inside\n");
    // `a` is a directory and a link out of the tree in turn.
    std::os::unix::fs::symlink(outside.path(), t.dir.path().join("b")).unwrap();
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dir = top(&t.root);
            let swap = |from: &str, to: &str| dir.rename(os(from), &dir, os(to)).unwrap();
            while !has_ended.load(Ordering::Relaxed) {
                swap("a", "c");
                swap("b", "a");
                swap("a", "b");
                swap("c", "a");
            }
        });
        for _ in 0..3_000 {
            for path in ["a/d/f", "b/d/f", "a/d/../d/f", "a/../../../a/d/f"] {
                if let Ok(bytes) = t.root.read(path, 100) {
                    assert_eq!(bytes, b"inside", "{path}");
                }
            }
            if let Ok(mut file) = t.root.create("a/d/made", 0o600) {
                file.write_all(b"x").unwrap();
            }
            t.root.remove_all("a/d/made").ok();
        }
        has_ended.store(true, Ordering::Relaxed);
    });
    assert!(outside.path().join("d/f").exists());
    assert!(!outside.path().join("d/made").exists());
}

#[test]
fn a_held_directory_is_the_same_wherever_it_is_moved() {
    requires!(root);
    let t = tree("dir a 755 0 0\nfile a/f 644 0 0 x\ndir b 755 0 0\n");
    let dir = t.root.dir("a").unwrap();
    let sub = t.root.subroot("a").unwrap();
    t.root.rename("a", "b/moved").unwrap();
    crate::support::add(&t.root, "dir a 755 0 0\nfile a/other 644 0 0 y\n");
    assert_eq!(dir.entries().unwrap().len(), 1);
    assert_eq!(sub.read("f", 10).unwrap(), b"x");
    dir.create_file(os("new"), 0o644).unwrap();
    assert_eq!(
        show(&t.root),
        "a/\na/other: y\nb/\nb/moved/\nb/moved/f: x\nb/moved/new: \n"
    );
    // What is removed while it is held is empty, and takes nothing any more.
    t.root.remove_all("b").unwrap();
    assert!(dir.create_file(os("late"), 0o644).is_err());
}

#[test]
fn a_walk_of_everything_leaves_out_what_vanishes() {
    requires!(root);
    let t = tree(
        "dir a 755 0 0\nfile a/f 644 0 0 x\ndir b 755 0 0\nfile b/g 644 0 0 x\ndir c 755 0 0\n",
    );
    let mut names = Vec::new();
    descent::each(top(&t.root), |dir, entry, _| {
        names.push(entry.name.to_string_lossy().into_owned());
        if entry.name == "a" {
            t.root.remove_all("b").unwrap();
            dir.remove_all(os("c")).unwrap();
        }
        Ok::<_, std::io::Error>(true)
    })
    .unwrap();
    assert_eq!(names, ["a", "f"]);
    let stopped = descent::each(top(&t.root), |_, _, _| Err(std::io::Error::other("enough")));
    assert_eq!(stopped.unwrap_err().to_string(), "enough");
    let mut names = 0;
    descent::each(top(&t.root), |_, _, _| {
        names += 1;
        Ok::<_, std::io::Error>(false)
    })
    .unwrap();
    assert_eq!(names, 1, "it is not gone into a directory that is declined");
}

#[test]
fn a_descent_goes_up_to_its_top_and_no_further() {
    requires!(root);
    let t = tree("dir a 755 0 0\ndir a/b 755 0 0\nlink l a\nfile f 644 0 0 x\n");
    let mut descent = Descent::new(top(&t.root));
    for name in ["l", "f", "missing", "..", "a/b"] {
        assert!(descent.down(os(name)).is_err(), "{name}");
    }
    descent.up().unwrap();
    assert_eq!(descent.depth(), 0);
    descent.down(os("a")).unwrap();
    descent.down(os("b")).unwrap();
    assert_eq!(descent.depth(), 2);
    descent.up().unwrap();
    assert_eq!(descent.dir().entries().unwrap()[0].name, "b");
    descent.up().unwrap();
    descent.up().unwrap();
    assert_eq!(descent.dir().entries().unwrap().len(), 3);
}

#[test]
fn an_error_names_the_call_the_path_and_the_reason_and_knows_its_kind() {
    use oci::ErrorKind as Kind;
    for (errno, text, kind) in [
        (2, "no such file or directory", Kind::NotFound),
        (13, "permission denied", Kind::Denied),
        (17, "file exists", Kind::Exists),
        (20, "not a directory", Kind::Invalid),
        (24, "too many open files", Kind::Exhausted),
        (28, "no space left on device", Kind::Exhausted),
        (40, "too many levels of symbolic links", Kind::Invalid),
        (5, "input/output error", Kind::System),
    ] {
        let error = PathError::new("open", "a/b", std::io::Error::from_raw_os_error(errno));
        assert_eq!(error.to_string(), format!("open a/b: {text}"));
        assert_eq!(error.kind(), kind, "{text}");
        assert_eq!(error.is_not_found(), errno == 2);
        let source = std::error::Error::source(&error).unwrap();
        assert!(source.downcast_ref::<std::io::Error>().is_some());
    }
    // Nobody prints a path of a million bytes.
    let long = "d/".repeat(500_000);
    let error = PathError::new("open", &long, std::io::Error::from_raw_os_error(36));
    assert_eq!(
        error.to_string(),
        "open d/d/d/d/d/d/d/d/…: file name too long"
    );
    for (path, fits) in [
        ("d/".repeat(depth::MAX_DEPTH), true),
        ("d/".repeat(depth::MAX_DEPTH + 1), false),
        ("n".repeat(depth::MAX_PATH), true),
        ("n".repeat(depth::MAX_PATH + 1), false),
        (String::new(), true),
    ] {
        assert_eq!(
            depth::check_path(Path::new(&path)).is_ok(),
            fits,
            "{} bytes",
            path.len()
        );
    }
}
