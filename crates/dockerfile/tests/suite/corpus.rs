use std::fs;
use std::path::{Path, PathBuf};

use dockerfile::syntax;

/// Finds the reference's parser tests below the Go module cache.
fn reference() -> Option<PathBuf> {
    let cache = std::env::var_os("GOMODCACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join("go/pkg/mod")))?;
    let mut versions: Vec<PathBuf> = fs::read_dir(cache.join("github.com/moby"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("/buildkit@"))
        .collect();
    versions.sort();
    Some(versions.pop()?.join("frontend/dockerfile/parser"))
}

fn dirs(root: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(root)
        .expect("the corpus is readable")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    dirs.sort();
    assert!(!dirs.is_empty(), "{} is empty", root.display());
    dirs
}

fn check_trees(root: &Path) {
    for dir in dirs(root) {
        let text = fs::read(dir.join("Dockerfile")).expect("the case has a file");
        let expected = fs::read_to_string(dir.join("result")).expect("the case has a result");
        let tree =
            syntax::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        assert_eq!(
            format!("{}\n", tree.root.dump()),
            expected,
            "{}",
            dir.display()
        );
    }
}

#[test]
fn our_files_have_their_trees() {
    check_trees(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/trees"));
}

#[test]
fn the_references_files_have_their_trees() {
    let Some(root) = reference() else {
        testkit::skip::skip("the reference is not in the module cache");
        return;
    };
    check_trees(&root.join("testfiles"));
    for dir in dirs(&root.join("testfiles-negative")) {
        let text = fs::read(dir.join("Dockerfile")).expect("the case has a file");
        assert!(syntax::parse(&text).is_err(), "{}", dir.display());
    }
    let text = fs::read(root.join("testfile-line/Dockerfile")).expect("the case has a file");
    let root = syntax::parse(&text).expect("the file is well formed").root;
    let lines: Vec<_> = root
        .children
        .iter()
        .map(|node| (node.start_line, node.end_line))
        .collect();
    assert_eq!(
        ((root.start_line, root.end_line), lines.as_slice()),
        ((5, 31), [(5, 5), (11, 12), (17, 31)].as_slice())
    );
}
