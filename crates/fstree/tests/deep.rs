//! Trees that are deeper than any stack or table of descriptors.

use std::ffi::OsString;
use std::path::PathBuf;

use fstree::action::{Copy, DirCopy, Missing, Wildcards, copy};
use fstree::diff::{overlay_changes, tree_changes};
use fstree::hash::{Options, TreeHashes};
use fstree::walk::{Filter, Walk};
use fstree::{Descent, Dir, MAX_DEPTH, MAX_PATH, Root, depth, descent, remove};

use crate::support::{Tree, add, os, show, tree};

/// Makes directories one in the other, and a file in the innermost one.
fn nest(dir: Dir, names: impl Iterator<Item = String>, file: Option<&str>) {
    let mut dir = dir;
    for name in names {
        dir = dir.create_dir(os(&name), 0o755).unwrap();
    }
    if let Some(file) = file {
        dir.create_file(os(file), 0o644).unwrap();
    }
}

/// An empty tree, in memory where that can be had: making thousands of directories takes a disk seconds.
fn empty() -> Tree {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.unwrap();
    let root = Root::open(dir.path()).unwrap();
    Tree { root, dir }
}

/// A deep tree. It goes by our own means: what removes a temporary directory opens a descriptor for each level.
struct Deep(Tree);

impl Drop for Deep {
    fn drop(&mut self) {
        remove::remove_dir_all(&self.0.dir.path().join("d")).unwrap();
    }
}

fn nested(depth: usize) -> Deep {
    let out = Deep(empty());
    let names = (0..depth).map(|_| "d".to_owned());
    nest(out.0.root.dir("/").unwrap(), names, None);
    out
}

/// A stack on which a call for each level of the deepest tree has no room.
fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().stack_size(96 << 10).spawn(work);
    thread.unwrap().join().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_tree_of_any_depth_is_removed_with_a_fixed_number_of_descriptors() {
    let outer = empty();
    add(&outer.root, "dir trash 755 0 0\n");
    let trash = outer.dir.path().join("trash");
    let in_trash = outer.root.dir("/trash").unwrap();
    in_trash.create_dir(os("victim"), 0o755).unwrap();
    let victim = in_trash.open_dir(os("victim")).unwrap();
    nest(victim, (0..12_000).map(|_| "d".to_owned()), Some("last"));
    let most = on_a_small_stack(move || {
        let (mut left, mut most, mut moved) = (vec![OsString::from("victim")], 0, 0);
        while let Some(name) = left.pop() {
            let mut fresh = || {
                moved += 1;
                most = most.max(descriptors());
                let name = OsString::from(format!("moved-{moved}"));
                left.push(name.clone());
                name
            };
            remove::remove_tree(&in_trash, &name, &mut fresh, &|| false).unwrap();
        }
        most
    });
    assert!(most < 500, "{most} descriptors");
    assert_eq!(std::fs::read_dir(&trash).unwrap().count(), 0);
}

#[test]
fn a_path_of_the_host_is_removed_whatever_is_below_and_links_are_not_followed() {
    let outer =
        tree("dir keep 755 0 0\nfile keep/f 644 0 0 x\ndir gone 755 0 0\nlink gone/l ../keep\n");
    let gone = outer.root.dir("/gone").unwrap();
    nest(
        gone,
        (0..5_000).map(|i| format!("d{}", i % 7)),
        Some("last"),
    );
    remove::remove_dir_all(&outer.dir.path().join("gone")).unwrap();
    assert_eq!(show(&outer.root), "keep/\nkeep/f: x\n");
    let missing = remove::remove_dir_all(&outer.dir.path().join("gone"));
    assert!(missing.is_ok(), "{missing:?}");
}

#[test]
fn trees_are_bounded_in_depth_and_in_the_length_of_a_path() {
    let long = "n".repeat(255);
    let cases: &[(&str, usize, &str, &str, bool)] = &[
        ("as deep as may be", MAX_DEPTH, "d", "", true),
        ("a file too deep", MAX_DEPTH, "d", "f", false),
        ("one directory too deep", MAX_DEPTH + 1, "d", "", false),
        ("far too deep", 6_000, "d", "f", false),
        ("as long as may be", 15, &long, &long, true),
        ("a file's path too long", 16, &long, "f", false),
    ];
    for (what, depth, name, file, fits) in cases {
        let tree = empty();
        add(&tree.root, "file beside 644 0 0\n");
        let names = (0..*depth).map(|_| (*name).to_owned());
        let file = Some(*file).filter(|f| !f.is_empty());
        nest(tree.root.dir("/").unwrap(), names.clone(), file);
        let root = tree.root.clone();
        let checked = on_a_small_stack(move || {
            descent::check(root.dir("/").unwrap()).map_err(|e| e.to_string())
        });
        assert_eq!(checked.is_ok(), *fits, "{what}: {checked:?}");
        if let Err(text) = checked {
            assert!(text.len() < 3_000, "{what}: {text}");
            assert!(
                text.ends_with("nested too deep: a path may have 1024 names and 4096 bytes"),
                "{text}"
            );
        }
        let path: PathBuf = names.chain(file.map(str::to_owned)).collect();
        assert_eq!(depth::check_path(&path).is_ok(), *fits, "{what}");
        assert!(path.as_os_str().len() <= MAX_PATH || !fits);
        remove::remove_dir_all(&tree.dir.path().join(name)).unwrap();
    }
}

/// Goes through the first tree, and may write to the second; returns how many levels it saw.
type Passage = fn(&Root, &Root) -> Result<usize, String>;

