//! Errors of the program, and how they are shown.

use std::io::{self, Write};

use client::auth::ConfigError;
use client::{ConnectError, Failure, LayoutError, LineRange, Obstacle, Origin, SourceExcerpt};
use oci::ErrorKind;

use crate::embedded::EmbeddedError;
use crate::progress::text::{harmless, harmless_line, harmless_lines, width};
use crate::progress::trace::Trace;
use crate::spec::SpecError;

/// Why the program fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("cannot start: {source}")]
    Runtime { source: io::Error },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("invalid tag {tag:?}: {source}")]
    Tag {
        tag: String,
        source: oci::reference::ReferenceError,
    },
    #[error("invalid value {value:?} of --build-context: {source}")]
    ContextDigest {
        value: String,
        source: oci::DigestError,
    },
    #[error("invalid value {value:?} of --build-context: {source}")]
    ContextLayout { value: String, source: LayoutError },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Definition(#[from] client::DefinitionError),
    #[error("failed to build: failed to solve: {0}")]
    Build(#[source] Failure),
    #[error("failed to solve: {0}")]
    Solve(#[source] Failure),
    #[error(transparent)]
    Call(#[from] Failure),
    /// A daemon's or frontend's words are not what they have to be.
    #[error("{what}: {source}")]
    Answer {
        what: &'static str,
        source: serde_json::Error,
    },
    #[error("{0}")]
    Usage(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(transparent)]
    Check(#[from] daemon::OpenError),
    /// The findings have been shown.
    #[error(
        "state directory {root} is damaged: move it away, and the daemon starts with an empty one"
    )]
    Damaged { root: String },
    #[error("canceled")]
    Interrupted { code: u8 },
    /// The findings have been shown.
    #[error("the Dockerfile has findings")]
    Findings { code: u8 },
}

/// The hint for a daemon that is not there.
const RBUILDD_IS_NOT_THERE: &str = "is a daemon running there? `rbuildd --addr ADDRESS` starts one; without --addr, RBUILD_HOST and BUILDKIT_HOST \
                      `rbuild build` needs none";
/// The same under the name of BuildKit's client, which starts no daemon and reads one variable.
const BUILDKITD_IS_NOT_THERE: &str = "is a daemon running there? `buildkitd --addr ADDRESS` starts one; --addr or BUILDKIT_HOST names another";
/// The hint for a connection that breaks under the first call.
const WANTS_TLS: &str = "does the daemon want TLS? --tlscacert, --tlscert and --tlskey, or --tlsdir, name what it takes";
/// The hint for an answer that is not TLS.
const SPEAKS_NO_TLS: &str =
    "does the daemon speak TLS there? without --tlscacert and --tlsdir it is called without";

/// The name that the program was called by, as far as its hints differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CalledAs {
    /// `rbuild`, which may start a daemon.
    Rbuild,
    /// `buildctl`, which needs one.
    Buildctl,
}

impl CliError {
    /// What the user may do next. Follows from the types of the causes, not from their words.
    pub(crate) fn hint(&self, name: CalledAs) -> Option<&'static str> {
        match self {
            Self::Connect(error) => match error.obstacle() {
                Some(Obstacle::Nobody) => Some(match name {
                    CalledAs::Rbuild => RBUILDD_IS_NOT_THERE,
                    CalledAs::Buildctl => BUILDKITD_IS_NOT_THERE,
                }),
                Some(Obstacle::Tls) => Some(SPEAKS_NO_TLS),
                Some(Obstacle::Certificate) | None => None,
            },
            Self::Call(failure) | Self::Build(failure) | Self::Solve(failure) => {
                match failure.origin {
                    Origin::Connection => Some(WANTS_TLS),
                    Origin::Daemon | Origin::Client => None,
                }
            }
            Self::Runtime { .. }
            | Self::Embedded(_)
            | Self::Config(_)
            | Self::Spec(_)
            | Self::Tag { .. }
            | Self::ContextDigest { .. }
            | Self::ContextLayout { .. }
            | Self::Layout(_)
            | Self::Definition(_)
            | Self::Answer { .. }
            | Self::Usage(_)
            | Self::Io { .. }
            | Self::Check(_)
            | Self::Damaged { .. }
            | Self::Interrupted { .. }
            | Self::Findings { .. } => None,
        }
    }

    /// What kind of error it is, for the log of `--debug`.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Runtime { source } => ErrorKind::of_host(source),
            Self::Connect(error) => error.kind(),
            Self::Embedded(error) => error.kind(),
            Self::Config(error) => error.kind(),
            Self::Spec(error) => error.kind(),
            Self::Tag { source, .. } => source.kind(),
            Self::ContextDigest { source, .. } => source.kind(),
            Self::ContextLayout { source, .. } => source.kind(),
            Self::Layout(error) => error.kind(),
            Self::Definition(error) => error.kind(),
            Self::Build(failure) | Self::Solve(failure) | Self::Call(failure) => failure.kind,
            // A daemon or a frontend has sent it.
            Self::Answer { .. } => ErrorKind::Hostile,
            Self::Usage(_) => ErrorKind::Invalid,
            Self::Io { source, .. } => ErrorKind::of_io(source),
            Self::Check(error) => error.kind(),
            Self::Damaged { .. } => ErrorKind::System,
            Self::Interrupted { .. } => ErrorKind::Cancelled,
            Self::Findings { .. } => ErrorKind::Failed,
        }
    }

    /// For JSON of a daemon that cannot be read.
    pub(crate) fn answer(what: &'static str, source: serde_json::Error) -> Self {
        Self::Answer { what, source }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What the user may do next, on a line of its own.
pub(crate) fn hint_line(error: &CliError, name: CalledAs) -> Option<String> {
    error.hint(name).map(|hint| format!("{hint}\n"))
}

/// The last lines of `rbuild` on standard error: the error, then the hint.
pub(crate) fn last_lines(error: &CliError) -> String {
    let mut text = format!("ERROR: {}\n", harmless_lines(&error.to_string()));
    text += &hint_line(error, CalledAs::Rbuild).unwrap_or_default();
    text
}

/// Shows the end of the failing steps' output, the warnings, and the lines of the Dockerfile; not `aloud`, only what tells more
/// than the error.
pub(crate) fn explain(
    failure: &Failure,
    trace: &Trace,
    colour: (&str, &str),
    aloud: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (name, tail) in trace.failures() {
        if tail.is_empty() && !aloud {
            continue;
        }
        writeln!(out, "------\n > {}:", harmless(name))?;
        for line in tail {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "------")?;
    }
    if aloud {
        show_warnings(trace, colour, out)?;
    }
    for source in &failure.sources {
        excerpt(source, out)?;
    }
    Ok(())
}

/// Counts and lists the warnings, if there are any.
pub(crate) fn show_warnings(
    trace: &Trace,
    (on, off): (&str, &str),
    out: &mut dyn Write,
) -> io::Result<()> {
    let count = trace.warnings().count();
    let what = match count {
        0 => return Ok(()),
        1 => "1 warning found".to_owned(),
        n => format!("{n} warnings found"),
    };
    writeln!(out, "\n {on}{what} (use --check to expand):{off}")?;
    for warning in trace.warnings() {
        writeln!(out, " - {}", harmless(&warning.short))?;
    }
    Ok(())
}

/// Shows lines of a file with some around them, as many as the reference shows.
pub(crate) fn excerpt(source: &SourceExcerpt, out: &mut dyn Write) -> io::Result<()> {
    let text = String::from_utf8_lossy(&source.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let last = i32::try_from(lines.len()).unwrap_or(i32::MAX);
    let first_of = source.ranges.iter().map(|r| r.start).min();
    let last_of = source.ranges.iter().map(|r| r.end.max(r.start)).max();
    let (Some(start), Some(end)) = (first_of, last_of) else {
        return Ok(());
    };
    if start < 1 || start > last {
        return Ok(());
    }
    let (mut from, mut to) = (start, end.min(last));
    // A single line gets more company than several; at the edge of the file the other side gets it.
    let context_lines = if from == to { 4 } else { 2 };
    let mut added_lines = 0;
    while added_lines < context_lines {
        if from > 1 {
            from -= 1;
            added_lines += 1;
        }
        if to < last {
            to += 1;
            added_lines += 1;
        }
        added_lines += 1;
    }
    writeln!(
        out,
        "{}:{start}\n--------------------",
        harmless(&source.filename)
    )?;
    for number in from..=to {
        let within = |r: &LineRange| number >= r.start && number <= r.end.max(r.start);
        let mark = if source.ranges.iter().any(within) {
            ">>>"
        } else {
            "   "
        };
        let line = usize::try_from(number - 1).ok().and_then(|i| lines.get(i));
        // Carets stand below the line as it is shown.
        let line = harmless_line(line.unwrap_or(&""), false);
        let line = line.as_str();
        writeln!(out, " {number:3} | {mark} {line}")?;
        let here = source.ranges.iter().filter(|r| r.start == number);
        if let Some((start, end)) = here.filter_map(|r| r.columns).next() {
            let margin = number.to_string().len().max(3);
            writeln!(out, " {:margin$} |     {}", "", carets(line, start, end))?;
        }
    }
    writeln!(out, "--------------------")
}

/// Carets that stand below a part of a line.
fn carets(line: &str, start: usize, end: usize) -> String {
    let before = line.chars().take(start);
    // As wide as the text before it: a tab stays a tab.
    let mut out: String = before
        .flat_map(|c| match c {
            '\t' => vec!['\t'],
            c => vec![' '; width(c.encode_utf8(&mut [0; 4]))],
        })
        .collect();
    let part: String = line.chars().skip(start).take(end - start).collect();
    out.push_str(&"^".repeat(width(&part).max(1)));
    out
}

#[cfg(test)]
mod tests {
    use client::{Address, Client, TlsFiles};

    use super::*;

    async fn connecting(address: &str) -> CliError {
        let address: Address = match address.parse() {
            Ok(address) => address,
            Err(error) => return CliError::Connect(error),
        };
        let connected = Client::connect(&address, &TlsFiles::default()).await;
        CliError::Connect(connected.map(|_| ()).expect_err("nobody is there"))
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_hinted_at_and_a_wrong_address_is_not() {
        for (address, hint) in [
            ("unix:///no/such/rbuildd.sock", Some(RBUILDD_IS_NOT_THERE)),
            ("tcp://127.0.0.1:1", Some(RBUILDD_IS_NOT_THERE)),
            // The words of an address say nothing about what failed.
            ("unix:///certificate.sock", Some(RBUILDD_IS_NOT_THERE)),
            ("tcp://not a host:1", None),
            ("http://x", None),
            ("", None),
        ] {
            assert_eq!(
                connecting(address).await.hint(CalledAs::Rbuild),
                hint,
                "{address:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_hint_speaks_of_the_daemon_that_belongs_to_the_name_of_the_program() {
        let error = connecting("unix:///no/such/buildkitd.sock").await;
        let hints = [CalledAs::Rbuild, CalledAs::Buildctl]
            .map(|name| hint_line(&error, name).expect("a hint"));
        for (hint, own, foreign) in [
            (
                &hints[0],
                ["rbuildd", "RBUILD_HOST", "rbuild build"],
                ["buildkitd", "buildctl"],
            ),
            (
                &hints[1],
                ["buildkitd", "BUILDKIT_HOST", "--addr"],
                ["rbuild", "RBUILD"],
            ),
        ] {
            assert!(own.iter().all(|word| hint.contains(word)), "{hint}");
            assert!(!foreign.iter().any(|word| hint.contains(word)), "{hint}");
        }
        let broken = CliError::Call(Failure {
            origin: Origin::Connection,
            ..Failure::local("x")
        });
        assert_eq!(
            broken.hint(CalledAs::Buildctl),
            broken.hint(CalledAs::Rbuild)
        );
    }

    #[test]
    fn a_hint_about_tls_follows_from_a_connection_that_broke_and_not_from_words() {
        let grepped = "pull x: transport error: h2 protocol error: certificate";
        let of = |origin| Failure {
            origin,
            ..Failure::local(grepped)
        };
        for (origin, hint) in [
            (Origin::Connection, Some(WANTS_TLS)),
            (Origin::Daemon, None),
            (Origin::Client, None),
        ] {
            assert_eq!(
                CliError::Build(of(origin)).hint(CalledAs::Rbuild),
                hint,
                "{origin:?}"
            );
            assert_eq!(
                CliError::Call(of(origin)).hint(CalledAs::Rbuild),
                hint,
                "{origin:?}"
            );
        }
        let others = [
            CliError::Usage(grepped.into()),
            CliError::Interrupted { code: 130 },
            CliError::io("transport error")(io::Error::other(grepped)),
            CliError::answer(
                "transport error",
                serde_json::from_str::<u8>("{").expect_err("no number"),
            ),
        ];
        for error in others {
            assert_eq!(error.hint(CalledAs::Rbuild), None, "{error:?}");
        }
    }

    #[test]
    fn the_kind_of_a_failure_is_that_of_its_cause() {
        let full = || io::Error::from_raw_os_error(28);
        let failure = || Failure {
            kind: ErrorKind::Denied,
            ..Failure::local("no")
        };
        let tag = oci::Reference::parse("UPPER").expect_err("upper case is refused");
        let algorithm = oci::Digest::parse("md5:d41d8cd98f00b204e9800998ecf8427e");
        let number = serde_json::from_str::<u8>("{").expect_err("no number");
        let cases = [
            (CliError::Runtime { source: full() }, ErrorKind::Exhausted),
            (CliError::io("cannot write x")(full()), ErrorKind::Exhausted),
            (
                CliError::Embedded(EmbeddedError::Ended),
                ErrorKind::Unavailable,
            ),
            (
                CliError::Embedded(EmbeddedError::Folder {
                    source: io::ErrorKind::NotFound.into(),
                }),
                ErrorKind::System,
            ),
            (CliError::Build(failure()), ErrorKind::Denied),
            (CliError::Call(failure()), ErrorKind::Denied),
            (
                CliError::Spec(SpecError::new("output", "x", "no")),
                ErrorKind::Invalid,
            ),
            (
                CliError::Tag {
                    tag: "UPPER".into(),
                    source: tag,
                },
                ErrorKind::Invalid,
            ),
            (
                CliError::ContextDigest {
                    value: "x".into(),
                    source: algorithm.expect_err("nobody verifies md5"),
                },
                ErrorKind::Unsupported,
            ),
            (CliError::answer("no JSON", number), ErrorKind::Hostile),
            (CliError::Usage("no".into()), ErrorKind::Invalid),
            (CliError::Damaged { root: "x".into() }, ErrorKind::System),
            (CliError::Interrupted { code: 130 }, ErrorKind::Cancelled),
            (CliError::Findings { code: 1 }, ErrorKind::Failed),
        ];
        for (error, kind) in cases {
            assert_eq!(error.kind(), kind, "{error:?}");
        }
    }

    #[tokio::test]
    async fn the_last_words_are_the_error_and_then_the_hint_in_lines_of_their_own() {
        let error = connecting("unix:///no/such/rbuildd.sock").await;
        let text = last_lines(&error);
        let (sentence, hint) = text.split_once('\n').expect("two lines");
        assert!(sentence.starts_with("ERROR: cannot connect to unix:///no/such/rbuildd.sock: "));
        assert_eq!(hint, format!("{RBUILDD_IS_NOT_THERE}\n"));
        let evil = CliError::Usage("x\u{1b}[2Jy\nz".into());
        assert_eq!(last_lines(&evil), "ERROR: xy\nz\n");
    }

    #[test]
    fn an_error_keeps_its_cause_for_whoever_asks() {
        let io = || io::Error::from_raw_os_error(28);
        let errors: [CliError; 3] = [
            CliError::Runtime { source: io() },
            CliError::io("cannot write x")(io()),
            CliError::answer("no JSON", serde_json::from_str::<u8>("{").expect_err("no")),
        ];
        for error in errors {
            let cause = std::error::Error::source(&error).expect("a cause");
            assert!(error.to_string().contains(&cause.to_string()), "{error}");
        }
    }

    #[test]
    fn a_place_outside_of_its_file_is_not_shown() -> io::Result<()> {
        let lines = |ranges: Vec<LineRange>| SourceExcerpt {
            filename: "f".into(),
            data: b"one\ntwo".to_vec(),
            ranges,
        };
        for ranges in [
            vec![],
            vec![LineRange::lines(0, 0)],
            vec![LineRange::lines(-3, 1)],
            vec![LineRange::lines(3, 4)],
            vec![LineRange::lines(i32::MAX, i32::MAX)],
        ] {
            let mut out = Vec::new();
            excerpt(&lines(ranges.clone()), &mut out)?;
            assert_eq!(out, b"", "{ranges:?}");
        }
        let mut out = Vec::new();
        excerpt(&lines(vec![LineRange::lines(2, i32::MAX)]), &mut out)?;
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("   1 |     one\n   2 | >>> two\n"), "{text}");
        Ok(())
    }

    #[test]
    fn a_failure_shows_its_lines() -> io::Result<()> {
        let mut failure = Failure::local("exit code: 1");
        failure.sources.push(SourceExcerpt {
            filename: "Dockerfile".into(),
            data: b"FROM a\nRUN x\nRUN false\nRUN y\nRUN z\nRUN w".to_vec(),
            ranges: vec![LineRange::lines(3, 3)],
        });
        let mut out = Vec::new();
        explain(&failure, &Trace::default(), ("", ""), true, &mut out)?;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN x\n   3 | >>> RUN false\n   4 |     RUN y\n   5 |     RUN z\n--------------------\n"
        );
        Ok(())
    }

    #[test]
    fn the_word_that_is_wrong_is_underlined() -> io::Result<()> {
        let part = LineRange {
            columns: Some((6, 12)),
            ..LineRange::lines(2, 2)
        };
        let source = SourceExcerpt {
            filename: "Dockerfile".into(),
            data: "FROM a\nCOPY\t漢--from=b".into(),
            ranges: vec![part],
        };
        let mut out = Vec::new();
        excerpt(&source, &mut out)?;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> COPY\t漢--from=b\n     |         \t  ^^^^^^\n--------------------\n"
        );
        Ok(())
    }
}
