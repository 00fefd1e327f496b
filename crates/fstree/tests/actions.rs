//! The small actions and the options of copies, as tables.

use std::io;
use std::path::Path;

use fstree::action::{
    self, ActionError, Archives, Copy, DestParents, DirCopy, Missing, Mkdir, Mkfile, Remove,
    Symlink, Unpacker, Wildcards,
};
use fstree::{Kind, Owner, Root};
use oci::ErrorKind;
use testkit::requires;

use crate::support::{Tree, os, show, tree};

const TREE: &str = "dir d 755 0 0\nfile d/f 644 0 0 f\nlink in d\nlink gone nowhere\nlink loop loop\nfile f 644 0 0 text\n";

#[test]
fn a_directory_is_made_where_it_is_named() {
    requires!(root);
    for (path, make_parents, left, error) in [
        ("new", false, Some("new/"), None),
        ("/new", false, Some("new/"), None),
        ("/d/../new", false, Some("new/"), None),
        ("../../new", false, Some("new/"), None),
        ("in/new", false, Some("d/new/"), None),
        ("a/b", true, Some("a/b/"), None),
        ("gone/x", true, Some("nowhere/x/"), None),
        ("d", false, None, None),
        ("/", false, None, None),
        ("/", true, None, None),
        ("f", false, None, None),
        ("f", true, None, Some("mkdir /f: not a directory")),
        ("f/x", false, None, Some("mkdir /f/x: not a directory")),
        (
            "a/b",
            false,
            None,
            Some("mkdir /a/b: no such file or directory"),
        ),
        (
            "loop/x",
            true,
            None,
            Some("readlink loop/x: too many levels of symbolic links"),
        ),
    ] {
        let t = tree(TREE);
        let result = action::mkdir(
            &t.root,
            &Mkdir {
                path: path.into(),
                mode: 0o7751,
                make_parents,
                owner: Some(Owner { uid: 3, gid: 4 }),
                timestamp: Some(5_000_000_000),
            },
        );
        let what = format!("{path} with parents: {make_parents}");
        assert_eq!(
            result.err().map(|e| e.to_string()).as_deref(),
            error,
            "{what}"
        );
        let now = show(&t.root);
        match left {
            None => assert_eq!(now, show(&tree(TREE).root), "{what}"),
            Some(left) => {
                assert!(now.lines().any(|line| line == left), "{what}: {now}");
                let dir = t.root.lstat(left.trim_end_matches('/')).unwrap();
                // The bits above the nine are not for the asking.
                assert_eq!(
                    (dir.mode & 0o7777, dir.uid, dir.gid),
                    (0o751, 3, 4),
                    "{what}"
                );
                assert_eq!(dir.mtime, 5_000_000_000, "{what}");
            }
        }
    }
}

#[test]
fn a_file_is_written_where_it_is_named_and_leaves_nothing_half_written() {
    requires!(root);
    for (path, at, error) in [
        ("new", Some("new"), None),
        ("f", Some("f"), None),
        ("in/f", Some("d/f"), None),
        ("gone", Some("nowhere"), None),
        ("d/../../new", Some("new"), None),
        ("d", None, Some("rename /d: is a directory")),
        ("/", None, Some("mkfile /: is a directory")),
        ("f/x", None, Some("open /f/x: not a directory")),
        ("a/x", None, Some("open /a/x: no such file or directory")),
        (
            "loop",
            None,
            Some("readlink loop: too many levels of symbolic links"),
        ),
    ] {
        let t = tree(TREE);
        let result = action::mkfile(
            &t.root,
            &Mkfile {
                path: path.into(),
                mode: 0o640,
                data: b"written".to_vec(),
                owner: None,
                timestamp: None,
            },
        );
        assert_eq!(
            result.err().map(|e| e.to_string()).as_deref(),
            error,
            "{path}"
        );
        match at {
            Some(at) => assert_eq!(t.root.read(at, 100).unwrap(), b"written", "{path}"),
            None => assert_eq!(show(&t.root), show(&tree(TREE).root), "{path}"),
        }
        assert!(!show(&t.root).contains(".tmp-mkfile"), "{path}");
    }
}

