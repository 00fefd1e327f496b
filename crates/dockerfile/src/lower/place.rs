//! The column that an error points at: where the word that is wrong stands in the lines of its instruction.
//!
//! BuildKit's places are whole lines, and its clients look at lines only; columns are added to them here.

use super::error::{LowerError, LowerErrorKind};
use crate::instruction::{InstructionError, ParseError};
use crate::syntax::{Range, SyntaxErrorKind};

/// A word to look for.
struct Wrong {
    text: String,
    /// Whether the error is about the last of several equal words.
    last: bool,
}

impl Wrong {
    fn first(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self { text, last: false })
    }

    fn flag(name: &str) -> Option<Self> {
        Self::first(format!("--{name}"))
    }
}

impl LowerError {
    /// Adds columns to the line that has the word the error is about, if it is about one.
    #[must_use]
    pub(crate) fn pointing_into(mut self, dockerfile: &[u8]) -> Self {
        let Some(wrong) = self.kind.wrong_word() else {
            return self;
        };
        let text = String::from_utf8_lossy(dockerfile);
        let lines: Vec<&str> = text.lines().collect();
        for place in &mut self.locations {
            let mut matches = place
                .iter_mut()
                .filter(|range| range.start.line == range.end.line)
                .filter_map(|range| {
                    let line = lines.get(range.start.line.checked_sub(1)?)?;
                    Some((columns(line, &wrong)?, range))
                });
            let matches = if wrong.last {
                matches.last()
            } else {
                matches.next()
            };
            if let Some(((start, end), range)) = matches {
                *range = Range::columns(range.start.line, start, end);
            }
        }
        self
    }
}

/// Where the word is in a line, in characters; a word of its own rather than a part of another.
fn columns(line: &str, wrong: &Wrong) -> Option<(usize, usize)> {
    let (low, word) = (
        line.to_ascii_lowercase(),
        wrong.text.lines().next()?.to_ascii_lowercase(),
    );
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let all = || low.match_indices(&word).map(|(at, _)| at);
    let alone = || {
        all().filter(|&at| {
            let before = low.get(..at).and_then(|text| text.chars().next_back());
            let after = low
                .get(at + word.len()..)
                .and_then(|text| text.chars().next());
            let begins = inside(word.chars().next());
            let ends = inside(word.chars().next_back());
            (!begins || !inside(before)) && (!ends || !inside(after))
        })
    };
    let at = if wrong.last {
        alone().last().or_else(|| all().last())
    } else {
        alone().next().or_else(|| all().next())
    }?;
    let start = line.get(..at)?.chars().count();
    Some((start, start + word.chars().count()))
}

impl LowerErrorKind {
    /// The word as it stands in the file.
    fn wrong_word(&self) -> Option<Wrong> {
        if let Self::Syntax(error) = self {
            error.kind.wrong_word()
        } else if let Self::Parse(ParseError { reason, .. }) | Self::Instruction(reason) = self {
            reason.wrong_word()
        } else if let Self::Shell(error) | Self::PlatformArguments(_, error) = self {
            Wrong::first(&*error.word)
        } else if let Self::BaseImage { name, .. }
        | Self::BlankBase(name)
        | Self::StageName { name, .. }
        | Self::EmptyPlatform {
            expression: name, ..
        }
        | Self::Platform {
            expression: name, ..
        }
        | Self::CopyOrder { from: name, .. }
        | Self::MountOrder { from: name, .. }
        | Self::SecretTargetRelative { target: name, .. }
        | Self::Chmod(name)
        | Self::ChmodSyntax(name)
        | Self::ChownLink(name)
        | Self::ChecksumMismatch(name, _)
        | Self::Signal(name) = self
        {
            Wrong::first(name)
        } else if let Self::StageIndex(index) = self {
            Wrong::first(index.to_string())
        } else if matches!(self, Self::StagePlatform { .. }) {
            Wrong::flag("platform")
        } else if matches!(self, Self::FromExpansion) {
            Wrong::flag("from")
        } else if matches!(self, Self::KeepGitDir) {
            Wrong::flag("keep-git-dir")
        } else if matches!(self, Self::CopyUrl) {
            Wrong::first("http")
        } else if let Self::ChecksumCopy
        | Self::ChecksumMany
        | Self::ChecksumLocal
        | Self::Checksum(_) = self
        {
            Wrong::flag("checksum")
        } else {
            None
        }
    }
}

impl SyntaxErrorKind {
    fn wrong_word(&self) -> Option<Wrong> {
        if let Self::DuplicateDirective(name) = self {
            Wrong::first(*name)
        } else if let Self::EscapeToken(text) | Self::NoEquals(text) = self {
            Wrong::first(text)
        } else if let Self::Shell(error) = self {
            Wrong::first(&*error.word)
        } else if matches!(self, Self::NotStringArray) {
            Wrong::first("[")
        } else if matches!(self, Self::UnterminatedHeredoc) {
            Wrong::first("<<")
        } else {
            None
        }
    }
}

impl InstructionError {
    fn wrong_word(&self) -> Option<Wrong> {
        if let Self::UnknownFlag { name, .. } | Self::FlagWithoutValue(name) = self {
            Wrong::flag(name)
        } else if let Self::DuplicateFlag(name) = self {
            let text = format!("--{name}");
            Some(Wrong { text, last: true })
        } else if let Self::FlagNotBoolean { flag, value } = self {
            Wrong::flag(&format!("{flag}={value}"))
        } else if let Self::IntervalTooShort(name) = self {
            Wrong::flag(name)
        } else if matches!(self, Self::NegativeRetries(_)) {
            Wrong::flag("retries")
        } else if let Self::UnknownInstruction { name, .. }
        | Self::NotAFlag(name)
        | Self::InvalidStageName(name)
        | Self::OnbuildTrigger(name)
        | Self::HealthcheckType(name)
        | Self::NotANumber { value: name, .. }
        | Self::NetworkMode(name)
        | Self::SecurityMode(name)
        | Self::NotAPair(name)
        | Self::KeyForType { key: name, .. }
        | Self::UnknownKey { field: name, .. }
        | Self::VariableInKey(name)
        | Self::MountType { value: name, .. }
        | Self::Sharing { value: name, .. }
        | Self::InvalidValue { value: name, .. }
        | Self::InvalidNumber { value: name, .. } = self
        {
            Wrong::first(name)
        } else if let Self::NotAllowed { key, .. } = self {
            Wrong::first(*key)
        } else if let Self::Shell(error) = self {
            Wrong::first(&*error.word)
        } else {
            None
        }
    }
}
