//! Files that are as large as they may be, and made to take much time, memory or stack.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use dockerfile::lower::LowerOptions;
use dockerfile::outline;

use crate::host::{Host, lowered};

/// A quarter of what a thread of the runtime has.
const STACK: usize = 512 << 10;

/// A machine under load and a build without optimisation included.
const PATIENCE: Duration = Duration::from_secs(30);

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "{}", line(n));
        text
    })
}

fn many(count: usize, word: impl Fn(usize) -> String) -> String {
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

/// `text` on lines of less than 64 KiB that continue each other.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column > 60_000 {
            out.push_str("\\\n");
            column = 0;
        }
        out.push_str(word);
        out.push(' ');
        column += word.len() + 1;
    }
    out
}

fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}x{}", open.repeat(depth), close.repeat(depth))
}

/// Names of attacks, the text after `FROM a AS a`, and what the error says; empty where there is none.
fn attacks() -> Vec<(&'static str, String, &'static str)> {
    let doubled = format!("ENV V=0123456789abcdef\n{}", "ENV V=${V}${V}\n".repeat(14));
    vec![
        // Nesting.
        (
            "defaults in defaults",
            format!("ENV A={}", nested(31, "${a:-", "}")),
            "",
        ),
        (
            "defaults in quotes",
            format!("ENV A=\"{}\"", nested(31, "${a:-\"", "\"}")),
            "",
        ),
        (
            "defaults without end",
            format!("ENV A={}", nested(9_000, "${a:-", "}")),
            "nested",
        ),
        (
            "open defaults",
            format!("ENV A={}", "${a:-".repeat(12_000)),
            "nested",
        ),
        (
            "open patterns",
            format!("ENV A={}", "${a//".repeat(12_000)),
            "nested",
        ),
        (
            "defaults in a heredoc",
            format!("COPY <<E /x\n{}\nE", nested(9_000, "${a:-", "}")),
            "nested",
        ),
        (
            "arrays in arrays",
            format!("CMD {}", nested(30_000, "[", "]")),
            "",
        ),
        (
            "arrays in a healthcheck",
            format!("HEALTHCHECK CMD {}", "[".repeat(60_000)),
            "",
        ),
        (
            "objects in arrays",
            format!("VOLUME [{}", "{\"a\":".repeat(10_000)),
            "",
        ),
        (
            "triggers in triggers",
            format!("{}RUN x", "ONBUILD ".repeat(8_000)),
            "ONBUILD",
        ),
        ("heredoc names", format!("RUN {}", "<<".repeat(30_000)), ""),
        // Chains.
        (
            "stages on stages",
            lines(19_900, |n| format!("FROM s{n} AS s{}", n + 1)).replacen("s0", "a", 1),
            "",
        ),
        (
            "stages that copy from stages",
            lines(9_900, |n| {
                format!("FROM scratch AS s{}\nCOPY --from=s{n} / /", n + 1)
            })
            .replacen("=s0", "=a", 1),
            "",
        ),
        (
            "stages that mount stages",
            lines(6_600, |n| {
                format!("FROM a AS s{}\nRUN --mount=from=s{n},target=/x y", n + 1)
            })
            .replacen("=s0", "=a", 1),
            "",
        ),
        (
            "stages that copy from later ones",
            lines(9_000, |n| {
                format!("FROM a AS s{n}\nCOPY --from=s{} / /", n + 1)
            }),
            "",
        ),
        (
            "a loop through all",
            format!(
                "{}FROM a AS s9000\nCOPY --from=s0 / /",
                lines(9_000, |n| format!(
                    "FROM a AS s{n}\nCOPY --from=s{} / /",
                    n + 1
                ))
            ),
            "circular",
        ),
        (
            "triggers of stages on stages",
            lines(6_600, |n| format!("FROM s{n} AS s{}\nONBUILD RUN x", n + 1))
                .replacen("s0", "a", 1),
            "bytes of arguments",
        ),
        ("steps on steps", lines(19_900, |n| format!("RUN {n}")), ""),
        (
            "links on links",
            lines(1_900, |n| format!("COPY --link a /{n}")),
            "",
        ),
        (
            "variables on variables",
            lines(19_900, |n| format!("ENV A{n}=$A{}", n.wrapping_sub(1))),
            "",
        ),
        // Many of one thing.
        (
            "instructions",
            "RUN\n".repeat(200_000),
            "more than 20000 instructions",
        ),
        (
            "stages",
            "FROM a\n".repeat(200_000),
            "more than 20000 instructions",
        ),
        (
            "lines of nothing",
            format!("RUN a \\\n{}b", "\\\n".repeat(2_000_000)),
            "",
        ),
        ("comments", format!("{}RUN a", "#a\n".repeat(2_000_000)), ""),
        (
            "words of a copy",
            format!("COPY {} /x", wrapped(&"a ".repeat(240_000))),
            "more than 200000 words",
        ),
        (
            "sources",
            format!("COPY {} /x/", wrapped(&many(19_000, |n| n.to_string()))),
            "",
        ),
        (
            "more sources",
            format!("COPY {} /x/", wrapped(&many(21_000, |n| n.to_string()))),
            "at most 20000",
        ),
        (
            "words of an array",
            format!("VOLUME [{}\"a\"]", wrapped(&"\"\", ".repeat(240_000))),
            "more than 200000 words",
        ),
        (
            "volumes",
            format!("VOLUME {}", wrapped(&many(50_000, |n| format!("/{n}")))),
            "at most 20000",
        ),
        (
            "a long step",
            format!("RUN {}", wrapped(&"echo a ; ".repeat(200_000))),
            "more than 1048576 bytes in an instruction",
        ),
        (
            "flags",
            format!(
                "COPY {} a /x",
                wrapped(&many(60_000, |_| "--exclude=a".to_owned()))
            ),
            "at most 20000",
        ),
        (
            "mounts",
            format!(
                "RUN {} x",
                wrapped(&many(40_000, |n| format!("--mount=from=i{n},target=/{n}")))
            ),
            "bytes in an instruction",
        ),
        (
            "fewer mounts",
            format!(
                "RUN {} x",
                wrapped(&many(25_000, |n| format!("--mount=from=i{n},target=/{n}")))
            ),
            "at most 20000",
        ),
        (
            "mounts on many lines",
            format!(
                "RUN {} x",
                many(9_000, |n| format!("--mount=from=i{n},target=/{n} \\\n"))
            ),
            "",
        ),
        (
            "heredocs",
            format!(
                "COPY {} /x/\n{}",
                wrapped(&many(15_000, |n| format!("<<E{n}"))),
                lines(15_000, |n| format!("a\nE{n}"))
            ),
            "",
        ),
        (
            "heredocs of one name",
            format!(
                "COPY {} /x/\n{}",
                wrapped(&many(60_000, |_| "<<E".to_owned())),
                "a\nE\n".repeat(60_000)
            ),
            "at most 20000",
        ),
        (
            "ports",
            "EXPOSE 1-65535\n".repeat(3_000),
            "bytes of arguments, variables and history",
        ),
        (
            "ports of one line",
            format!("EXPOSE {}", wrapped(&"1-65535 ".repeat(19_000))),
            "bytes of arguments, variables and history",
        ),
        (
            "ports of many stages",
            format!(
                "EXPOSE 1-65535\n{}",
                lines(9_000, |n| format!("FROM s{n} AS s{}", n + 1)).replacen("s0", "a", 1)
            ),
            "bytes of arguments",
        ),
        (
            "labels of many stages",
            format!(
                "{}{}",
                lines(9_000, |n| format!("LABEL l{n}={n}")),
                lines(9_000, |n| format!("FROM s{n} AS s{}", n + 1)).replacen("s0", "a", 1)
            ),
            "bytes of arguments",
        ),
        (
            "triggers for many stages",
            format!(
                "{}{}",
                "ONBUILD RUN x\n".repeat(5_000),
                "FROM a\nCOPY --from=a / /\n".repeat(5_000)
            ),
            "at most 20000",
        ),
        (
            "arguments of many steps",
            format!(
                "{}{}",
                lines(9_000, |n| format!("ARG A{n}=1")),
                "RUN x\n".repeat(9_000)
            ),
            "bytes of arguments",
        ),
        (
            "steps with many variables",
            format!(
                "{}{}",
                lines(9_900, |n| format!("ENV A{n}=1")),
                lines(9_900, |n| format!("LABEL l{n}=$A0$A1$A2"))
            ),
            "",
        ),
        // Look-ups and suggestions.
        (
            "a variable that is not set, often",
            format!(
                "{}LABEL x={}",
                lines(19_000, |n| format!("ENV A{n}=1")),
                wrapped(&"$b".repeat(30_000))
            ),
            "",
        ),
        (
            "variables that are not set",
            format!(
                "{}LABEL x=\"{}\"",
                lines(19_000, |n| format!("ENV ABCDEF{n}=1")),
                wrapped(&many(60_000, |n| format!("$ABCDEX{n}")))
            ),
            "",
        ),
        (
            "variables that are not set, on many lines",
            format!(
                "LABEL x=\"{}\"",
                many(30_000, |n| format!(
                    "$ABCDEX{n}{}",
                    if n % 4 == 0 { "\\\n" } else { "" }
                ))
            ),
            "",
        ),
        (
            "long names",
            lines(40, |n| {
                format!("ENV {}{n}=$b{}", "b".repeat(30_000), "b".repeat(30_000))
            }),
            "",
        ),
        (
            "arguments that are not declared",
            lines(9_900, |n| format!("FROM a$B{n}")),
            "",
        ),
        // Patterns.
        (
            "a long pattern",
            format!("{doubled}ENV W=${{V#{}b}}", "*a".repeat(2_000)),
            "expand",
        ),
        (
            "a pattern in many words",
            format!(
                "ENV V=a\n{}",
                format!("ENV W=${{V%{}}}\n", "*a".repeat(2_000)).repeat(2_000)
            ),
            "expand",
        ),
        (
            "a replacement in each character",
            format!("{doubled}ENV W=${{V//?/{}}}", "0123456789abcdef".repeat(20)),
            "expand",
        ),
    ]
}