#[test]
fn a_file_that_is_replaced_takes_nothing_of_the_old_one() {
    requires!(root);
    let t = tree(
        "file f 4755 7 8 old\nxattr f user.k v\nhard g f\nfile .tmp-mkfile0 644 0 0 of somebody\n",
    );
    let file = Mkfile {
        path: "f".into(),
        mode: 0o600,
        data: Vec::new(),
        owner: None,
        timestamp: Some(-1),
    };
    action::mkfile(&t.root, &file).unwrap();
    let meta = t.root.lstat("f").unwrap();
    assert_eq!((meta.mode & 0o7777, meta.uid, meta.gid), (0o600, 0, 0));
    assert_eq!((meta.size, meta.nlink, meta.mtime), (0, 1, -1));
    let dir = t.root.dir("/").unwrap();
    assert_eq!(dir.xattr(os("f"), "user.k").unwrap(), None);
    assert_eq!(t.root.read("g", 10).unwrap(), b"old");
    assert_eq!(t.root.read(".tmp-mkfile0", 20).unwrap(), b"of somebody");
}

#[test]
fn a_link_says_what_it_is_told_to_and_replaces_nothing() {
    requires!(root);
    for (newpath, error) in [
        ("new", None),
        ("in/new", None),
        ("f", Some("symlink /f: file exists")),
        ("d", Some("symlink /d: file exists")),
        ("in", Some("symlink /d: file exists")),
        ("/", Some("symlink /: invalid argument")),
        ("no/new", Some("open /no: no such file or directory")),
    ] {
        let t = tree(TREE);
        let result = action::symlink(
            &t.root,
            &Symlink {
                oldpath: "../../any where".into(),
                newpath: newpath.into(),
                owner: Some(Owner { uid: 3, gid: 4 }),
                timestamp: Some(7_000_000_000),
            },
        );
        assert_eq!(
            result.err().map(|e| e.to_string()).as_deref(),
            error,
            "{newpath}"
        );
        if error.is_none() {
            assert_eq!(
                t.root.readlink(newpath).unwrap(),
                Path::new("../../any where")
            );
            let meta = t.root.lstat(newpath).unwrap();
            assert_eq!((meta.uid, meta.gid, meta.mtime), (3, 4, 7_000_000_000));
        }
    }
}

#[test]
fn removals_follow_links_on_the_way_and_not_at_the_end() {
    requires!(root);
    for (path, wildcard, missing_is_fine, gone, error) in [
        ("f", false, false, &["f"][..], None),
        ("d", false, false, &["d", "d/f"], None),
        ("in", false, false, &["in"], None),
        ("in/f", false, false, &["d/f"], None),
        ("gone", false, false, &["gone"], None),
        ("loop", false, false, &["loop"], None),
        ("d/../f", false, false, &["f"], None),
        ("../../f", false, false, &["f"], None),
        (
            "no",
            false,
            false,
            &[],
            Some("stat /no: no such file or directory"),
        ),
        ("no", false, true, &[], None),
        ("f/x", false, false, &[], Some("stat /f/x: not a directory")),
        ("/", false, true, &[], Some("rmPath: invalid empty path")),
        ("d/..", false, true, &[], Some("rmPath: invalid empty path")),
        ("*", false, true, &[], None),
        ("d/*", true, false, &["d/f"], None),
        ("g*", true, false, &["gone"], None),
        ("[fg]*", true, false, &["f", "gone"], None),
        ("no*", true, false, &[], None),
    ] {
        let t = tree(TREE);
        let result = action::remove(
            &t.root,
            &Remove {
                path: path.into(),
                missing: if missing_is_fine {
                    Missing::Allow
                } else {
                    Missing::Refuse
                },
                wildcards: if wildcard {
                    Wildcards::Match
                } else {
                    Wildcards::Literal
                },
            },
        );
        assert_eq!(
            result.err().map(|e| e.to_string()).as_deref(),
            error,
            "{path}"
        );
        for name in ["d", "d/f", "in", "gone", "loop", "f"] {
            let is_gone = t.root.lstat_opt(name).unwrap().is_none();
            assert_eq!(is_gone, gone.contains(&name), "{path}: {name}");
        }
    }
}

/// What a case asks for beside the copy of everything.
type Change = fn(&mut Copy);

fn copy(source: &Tree, dest: &Tree, change: impl FnOnce(&mut Copy)) -> Result<(), ActionError> {
    let mut action = Copy {
        src: "/".into(),
        dest: "/".into(),
        parents: DestParents::Create,
        wildcards: Wildcards::Match,
        dir: DirCopy::Contents,
        ..Copy::default()
    };
    change(&mut action);
    action::copy(&source.root, &dest.root, &action, None)
}

const SOURCE: &str = "dir d 2750 1 2\nfile d/f 4711 3 4 f\nlink d/l f\nfifo d/p 600 5 6\nxattr d user.dir v\nxattr d/f user.file v\n\
                      time d/f 1000000001\ntime d/l 2000000002\ntime d/p 3000000003\ntime d 4000000004\n";

