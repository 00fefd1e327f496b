//! The places of a cache's documents and layers.

pub(crate) mod folder;
pub(crate) mod registry;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use oci::Descriptor;
use progress::StatusGuard;
use session::Group;
use store::{BlobSink, FetchError, LayerBlob};

use crate::error::CacheError;

/// Size limit of a document in bytes.
// DIFFERS: BuildKit reads 1 MiB, which caches of large builds exceed.
pub(crate) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// The role of a document in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DocumentRole {
    /// The cache config.
    Config,
    /// The manifest or index, last of all.
    Root,
}

/// A place of a cache's documents and layers.
#[async_trait]
pub(crate) trait Place: fmt::Debug + Send + Sync {
    /// Reads a document and verifies its digest.
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError>;

    /// Streams a layer without verification, with the sessions in `sessions`.
    async fn layer(
        &self,
        desc: &Descriptor,
        sessions: &Group,
        sink: &mut dyn BlobSink,
        status: &StatusGuard,
    ) -> Result<(), FetchError>;

    /// Whether layers can still be downloaded after the build.
    fn is_permanent(&self) -> bool;

    /// Repositories that have the layers, for pushes to mount from.
    fn repositories(&self) -> Vec<String> {
        Vec::new()
    }

    /// Writes a layer unless the place has it. Its bytes are read only if they are needed.
    async fn put_layer(&self, desc: &Descriptor, blob: &LayerBlob) -> Result<(), CacheError>;

    /// Writes a document.
    async fn put_document(
        &self,
        desc: &Descriptor,
        bytes: Bytes,
        role: DocumentRole,
    ) -> Result<(), CacheError>;
}

/// Refuses a document whose descriptor exceeds the size limit.
pub(crate) fn check_size(desc: &Descriptor) -> Result<(), CacheError> {
    if desc.len() > MAX_DOCUMENT_BYTES {
        return Err(CacheError::TooLarge {
            digest: desc.digest.clone(),
            size: desc.len(),
            limit: MAX_DOCUMENT_BYTES,
        });
    }
    Ok(())
}
