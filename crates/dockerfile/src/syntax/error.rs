//! Errors of the syntax.

use super::Range;
use crate::shell::ShellError;
use gostd::strconv::quote;
use oci::ErrorKind;

/// Why a file did not parse, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{kind}")]
pub struct SyntaxError {
    /// The error without its place.
    #[source]
    pub kind: SyntaxErrorKind,
    /// Lines of the error.
    pub ranges: Vec<Range>,
}

/// Why a file is not a Dockerfile.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SyntaxErrorKind {
    /// A directive stands twice.
    #[error("only one {0} parser directive can be used")]
    DuplicateDirective(&'static str),
    /// The escape directive is neither a backslash nor a backquote.
    #[error("invalid escape token '{0}' does not match ` or \\")]
    EscapeToken(String),
    /// A file of comments and blank lines only.
    #[error("file with no instructions")]
    NoInstructions,
    /// A line that is too long.
    #[error("dockerfile line greater than max allowed size of {}", super::MAX_LINE)]
    LineTooLong,
    /// The file has more of something than the limit.
    // DIFFERS: BuildKit has no such limits; a file of this size takes all memory there is.
    #[error("dockerfile is too large: more than {most} {what}")]
    TooLarge {
        /// Plural noun of the counted thing.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// A heredoc without its end.
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    /// An array of something else than strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStringArray,
    /// A key without a value.
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    /// A word without `=` in a list of pairs.
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", quote(.0))]
    NoEquals(String),
    /// A heredoc's name does not lex.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// A heredoc's name lexes in two ways.
    #[error("internal lexing of heredoc produced inconsistent results: {0}")]
    HeredocName(String),
}

impl SyntaxErrorKind {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DuplicateDirective(_)
            | Self::EscapeToken(_)
            | Self::NoInstructions
            | Self::LineTooLong
            | Self::UnterminatedHeredoc
            | Self::NotStringArray
            | Self::TwoArguments(_)
            | Self::NoEquals(_)
            | Self::HeredocName(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::Hostile,
            Self::Shell(error) => error.kind.kind(),
        }
    }
}
