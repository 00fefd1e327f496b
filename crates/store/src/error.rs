//! Why the store could not do what it was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use oci::Digest;
use oci::ErrorKind;
use oci::error::chain;

use crate::id::{InvalidRefId, RefId};

/// Why the state directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("state directory {} is in use by another process", root.display())]
    InUse {
        /// The directory.
        root: PathBuf,
    },
    /// It was written by a version this one does not understand.
    #[error(
        "state directory {} has format {found}, this version reads {known}; use the version that wrote it or another directory",
        root.display()
    )]
    Format {
        /// The directory.
        root: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The directory holds something, but no format file of ours.
    #[error("{} is not empty and not a state directory", root.display())]
    Foreign {
        /// The directory.
        root: PathBuf,
    },
    /// The format file cannot be read.
    #[error("{} is not the format file of a state directory: {source}", path.display())]
    FormatFile {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The index failed.
    #[error("cannot open the index: {0}")]
    Index(#[source] Arc<rusqlite::Error>),
    /// What an earlier owner left behind could not be put in order.
    #[error("cannot recover {}: {source}", root.display())]
    Recover {
        /// The directory.
        root: PathBuf,
        /// The reason.
        source: Box<StoreError>,
    },
    /// Overlay mounts were demanded and are not to be had.
    #[error("overlay mounts are not available here: {0}")]
    NoOverlay(#[source] io::Error),
}

/// Why an operation on the store failed. Cheap to clone, because one failure may reach many waiters.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such record.
    #[error("{id}: not found")]
    NotFound {
        /// The name asked for.
        id: String,
    },
    /// No such blob.
    #[error("content {digest}: not found")]
    NoBlob {
        /// The digest asked for.
        digest: Digest,
    },
    /// Someone else holds the record and the request needs it alone.
    #[error("{id}: locked")]
    Locked {
        /// The record.
        id: RefId,
    },
    /// Text that cannot name a record.
    #[error(transparent)]
    InvalidRefId(#[from] InvalidRefId),
    /// The record is of the wrong sort for the request.
    #[error("{id}: {why}")]
    Unfit {
        /// The record.
        id: RefId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A blob's bytes are not what its name says.
    #[error("blob {want} arrived as {got}")]
    DigestMismatch {
        /// The digest expected.
        want: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// A layer's files are not those that its image's config names.
    #[error("failed to verify layer {layer}: expected diffID {want}, got {got}")]
    DiffId {
        /// The layer's blob.
        layer: Digest,
        /// The digest expected.
        want: Digest,
        /// The digest of the uncompressed bytes.
        got: Digest,
    },
    /// A layer's blob cannot be unpacked.
    #[error("cannot unpack layer {layer}: {}", chain(source.as_ref()))]
    Unpack {
        /// The layer's blob.
        layer: Digest,
        /// The reason.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A blob's length is not what its descriptor says.
    #[error("blob {digest} has {got} bytes where {want} were announced")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Bytes announced.
        want: u64,
        /// Bytes received.
        got: u64,
    },
    /// A lazy layer has nobody who could fetch it.
    #[error("layer {digest} is not here and no provider is attached to fetch it")]
    NoProvider {
        /// The layer's blob.
        digest: Digest,
    },
    /// Fetching a lazy layer failed.
    #[error("cannot fetch {digest}: {}", chain(source.as_ref()))]
    Fetch {
        /// The layer's blob.
        digest: Digest,
        /// What the provider said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Making or unpacking a layer failed.
    #[error("cannot {what} layer {of}: {}", chain(source.as_ref()))]
    Layer {
        /// What was tried.
        what: &'static str,
        /// The layer.
        of: String,
        /// The reason.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A tree that was written cannot be kept.
    #[error("cannot keep the files that were written: {source}")]
    Tree {
        /// Which file, and why.
        source: Arc<fstree::PathError>,
    },
    /// Hashing content failed.
    #[error("{}", chain(source.as_ref()))]
    Hash {
        /// The reason.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The reason.
        source: Arc<io::Error>,
    },
    /// The index failed.
    #[error("index: {0}")]
    Index(#[source] Arc<rusqlite::Error>),
    /// A filter could not be parsed.
    #[error(transparent)]
    Filter(#[from] crate::filter::FilterError),
    /// Not built.
    #[error("{feature} is not supported")]
    NotBuilt {
        /// What was asked for.
        feature: &'static str,
    },
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
}

impl OpenError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InUse { .. } => ErrorKind::Unavailable,
            Self::Format { .. } | Self::NoOverlay(_) => ErrorKind::Unsupported,
            Self::Foreign { .. } | Self::FormatFile { .. } => ErrorKind::Invalid,
            Self::Io { source, .. } => ErrorKind::of_host(source),
            Self::Index(_) => ErrorKind::System,
            Self::Recover { source, .. } => source.kind(),
        }
    }
}

impl StoreError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source: Arc::new(source.into()),
        }
    }

    pub(crate) fn layer(
        what: &'static str,
        of: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Layer {
            what,
            of: of.into(),
            source: Arc::new(source),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Index(Arc::new(e))
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Index(Arc::new(e))
    }
}

impl StoreError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoBlob { .. } => ErrorKind::NotFound,
            Self::Closed => ErrorKind::Unavailable,
            Self::InvalidRefId(_) => ErrorKind::Invalid,
            Self::Filter(error) => error.kind(),
            Self::Locked { .. } | Self::Unfit { .. } | Self::NoProvider { .. } => ErrorKind::Failed,
            Self::DigestMismatch { .. } | Self::DiffId { .. } | Self::SizeMismatch { .. } => {
                ErrorKind::Hostile
            }
            Self::Unpack { source, .. }
            | Self::Fetch { source, .. }
            | Self::Layer { source, .. }
            | Self::Hash { source } => {
                if ErrorKind::of_causes(source.as_ref()) == ErrorKind::Exhausted {
                    ErrorKind::Exhausted
                } else {
                    ErrorKind::Failed
                }
            }
            Self::Tree { source } => ErrorKind::of_host(&source.source),
            Self::Io { source, .. } => ErrorKind::of_host(source),
            Self::Index(_) => ErrorKind::System,
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
        }
    }
}
