//! Why nothing can be stated.

use gostd::strconv::quote;

/// Why an attestation could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// There is no such attestation.
    #[error("unknown attestation type {}", quote(kind))]
    Kind {
        /// What was asked for.
        kind: String,
    },
    /// An option has a value that it cannot have.
    #[error("{reason}")]
    Option {
        /// What is wrong.
        reason: String,
    },
    /// A source cannot be named.
    #[error("failed to parse ref {}: {source}", quote(reference))]
    Reference {
        /// What stands there.
        reference: String,
        /// Why.
        source: oci::ReferenceError,
    },
    /// A definition cannot be written down.
    #[error("{reason}")]
    Definition {
        /// What is wrong.
        reason: String,
    },
    /// All materials were asked for, and some are not known.
    #[error("{0}")]
    Incomplete(String),
    /// A statement of a frontend is none.
    #[error("{reason}")]
    Statement {
        /// What is wrong.
        reason: String,
    },
}

impl AttestError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Kind { .. }
            | Self::Option { .. }
            | Self::Reference { .. }
            | Self::Definition { .. }
            | Self::Incomplete(_)
            | Self::Statement { .. } => oci::ErrorKind::Invalid,
        }
    }

    pub(crate) fn option(reason: impl Into<String>) -> Self {
        Self::Option {
            reason: reason.into(),
        }
    }
}
