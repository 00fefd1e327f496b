//! Every kind of file over every other: what a diff says of the pair, and what a copy makes of it.

use fstree::action::{Copy, DirCopy, Existing, copy};
use fstree::diff::{Change, ChangeKind, overlay_changes, tree_changes};
use testkit::requires;

use crate::support::{Tree, show, tree};

/// What may be at one name, as lines of a listing. All times are the same, and whole seconds.
const KINDS: &[(&str, &str)] = &[
    ("nothing", ""),
    ("file", "file n 644 0 0 text\ntime n 5000000000\n"),
    (
        "directory",
        "dir n 755 0 0\nfile n/in 644 0 0 i\ntime n/in 5000000000\n",
    ),
    ("link", "link n target\ntime n 5000000000\n"),
    ("pipe", "fifo n 644 0 0\ntime n 5000000000\n"),
    (
        "character device",
        "char n 644 0 0 1 3\ntime n 5000000000\n",
    ),
    ("block device", "block n 644 0 0 7 1\ntime n 5000000000\n"),
];

fn shown(changes: &[Change]) -> String {
    let one = |change: &Change| {
        let mark = match change.kind {
            ChangeKind::Add => '+',
            ChangeKind::Modify => '~',
            ChangeKind::Delete => '-',
            ChangeKind::Unmodified => '=',
        };
        assert_eq!(change.meta.is_none(), change.kind == ChangeKind::Delete);
        format!("{mark}{}", change.path.display())
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// What a change of one kind into another is.
fn expected(from: &str, to: &str) -> &'static str {
    match (from, to) {
        ("nothing", "nothing") => "",
        (_, "nothing") => "-n",
        ("nothing", "directory") => "+n +n/in",
        ("nothing", _) => "+n",
        (a, b) if a == b => "",
        // What was in a directory that is one no more goes with it.
        (_, "directory") => "~n +n/in",
        _ => "~n",
    }
}

#[test]
fn two_trees_are_compared_for_every_pair_of_kinds() {
    requires!(root);
    for (from, before) in KINDS {
        for (to, after) in KINDS {
            let (lower, upper) = (tree(before), tree(after));
            let changes = tree_changes(Some(&lower.root), &upper.root).unwrap();
            assert_eq!(shown(&changes), expected(from, to), "{from} to {to}");
        }
    }
}

#[test]
fn an_upper_directory_says_the_same_with_a_whiteout_for_what_is_gone() {
    requires!(root);
    for (from, before) in KINDS {
        for (to, after) in KINDS {
            let lower = tree(before);
            let upper = tree(if *to == "nothing" {
                "whiteout n\n"
            } else {
                after
            });
            let changes = overlay_changes(&upper.root, Some(&lower.root)).unwrap();
            assert_eq!(shown(&changes), expected(from, to), "{from} to {to}");
            let alone = overlay_changes(&upper.root, None).unwrap();
            assert_eq!(shown(&alone), expected("nothing", to), "{to} over nothing");
        }
    }
}

#[test]
fn in_an_opaque_directory_what_is_not_there_is_gone() {
    requires!(root);
    let inside = |listing: &str| listing.replace(" n", " d/n");
    for (from, before) in KINDS {
        for (to, after) in KINDS {
            let lower = tree(&format!("dir d 755 0 0\n{}", inside(before)));
            let upper = tree(&format!("dir d 755 0 0\nopaque d\n{}", inside(after)));
            let changes = overlay_changes(&upper.root, Some(&lower.root)).unwrap();
            let want = expected(from, to).replace('n', "d/n").replace("id/n", "in");
            assert_eq!(shown(&changes), want, "{from} to {to}");
        }
    }
}

#[test]
fn each_property_of_a_file_counts_or_does_not() {
    requires!(root);
    let base = "file n 644 1 2 text\nxattr n user.k v\ntime n 5000000000\n";
    for (what, change, is_seen) in [
        ("nothing", base, false),
        (
            "the mode",
            "file n 640 1 2 text\nxattr n user.k v\ntime n 5000000000\n",
            true,
        ),
        (
            "the set-user bit",
            "file n 4644 1 2 text\nxattr n user.k v\ntime n 5000000000\n",
            true,
        ),
        (
            "the user",
            "file n 644 9 2 text\nxattr n user.k v\ntime n 5000000000\n",
            true,
        ),
        (
            "the group",
            "file n 644 1 9 text\nxattr n user.k v\ntime n 5000000000\n",
            true,
        ),
        (
            "the size",
            "file n 644 1 2 texts\nxattr n user.k v\ntime n 5000000000\n",
            true,
        ),
        (
            "the time",
            "file n 644 1 2 text\nxattr n user.k v\ntime n 6000000000\n",
            true,
        ),
        (
            "the contents",
            "file n 644 1 2 tent\nxattr n user.k v\ntime n 5000000000\n",
            true,
        ),
        (
            "the last byte",
            "file n 644 1 2 texu\nxattr n user.k v\ntime n 5000000000\n",
            true,
        ),
        // As with BuildKit: of extended attributes only capabilities are looked at.
        (
            "an attribute",
            "file n 644 1 2 text\nxattr n user.k w\ntime n 5000000000\n",
            false,
        ),
        (
            "capabilities",
            "file n 644 1 2 text\nxattr n security.capability 0100000202000000000000000000000000000000\ntime n 5000000000\n",
            true,
        ),
    ] {
        let (lower, upper) = (tree(base), tree(change));
        let want = if is_seen { "~n" } else { "" };
        for changes in [
            tree_changes(Some(&lower.root), &upper.root).unwrap(),
            overlay_changes(&upper.root, Some(&lower.root)).unwrap(),
        ] {
            assert_eq!(shown(&changes), want, "{what}");
        }
    }
}

#[test]
fn contents_decide_only_where_times_are_whole_seconds() {
    requires!(root);
    for (nanoseconds, want) in [("5000000000", "~n"), ("5000000001", ""), ("0", "~n")] {
        let with = |text: &str| tree(&format!("file n 644 0 0 {text}\ntime n {nanoseconds}\n"));
        let (lower, upper) = (with("abc"), with("abd"));
        let changes = tree_changes(Some(&lower.root), &upper.root).unwrap();
        assert_eq!(shown(&changes), want, "{nanoseconds}");
    }
    // Of links it is what they say, of devices their numbers, whatever the time.
    for (before, after) in [
        (
            "link n one\ntime n 5000000000\n",
            "link n two\ntime n 5000000000\n",
        ),
        (
            "char n 644 0 0 1 3\ntime n 5000000001\n",
            "char n 644 0 0 1 5\ntime n 5000000001\n",
        ),
    ] {
        let (lower, upper) = (tree(before), tree(after));
        let changes = tree_changes(Some(&lower.root), &upper.root).unwrap();
        assert_eq!(shown(&changes), "~n", "{after}");
    }
}

#[test]
fn large_contents_are_compared_to_their_end() {
    requires!(root);
    let with = |last: u8| {
        let tree = tree("file n 644 0 0\n");
        let mut bytes = vec![7; 200_000];
        bytes.push(last);
        std::fs::write(tree.dir.path().join("n"), bytes).unwrap();
        crate::support::add(&tree.root, "time n 5000000000\n");
        tree
    };
    let changes_of =
        |a: u8, b: u8| shown(&tree_changes(Some(&with(a).root), &with(b).root).unwrap());
    assert_eq!(changes_of(1, 1), "");
    assert_eq!(changes_of(1, 2), "~n");
}

#[test]
fn later_names_of_an_unchanged_file_are_told_of() {
    requires!(root);
    let before = tree("file a 644 0 0 x\ntime a 5000000000\nhard b a\n");
    let after = tree("file a 644 0 0 x\ntime a 5000000000\nhard b a\nhard c a\n");
    let changes = tree_changes(Some(&before.root), &after.root).unwrap();
    assert_eq!(shown(&changes), "=a =b +c");
    let fewer = tree("file a 644 0 0 x\ntime a 5000000000\n");
    let changes = tree_changes(Some(&before.root), &fewer.root).unwrap();
    assert_eq!(shown(&changes), "-b");
}

fn copied(source: &str, dest: &str, existing: Existing) -> (Tree, Result<(), String>) {
    let (source, dest) = (tree(source), tree(dest));
    let action = Copy {
        src: "/".into(),
        dest: "/".into(),
        dir: DirCopy::Contents,
        existing,
        ..Copy::default()
    };
    let copied = copy(&source.root, &dest.root, &action, None).map_err(|e| e.to_string());
    (dest, copied)
}

#[test]
fn a_copy_replaces_what_is_in_its_way_but_a_directory_and_what_a_directory_meets() {
    requires!(root);
    for (from, source) in KINDS {
        for (over, there) in KINDS {
            for existing in [Existing::Merge, Existing::Replace] {
                let what = format!("{from} over {over}, existing files: {existing:?}");
                let (dest, done) = copied(source, there, existing);
                let is_dir = |kind: &str| kind == "directory";
                let refused = match (*from, *over) {
                    ("nothing", _) | (_, "nothing") => None,
                    _ if existing == Existing::Replace || is_dir(from) == is_dir(over) => None,
                    ("directory", _) => Some("cannot copy to non-directory: /n"),
                    _ => Some("cannot replace to directory /n with file"),
                };
                assert_eq!(done.err().as_deref(), refused, "{what}");
                let left = if refused.is_some() || *from == "nothing" {
                    there
                } else {
                    source
                };
                assert_eq!(show(&dest.root), show(&tree(left).root), "{what}");
            }
        }
    }
}

#[test]
fn a_directory_that_was_there_keeps_its_other_names_and_takes_owner_and_mode() {
    requires!(root);
    let source = "dir n 750 3 4\nfile n/new 644 0 0 n\nfile n/both 600 0 0 source\n";
    let there = "dir n 755 1 2\nfile n/old 644 0 0 o\nfile n/both 644 0 0 there\n";
    let (dest, done) = copied(source, there, Existing::Merge);
    done.unwrap();
    assert_eq!(show(&dest.root), "n/\nn/both: source\nn/new: n\nn/old: o\n");
    let dir = dest.root.lstat("n").unwrap();
    assert_eq!((dir.mode & 0o7777, dir.uid, dir.gid), (0o750, 3, 4));
    assert_eq!(dest.root.lstat("n/both").unwrap().mode & 0o7777, 0o600);
}

#[test]
fn a_copy_does_not_write_through_what_it_replaces() {
    requires!(root);
    // The link and the other name lead to files that must stay as they are.
    let there = "file kept 644 0 0 kept\nlink n kept\nfile m 644 0 0 other\nhard second m\n";
    let (dest, done) = copied(
        "file n 644 0 0 new\nfile m 644 0 0 new\n",
        there,
        Existing::Merge,
    );
    done.unwrap();
    assert_eq!(
        show(&dest.root),
        "kept: kept\nm: new\nn: new\nsecond: other\n"
    );
}
