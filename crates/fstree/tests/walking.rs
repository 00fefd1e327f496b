use fstree::walk::{Filter, Walk, follow_links};

use crate::support::{Tree, tree};

fn listed(t: &Tree, include: &[&str], exclude: &[&str], follow: &[&str]) -> String {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    let filter = Filter {
        include: own(include),
        exclude: own(exclude),
        follow: own(follow),
    };
    let paths: Vec<String> = Walk::new(&t.root, &filter)
        .unwrap()
        .map(|stat| stat.unwrap().path.to_str().unwrap().to_owned())
        .collect();
    paths.join(" ")
}

fn sample() -> Tree {
    let t = tree("");
    for dir in ["a/b/c", "a-b", "bar", "foo/deep/er"] {
        std::fs::create_dir_all(t.dir.path().join(dir)).unwrap();
    }
    for file in [
        "a/b/c/f",
        "a/x",
        "a-b/y",
        "bar/foo",
        "bar/keep",
        "foo/deep/er/z",
        "foo/q.txt",
        "top.txt",
    ] {
        std::fs::write(t.dir.path().join(file), file).unwrap();
    }
    std::os::unix::fs::symlink("../bar/foo", t.dir.path().join("a/link")).unwrap();
    std::os::unix::fs::symlink("/a", t.dir.path().join("abs")).unwrap();
    std::os::unix::fs::symlink("loop", t.dir.path().join("loop")).unwrap();
    std::fs::hard_link(t.dir.path().join("bar/foo"), t.dir.path().join("foo/hard")).unwrap();
    t
}

#[test]
fn order_is_that_of_whole_paths_with_the_slash_lowest() {
    assert_eq!(
        listed(&sample(), &[], &[], &[]),
        "a a/b a/b/c a/b/c/f a/link a/x a-b a-b/y abs bar bar/foo bar/keep foo foo/deep foo/deep/er foo/deep/er/z \
         foo/hard foo/q.txt loop top.txt"
    );
}

#[test]
fn filters_let_parents_through_only_for_what_is_below_them() {
    let t = sample();
    for (include, exclude, want) in [
        (&["bar/foo"][..], &[][..], "bar bar/foo"),
        (&["**/*.txt"], &[], "foo foo/q.txt top.txt"),
        (&["foo/deep"], &[], "foo foo/deep foo/deep/er foo/deep/er/z"),
        (&["*/deep"], &[], "foo foo/deep foo/deep/er foo/deep/er/z"),
        (&["bar"], &["bar/foo"], "bar bar/keep"),
        (
            &[],
            &["a", "a-b", "foo"],
            "abs bar bar/foo bar/keep loop top.txt",
        ),
        (&[], &["*", "!bar/keep"], "bar bar/keep"),
        (
            &[],
            &["**", "!foo/deep"],
            "foo foo/deep foo/deep/er foo/deep/er/z",
        ),
        (&["nothing"], &[], ""),
    ] {
        assert_eq!(
            listed(&t, include, exclude, &[]),
            want,
            "{include:?} {exclude:?}"
        );
    }
}

#[test]
fn follow_paths_bring_the_targets_of_links() {
    let t = sample();
    assert_eq!(listed(&t, &[], &[], &["a/link"]), "a a/link bar bar/foo");
    assert_eq!(listed(&t, &[], &[], &["abs/x"]), "a a/x abs");
    assert_eq!(
        listed(&t, &["top.txt"], &[], &["abs/b"]),
        "a a/b a/b/c a/b/c/f abs top.txt"
    );
    let follow = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|s| (*s).to_owned()).collect();
        follow_links(&t.root, &paths)
            .unwrap()
            .map(|paths| paths.join(" "))
    };
    assert_eq!(follow(&["loop"]).unwrap(), "loop");
    assert_eq!(follow(&["a/*"]).unwrap(), "a/* bar/foo");
    assert_eq!(
        follow(&["abs", "missing", "/abs/../top.txt"]).unwrap(),
        "a abs missing top.txt"
    );
    assert_eq!(follow(&["bar", "bar/foo"]).unwrap(), "bar");
    assert_eq!(follow(&["/"]), None);
}

#[test]
fn metadata_is_what_fsutil_sends() {
    let t = sample();
    let all: Vec<_> = Walk::new(&t.root, &Filter::default())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let find = |path: &str| all.iter().find(|s| s.path.to_str() == Some(path)).unwrap();
    assert!(find("foo/hard").is_hard_link());
    assert_eq!(find("foo/hard").linkname.to_str(), Some("bar/foo"));
    assert_eq!(find("foo/hard").size, 7);
    assert_eq!(find("a/link").linkname.to_str(), Some("../bar/foo"));
    assert_eq!((find("a").size, find("a").is_dir()), (0, true));
    assert_eq!(find("top.txt").mode & 0o600, 0o600);
}
