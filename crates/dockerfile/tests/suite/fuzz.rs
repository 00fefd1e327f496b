use std::fs;
use std::path::Path;

use crate::mutate::{MANY, Numbers, PATIENCE, feed, mutated};

/// What the fuzzer starts from, and what it once found.
fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/fuzz");
    let mut files: Vec<_> = fs::read_dir(&root)
        .expect("the corpus is readable")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    assert!(files.len() > 10, "{} is nearly empty", root.display());
    files
        .iter()
        .map(|file| fs::read(file).expect("the file is readable"))
        .collect()
}

#[test]
fn what_the_fuzzer_knows_neither_panics_nor_hangs() {
    let corpus = corpus();
    for text in &corpus {
        assert!(feed(text) < PATIENCE, "{}", String::from_utf8_lossy(text));
    }
    let mut numbers = Numbers::new(7);
    for _ in 0..2000 {
        let text = mutated(&corpus, &mut numbers, MANY);
        assert!(feed(&text) < PATIENCE, "{}", String::from_utf8_lossy(&text));
    }
}
