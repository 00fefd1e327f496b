//! Why a cache could not be written or read.

use std::sync::Arc;

use gostd::strconv::ParseBoolError;
use oci::reference::ReferenceError;
use oci::{Descriptor, Digest, DigestError, ErrorKind};
use solver::KeyStoreError;
use store::StoreError;

/// Why a remote cache failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// No kind of cache with this name can be written.
    #[error("unknown cache exporter: {kind:?}")]
    UnknownExporter {
        /// What was asked for.
        kind: String,
    },
    /// No kind of cache with this name can be read.
    #[error("unknown cache importer: {kind}")]
    UnknownImporter {
        /// What was asked for.
        kind: String,
    },
    /// Known, but not built.
    #[error("{feature} is not supported")]
    NotBuilt {
        /// What was asked for.
        feature: String,
    },
    /// A cache cannot be found by its attributes.
    #[error("failed to configure {kind} cache {role}: {source}")]
    Attributes {
        /// The kind of cache.
        kind: String,
        /// `exporter` or `importer`.
        role: &'static str,
        /// What is wrong.
        source: AttributeError,
    },
    /// A document is too large to be believed.
    #[error("blob {digest} is too large ({size} > {limit})")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// What it says of itself.
        size: u64,
        /// What would be read.
        limit: u64,
    },
    /// A document cannot be read.
    #[error("cannot read {what} {digest}: {}", oci::error::chain(source.as_ref()))]
    Document {
        /// What it should be.
        what: &'static str,
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The records of a cache contradict themselves.
    #[error("{reason}")]
    Records {
        /// What is wrong.
        reason: String,
    },
    /// Reading a cache took too long. The build goes on without it.
    #[error("cache {name} was not read within {seconds}s and is left out")]
    TimedOut {
        /// What the cache is called.
        name: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A part could not be written.
    #[error("error writing {what} blob: {source}")]
    Write {
        /// `layer`, `config` or `manifest`.
        what: &'static str,
        /// Why.
        source: Box<CacheError>,
    },
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] Arc<registry::Error>),
    /// The client has to answer and does not.
    #[error("{}", oci::error::chain(.0.as_ref()))]
    Session(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys could not be read.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
}

/// What is wrong with the attributes of a cache. The sentences are BuildKit's.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AttributeError {
    /// The value of a flag is not one of Go's words for a boolean.
    #[error("failed to parse {name}: {source}")]
    Flag {
        /// The attribute.
        name: String,
        /// Why the value is not a boolean.
        source: ParseBoolError,
    },
    /// The name of a repository is missing.
    #[error("missing ref")]
    NoReference,
    /// `ref` is not the name of a repository.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The attributes about compression are invalid.
    #[error(transparent)]
    Compression(#[from] store::AttributeError),
    /// A folder to write to is missing.
    #[error("local cache exporter requires dest")]
    NoDest,
    /// A folder to read from is missing.
    #[error("local cache importer requires src")]
    NoSource,
    /// It is not said which of the caches in a folder is meant.
    #[error("local cache importer requires explicit digest")]
    NoDigest,
    /// `digest` is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The cache is not where the attributes say.
    #[error(transparent)]
    Root(Box<CacheError>),
}

impl AttributeError {
    /// What kind of error it is: the client's, unless the place did not answer.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Flag { .. }
            | Self::NoReference
            | Self::Reference(_)
            | Self::Compression(_)
            | Self::NoDest
            | Self::NoSource
            | Self::NoDigest
            | Self::Digest(_) => ErrorKind::Invalid,
            Self::Root(error) => error.kind(),
        }
    }
}

impl From<registry::Error> for CacheError {
    fn from(error: registry::Error) -> Self {
        Self::Registry(Arc::new(error))
    }
}

impl CacheError {
    pub(crate) fn document(
        what: &'static str,
        desc: &Descriptor,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Document {
            what,
            digest: desc.digest.clone(),
            source: Arc::from(source.into()),
        }
    }

    pub(crate) fn records(reason: impl Into<String>) -> Self {
        Self::Records {
            reason: reason.into(),
        }
    }

    pub(crate) fn write(what: &'static str) -> impl Fn(Self) -> Self {
        move |source| Self::Write {
            what,
            source: Box::new(source),
        }
    }

    pub(crate) fn session(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Session(Arc::from(error.into()))
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        let mut error = self;
        while let Self::Write { source, .. } = error {
            error = source;
        }
        match error {
            Self::UnknownExporter { .. } | Self::UnknownImporter { .. } => ErrorKind::Invalid,
            Self::Attributes { source, .. } => source.kind(),
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
            Self::TooLarge { .. } | Self::Document { .. } | Self::Records { .. } => {
                ErrorKind::Hostile
            }
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Registry(error) => error.kind(),
            Self::Session(error) => session::kind_of(error.as_ref()),
            Self::Store(error) => error.kind(),
            Self::Keys(error) => ErrorKind::of_causes(error),
            Self::Write { .. } => ErrorKind::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_says_what_kind_it_is_and_who_writes_a_part_adds_only_that() {
        let desc = Descriptor::new("", Digest::sha256("x"), 1);
        let kind = || "tape".to_owned();
        for (error, kind) in [
            (
                CacheError::UnknownExporter { kind: kind() },
                ErrorKind::Invalid,
            ),
            (
                CacheError::UnknownImporter { kind: kind() },
                ErrorKind::Invalid,
            ),
            (
                CacheError::NotBuilt { feature: kind() },
                ErrorKind::Unsupported,
            ),
            (
                CacheError::document("config", &desc, "no"),
                ErrorKind::Hostile,
            ),
            (CacheError::records("no"), ErrorKind::Hostile),
            (
                CacheError::TimedOut {
                    name: "a".into(),
                    seconds: 60,
                },
                ErrorKind::TimedOut,
            ),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
            let sentence = error.to_string();
            let written = CacheError::write("layer")(CacheError::write("config")(error));
            assert_eq!(written.kind(), kind);
            assert_eq!(
                written.to_string(),
                format!("error writing layer blob: error writing config blob: {sentence}")
            );
        }
    }
}
