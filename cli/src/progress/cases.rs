//! One build as each way of showing progress tells it, as recorded text.

use std::io;
use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use client::{Group, LineRange, Log, SolveStatus, Status, Vertex, Warning};

use super::plain::Plain;
use super::quiet::Quiet;
use super::raw::Raw;
use super::tty::Tty;
use super::{Display, text};

const ROWS: NonZeroU16 = NonZeroU16::new(24).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(80).unwrap();

fn at(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
}

fn vertex(digest: &str, name: &str, started: u64, completed: Option<u64>) -> Vertex {
    Vertex {
        digest: digest.into(),
        name: name.into(),
        started: Some(at(started)),
        completed: completed.map(at),
        ..Vertex::default()
    }
}

fn log(vertex: &str, stream: i64, ms: u64, data: &'static str) -> Log {
    Log {
        vertex: vertex.into(),
        stream,
        data: data.into(),
        timestamp: at(ms),
    }
}

/// News of a build: a source that is cached, a step with output and a download, a warning, and a step that fails or ends.
fn news(fails: bool) -> Vec<(u64, SolveStatus)> {
    let mut cached = vertex("sha256:1", "[1/3] FROM base", 0, Some(1));
    cached.cached = true;
    let first = SolveStatus {
        vertexes: vec![
            cached,
            Vertex {
                inputs: vec!["sha256:1".into()],
                started: None,
                ..vertex("sha256:2", "[2/3] RUN one", 0, None)
            },
        ],
        ..SolveStatus::default()
    };
    let second = SolveStatus {
        vertexes: vec![vertex("sha256:2", "[2/3] RUN one", 10, None)],
        statuses: vec![Status {
            id: "sha256:ff".into(),
            vertex: "sha256:2".into(),
            name: "extracting".into(),
            current: 1_000_000,
            total: 2_000_000,
            timestamp: at(500),
            started: Some(at(20)),
            completed: None,
        }],
        logs: vec![
            log("sha256:2", 1, 100, "out\n"),
            log("sha256:2", 2, 200, "err\nhalf"),
        ],
        warnings: vec![Warning {
            vertex: "sha256:2".into(),
            level: 1,
            short: "careful".into(),
            detail: vec!["because".into()],
            url: "https://why".into(),
            source: Some(("Dockerfile".into(), b"FROM x".to_vec())),
            ranges: vec![LineRange::lines(1, 1)],
        }],
    };
    let mut last = vertex("sha256:3", "[3/3] RUN two", 900, Some(2000));
    if fails {
        last.error = "exit code: 1".into();
    }
    let third = SolveStatus {
        vertexes: vec![vertex("sha256:2", "[2/3] RUN one", 10, Some(900)), last],
        logs: vec![log("sha256:3", 1, 1500, "\u{1b}[32mgreen\u{1b}[0m\n")],
        ..SolveStatus::default()
    };
    vec![(0, first), (500, second), (2000, third)]
}

