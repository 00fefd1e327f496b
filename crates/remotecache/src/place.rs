//! Where documents and layers of a cache lie.

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

/// Documents larger than this are not read.
// DIFFERS: BuildKit reads 1 MiB, which caches of large builds exceed.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;

/// Which document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The cache config.
    Config,
    /// The manifest or index, last of all.
    Root,
}

/// A place for a cache.
#[async_trait]
pub(crate) trait Place: fmt::Debug + Send + Sync {
    /// Reads a document, verified.
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError>;

    /// Streams a layer, unverified, as the sessions of `asking` may.
    async fn layer(
        &self,
        desc: &Descriptor,
        asking: &Group,
        sink: &mut dyn BlobSink,
        status: &StatusGuard,
    ) -> Result<(), FetchError>;

    /// Whether layers can still be fetched when the build is over.
    fn stays(&self) -> bool;

    /// Repositories that hold the layers.
    fn repositories(&self) -> Vec<String> {
        Vec::new()
    }

    /// Writes a layer, unless it is there. Its bytes are asked for only then.
    async fn put_layer(&self, desc: &Descriptor, blob: &LayerBlob) -> Result<(), CacheError>;

    /// Writes a document.
    async fn put_document(
        &self,
        desc: &Descriptor,
        bytes: Bytes,
        role: Role,
    ) -> Result<(), CacheError>;
}

/// Refuses a document that says it is too large.
pub(crate) fn check_size(desc: &Descriptor) -> Result<(), CacheError> {
    if desc.len() > MAX_DOCUMENT {
        return Err(CacheError::TooLarge {
            digest: desc.digest.clone(),
            size: desc.len(),
            limit: MAX_DOCUMENT,
        });
    }
    Ok(())
}
