//! A folder of a client, spoken to as a content store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use oci::{Descriptor, Digest};
use progress::StatusGuard;
use registry::{BlobSource, BytesSource, FileSource};
use session::{BlobWrite, CallError, Group, Session};
use store::{BlobSink, FetchError, LayerBlob};

use super::{MAX_DOCUMENT, Place, Role};
use crate::error::CacheError;

/// What the names of such stores begin with.
const PREFIX: &str = "local:";

/// A content store of the client that asked for the build.
#[derive(Debug)]
pub(crate) struct Folder {
    sessions: Group,
    store: String,
}

impl Folder {
    /// The store over a folder, by the folder's name at the client.
    pub(crate) fn new(sessions: Group, folder: &str) -> Self {
        Self {
            sessions,
            store: format!("{PREFIX}{folder}"),
        }
    }

    async fn client(&self) -> Result<Arc<dyn Session>, CacheError> {
        if self.sessions.is_empty() {
            return Err(CacheError::Session(
                "local cache exporter/importer requires session".into(),
            ));
        }
        self.sessions.first().await.map_err(CacheError::session)
    }

    /// Describes a blob of which only the digest is known.
    pub(crate) async fn describe(&self, digest: &Digest) -> Result<Descriptor, CacheError> {
        let client = self.client().await?;
        let info = client.content_info(&self.store, digest).await;
        let info = info.map_err(CacheError::session)?;
        Ok(Descriptor::new("", digest.clone(), info.size))
    }

    async fn write(&self, desc: &Descriptor, source: &dyn BlobSource) -> Result<(), CacheError> {
        let client = self.client().await?;
        let digest = desc.digest.clone();
        let failed = move |e: std::io::Error| CallError::Protocol {
            method: "Write",
            reason: format!("cannot read {digest}: {e}"),
        };
        let bytes = source.open().await.map_err(CacheError::session)?;
        let blob = BlobWrite {
            digest: desc.digest.clone(),
            size: desc.len(),
            labels: BTreeMap::new(),
        };
        let written = client.content_write(&self.store, blob, bytes.map_err(failed).boxed());
        written.await.map_err(CacheError::session)
    }
}

#[async_trait]
impl Place for Folder {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError> {
        super::check_size(desc)?;
        let client = self.client().await?;
        let read = client.content_read(&self.store, &desc.digest, 0, 0).await;
        let mut chunks = read.map_err(CacheError::session)?;
        let mut out = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(CacheError::session)?;
            let size = (out.len() as u64).saturating_add(chunk.len() as u64);
            if size > MAX_DOCUMENT {
                return Err(CacheError::TooLarge {
                    digest: desc.digest.clone(),
                    size,
                    limit: MAX_DOCUMENT,
                });
            }
            out.extend_from_slice(&chunk);
        }
        if Digest::sha256(&out) != desc.digest {
            let reason = "the client sent other bytes than those of the digest";
            return Err(CacheError::document("document", desc, reason));
        }
        Ok(out.freeze())
    }

    async fn layer(
        &self,
        desc: &Descriptor,
        _asking: &Group,
        sink: &mut dyn BlobSink,
        status: &StatusGuard,
    ) -> Result<(), FetchError> {
        let client = self.client().await?;
        let mut chunks = client.content_read(&self.store, &desc.digest, 0, 0).await?;
        let mut current = 0_i64;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            current = current.saturating_add(i64::try_from(chunk.len()).unwrap_or(i64::MAX));
            sink.write(chunk).await?;
            status.set(current, desc.size);
        }
        Ok(())
    }

    fn stays(&self) -> bool {
        false
    }

    async fn put_layer(&self, desc: &Descriptor, blob: &LayerBlob) -> Result<(), CacheError> {
        let file = blob.open().await?;
        self.write(desc, &FileSource(Arc::new(file))).await
    }

    async fn put_document(
        &self,
        desc: &Descriptor,
        bytes: Bytes,
        _role: Role,
    ) -> Result<(), CacheError> {
        self.write(desc, &BytesSource(bytes)).await
    }
}
