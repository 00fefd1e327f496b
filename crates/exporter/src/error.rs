//! Why a result could not be exported.

use std::io;
use std::sync::Arc;

use oci::ErrorKind;

use store::StoreError;

/// Why an export failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// An unknown exporter.
    #[error("exporter {kind:?} could not be found")]
    Kind {
        /// What was asked for.
        kind: String,
    },
    /// An attribute has a value that it cannot have, or contradicts another.
    #[error("{reason}")]
    Attribute {
        /// What is wrong.
        reason: String,
    },
    /// The build's result does not fit the exporter.
    #[error("{reason}")]
    Result {
        /// What is wrong.
        reason: String,
    },
    /// A platform that the frontend named has no result.
    #[error("failed to find ref for ID {id}")]
    NoRef {
        /// The platform id.
        id: String,
    },
    /// Attributes about compression have values that they cannot have.
    #[error(transparent)]
    Compression(#[from] store::AttributeError),
    /// A platform in an attribute is none.
    #[error(transparent)]
    Platform(#[from] oci::PlatformError),
    /// A value that was given, or a document of the frontend, cannot be read.
    #[error("{what}: {}", oci::error::chain(source.as_ref()))]
    Malformed {
        /// The beginning of the sentence: what is wrong with what.
        what: String,
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// What the build was to supply for the export (statements, cache records) could not be made.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Supplied {
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The image config cannot be completed.
    #[error("{reason}")]
    Config {
        /// What is wrong.
        reason: String,
    },
    /// A push failed.
    #[error("failed to push {name}: {source}")]
    Push {
        /// The image.
        name: String,
        /// Why.
        source: Arc<registry::Error>,
    },
    /// The client has to answer and does not.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Session {
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation failed.
    #[error("failed to {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The attestations could not be made.
    #[error("{reason}")]
    Attestation {
        /// Why.
        reason: String,
    },
    /// Not built.
    #[error("{feature} is not supported")]
    NotBuilt {
        /// What was asked for.
        feature: &'static str,
    },
}

impl ExportError {
    /// An attestation that could not be made.
    #[must_use]
    pub fn attestation(reason: impl Into<String>) -> Self {
        Self::Attestation {
            reason: reason.into(),
        }
    }

    /// Statements or cache records that could not be made.
    #[must_use]
    pub fn supplied(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Supplied {
            source: Arc::new(source),
        }
    }

    pub(crate) fn malformed(
        what: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Malformed {
            what: what.into(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn attribute(reason: impl Into<String>) -> Self {
        Self::Attribute {
            reason: reason.into(),
        }
    }

    pub(crate) fn result(reason: impl Into<String>) -> Self {
        Self::Result {
            reason: reason.into(),
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: Arc::new(source.into()),
        }
    }

    pub(crate) fn session(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Session {
            source: Arc::from(error.into()),
        }
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Kind { .. }
            | Self::Attribute { .. }
            | Self::Result { .. }
            | Self::NoRef { .. }
            | Self::Platform(_)
            | Self::Config { .. }
            | Self::Attestation { .. } => ErrorKind::Invalid,
            Self::Compression(error) => error.kind(),
            Self::Malformed { source, .. } | Self::Supplied { source } => {
                if ErrorKind::of_causes(source.as_ref()) == ErrorKind::Exhausted {
                    ErrorKind::Exhausted
                } else {
                    ErrorKind::Invalid
                }
            }
            Self::Push { source, .. } => source.kind(),
            Self::Session { source } => session::kind_of(source.as_ref()),
            Self::Store(error) => error.kind(),
            Self::Io { source, .. } => {
                if ErrorKind::of_causes(source.as_ref()) == ErrorKind::Exhausted {
                    ErrorKind::Exhausted
                } else {
                    ErrorKind::of_host(source)
                }
            }
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
        }
    }
}