/// What goes through a whole tree.
const WALKS: &[(&str, Passage)] = &[
    ("walk", |root, _| {
        let walk = Walk::new(root, &Filter::default()).map_err(|e| e.to_string())?;
        walk.map(|stat| stat.map_err(|e| e.to_string()))
            .try_fold(0, |n, stat| stat.map(|_| n + 1))
    }),
    ("overlay_changes", |root, _| {
        overlay_changes(root, None)
            .map(|c| c.len())
            .map_err(|e| e.to_string())
    }),
    ("overlay_changes over the same", |root, _| {
        overlay_changes(root, Some(root))
            .map(|c| MAX_DEPTH + c.len())
            .map_err(|e| e.to_string())
    }),
    ("tree_changes", |root, _| {
        tree_changes(None, root)
            .map(|c| c.len())
            .map_err(|e| e.to_string())
    }),
    ("tree_changes over the same", |root, _| {
        tree_changes(Some(root), root)
            .map(|c| MAX_DEPTH + c.len())
            .map_err(|e| e.to_string())
    }),
    ("copy", |root, to| {
        let action = Copy {
            src: "/".into(),
            dest: "/".into(),
            dir: DirCopy::Contents,
            ..Copy::default()
        };
        copy(root, to, &action, None).map_err(|e| e.to_string())?;
        let copied = overlay_changes(to, None).map_err(|e| e.to_string())?;
        Ok(copied.len())
    }),
    ("copy what patterns name", |root, to| {
        let action = Copy {
            src: "/".into(),
            dest: "/".into(),
            dir: DirCopy::Contents,
            include: vec!["**/d".into()],
            ..Copy::default()
        };
        copy(root, to, &action, None).map_err(|e| e.to_string())?;
        Ok(MAX_DEPTH)
    }),
    ("remove", |root, to| {
        let action = Copy {
            src: "/d".into(),
            dest: "/d".into(),
            ..Copy::default()
        };
        copy(root, to, &action, None).map_err(|e| e.to_string())?;
        to.remove_all("/d").map_err(|e| e.to_string())?;
        Ok(MAX_DEPTH)
    }),
    ("wildcard", |root, to| {
        let action = Copy {
            src: "/[x]/[x]".into(),
            dest: "/".into(),
            wildcards: Wildcards::Match,
            missing: Missing::Allow,
            ..Copy::default()
        };
        copy(root, to, &action, None).map_err(|e| e.to_string())?;
        Ok(MAX_DEPTH)
    }),
    ("hash", |root, _| {
        let hashes = TreeHashes::new();
        let all = |hashes: &TreeHashes, include: &[&str]| {
            let include = include.iter().map(|p| (*p).to_owned()).collect();
            let options = Options {
                include,
                ..Options::default()
            };
            hashes
                .checksum(root, "/", &options)
                .map_err(|e| e.to_string())
        };
        let plain = all(&hashes, &[])?;
        let stored = TreeHashes::decode(&hashes.encode()).map_err(|e| e.to_string())?;
        assert_eq!(all(&stored.fork(), &[])?, plain);
        assert_ne!(all(&stored, &["**"])?, plain);
        Ok(MAX_DEPTH)
    }),
];

#[test]
fn what_goes_through_a_tree_needs_no_stack_for_its_depth_and_refuses_one_that_is_too_deep() {
    let (deepest, too_deep) = (nested(MAX_DEPTH), nested(3_000));
    for (what, walk) in WALKS {
        for from in [&deepest, &too_deep] {
            let to = Deep(empty());
            let (walk, root, dest) = (*walk, from.0.root.clone(), to.0.root.clone());
            let depth = on_a_small_stack(move || walk(&root, &dest));
            if std::ptr::eq(from, &deepest) {
                assert_eq!(depth, Ok(MAX_DEPTH), "{what}");
                continue;
            }
            // Digests are of paths that the kernel takes: the length of a path ends them.
            let error = depth.unwrap_err();
            assert!(
                error.contains("nested too deep") || error.contains("file name too long"),
                "{what}: {error}"
            );
        }
    }
}

#[test]
fn a_directory_that_was_moved_away_is_not_left_through_its_new_place() {
    let outer = tree("dir in 755 0 0\ndir out 755 0 0\n");
    nest(
        outer.root.dir("/in").unwrap(),
        (0..100).map(|_| "d".to_owned()),
        None,
    );
    let mut descent = Descent::new(outer.root.dir("/in").unwrap());
    for _ in 0..100 {
        descent.down(os("d")).unwrap();
    }
    // Somebody moves the innermost forty to another place.
    let path: PathBuf = std::iter::repeat_n("d", 60).collect();
    outer
        .root
        .rename(PathBuf::from("in").join(path), "out/d")
        .unwrap();
    let mut up = Ok(());
    for _ in 0..100 {
        up = descent.up();
        if up.is_err() {
            break;
        }
    }
    let stale = rustix::io::Errno::STALE.raw_os_error();
    assert_eq!(up.unwrap_err().raw_os_error(), Some(stale));
}

#[test]
fn a_descent_of_a_thousand_levels_holds_few_descriptors() {
    let tree = nested(MAX_DEPTH);
    let before = descriptors();
    let mut descent = Descent::new(tree.0.root.dir("/").unwrap());
    for _ in 0..MAX_DEPTH {
        descent.down(os("d")).unwrap();
    }
    assert!(descriptors() < before + 300);
    assert_eq!(
        descent.down(os("d")).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
    while descent.depth() > 0 {
        descent.up().unwrap();
    }
    assert!(descent.dir().stat(os("d")).unwrap().is_dir());
}
