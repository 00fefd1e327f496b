//! Errors of the store.

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
        /// The state directory.
        root: PathBuf,
    },
    /// A newer version has written it.
    #[error(
        "state directory {} has format {found}, this version reads {known}; use the version that wrote it or another directory",
        root.display()
    )]
    Format {
        /// The state directory.
        root: PathBuf,
        /// The version in `format.json`.
        found: u32,
        /// The newest version that is supported.
        known: u32,
    },
    /// The directory has files in it, but no `format.json`.
    #[error("{} is not empty and not a state directory", root.display())]
    Foreign {
        /// The state directory.
        root: PathBuf,
    },
    /// The format file cannot be read.
    #[error("{} is not the format file of a state directory: {source}", path.display())]
    FormatFile {
        /// The path of `format.json`.
        path: PathBuf,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation, as `open`.
        what: &'static str,
        /// Its file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The index failed.
    #[error("cannot open the index: {0}")]
    Index(#[source] Arc<rusqlite::Error>),
    /// The state of an earlier process could not be repaired.
    #[error("cannot recover {}: {source}", root.display())]
    Recover {
        /// The state directory.
        root: PathBuf,
        /// The error of the repair.
        source: Box<StoreError>,
    },
    /// Overlay mounts do not work in this directory.
    #[error("overlay mounts are not available here: {0}")]
    NoOverlay(#[source] io::Error),
    /// Layers were to be kept as their tar, and the kernel cannot mount them so.
    #[error(
        "layers cannot be mounted where their tar lies: {0}; leave `layers` at \"auto\" to have them unpacked"
    )]
    NoTarLayers(#[source] io::Error),
}

/// Why an operation on the store failed. Cheap to clone, because one failure may reach many waiters.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No such record.
    #[error("{id}: not found")]
    NotFound {
        /// The name of the record.
        id: String,
    },
    /// No such blob.
    #[error("content {digest}: not found")]
    NoBlob {
        /// The digest of the blob.
        digest: Digest,
    },
    /// Another build uses the record, and the caller needs it alone.
    #[error("{id}: locked")]
    Locked {
        /// The name of the record.
        id: RefId,
    },
    /// Text that cannot name a record.
    #[error(transparent)]
    InvalidRefId(#[from] InvalidRefId),
    /// The record cannot be used for the operation.
    #[error("{id}: {why}")]
    Unfit {
        /// The name of the record.
        id: RefId,
        /// Its fault, as `is mutable`.
        why: &'static str,
    },
    /// The bytes of a blob have another digest than expected.
    #[error("blob {want} arrived as {got}")]
    DigestMismatch {
        /// The digest expected.
        want: Digest,
        /// The digest of the bytes.
        got: Digest,
    },
    /// The uncompressed bytes of a layer have another digest than its image's config says.
    #[error("failed to verify layer {layer}: expected diffID {want}, got {got}")]
    DiffId {
        /// The digest of the layer's blob.
        layer: Digest,
        /// The digest expected.
        want: Digest,
        /// The digest of the uncompressed bytes.
        got: Digest,
    },
    /// A layer's blob cannot be unpacked.
    #[error("cannot unpack layer {layer}: {}", chain(source.as_ref()))]
    Unpack {
        /// The digest of the layer's blob.
        layer: Digest,
        /// The error of the unpacker.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A blob has another length than its descriptor says.
    #[error("blob {digest} has {got} bytes where {want} were announced")]
    SizeMismatch {
        /// The digest of the blob.
        digest: Digest,
        /// Bytes in the descriptor.
        want: u64,
        /// Bytes received.
        got: u64,
    },
    /// A lazy layer has no provider that could fetch it.
    #[error("layer {digest} is not here and no provider is attached to fetch it")]
    NoProvider {
        /// The digest of the layer's blob.
        digest: Digest,
    },
    /// Fetching a lazy layer failed.
    #[error("cannot fetch {digest}: {}", chain(source.as_ref()))]
    Fetch {
        /// The digest of the layer's blob.
        digest: Digest,
        /// The error of the provider.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// Making or unpacking a layer failed.
    #[error("cannot {what} layer {of}: {}", chain(source.as_ref()))]
    Layer {
        /// The operation, as `pack`.
        what: &'static str,
        /// The name of the record, or the digest of the blob.
        of: String,
        /// The error of the operation.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The tree of a mutable record is too deep, or has a path that is too long.
    #[error("cannot keep the files that were written: {source}")]
    Tree {
        /// The error, with the path.
        source: Arc<fstree::PathError>,
    },
    /// Hashing content failed.
    #[error("{}", chain(source.as_ref()))]
    Hash {
        /// The error of the operation.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation, as `open`.
        what: &'static str,
        /// Its file or directory.
        path: PathBuf,
        /// The system's error.
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
        /// The feature in the user's words.
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
            Self::Format { .. } | Self::NoOverlay(_) | Self::NoTarLayers(_) => {
                ErrorKind::Unsupported
            }
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
