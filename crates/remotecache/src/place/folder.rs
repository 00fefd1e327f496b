//! A cache in a folder of a client, which serves it as a content store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use oci::{Descriptor, Digest};
use progress::StatusGuard;
use registry::{BlobSource, BytesSource, FileSource};
use session::{BlobWrite, CallError, ContentStore, Group};
use store::{BlobSink, FetchError, LayerBlob};

use super::{DocumentRole, MAX_DOCUMENT_BYTES, Place};
use crate::error::CacheError;

/// Prefix in the names of such stores.
const PREFIX: &str = "local:";

/// The content store of a client of the build.
#[derive(Debug)]
pub(crate) struct Folder {
    sessions: Group,
    store: String,
}

impl Folder {
    /// The store of a folder, by the client's name for the folder.
    pub(crate) fn new(sessions: Group, folder: &str) -> Self {
        Self {
            sessions,
            store: format!("{PREFIX}{folder}"),
        }
    }

    async fn client(&self) -> Result<Arc<dyn ContentStore>, CacheError> {
        if self.sessions.is_empty() {
            return Err(CacheError::session(
                "local cache exporter/importer requires session",
            ));
        }
        Ok(self.sessions.first().await.map_err(CacheError::session)?)
    }

    /// Completes the descriptor of a blob from its digest.
    pub(crate) async fn describe(&self, digest: &Digest) -> Result<Descriptor, CacheError> {
        let client = self.client().await?;
        let info = client.content_info(&self.store, digest).await;
        let info = info.map_err(CacheError::session)?;
        Ok(Descriptor::new("", digest.clone(), info.size))
    }

    async fn write(&self, desc: &Descriptor, source: &dyn BlobSource) -> Result<(), CacheError> {
        let client = self.client().await?;
        let digest = desc.digest.clone();
        let failed = move |error| CallError::read(digest.to_string(), error);
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

/// Passes a layer on, up to the size in its descriptor, because a client may send without end.
async fn pass_on(
    mut chunks: impl Stream<Item = Result<Bytes, CallError>> + Send + Unpin,
    desc: &Descriptor,
    sink: &mut dyn BlobSink,
    status: &StatusGuard,
) -> Result<(), FetchError> {
    let mut current = 0_u64;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        current = current.saturating_add(chunk.len() as u64);
        if current > desc.len() {
            let reason = format!("content {} is larger than its descriptor says", desc.digest);
            return Err(reason.into());
        }
        sink.write(chunk).await?;
        status.set(i64::try_from(current).unwrap_or(i64::MAX), desc.size);
    }
    Ok(())
}

#[async_trait]
impl Place for Folder {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError> {
        super::check_size(desc)?;
        let client = self.client().await?;
        let reading = client.content_read(&self.store, &desc.digest, 0, 0);
        let opened = self.sessions.share(client.id()).open("Read", reading).await;
        let mut chunks = opened.map_err(CacheError::session)?;
        let mut out = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(CacheError::session)?;
            let size = (out.len() as u64).saturating_add(chunk.len() as u64);
            if size > MAX_DOCUMENT_BYTES {
                return Err(CacheError::TooLarge {
                    digest: desc.digest.clone(),
                    size,
                    limit: MAX_DOCUMENT_BYTES,
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
        _sessions: &Group,
        sink: &mut dyn BlobSink,
        status: &StatusGuard,
    ) -> Result<(), FetchError> {
        let client = self.client().await?;
        let reading = client.content_read(&self.store, &desc.digest, 0, 0);
        let chunks = self
            .sessions
            .share(client.id())
            .open("Read", reading)
            .await?;
        pass_on(chunks, desc, sink, status).await
    }

    fn is_permanent(&self) -> bool {
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
        _role: DocumentRole,
    ) -> Result<(), CacheError> {
        self.write(desc, &BytesSource(bytes)).await
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use progress::Writer;

    use super::*;

    #[derive(Debug, Default)]
    struct Counted(u64);

    #[async_trait]
    impl BlobSink for Counted {
        async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
            self.0 += chunk.len() as u64;
            Ok(())
        }
        fn written(&self) -> u64 {
            self.0
        }
    }

    #[tokio::test]
    async fn a_client_that_sends_without_end_is_stopped() {
        let chunk = Bytes::from(vec![0; 1000]);
        for (announced, want) in [(0, 0), (-1, 0), (2500, 2000), (1_000_000, 1_000_000)] {
            let mut desc = Descriptor::new("", Digest::sha256("layer"), 0);
            desc.size = announced;
            let endless = futures::stream::repeat_with(|| Ok(chunk.clone()));
            let mut sink = Counted::default();
            let status = Writer::null().status("layer", "");
            let error = pass_on(endless, &desc, &mut sink, &status)
                .await
                .unwrap_err();
            assert!(error.to_string().contains("larger than"), "{error}");
            assert_eq!(sink.0, want);
        }
    }
}
