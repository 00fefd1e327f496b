//! The layer blobs of a record: made from snapshots, or as they were pulled.

use std::fs::File;
use std::sync::Arc;

use oci::{Descriptor, Digest};

use crate::error::StoreError;
use crate::provider::BlobProvider;
use crate::refs::ImmutableRef;
use crate::store::Store;

pub use layer::{Compression as CompressionSpec, CompressionKind};

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// Points at the blob; OCI media type, annotations as they were pulled or made.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed bytes.
    pub diff_id: Digest,
    /// What made the layer, for the image's history.
    pub description: String,
    /// When the layer was made.
    pub created: std::time::SystemTime,
    store: Arc<Store>,
    provider: Option<Arc<dyn BlobProvider>>,
}

impl LayerBlob {
    /// Tells whether the bytes are here.
    pub fn is_local(&self) -> Result<bool, StoreError> {
        Ok(self.store.blob_info(&self.descriptor.digest)?.is_some())
    }

    /// Returns repositories known to hold the blob.
    pub fn repositories(&self) -> Vec<String> {
        self.provider.as_ref().map(|p| p.repositories()).unwrap_or_default()
    }

    /// Fetches the bytes if they are not here.
    pub async fn ensure(&self) -> Result<(), StoreError> {
        Err(StoreError::NotBuilt { feature: "fetching" })
    }

    /// Opens the bytes, fetching them if they are not here.
    pub async fn open(&self) -> Result<File, StoreError> {
        self.ensure().await?;
        self.store.open_blob(&self.descriptor.digest)
    }
}

/// The name under which variants of a layer's blob are told apart.
pub(crate) fn variant_of(descriptor: &Descriptor) -> &'static str {
    let _ = descriptor;
    "gzip"
}

impl ImmutableRef {
    /// Returns the blobs of all layers, base first, making those that do not exist, several at a time. Lazy layers are not
    /// fetched unless `force` demands another compression.
    pub async fn blobs(&self, compression: CompressionSpec) -> Result<Vec<LayerBlob>, StoreError> {
        let _ = compression;
        Err(StoreError::NotBuilt { feature: "layer blobs" })
    }

    /// Returns the blobs of all layers if every one of them exists already (or is lazy); makes nothing.
    pub fn known_blobs(&self) -> Result<Option<Vec<LayerBlob>>, StoreError> {
        Err(StoreError::NotBuilt { feature: "layer blobs" })
    }

    /// Begins to make the blob of the topmost layer in the background, so that it is there when an export asks.
    pub fn start_blob_early(&self, compression: CompressionSpec) {
        let _ = compression;
    }
}