#[test]
fn copies_have_the_owner_mode_and_time_that_is_asked_for_or_else_the_sources() {
    requires!(root);
    type Facts = (u32, u32, u32, i64);
    let cases: &[(&str, Change, [Facts; 3])] = &[
        (
            "nothing",
            |_| {},
            [
                (1, 2, 0o2750, 4_000_000_004),
                (3, 4, 0o4711, 1_000_000_001),
                (5, 6, 0o600, 3_000_000_003),
            ],
        ),
        (
            "an owner, which takes no bits away",
            |c| c.owner = Some(Owner { uid: 8, gid: 9 }),
            [
                (8, 9, 0o2750, 4_000_000_004),
                (8, 9, 0o4711, 1_000_000_001),
                (8, 9, 0o600, 3_000_000_003),
            ],
        ),
        (
            "a mode for all",
            |c| c.mode = Some(0o640),
            [
                (1, 2, 0o640, 4_000_000_004),
                (3, 4, 0o640, 1_000_000_001),
                (5, 6, 0o640, 3_000_000_003),
            ],
        ),
        (
            "a change of the mode, which wins",
            |c| {
                c.mode = Some(0o640);
                c.mode_str = "go+X,u-s".into();
            },
            [
                (1, 2, 0o2751, 4_000_000_004),
                (3, 4, 0o711, 1_000_000_001),
                (5, 6, 0o600, 3_000_000_003),
            ],
        ),
        (
            "a time",
            |c| c.timestamp = Some(9_000_000_000),
            [
                (1, 2, 0o2750, 9_000_000_000),
                (3, 4, 0o4711, 9_000_000_000),
                (5, 6, 0o600, 9_000_000_000),
            ],
        ),
    ];
    for (what, change, facts) in cases {
        let (source, dest) = (tree(SOURCE), tree(""));
        copy(&source, &dest, change).unwrap();
        for (path, want) in ["d", "d/f", "d/p"].into_iter().zip(facts) {
            let meta = dest.root.lstat(path).unwrap();
            let attributes = (meta.uid, meta.gid, meta.mode & 0o7777, meta.mtime);
            assert_eq!(attributes, *want, "{what}: {path}");
        }
        let dir = dest.root.dir("d").unwrap();
        assert_eq!(
            dir.own_xattr("user.dir").unwrap().as_deref(),
            Some(b"v".as_slice()),
            "{what}"
        );
        assert_eq!(
            dir.xattr(os("f"), "user.file").unwrap().as_deref(),
            Some(b"v".as_slice())
        );
        assert_eq!(dest.root.readlink("d/l").unwrap(), Path::new("f"), "{what}");
    }
}

#[test]
fn names_of_one_file_are_one_file_in_the_copy_and_not_that_of_the_source() {
    requires!(root);
    let source = tree(
        "dir a 755 0 0\nfile a/one 644 0 0 x\ndir b 755 0 0\nhard b/two a/one\nfile b/three 644 0 0 y\n",
    );
    let dest = tree("");
    copy(&source, &dest, |_| {}).unwrap();
    let ino = |root: &Root, path: &str| root.lstat(path).unwrap().ino;
    assert_eq!(ino(&dest.root, "a/one"), ino(&dest.root, "b/two"));
    assert_ne!(ino(&dest.root, "a/one"), ino(&source.root, "a/one"));
    assert_eq!(dest.root.lstat("a/one").unwrap().nlink, 2);
    // Where only one of the names is let through, it is a file of its own.
    let dest = tree("");
    copy(&source, &dest, |c| c.include = vec!["b".into()]).unwrap();
    assert_eq!(dest.root.lstat("b/two").unwrap().nlink, 1);
}

#[test]
fn many_files_are_copied_whole_whatever_their_size() {
    requires!(root);
    let source = tree("dir d 755 0 0\n");
    let sizes = [0_usize, 1, 511, 4096, 4097, 70_000, 1_000_001];
    for number in 0..210 {
        let size = sizes[number % sizes.len()];
        let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
        std::fs::write(source.dir.path().join(format!("d/{number:03}")), bytes).unwrap();
    }
    let dest = tree("");
    copy(&source, &dest, |_| {}).unwrap();
    for number in 0..210 {
        let path = format!("d/{number:03}");
        let read = |tree: &Tree| tree.root.read(&path, 2_000_000).unwrap();
        assert!(read(&source) == read(&dest), "{path}");
    }
}