#[test]
fn no_file_takes_much_time_stack_or_memory() {
    let (mut slow, mut wrong) = (Vec::new(), Vec::new());
    for (name, text, expected) in attacks() {
        let text = format!("FROM a AS a\n{text}\n");
        #[expect(
            clippy::disallowed_methods,
            reason = "measures how long an input takes"
        )]
        let begun = Instant::now();
        let run = move || {
            let lowered = lowered(&Host::default(), text.as_bytes(), "");
            let written = lowered.and_then(|written| written.definition().map(|_| ()));
            written.map_err(|error| error.to_string())
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK)
            .spawn(run);
        let outcome = thread
            .expect("a thread starts")
            .join()
            .expect("it does not panic");
        let took = begun.elapsed();
        if took > Duration::from_secs(1) {
            eprintln!("{name}: {took:?}");
        }
        if took > PATIENCE {
            slow.push(format!("{name}: {took:?}"));
        }
        let as_wanted = match &outcome {
            Ok(()) => expected.is_empty(),
            Err(error) => !expected.is_empty() && error.contains(expected),
        };
        if !as_wanted {
            let shorten = |error: String| error.chars().take(300).collect::<String>();
            wrong.push(format!(
                "{name}: {:?}, not {expected:?}",
                outcome.map_err(shorten)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
fn no_report_of_a_file_takes_much_time_or_memory() {
    let parts_of_names = [
        "variables that are not set",
        "not declared",
        "long names",
        "steps on",
        "loop",
    ];
    let files = attacks().into_iter();
    for (name, text, _) in
        files.filter(|(name, ..)| parts_of_names.iter().any(|part| name.contains(part)))
    {
        let text = format!("FROM a AS a\n{text}\n");
        let run = move || {
            let host = Host::default();
            let options = LowerOptions::default;
            let text = text.as_bytes();
            let listed = outline::targets(text).map_or(0, |report| report.json.len());
            let outlined = outline::outline(text, options(), &host);
            let outlined = futures::executor::block_on(outlined).map_or(0, |r| r.json.len());
            let report = futures::executor::block_on(outline::lint(text, options(), &host)).report;
            (
                text.len(),
                listed.max(outlined).max(report.json.len()),
                report.text.len(),
            )
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "measures how long an input takes"
        )]
        let begun = Instant::now();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK)
            .spawn(run);
        let thread = thread.expect("a thread starts");
        let (given, json, text) = thread.join().expect("it does not panic");
        assert!(
            json < 32 << 20 && text < 5 << 20,
            "{name}: {given}, {json}, {text}"
        );
        assert!(
            begun.elapsed() < 2 * PATIENCE,
            "{name}: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn a_long_definition_is_read_and_written_again() {
    let text = format!("FROM a\n{}", lines(19_900, |n| format!("RUN {n}")));
    let run = move || {
        let lowered = lowered(&Host::default(), text.as_bytes(), "").expect("nothing is wrong");
        let definition = lowered.definition().expect("it can be written");
        drop(lowered);
        let state = llb::build::state_from_definition(&definition).expect("it is one");
        let options = llb::build::MarshalOptions::default();
        let reencoded = llb::build::marshal(state.output(), &options).expect("it can be written");
        assert_eq!(reencoded.def.len(), definition.def.len());
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
    thread
        .expect("a thread starts")
        .join()
        .expect("it does not panic");
}

#[test]
fn platforms_of_one_build_have_one_budget() {
    let options = LowerOptions::default();
    let text = format!(
        "FROM a\nARG A={}\n{}",
        "a".repeat(10_000),
        "RUN x\n".repeat(10_000)
    );
    let mut lowered_files = 0;
    let error = loop {
        let host = Host::default();
        let lowered = dockerfile::lower::lower(text.as_bytes(), options.clone(), &host, None);
        match futures::executor::block_on(lowered) {
            Ok(_) => lowered_files += 1,
            Err(error) => break error.to_string(),
        }
        assert!(lowered_files < 100, "there is no end");
    };
    assert!(
        lowered_files > 5 && error.contains("stages of all platforms have"),
        "{lowered_files}: {error}"
    );
}

#[test]
fn an_ignore_file_of_any_size_is_refused_by_the_matcher_and_not_cut() {
    for (text, expected) in [
        ("a\n".repeat(2 << 20), "too many patterns: 100001 in a list"),
        ("*a\n".repeat(1 << 20), "too many patterns"),
        (
            "*a".repeat(2 << 20),
            "too many patterns: 4194304 characters",
        ),
        ("!a\n".repeat(100_000), ""),
    ] {
        let patterns = dockerfile::ignore::patterns(text.as_bytes());
        assert!(patterns.len() <= pattern::MAX_PATTERNS + 1);
        let error = pattern::PatternMatcher::new(&patterns).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            error.starts_with(expected) && error.is_empty() == expected.is_empty(),
            "{error}"
        );
    }
}
