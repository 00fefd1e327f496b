//! Errors of expanding words.

use super::lex::Word;
use gostd::strconv::quote;
use oci::ErrorKind;

/// Why a word did not expand.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("failed to process {}: {kind}", quote(word))]
pub struct ShellError {
    /// The word as written.
    pub word: Box<str>,
    /// The error without the word.
    #[source]
    pub kind: ShellErrorKind,
    /// Variables that were looked up before the error; the expansion has no result.
    pub so_far: Box<Word>,
}

impl ShellError {
    /// An error about a word that was not expanded.
    pub(crate) fn of(word: &str, kind: ShellErrorKind) -> Self {
        Self {
            word: word.into(),
            kind,
            so_far: Box::default(),
        }
    }
}

impl ShellErrorKind {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::SingleQuote
            | Self::DoubleQuote
            | Self::Unterminated(_)
            | Self::MissingBrace
            | Self::MissingSlash
            | Self::BadSubstitution
            | Self::Modifier(_)
            | Self::Required { .. } => ErrorKind::Invalid,
            Self::Pattern { reason, .. } => reason.kind(),
            Self::TooLong | Self::TooMuch | Self::TooDeep => ErrorKind::Hostile,
        }
    }
}

/// Why a glob cannot be matched.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobError {
    /// A backslash stands in front of a character that needs no escape.
    #[error("invalid escape '\\{0}'")]
    Escape(char),
    /// The glob is too large as a regular expression.
    #[error("{0}")]
    Regex(#[source] regex::Error),
}

impl GlobError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Escape(_) | Self::Regex(_) => ErrorKind::Invalid,
        }
    }
}

/// Why a word did not expand.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ShellErrorKind {
    /// `'` is not closed.
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    /// `"` is not closed.
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    /// An end of `${…}` is missing.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(char),
    /// `${…` without `}`.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${name/…` without the second `/`.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}` and the like.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// The name is followed by an unknown operator.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// `${name?word}` and the variable is not set.
    #[error("{name}: {message}")]
    Required {
        /// Name of the variable.
        name: String,
        /// The word, or the default text for an empty word.
        message: String,
    },
    /// A glob with a syntax error.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    Pattern {
        /// The glob.
        pattern: String,
        /// Why it is not a glob.
        #[source]
        reason: GlobError,
    },
    /// The result is too long.
    #[error("expands to more than {} bytes", super::MAX_RESULT)]
    TooLong,
    /// All results together are too long.
    #[error(
        "variables of this file expand to more than {} bytes",
        super::MAX_TOTAL
    )]
    TooMuch,
    /// Substitutions are nested too deep.
    #[error("substitutions are nested more than {} deep", super::MAX_DEPTH)]
    TooDeep,
}
