//! Why a result could not be exported.

mod refusal;

use std::io;
use std::sync::Arc;

use oci::ErrorKind;

use store::StoreError;

pub use self::refusal::{ExportAttributeError, ExportResultError, ImageConfigError};

/// Why an export failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The daemon has no exporter of that name.
    #[error("exporter {kind:?} could not be found")]
    Kind {
        /// The value of `type`.
        kind: String,
    },
    /// An attribute has a value that it cannot have, or contradicts another.
    #[error(transparent)]
    Attribute(#[from] ExportAttributeError),
    /// The build's result does not fit the exporter.
    #[error(transparent)]
    Result(#[from] ExportResultError),
    /// A platform that the frontend named has no result.
    #[error("failed to find ref for ID {id}")]
    NoRef {
        /// The platform id.
        id: String,
    },
    /// Attributes about compression have values that they cannot have.
    #[error(transparent)]
    Compression(#[from] store::AttributeError),
    /// A platform in an attribute cannot be parsed.
    #[error(transparent)]
    Platform(#[from] oci::PlatformError),
    /// A value that was given, or a document of the frontend, cannot be read.
    #[error("{what}: {}", oci::error::chain(source.as_ref()))]
    Malformed {
        /// The beginning of the sentence: what was read and for what, as `failed to parse image config for patch`.
        what: String,
        /// The error of the parser.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// What the build was to supply for the export (statements, cache records) could not be made.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Supplied {
        /// The error of the [`crate::Attester`] or the [`crate::InlineCache`].
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The image config cannot be completed.
    #[error(transparent)]
    Config(#[from] ImageConfigError),
    /// A push failed.
    #[error("failed to push {name}: {source}")]
    Push {
        /// The name to push to, as it was given.
        name: String,
        /// The last error of the registry or of the connection to it.
        source: Arc<registry::Error>,
    },
    /// The client does not take what is sent to it, or is gone.
    #[error("{}", oci::error::chain(source.as_ref()))]
    Session {
        /// The error of the call, or of the group of sessions.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file operation failed.
    #[error("failed to {what}: {source}")]
    Io {
        /// The operation and its object, as in `read sha256:…`.
        what: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Not built.
    #[error("{feature} is not supported")]
    NotBuilt {
        /// The feature in the user's words.
        feature: &'static str,
    },
}

impl ExportError {
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
            Self::Kind { .. } | Self::NoRef { .. } | Self::Platform(_) => ErrorKind::Invalid,
            Self::Attribute(error) => error.kind(),
            Self::Result(error) => error.kind(),
            Self::Config(error) => error.kind(),
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
