//! Providers: they fetch blobs that the store does not have.

use std::error::Error;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use oci::Descriptor;

/// The error of a provider, of any type.
pub type FetchError = Box<dyn Error + Send + Sync>;

/// Receives the bytes of a blob in order.
#[async_trait]
pub trait BlobSink: Send {
    /// Appends a chunk; returns when there is room for more.
    async fn write(&mut self, chunk: Bytes) -> io::Result<()>;
    /// Returns how many bytes have been taken, where a resumed transfer would go on.
    fn written(&self) -> u64;
}

/// A progress message that is shown until this is dropped.
pub type Shown = Box<dyn std::any::Any + Send>;

/// Fetches blobs from a registry, a client's store or a remote cache.
#[async_trait]
pub trait BlobProvider: Send + Sync + std::fmt::Debug {
    /// Writes all bytes of `desc` to the sink. The store checks digest and size.
    async fn fetch(&self, desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError>;

    /// Shows that layers of this provider are being fetched or unpacked.
    fn busy(&self) -> Shown {
        Box::new(())
    }

    /// Shows that a layer of this provider is being unpacked.
    fn unpacking(&self, _desc: &Descriptor) -> Shown {
        Box::new(())
    }

    /// Returns repositories (`host/name`) known to hold the blob, for cross-repository mounts.
    fn repositories(&self) -> Vec<String> {
        Vec::new()
    }
}
