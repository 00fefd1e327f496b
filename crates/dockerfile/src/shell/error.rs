//! What is wrong with a word.

use super::lex::Word;
use gostd::strconv::quote;
use oci::ErrorKind;

/// Why a word did not expand.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("failed to process {}: {kind}", quote(word))]
pub struct ShellError {
    /// The word as written.
    pub word: Box<str>,
    /// What is wrong.
    #[source]
    pub kind: ShellErrorKind,
    /// The variables that were asked for until then; it has no result.
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
    /// A backslash in front of a character that it means nothing for.
    #[error("invalid escape '\\{0}'")]
    Escape(char),
    /// It is too large as a regular expression.
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

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ShellErrorKind {
    /// `'` without its partner.
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    /// `"` without its partner.
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
    /// Something after the name that means nothing.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// `${name?word}` and no such variable.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The word, or what it stands for.
        message: String,
    },
    /// A glob with a syntax error.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    Pattern {
        /// The glob.
        pattern: String,
        /// What is wrong.
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
