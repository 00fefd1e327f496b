//! Who can bring the bytes of a blob that is not here yet.

use std::error::Error;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use oci::Descriptor;

/// Whatever a provider failed with.
pub type FetchError = Box<dyn Error + Send + Sync>;

/// Receives the bytes of a blob in order.
#[async_trait]
pub trait BlobSink: Send {
    /// Appends a chunk; returns when there is room for more.
    async fn write(&mut self, chunk: Bytes) -> io::Result<()>;
    /// Returns how many bytes have been taken, where a resumed transfer would go on.
    fn written(&self) -> u64;
}

/// Something that is shown until it is dropped.
pub type Shown = Box<dyn std::any::Any + Send>;

/// Brings blobs from elsewhere: a registry, a client's store, a remote cache.
#[async_trait]
pub trait BlobProvider: Send + Sync + std::fmt::Debug {
    /// Writes all bytes of `desc` to the sink. The store checks digest and size.
    async fn fetch(&self, desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError>;

    /// Shows that layers from here are being made.
    fn busy(&self) -> Shown {
        Box::new(())
    }

    /// Shows that a layer from here is being unpacked.
    fn unpacking(&self, _desc: &Descriptor) -> Shown {
        Box::new(())
    }

    /// Returns repositories (`host/name`) known to hold the blob, for cross-repository mounts.
    fn repositories(&self) -> Vec<String> {
        Vec::new()
    }
}
