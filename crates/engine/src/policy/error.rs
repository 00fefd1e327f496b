//! Why a policy refuses a source, or cannot be applied to it.

use crate::api::{Failure, FailureKind};

use super::pattern::{MAX_REPLACED_BYTES, MAX_TEXT_BYTES};

/// Why a policy refuses a source, or cannot be applied to it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PolicyError {
    /// A rule denies the source.
    #[error("source {identifier:?} denied by policy: source denied by policy")]
    Denied { identifier: String },
    /// The action of a rule has an unknown number.
    #[error("source policy: rule {action} {selector}: unknown type {identifier:?}")]
    UnknownAction {
        action: i32,
        selector: String,
        identifier: String,
    },
    /// The match type of a selector has an unknown number.
    #[error("unknown match type: {0}")]
    UnknownMatchType(i32),
    /// The condition on an attribute has an unknown number.
    #[error("unknown attr condition: {0}")]
    UnknownCondition(i32),
    /// A converting rule has no destination.
    #[error("missing destination for convert rule")]
    NoDestination,
    /// Matching a rule with the source failed.
    #[error("error matching source policy: {source}")]
    Match { source: Box<Self> },
    /// Rewriting the source by a rule failed.
    #[error("error mutating source policy: {source}")]
    Convert { source: Box<Self> },
    /// The expression of a constraint cannot be matched.
    #[error("invalid regex {expression:?}: {source}")]
    Constraint {
        expression: String,
        source: Box<Self>,
    },
    /// An expression cannot be compiled.
    #[error("{source}")]
    Regex { source: regex::Error },
    /// A wildcard has two adjacent stars.
    #[error("failed to translate wildcard {0:?} to regexp: invalid wildcard: \"**\"")]
    Wildcard(String),
    /// A text is too long to be matched; the number is its length in bytes.
    #[error("a text of {0} bytes cannot be matched: at most {MAX_TEXT_BYTES} are accepted")]
    LongText(usize),
    /// A rewritten identifier is too long; the number is its length in bytes.
    #[error(
        "the identifier that a rule makes has {0} bytes: at most {MAX_TEXT_BYTES} are accepted"
    )]
    LongIdentifier(usize),
    /// A replacement is too long, or could become too long.
    #[error(
        "what a rule replaces would be too long: at most {MAX_REPLACED_BYTES} bytes are written"
    )]
    LongReplacement,
    /// The client that waited for the decision has left.
    #[error("context canceled")]
    Stopped,
    /// All sources together cost more work than one definition may.
    #[error("the source policies are too much work for so many sources")]
    TooMuchWork,
    /// All rules together add more bytes than one definition may gain.
    #[error("the source policies add too much to the sources")]
    TooMuchAdded,
}

impl From<PolicyError> for Failure {
    /// Like the reference, clients get all of them as unknown errors; the kind is for the log.
    fn from(error: PolicyError) -> Self {
        let cause = error.kind();
        let mut failure = Self::new(FailureKind::Unknown, error);
        failure.cause = cause;
        failure
    }
}

impl PolicyError {
    /// What kind of error it is.
    fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Denied { .. } => ErrorKind::Denied,
            Self::UnknownAction { .. }
            | Self::UnknownMatchType(_)
            | Self::UnknownCondition(_)
            | Self::NoDestination
            | Self::Regex { .. }
            | Self::Wildcard(_)
            | Self::LongText(_)
            | Self::LongIdentifier(_)
            | Self::LongReplacement => ErrorKind::Invalid,
            Self::Match { source } | Self::Convert { source } | Self::Constraint { source, .. } => {
                source.kind()
            }
            Self::Stopped => ErrorKind::Cancelled,
            // The limits are per request: the client's policies are wrong, not the machine too small.
            Self::TooMuchWork | Self::TooMuchAdded => ErrorKind::Invalid,
        }
    }
}
