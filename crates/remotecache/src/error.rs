//! Errors of remote caches.

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
        /// Kind as requested.
        kind: String,
    },
    /// No kind of cache with this name can be read.
    #[error("unknown cache importer: {kind}")]
    UnknownImporter {
        /// Kind as requested.
        kind: String,
    },
    /// A feature of BuildKit that this daemon does not build.
    #[error("{feature} is not supported")]
    NotBuilt {
        /// Name of the feature.
        feature: String,
    },
    /// The attributes of a cache are wrong.
    #[error("failed to configure {kind} cache {role}: {source}")]
    Attributes {
        /// The kind of cache.
        kind: String,
        /// `exporter` or `importer`.
        role: &'static str,
        /// The error in the attributes.
        source: AttributeError,
    },
    /// A document is larger than documents may be.
    #[error("blob {digest} is too large ({size} > {limit})")]
    TooLarge {
        /// Digest of the document.
        digest: Digest,
        /// Size that its descriptor has, in bytes.
        size: u64,
        /// Size limit in bytes.
        limit: u64,
    },
    /// A document cannot be read or decoded.
    #[error("cannot read {what} {digest}: {}", oci::error::chain(source.as_ref()))]
    Document {
        /// What kind of document it is.
        what: &'static str,
        /// Digest of the document.
        digest: Digest,
        /// The error of the place or of the decoder.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The records of a cache contradict each other.
    #[error("{reason}")]
    Records {
        /// The contradiction.
        reason: String,
    },
    /// Reading a cache took too long, so the build continues without it.
    #[error("cache {name} was not read within {seconds}s and is left out")]
    TimedOut {
        /// Name of the cache.
        name: String,
        /// Time limit in seconds.
        seconds: u64,
    },
    /// A layer or document could not be written.
    #[error("error writing {what} blob: {source}")]
    Write {
        /// `layer`, `config` or `manifest`.
        what: &'static str,
        /// The error of the place.
        source: Box<CacheError>,
    },
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] Arc<registry::Error>),
    /// A service of the client failed.
    #[error("{}", oci::error::chain(.0.as_ref()))]
    Session(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys could not be read.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
}

/// An error in the attributes of a cache. The sentences are BuildKit's.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AttributeError {
    /// The value of a flag is not one of Go's words for a boolean.
    #[error("failed to parse {name}: {source}")]
    Flag {
        /// Name of the attribute.
        name: String,
        /// The error of the parser.
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
    /// The folder to write to is missing.
    #[error("local cache exporter requires dest")]
    NoDest,
    /// The folder to read from is missing.
    #[error("local cache importer requires src")]
    NoSource,
    /// The digest of the cache in the folder is missing.
    #[error("local cache importer requires explicit digest")]
    NoDigest,
    /// `digest` is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The cache cannot be found at the place that the attributes name.
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
