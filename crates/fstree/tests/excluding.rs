//! What exclude patterns keep from being copied, and from being counted.

use fstree::action::{self, Copy, DestParents, DirCopy, Missing, SourceLink, Wildcards};
use fstree::hash::{Options, TreeHashes};

use testkit::requires;

use crate::support::{show, tree};

const FILES: &[&str] = &[
    "dir1/a.txt",
    "dir1/b.md",
    "dir2/a.txt",
    "home.md",
    "home.txt",
    "node_modules/a.js",
    "other.txt",
    "pkg/sub/a.js",
    "src/home.md",
    "src/home.txt",
];
const LINKS: &str = "link to_dir dir1\nlink to_file home.txt\n";

/// A copy of one source as the words of a Dockerfile mean it.
fn request(src: &str, exclude: &str) -> Copy {
    Copy {
        src: src.to_owned(),
        dest: "/x/".to_owned(),
        link: SourceLink::Follow,
        dir: DirCopy::Contents,
        parents: DestParents::Create,
        wildcards: Wildcards::Match,
        missing: Missing::Allow,
        exclude: exclude.split(' ').map(str::to_owned).collect(),
        ..Copy::default()
    }
}

/// The tree, with `changed` differing from what it is otherwise.
fn listing(changed: Option<&str>) -> String {
    let mut out = String::from("dir dir1 755 0 0\ndir dir2 755 0 0\ndir node_modules 755 0 0\n");
    out.push_str("dir pkg 755 0 0\ndir pkg/sub 755 0 0\ndir src 755 0 0\n");
    for file in FILES {
        let text = if changed == Some(*file) { "new" } else { "old" };
        out.push_str(&format!("file {file} 644 0 0 {text}\n"));
    }
    out + LINKS
}

/// What is in the destination, and the digests that the copies' keys have.
fn copied(listing: &str, sources: &str, exclude: &str) -> (String, Vec<String>) {
    let from = tree(listing);
    let to = tree("");
    let mut digests = Vec::new();
    for src in sources.split(' ') {
        let copy = request(src, exclude);
        action::copy(&from.root, &to.root, &copy, None).unwrap();
        let options = Options {
            follow_links: true,
            wildcard: src.contains('*'),
            exclude: copy.exclude,
            ..Options::default()
        };
        let hashes = TreeHashes::new();
        let digest = hashes.checksum(&from.root, src, &options).unwrap();
        digests.push(digest.to_string());
    }
    (show(&to.root), digests)
}

/// Sources, exclude patterns, and the files that are there then; a slash at the end is an empty directory.
const CASES: &[(&str, &str, &str)] = &[
    // Files that are sources themselves.
    ("/hom*", "*.txt", "home.md"),
    ("/home.txt /home.md", "home.txt", "home.md"),
    ("/home.txt /home.md", "*.txt *.md", ""),
    ("/home.txt", "other.txt", "home.txt"),
    ("/src/hom*", "*.txt", "home.md"),
    ("/src/hom*", "src/*.txt", "home.md"),
    ("/src/home.txt /home.md", "src/home.txt", "home.md"),
    ("/src/home.txt", "home.txt", ""),
    ("/src/home.txt", "src", "home.txt"),
    ("/home.txt", "src/home.txt", "home.txt"),
    ("/*/home*", "*.txt", "home.md"),
    ("/*/home*", "**/*.txt", "home.md"),
    ("/*/home*", "*/*.txt", "home.md"),
    ("/hom* /other.txt", "*.txt !other.txt", "home.md other.txt"),
    ("/to_file", "*.txt", "to_file"),
    ("/to_file", "to_*", ""),
    ("/to_f*", "to_*", ""),
    // Directories that a wildcard finds.
    ("/*", "node_modules dir* pkg src *.txt to_*", "home.md"),
    ("/*/*.js", "node_modules", ""),
    ("/*/*/*.js", "node_modules", "a.js"),
    ("/*/*/*.js", "pkg/sub", ""),
    ("/dir*", "*", "/"),
    ("/dir*", "dir2", "a.txt b.md"),
    ("/dir*", "* !b.md", "b.md"),
    ("/to_d*", "to_dir", ""),
    ("/node_* /home.md", "node_modules", "home.md"),
    // Directories that are named: their contents, by paths below them.
    ("/dir1", "dir1", "a.txt b.md"),
    ("/dir1", "*.txt", "b.md"),
    ("/dir1/", "*", "/"),
    ("/to_dir", "to_dir", "a.txt b.md"),
    ("/pkg", "pkg/sub", "sub/a.js"),
    (
        "/",
        "*/*.txt home.* other.txt to_* dir* node_modules pkg",
        "src/home.md",
    ),
];

#[test]
fn what_is_excluded_is_copied_by_no_source() {
    requires!(root);
    for (sources, exclude, want) in CASES {
        let (got, _) = copied(&listing(None), sources, exclude);
        let mut files: Vec<&str> = got
            .lines()
            .filter(|line| !line.ends_with('/'))
            .filter_map(|line| line.split(": ").next()?.strip_prefix("x/"))
            .collect();
        if files.is_empty() && got == "x/\n" {
            files.push("/");
        }
        assert_eq!(files.join(" "), *want, "COPY {sources}, excluded {exclude}");
    }
}

#[test]
fn a_copy_counts_all_that_it_takes_and_nothing_that_is_excluded() {
    requires!(root);
    for (sources, exclude, _) in CASES {
        let (before, digests) = copied(&listing(None), sources, exclude);
        for file in FILES {
            let (after, changed) = copied(&listing(Some(file)), sources, exclude);
            // What a link leads to is counted all the same, and of equal names the last is what is there.
            let may_count = sources.contains("to_") || sources.contains("/*/");
            let (taken, counted) = (before != after, digests != changed);
            assert!(
                taken == counted || (counted && may_count),
                "COPY {sources}, excluded {exclude}: {file} is taken: {taken}, counted: {counted}"
            );
        }
    }
}
