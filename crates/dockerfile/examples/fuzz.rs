//! Feeds changed Dockerfiles to everything that reads them, for as long as asked:
//! `cargo run -p rbuild-dockerfile --example fuzz -- SECONDS SEED FILE…`. What panics or hangs is written to
//! `fuzz-found-…`, what is slow to `fuzz-slow-…`.
//!
//! `fuzz write COUNT SEED FILE…` prints changed Dockerfiles as cases for `rbuild-integration llb --corpus`, which asks BuildKit's
//! frontend and ours about each.
#![allow(clippy::print_stdout, reason = "a command for people")]
#![allow(dead_code, reason = "the modules are the tests'")]

#[path = "../tests/suite/host.rs"]
mod host;
#[path = "../tests/suite/mutate.rs"]
mod mutate;

use std::time::{Duration, Instant};

/// What takes longer is worth a look.
const SLOW: Duration = Duration::from_millis(500);

fn main() {
    let mut args = std::env::args().skip(1).peekable();
    let writes = args.next_if_eq("write").is_some();
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
    let (Some(seconds), Some(seed)) = (number(), number()) else {
        println!("usage: fuzz [write] SECONDS|COUNT SEED FILE…");
        return;
    };
    let mut seeds = Vec::new();
    for file in args {
        let bytes = std::fs::read(&file).expect("the file is readable");
        // A corpus of many files in one: each is a seed.
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("\n--- Dockerfile\n") {
            seeds.extend(text.split("\n--- Dockerfile\n").skip(1).map(|part| {
                part.split("\n=== ")
                    .next()
                    .unwrap_or_default()
                    .as_bytes()
                    .to_vec()
            }));
        } else {
            seeds.push(bytes);
        }
    }
    let mut numbers = mutate::Numbers::new(seed);
    if writes {
        write(&seeds, &mut numbers, seconds);
        return;
    }
    println!("{} seeds", seeds.len());
    let begun = Instant::now();
    let (mut runs, mut found, mut slowest) = (0_u64, 0_u64, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let text = mutate::mutated(&seeds, &mut numbers, mutate::MANY);
        let fed = std::panic::catch_unwind(|| mutate::feed(&text));
        runs += 1;
        let took = fed.as_ref().copied().unwrap_or_default();
        slowest = slowest.max(took);
        if fed.is_err() || took > mutate::PATIENCE {
            found += 1;
            keep("found", seed, runs, &text);
        } else if took > SLOW {
            keep("slow", seed, runs, &text);
        }
        if runs % 50_000 == 0 {
            println!(
                "{runs} inputs, {found} found, slowest {slowest:?}, {:?}",
                begun.elapsed()
            );
        }
    }
    println!("end: {runs} inputs, {found} found, slowest {slowest:?}");
}

fn keep(what: &str, seed: u64, run: u64, text: &[u8]) {
    std::fs::write(format!("fuzz-{what}-{seed}-{run}"), text).expect("the folder is writable");
}

/// Cases are text, and a line of one must not look like the corpus' own.
fn write(seeds: &[Vec<u8>], numbers: &mut mutate::Numbers, count: u64) {
    let mut written = 0;
    while written < count {
        let Ok(text) = String::from_utf8(mutate::mutated(seeds, numbers, 2)) else {
            continue;
        };
        if text
            .lines()
            .any(|line| line.starts_with("=== ") || line.starts_with("--- "))
        {
            continue;
        }
        written += 1;
        println!(
            "=== {written}\n--- Dockerfile\n{}",
            text.trim_end_matches('\n')
        );
    }
}
