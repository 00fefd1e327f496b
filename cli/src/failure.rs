//! What went wrong, and how it is told.

use std::io::{self, Write};

use client::auth::ConfigError;
use client::{ConnectError, Failure, LineRange, SourceExcerpt};

use crate::build::spec::SpecError;
use crate::embedded::EmbeddedError;
use crate::progress::Display;

/// Lines shown before and after those that a failure is about.
const AROUND: i32 = 2;

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
    #[error("failed to build: failed to solve: {0}")]
    Build(Failure),
    #[error(transparent)]
    Call(#[from] Failure),
    #[error("{0}")]
    Usage(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Shows the end of the failing step's output and the lines of the Dockerfile.
pub(crate) fn explain(
    failure: &Failure,
    display: &dyn Display,
    out: &mut dyn Write,
) -> io::Result<()> {
    let step = display.failed();
    if let Some((digest, name)) = step {
        let tail = display.tail(&digest);
        writeln!(out, "------\n > {name}:")?;
        for line in tail {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "------")?;
    }
    for source in &failure.sources {
        excerpt(source, out)?;
    }
    Ok(())
}

fn excerpt(source: &SourceExcerpt, out: &mut dyn Write) -> io::Result<()> {
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
    let end = end.min(last);
    writeln!(out, "{}:{start}\n--------------------", source.filename)?;
    for number in (start - AROUND).max(1)..=end.saturating_add(AROUND).min(last) {
        let within = |r: &LineRange| number >= r.start && number <= r.end.max(r.start);
        let mark = if source.ranges.iter().any(within) {
            ">>>"
        } else {
            "   "
        };
        let line = usize::try_from(number - 1).ok().and_then(|i| lines.get(i));
        writeln!(out, " {number:3} | {mark} {}", line.unwrap_or(&""))?;
    }
    writeln!(out, "--------------------")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::plain::Plain;

    #[test]
    fn a_failure_shows_its_lines() -> io::Result<()> {
        let mut failure = Failure::local("exit code: 1");
        failure.sources.push(SourceExcerpt {
            filename: "Dockerfile".into(),
            data: b"FROM a\nRUN x\nRUN false\nRUN y\nRUN z\nRUN w".to_vec(),
            ranges: vec![LineRange { start: 3, end: 3 }],
        });
        let mut out = Vec::new();
        explain(&failure, &Plain::quiet(), &mut out)?;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN x\n   3 | >>> RUN false\n   4 |     RUN y\n   5 |     RUN z\n--------------------\n"
        );
        Ok(())
    }
}
