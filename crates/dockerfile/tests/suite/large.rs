use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::host::{Host, lowered};

/// Five thousand lines, five hundred stages: a chain, images of their own, and files of other stages.
fn large() -> String {
    let mut text = String::new();
    for stage in 0..500 {
        match stage {
            0 => text.push_str("FROM alpine AS s0\n"),
            _ if stage % 5 == 0 => {
                writeln!(text, "FROM image{stage} AS s{stage}").expect("memory takes it")
            }
            _ => writeln!(text, "FROM s{} AS s{stage}", stage - 1).expect("memory takes it"),
        }
        write!(
            text,
            "ARG VERSION=1.{stage}\nENV V{stage}=${{VERSION}} HOME=/home\nWORKDIR /src/{stage}\nCOPY a{stage} b ./\n\
             RUN --mount=type=cache,target=/c make V=$VERSION \\\n  && true\nLABEL l{stage}=\"$V{stage}\"\n"
        )
        .expect("memory takes it");
        if stage >= 5 {
            writeln!(text, "COPY --from=s{} /out /in{stage}", stage - 5).expect("memory takes it");
        } else {
            text.push_str("RUN true\n");
        }
        text.push_str("# words\n");
    }
    text
}

#[test]
fn five_thousand_lines_are_lowered_in_no_time() {
    let text = large();
    assert_eq!(text.lines().count(), 5000);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let host = Host::default();
        #[expect(
            clippy::disallowed_methods,
            reason = "measures how long an input takes"
        )]
        let begun = Instant::now();
        let tree = dockerfile::syntax::parse(text.as_bytes()).expect("the file is well formed");
        let parsed = begun.elapsed();
        drop(tree);
        #[expect(
            clippy::disallowed_methods,
            reason = "measures how long an input takes"
        )]
        let begun = Instant::now();
        let lowered = lowered(&host, text.as_bytes(), "").expect("the file is well formed");
        let lowering_time = begun.elapsed();
        let definition = lowered.definition().expect("it can be written");
        best = best.min(begun.elapsed());
        eprintln!(
            "parsed alone {parsed:?}, parsed and lowered {lowering_time:?}, written {:?}",
            begun.elapsed()
        );
        assert!(definition.def.len() > 1500, "{}", definition.def.len());
    }
    eprintln!("5,000 lines and 500 stages: {best:?}");
    // The budget is that of an optimised build; this one is not, and other tests run beside it.
    let limit_ms = if cfg!(debug_assertions) { 400 } else { 50 };
    assert!(best < Duration::from_millis(limit_ms), "{best:?}");
}

#[test]
fn a_target_resolves_its_ancestors_image_only() {
    let host = Host::default();
    let lowered_file = lowered(&host, large().as_bytes(), "s3").expect("the file is well formed");
    lowered_file.definition().expect("it can be written");
    assert_eq!(host.images.load(Ordering::Relaxed), 1);
}

#[test]
fn a_small_file_cannot_fill_the_memory() {
    let doubled = |stage: &str| {
        let lines = "ENV V=${V}${V}\n".repeat(16);
        format!("FROM {stage}\nARG A\nENV V=0123456789abcdef\n{lines}")
    };
    // A mebibyte in every variable, in the history of every stage, in every step.
    let variables: String = (0..200).map(|n| format!("ENV V{n}=$V\n")).collect();
    let stages: String = (1..400)
        .map(|n| format!("FROM s{} AS s{n}\n", n - 1))
        .collect();
    let steps: String = (0..400).map(|n| format!("RUN {n}\n")).collect();
    for (text, expected) in [
        (
            format!("{}{variables}", doubled("alpine")),
            "variables of this file expand to more than 67108864 bytes",
        ),
        (
            format!("{}{stages}", doubled("alpine AS s0")),
            "bytes of arguments, variables and history, at most 536870912 are accepted",
        ),
        (
            format!("{}{steps}", doubled("alpine")),
            "the steps of the build take more than 268435456 bytes as a definition",
        ),
    ] {
        let host = Host::default();
        let error = lowered(&host, text.as_bytes(), "")
            .and_then(|lowered| lowered.definition())
            .expect_err("it is too much");
        assert!(error.to_string().ends_with(expected), "{error}");
    }
}
