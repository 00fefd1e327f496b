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
    #[expect(
        clippy::disallowed_methods,
        reason = "measures how long an input takes"
    )]
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

/// Cases are text, and a line of one must not look like the corpus' own. Some have options, and of those some have no change.
fn write(seeds: &[Vec<u8>], numbers: &mut mutate::Numbers, count: u64) {
    let mut written = 0;
    while written < count {
        let with_options = numbers.below(3) > 0;
        let bytes = if with_options && numbers.below(2) == 0 {
            seeds[numbers.below(seeds.len())].clone()
        } else {
            mutate::mutated(seeds, numbers, 2)
        };
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        if text
            .lines()
            .any(|line| line.starts_with("=== ") || line.starts_with("--- "))
        {
            continue;
        }
        written += 1;
        println!("=== {written}");
        if with_options {
            for _ in 0..=numbers.below(3) {
                println!("opt {}", option(&text, numbers));
            }
        }
        println!("--- Dockerfile\n{}", text.trim_end_matches('\n'));
    }
}

/// What clients say beside the Dockerfile. In place of `@` comes a name of an argument, of `%` one of a stage.
const OPTIONS: &[&str] = &[
    "target=%",
    "target=%",
    "target=%",
    "target=0",
    "target=1",
    "target=-1",
    "platform=linux/amd64",
    "platform=linux/arm64",
    "platform=linux/arm/v6",
    "platform=linux/arm64/v8",
    "platform=linux/386,linux/amd64/v2",
    "platform=linux/amd64,linux/arm/v7",
    "platform=windows/amd64",
    "platform=windows(10.0.17763.1)/amd64",
    "platform=darwin",
    "platform=arm64",
    "multi-platform=true",
    "multi-platform=maybe",
    "build-arg:@=17",
    "build-arg:@=",
    "build-arg:@=a b",
    "build-arg:@=%",
    "build-arg:@=alpine",
    "build-arg:TARGETPLATFORM=linux/riscv64",
    "build-arg:TARGETARCH=s390x",
    "build-arg:BUILDPLATFORM=linux/arm64",
    "build-arg:http_proxy=http://proxy",
    "build-arg:NO_PROXY=",
    "build-arg:SOURCE_DATE_EPOCH=1",
    "build-arg:SOURCE_DATE_EPOCH=",
    "build-arg:SOURCE_DATE_EPOCH=-5",
    "build-arg:SOURCE_DATE_EPOCH=99999999999999999999",
    "build-arg:BUILDKIT_MULTI_PLATFORM=true",
    "build-arg:BUILDKIT_SANDBOX_HOSTNAME=h",
    "build-arg:BUILDKIT_CACHE_MOUNT_NS=n",
    "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR=1",
    "build-arg:BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended;error=true",
    "build-arg:BUILDKIT_DOCKERFILE_CHECK=experimental=all",
    "build-arg:BUILDKIT_DOCKERFILE_CHECK=x",
    "build-arg:BUILDKIT_BUILD_NAME=b",
    "build-arg:BUILDKIT_INLINE_CACHE=1",
    "build-arg:BUILDKIT_SYNTAX=x",
    "build-arg:PATH=/x",
    "build-arg:=x",
    "label:a=b",
    "label:=b",
    "label:a=$b",
    "no-cache=",
    "no-cache=%",
    "no-cache=%,%",
    "image-resolve-mode=local",
    "image-resolve-mode=pull",
    "image-resolve-mode=default",
    "force-network-mode=none",
    "force-network-mode=sandbox",
    "hostname=h",
    "add-hosts=a=1.2.3.4",
    "add-hosts=a:1.2.3.4",
    "shm-size=1",
    "shm-size=-1",
    "ulimit=nofile=1:2",
    "ulimit=nofile=3:2",
    "cgroup-parent=x",
    "source=x/y",
    "filename=%",
    "contextkey=other",
    "dockerfilekey=other",
    "contextsubdir=sub",
    "context:%=local:other",
    "context:%=target:%",
    "context:%=docker-image://busybox",
    "context:%=docker-image://nowhere",
    "context:%::linux/arm64=docker-image://busybox",
    "context:%=input:%",
    "context:%=https://example.com/a.git",
    "context:%=https://example.com/a.tar",
    "context:alpine=docker-image://busybox",
    "context:busybox=target:%",
    "context:scratch=docker-image://busybox",
    "context:context=docker-image://busybox",
    "context:dockerfile=docker-image://busybox",
    "context:=docker-image://busybox",
    "context=https://example.com/a.git#b:c",
    "context=git://example.com/a",
    "context=nonsense",
    "requestid=frontend.outline",
    "requestid=frontend.targets",
    "requestid=frontend.lint",
    "requestid=frontend.subrequests.describe",
    "requestid=frontend.nothing",
    "attest:sbom=",
    "attest:sbom=generator=busybox",
    "attest:provenance=mode=max",
    "build-arg:BUILDKIT_SBOM_SCAN_STAGE=true",
    "build-arg:BUILDKIT_SBOM_SCAN_CONTEXT=1",
    "memory=1",
    "cpushares=x",
    "linkname=x",
    "override-copy-image=x",
    "cache-imports=x",
    "cache-from=x",
];

/// One of the options, with names that the text has.
fn option(text: &str, numbers: &mut mutate::Numbers) -> String {
    let names_after = |keyword: &str| -> Vec<&str> {
        let words = text.split_whitespace();
        let plain = |name: &&str| {
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        };
        words
            .clone()
            .zip(words.skip(1))
            .filter(|(word, _)| word.eq_ignore_ascii_case(keyword))
            .filter_map(|(_, name)| name.split('=').next().filter(plain))
            .collect()
    };
    let (arguments, stages) = (names_after("ARG"), names_after("AS"));
    let mut out = String::new();
    for char in OPTIONS[numbers.below(OPTIONS.len())].chars() {
        let names = match char {
            '@' => &arguments,
            '%' => &stages,
            other => {
                out.push(other);
                continue;
            }
        };
        out.push_str(names.get(numbers.below(names.len())).unwrap_or(&"none"));
    }
    out
}
