//! Mistakes of people: an error that names the thing, an exit code that is not 0, and a daemon that goes on.

use std::process::Command;

use super::daemon::{Daemon, refused};
use super::rig::{Rig, Verdict, ensure};
use super::{Case, On};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "an unknown instruction is named with its line",
        on: On::Both,
        run: |rig| {
            refuses(
                rig,
                &[("Dockerfile", "FROM busybox\nRUNN true\n")],
                &["RUNN", "Dockerfile:2"],
            )
        },
    },
    Case {
        sentence: "a missing stage of COPY is named",
        on: On::Both,
        run: |rig| {
            let text = "FROM busybox AS one\nCOPY --from=tow/three /a /b\n";
            refuses(rig, &[("Dockerfile", text)], &["tow/three"])
        },
    },
    Case {
        sentence: "a missing target is named",
        on: On::Both,
        run: missing_target,
    },
    Case {
        sentence: "a missing file in COPY is named with its line",
        on: On::Both,
        run: |rig| {
            let text = "FROM busybox\nCOPY absent.txt /\n";
            refuses(
                rig,
                &[("Dockerfile", text)],
                &[
                    "\"/absent.txt\": not found",
                    "Dockerfile:2",
                    "COPY absent.txt /",
                ],
            )
        },
    },
    Case {
        sentence: "COPY of what lies outside the context is refused",
        on: On::Both,
        run: outside,
    },
    Case {
        sentence: "a broken .dockerignore is refused",
        on: On::Both,
        run: |rig| {
            let files = [
                ("Dockerfile", "FROM busybox\nCOPY . /\n"),
                (".dockerignore", "a[\n"),
            ];
            refuses(rig, &files, &["pattern"])
        },
    },
    Case {
        sentence: "a missing Dockerfile is named",
        on: On::Both,
        run: |rig| {
            refuses(
                rig,
                &[("notes.txt", "no Dockerfile here\n")],
                &["Dockerfile", "no such file"],
            )
        },
    },
    Case {
        sentence: "an empty Dockerfile is refused",
        on: On::Both,
        run: |rig| refuses(rig, &[("Dockerfile", "")], &["empty"]),
    },
    Case {
        sentence: "a step that exits with 7 shows its code, its line and its output",
        on: On::Both,
        run: exit_seven,
    },
    Case {
        sentence: "a step whose program is missing names it",
        on: On::Both,
        run: |rig| {
            refuses(
                rig,
                &[("Dockerfile", "FROM busybox\nRUN [\"/no/such/program\"]\n")],
                &["/no/such/program"],
            )
        },
    },
    Case {
        sentence: "a Dockerfile of 10 MB is built or refused, quickly",
        on: On::Both,
        run: large_dockerfile,
    },
    Case {
        sentence: "bytes that are no text in the place of a Dockerfile are refused",
        on: On::Both,
        run: |rig| {
            let text = "\u{1}\u{2}\u{0}garbage\u{7f}\n\u{0}\u{0}\u{0}";
            refuses(rig, &[("Dockerfile", text)], &["unknown instruction"])
        },
    },
    Case {
        sentence: "expansions that feed on themselves stay small",
        on: On::Ours("it has no bound: 10 GB of memory"),
        run: growing_words,
    },
];

fn refuses(rig: &Rig<'_>, files: &[(&str, &str)], words: &[&str]) -> Verdict {
    let context = rig.context("project", files)?;
    let mut daemon = Daemon::start(rig)?;
    daemon.refuses(&context, &[], words)?;
    // Our own client says the same.
    let ran = rig.run(
        Command::new(&rig.lab.rbuild)
            .args(["--addr", &daemon.address, "build", "--progress", "plain"])
            .arg(&context),
    )?;
    refused(&ran, words)
}

fn missing_target(rig: &Rig<'_>) -> Verdict {
    let context = rig.context("project", &[("Dockerfile", "FROM busybox AS one\n")])?;
    let mut daemon = Daemon::start(rig)?;
    daemon.refuses(
        &context,
        &["--opt", "target=two"],
        &["target stage", "two", "could not be found"],
    )
}

fn outside(rig: &Rig<'_>) -> Verdict {
    rig.context("", &[("x", "not in the context\n")])?;
    refuses(
        rig,
        &[("Dockerfile", "FROM busybox\nCOPY ../x /\n")],
        &["/x\": not found", "Dockerfile:2"],
    )
}

fn exit_seven(rig: &Rig<'_>) -> Verdict {
    let text = "FROM busybox\nENV A=1\nRUN echo last words; exit 7\nRUN echo never\n";
    let words = [
        "exit code: 7",
        "Dockerfile:3",
        ">>> RUN echo last words; exit 7",
    ];
    refuses(rig, &[("Dockerfile", text)], &words)?;
    // A person sees what the step wrote.
    let mut daemon = Daemon::start(rig)?;
    let context = rig.dir.join("project");
    let ran = rig.run(
        Command::new(&rig.lab.rbuild)
            .args(["--addr", &daemon.address, "build", "--progress", "plain"])
            .arg(&context),
    )?;
    let output = format!("{}{}", ran.out, ran.err);
    ensure(
        output.contains("last words") && !output.contains("echo never\n#"),
        || ran.tail(),
    )?;
    daemon.goes_on()
}

fn large_dockerfile(rig: &Rig<'_>) -> Verdict {
    let mut daemon = Daemon::start(rig)?;
    let line = format!("# {}\n", "comment ".repeat(12));
    let comments = format!(
        "FROM busybox\n{}RUN true\n",
        line.repeat(10_000_000 / line.len())
    );
    let one_line = format!("FROM busybox\nRUN true {}\n", "word ".repeat(2_000_000));
    let many = format!("FROM busybox\n{}", "ENV A=1\n".repeat(1_250_000));
    for (what, text) in [
        ("comments", comments),
        ("one line", one_line),
        ("instructions", many),
    ] {
        let context = rig.context("project", &[("Dockerfile", &text)])?;
        let start = std::time::Instant::now();
        let built = daemon.build(&context, &[])?;
        ensure(built.ran.code.is_some(), || {
            format!("{what}: {}", built.tail())
        })?;
        ensure(built.ok() || built.ran.err.contains("error"), || {
            format!("{what}: {}", built.tail())
        })?;
        let took = start.elapsed();
        ensure(took.as_secs() < 30, || format!("{what}: took {took:?}"))?;
        daemon.alive()?;
    }
    daemon.goes_on()
}

fn growing_words(rig: &Rig<'_>) -> Verdict {
    let mut text = "FROM busybox\nENV A0=0123456789\n".to_owned();
    for number in 1..40 {
        let before = format!("${{A{}}}", number - 1);
        text.push_str(&format!("ENV A{number}={}\n", before.repeat(10)));
    }
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let mut daemon = Daemon::start(rig)?;
    let built = daemon.build(&context, &[])?;
    ensure(built.ran.code.is_some_and(|code| code != 0), || {
        built.tail()
    })?;
    daemon.memory_below(1_000_000_000)?;
    daemon.goes_on()
}