#[test]
fn a_socket_becomes_an_empty_file() {
    requires!(root);
    let (source, dest) = (tree("dir d 755 0 0\n"), tree(""));
    let _listener = std::os::unix::net::UnixListener::bind(source.dir.path().join("d/s")).unwrap();
    copy(&source, &dest, |_| {}).unwrap();
    let meta = dest.root.lstat("d/s").unwrap();
    assert_eq!((meta.kind(), meta.size), (Kind::File, 0));
}

#[test]
fn broken_patterns_and_modes_are_refused_before_anything_is_copied() {
    requires!(root);
    let source = tree("dir d 755 0 0\nfile d/f 644 0 0 f\n");
    let cases: &[(Change, &str)] = &[
        (
            |c| c.mode_str = "u+q".into(),
            "invalid mode \"u+q\": invalid syntax",
        ),
        (
            |c| c.include = vec!["[".into()],
            "invalid includepatterns: [[]: ",
        ),
        (
            |c| c.exclude = vec!["a".into(), "[".into()],
            "invalid excludepatterns: [a []: ",
        ),
    ];
    for (change, text) in cases {
        let dest = tree("");
        let error = copy(&source, &dest, change).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(show(&dest.root), "");
    }
}

#[test]
fn every_error_says_its_kind_however_deep_it_lies() {
    requires!(root);
    let source = tree("dir d 755 0 0\nfile f 644 0 0 f\n");
    let cases: &[(&str, Change, &str, ErrorKind)] = &[
        (
            "",
            |c| c.src = "no".into(),
            "lstat /no: no such file or directory",
            ErrorKind::NotFound,
        ),
        (
            "",
            |c| c.src = "no*".into(),
            "/no* not found",
            ErrorKind::NotFound,
        ),
        (
            "",
            |c| {
                c.parents = DestParents::Require;
                c.dest = "/no/x".into();
            },
            "failed to stat /no/x: lstat /no: no such file or directory",
            ErrorKind::NotFound,
        ),
        (
            "file d 644 0 0\n",
            |_| {},
            "cannot copy to non-directory: /d",
            ErrorKind::Invalid,
        ),
        (
            "dir f 755 0 0\n",
            |_| {},
            "cannot replace to directory /f with file",
            ErrorKind::Invalid,
        ),
    ];
    for (there, change, text, kind) in cases {
        let error = copy(&source, &tree(there), change).unwrap_err();
        assert_eq!(error.to_string(), *text);
        assert_eq!(error.kind(), *kind, "{text}");
    }
}

/// Takes what begins with "archive" for one and unpacks it to a single file, or fails.
struct FakeUnpacker;

impl Unpacker for FakeUnpacker {
    fn is_archive(&self, file: &std::fs::File) -> io::Result<bool> {
        let mut start = [0; 7];
        let mut file = file;
        let n = io::Read::read(&mut file, &mut start)?;
        Ok(start[..n] == *b"archive")
    }

    fn unpack(
        &self,
        mut file: std::fs::File,
        root: &Root,
        dest: &Path,
        owner: Option<Owner>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text)?;
        if text.ends_with("broken") {
            return Err("it is broken".into());
        }
        assert_eq!(owner, Some(Owner { uid: 1, gid: 2 }));
        root.create(dest.join("unpacked"), 0o644)?;
        Ok(())
    }
}

#[test]
fn archives_are_unpacked_only_where_that_is_asked_for() {
    requires!(root);
    let source = tree(
        "file a 644 0 0 archive\nfile b 644 0 0 archive broken\nfile c 644 0 0 text\nlink l a\ndir d 755 0 0\n",
    );
    for (src, archives, left, error) in [
        ("a", Archives::Unpack, "to/\nto/unpacked: \n", None),
        ("a", Archives::Copy, "to/\nto/a: archive\n", None),
        ("l", Archives::Unpack, "to/\nto/unpacked: \n", None),
        ("c", Archives::Unpack, "to/\nto/c: text\n", None),
        ("d", Archives::Unpack, "to/\n", None),
        (
            "b",
            Archives::Unpack,
            "to/\n",
            Some("failed to unpack /b: it is broken"),
        ),
    ] {
        let dest = tree("");
        let action = Copy {
            src: src.into(),
            dest: "/to/".into(),
            owner: Some(Owner { uid: 1, gid: 2 }),
            parents: DestParents::Create,
            dir: DirCopy::Contents,
            archives,
            ..Copy::default()
        };
        let result = action::copy(&source.root, &dest.root, &action, Some(&FakeUnpacker));
        assert_eq!(
            result.err().map(|e| e.to_string()).as_deref(),
            error,
            "{src}"
        );
        assert_eq!(show(&dest.root), left, "{src}");
    }
}
