//! Walks with patterns and options, and trees that change meanwhile.

use fstree::stat::{self, CHANGE_MARK};
use fstree::walk::{Filter, Walk, WalkError};
use fstree::{Kind, Stat};
use oci::ErrorKind;
use testkit::requires;

use crate::support::{Tree, add, os, tree};

fn all(t: &Tree, filter: &Filter) -> Vec<Stat> {
    Walk::new(&t.root, filter)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn names(t: &Tree, include: &[&str], exclude: &[&str]) -> String {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let filter = Filter {
        include: own(include),
        exclude: own(exclude),
        ..Filter::default()
    };
    let paths: Vec<String> = all(t, &filter)
        .iter()
        .map(|stat| stat.path.display().to_string())
        .collect();
    paths.join(" ")
}

const TREE: &str = "dir src 755 0 0\ndir src/a 755 0 0\nfile src/a/x.rs 644 0 0\nfile src/a/x.md 644 0 0\ndir src/b 755 0 0\n\
                    file src/b/y.rs 644 0 0\ndir target 755 0 0\ndir target/debug 755 0 0\nfile target/debug/out 644 0 0\n\
                    file README.md 644 0 0\nfile .hidden 644 0 0\n";

#[test]
fn patterns_of_all_forms_choose_what_is_listed() {
    requires!(root);
    let t = tree(TREE);
    for (include, exclude, want) in [
        (
            &[][..],
            &[][..],
            ".hidden README.md src src/a src/a/x.md src/a/x.rs src/b src/b/y.rs target target/debug target/debug/out",
        ),
        (
            &["src"],
            &[],
            "src src/a src/a/x.md src/a/x.rs src/b src/b/y.rs",
        ),
        (
            &["/src/"],
            &[],
            // Only files of ignore patterns have their slashes taken off when they are read.
            "",
        ),
        (&["./src/a"], &[], "src src/a src/a/x.md src/a/x.rs"),
        (&["**/*.rs"], &[], "src src/a src/a/x.rs src/b src/b/y.rs"),
        (&["src/*/y.rs"], &[], "src src/b src/b/y.rs"),
        (&["*.md"], &[], "README.md"),
        (&["?EADME.md"], &[], "README.md"),
        (&["[A-Z]*"], &[], "README.md"),
        (&[".*"], &[], ".hidden"),
        (
            &["src", "target"],
            &["**/*.md", "target/debug"],
            "src src/a src/a/x.rs src/b src/b/y.rs target",
        ),
        (
            &["src/a", "src/b/y.rs"],
            &[],
            "src src/a src/a/x.md src/a/x.rs src/b src/b/y.rs",
        ),
        (&[], &["**"], ""),
        (&[], &["*"], ""),
        (&[], &["src", "target", ".*"], "README.md"),
        (
            &[],
            &["src", "!src/a/x.rs", "target", ".*"],
            "README.md src src/a src/a/x.rs",
        ),
        (&[], &["**", "!**/*.md"], "README.md src src/a src/a/x.md"),
        (
            &[],
            &["!src", "src"],
            ".hidden README.md target target/debug target/debug/out",
        ),
        (&["src/a"], &["src/a"], ""),
        (&["none"], &[], ""),
        (&["src/a/x.rs/below"], &[], ""),
    ] {
        assert_eq!(names(&t, include, exclude), want, "{include:?} {exclude:?}");
    }
}

#[test]
fn a_broken_pattern_is_told_with_its_list_before_anything_is_read() {
    requires!(root);
    let t = tree(TREE);
    for (filter, text) in [
        (
            Filter {
                include: vec!["ok".into(), "a[".into()],
                ..Filter::default()
            },
            "invalid includepatterns: [ok a[]: ",
        ),
        (
            Filter {
                exclude: vec!["[".into()],
                ..Filter::default()
            },
            "invalid excludepatterns: [[]: ",
        ),
    ] {
        let error = Walk::new(&t.root, &filter).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        assert!(matches!(error, WalkError::Pattern { .. }));
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn what_is_listed_of_each_kind_is_what_clients_are_sent() {
    requires!(root);
    let t = tree(
        "dir d 1777 1 2\nfile f 4644 3 4 text\nlink l ../there\nhard h f\nfifo p 600 0 0\nchar c 666 0 0 1 3\nblock b 600 0 0 7 1\n\
         xattr f user.k v\ntime f 1234567890\ntime d -1\n",
    );
    let stats = all(&t, &Filter::default());
    let find = |path: &str| {
        stats
            .iter()
            .find(|s| s.path.to_str() == Some(path))
            .unwrap()
    };
    let kinds = ["b", "c", "d", "f", "h", "l", "p"].map(|path| find(path).kind());
    use Kind::{Block, Char, Dir, Fifo, File, Symlink};
    assert_eq!(kinds, [Block, Char, Dir, File, File, Symlink, Fifo]);
    let d = find("d");
    assert_eq!((d.uid, d.gid, d.size, d.mod_time), (1, 2, 0, -1));
    assert_eq!(d.mode, stat::MODE_DIR | stat::MODE_STICKY | 0o777);
    let f = find("f");
    assert_eq!((f.uid, f.gid, f.size, f.mod_time), (3, 4, 4, 1_234_567_890));
    assert_eq!(stat::unix_permissions(f.mode), 0o4644);
    assert_eq!(f.xattrs["user.k"], b"v");
    let h = find("h");
    assert!(h.is_hard_link() && !f.is_hard_link());
    assert_eq!(h.linkname.to_str(), Some("f"));
    assert_eq!(find("l").linkname.to_str(), Some("../there"));
    assert_eq!((find("c").devmajor, find("c").devminor), (1, 3));
    assert_eq!((find("b").devmajor, find("b").devminor), (7, 1));
    let bare: Vec<Stat> = Walk::new(&t.root, &Filter::default())
        .unwrap()
        .without_xattrs()
        .map(Result::unwrap)
        .collect();
    assert!(bare.iter().all(|stat| stat.xattrs.is_empty()));
}

#[test]
fn of_names_that_are_filtered_out_none_is_the_first_of_a_file() {
    requires!(root);
    let t = tree("file a 644 0 0 x\nhard b a\nhard c a\n");
    let filter = Filter {
        exclude: vec!["a".into()],
        ..Filter::default()
    };
    let stats = all(&t, &filter);
    let shown: Vec<(String, String)> = stats
        .iter()
        .map(|s| {
            (
                s.path.display().to_string(),
                s.linkname.display().to_string(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [("b".into(), String::new()), ("c".into(), "b".into())]
    );
}

#[test]
fn a_mark_tells_a_file_that_changed_although_nothing_else_shows_it() {
    requires!(root);
    let t = tree("dir d 755 0 0\nfile d/f 644 0 0 one\nfile d/g 644 0 0 one\n");
    let marks = || -> Vec<(String, Option<Vec<u8>>)> {
        Walk::new(&t.root, &Filter::default())
            .unwrap()
            .with_change_marks()
            .map(Result::unwrap)
            .map(|mut s| (s.path.display().to_string(), s.xattrs.remove(CHANGE_MARK)))
            .collect()
    };
    let before = marks();
    let has_mark: Vec<bool> = before.iter().map(|(_, mark)| mark.is_some()).collect();
    assert_eq!(has_mark, [false, true, true], "only regular files have one");
    let time = t.root.lstat("d/f").unwrap().mtime;
    std::fs::write(t.dir.path().join("d/f"), "two").unwrap();
    add(&t.root, &format!("time d/f {time}\n"));
    assert_eq!(t.root.lstat("d/f").unwrap().mtime, time);
    assert_ne!(before[1], marks()[1]);
}

#[test]
fn what_vanishes_or_changes_its_kind_during_a_walk_is_left_out() {
    requires!(root);
    let t = tree(
        "dir a 755 0 0\nfile a/f 644 0 0\ndir b 755 0 0\nfile b/g 644 0 0\nfile c 644 0 0\nfile d 644 0 0\n",
    );
    let mut walk = Walk::new(&t.root, &Filter::default()).unwrap();
    assert_eq!(walk.next().unwrap().unwrap().path.to_str(), Some("a"));
    t.root.remove_all("b").unwrap();
    t.root.remove_all("c").unwrap();
    add(&t.root, "file b 644 0 0\n");
    let dir = t.root.dir("a").unwrap();
    dir.unlink(os("f")).unwrap();
    let rest: Vec<String> = walk
        .map(|s| s.unwrap().path.display().to_string())
        .collect();
    assert_eq!(rest.last().map(String::as_str), Some("d"));
    assert!(
        !rest.iter().any(|path| path == "c" || path == "b/g"),
        "{rest:?}"
    );
}

#[test]
fn names_that_are_no_text_are_walked_and_filtered_like_others() {
    use std::os::unix::ffi::OsStrExt;
    requires!(root);
    let t = tree("");
    let name = std::ffi::OsStr::from_bytes(b"bad\xff.txt");
    std::fs::write(t.dir.path().join(name), "x").unwrap();
    let stats = all(&t, &Filter::default());
    assert_eq!(stats[0].path.as_os_str(), name);
    assert_eq!(t.root.read(&stats[0].path, 10).unwrap(), b"x");
    assert_eq!(names(&t, &[], &["*.txt"]), "");
}