fn shown(display: &mut dyn Display, fails: bool) -> io::Result<String> {
    let mut out = Vec::new();
    for (ms, status) in news(fails) {
        display.update(&status, at(ms), &mut out)?;
        display.tick(at(ms), &mut out)?;
    }
    display.finish(at(2100), &mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn plain_progress_is_lines_with_the_number_of_the_step() -> io::Result<()> {
    let text = shown(&mut Plain::new(false), true)?;
    let expected = "#1 [1/3] FROM base\n#1 CACHED\n\n";
    assert!(text.starts_with(expected), "{text}");
    for lines in [
        "#2 [2/3] RUN one\n",
        "#2 0.090 out\n",
        "#2 0.190 err\n",
        "#2 sha256:ff 1.00MB / 2.00MB",
        "#2 DONE 0.9s\n",
        "#3 [3/3] RUN two\n#3 0.600 green\n#3 ERROR: exit code: 1\n",
    ] {
        assert!(text.contains(lines), "{lines:?} is not in {text}");
    }
    assert_eq!(
        text.matches("half").count(),
        1,
        "a line without an end is told once: {text}"
    );
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let ended = shown(&mut Plain::new(false), false)?;
    assert!(
        ended.contains("#3 DONE 1.1s\n") && !ended.contains("ERROR"),
        "{ended}"
    );
    let coloured = shown(&mut Plain::new(false).with_colours(true), false)?;
    assert!(
        coloured.contains("\u{1b}[32mgreen\u{1b}[0m\n"),
        "{coloured:?}"
    );
    Ok(())
}

#[test]
fn raw_progress_is_the_news_with_the_fields_of_the_reference() -> io::Result<()> {
    let text = shown(&mut Raw::default(), true)?;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"vertexes":[{"cached":true,"completed":"1970-01-01T00:16:40.001Z","digest":"sha256:1","name":"[1/3] FROM base","started":"1970-01-01T00:16:40Z"},{"digest":"sha256:2","inputs":["sha256:1"],"name":"[2/3] RUN one"}]}"#
    );
    assert_eq!(
        lines[1],
        r#"{"logs":[{"data":"b3V0Cg==","stream":1,"timestamp":"1970-01-01T00:16:40.1Z","vertex":"sha256:2"},{"data":"ZXJyCmhhbGY=","stream":2,"timestamp":"1970-01-01T00:16:40.2Z","vertex":"sha256:2"}],"statuses":[{"current":1000000,"id":"sha256:ff","name":"extracting","started":"1970-01-01T00:16:40.02Z","timestamp":"1970-01-01T00:16:40.5Z","total":2000000,"vertex":"sha256:2"}],"vertexes":[{"digest":"sha256:2","name":"[2/3] RUN one","started":"1970-01-01T00:16:40.01Z"}],"warnings":[{"detail":["YmVjYXVzZQ=="],"level":1,"range":[{"end":{"line":1},"start":{"line":1}}],"short":"Y2FyZWZ1bA==","sourceInfo":{"data":"RlJPTSB4","filename":"Dockerfile"},"url":"https://why","vertex":"sha256:2"}]}"#
    );
    assert!(
        lines[2].contains(r#""error":"exit code: 1""#),
        "{}",
        lines[2]
    );
    assert_eq!(lines.len(), 3, "ticks and the end say nothing");
    let grouped = SolveStatus {
        vertexes: vec![Vertex {
            group: Some(Group {
                id: "g".into(),
                name: "group".into(),
                weak: true,
            }),
            ..Vertex::default()
        }],
        ..SolveStatus::default()
    };
    let line = super::raw::line(&grouped).to_string();
    let expected = r#"{"vertexes":[{"progressGroup":{"id":"g","name":"group","weak":true}}]}"#;
    assert_eq!(line, expected);
    Ok(())
}

#[test]
fn a_terminal_shows_how_the_build_stands_and_keeps_what_failed() -> io::Result<()> {
    let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
    terminal.process(shown(&mut Tty::sized("Building".into(), 80, 24), true)?.as_bytes());
    let text = terminal.screen().contents();
    assert!(text.starts_with("[+] Building 2."), "{text}");
    for words in [
        "CACHED [1/3] FROM base",
        "[2/3] RUN one",
        "ERROR [3/3] RUN two",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    Ok(())
}

#[test]
fn quiet_progress_shows_nothing_and_keeps_what_an_error_needs() -> io::Result<()> {
    let mut quiet = Quiet::default();
    assert_eq!(shown(&mut quiet, true)?, "");
    let failures = quiet.trace().failures();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, "[3/3] RUN two");
    assert_eq!(quiet.trace().warnings().count(), 1);
    Ok(())
}

#[test]
fn long_names_are_cut_only_if_that_is_wanted() -> io::Result<()> {
    let name = format!("[1/1] RUN {}", "x".repeat(200));
    for (truncate, length) in [(false, name.len()), (true, 72)] {
        let mut plain = Plain::new(truncate);
        let mut out = Vec::new();
        let status = SolveStatus {
            vertexes: vec![vertex("sha256:1", &name, 0, Some(5))],
            ..SolveStatus::default()
        };
        plain.update(&status, at(0), &mut out)?;
        plain.finish(at(10), &mut out)?;
        let text = String::from_utf8_lossy(&out).into_owned();
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(text::width(first), length + "#1 ".len(), "{first}");
    }
    Ok(())
}

#[test]
fn sizes_have_units_of_a_thousand_and_widths_are_those_of_a_terminal() {
    for (count, text) in [
        (-5, "-5B"),
        (0, "0B"),
        (999, "999B"),
        (1_000, "1.00kB"),
        (999_999, "1000.00kB"),
        (12_340_000, "12.34MB"),
        (i64::MAX, "9223.37PB"),
    ] {
        assert_eq!(text::bytes(count), text);
    }
    for (word, columns) in [("", 0), ("abc", 3), ("漢字", 4), ("e\u{301}", 1), ("🙂", 2)] {
        assert_eq!(text::width(word), columns, "{word}");
    }
    assert_eq!(text::seconds(at(5), at(0)), 0.0, "clocks may go backwards");
}
