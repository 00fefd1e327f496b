//! Shared by tests of this crate: a place in memory, sinks that drop progress, names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, media_type};
use parking_lot::Mutex;
use progress::{StatusGuard, Writer};
use session::Group;
use solver::{OpCtx, ResultsOnly, Vertex};
use store::{BlobSink, FetchError, LayerBlob, StoreResult};

use crate::chains::{ChainResult, InputLink};
use crate::error::CacheError;
use crate::import::UNCOMPRESSED;
use crate::place::{DocumentRole, Place};

/// A sink that drops all progress.
#[derive(Debug)]
pub(crate) struct DroppingSink;

impl progress::WriterSource for DroppingSink {
    fn writer(&self) -> Writer {
        Writer::null()
    }
}

impl solver::VertexSink<()> for DroppingSink {
    fn attach(&self, (): &()) {}
    fn started(&self, _cached: bool) {}
    fn completed(&self, _error: Option<&str>, _cached: bool) {}
    fn log(&self, _stream: i64, _data: &[u8]) {}
}

/// The domain of tests.
pub(crate) type Plain = ResultsOnly<StoreResult, DroppingSink>;

pub(crate) fn context() -> OpCtx<Plain> {
    let vertex = Vertex::new(Digest::sha256("vertex"), "vertex", Arc::new(()));
    OpCtx::detached(Arc::new(vertex), Arc::new(DroppingSink), Vec::new())
}

/// Documents and layers by digest.
#[derive(Debug, Default)]
pub(crate) struct MemoryPlace {
    documents: Mutex<BTreeMap<Digest, Bytes>>,
    layers: Mutex<BTreeMap<Digest, Bytes>>,
    /// Calls of the place, in order.
    log: Mutex<Vec<String>>,
    /// Whether layers are lost with the client's session.
    is_temporary: bool,
    /// Writing documents of this role fails.
    fails: Option<DocumentRole>,
}

impl MemoryPlace {
    pub(crate) fn temporary() -> Self {
        Self {
            is_temporary: true,
            ..Self::default()
        }
    }

    pub(crate) fn refusing(role: DocumentRole) -> Self {
        Self {
            fails: Some(role),
            ..Self::default()
        }
    }

    pub(crate) fn put(&self, kind: &str, text: impl Into<Bytes>) -> Descriptor {
        let bytes = text.into();
        let desc = Descriptor::of_bytes(kind, &bytes);
        self.documents.lock().insert(desc.digest.clone(), bytes);
        desc
    }

    /// Adds a layer; its descriptor has the uncompressed digest.
    pub(crate) fn put_bytes(&self, bytes: &'static [u8]) -> Arc<Descriptor> {
        let mut desc = Descriptor::of_bytes(media_type::OCI_LAYER, bytes);
        let plain = desc.digest.to_string();
        desc.annotations.insert(UNCOMPRESSED.into(), plain);
        let digest = desc.digest.clone();
        self.layers.lock().insert(digest, Bytes::from_static(bytes));
        Arc::new(desc)
    }

    pub(crate) fn lose_layers(&self) {
        self.layers.lock().clear();
    }

    pub(crate) fn text(&self, digest: &Digest) -> String {
        let bytes = self.documents.lock().get(digest).cloned().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock())
    }
}

#[async_trait]
impl Place for MemoryPlace {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, CacheError> {
        let document = self.documents.lock().get(&desc.digest).cloned();
        document.ok_or_else(|| CacheError::document("document", desc, "not found"))
    }

    async fn layer(
        &self,
        desc: &Descriptor,
        _asking: &Group,
        sink: &mut dyn BlobSink,
        _status: &StatusGuard,
    ) -> Result<(), FetchError> {
        self.log
            .lock()
            .push(format!("fetch {}", short(&desc.digest)));
        let bytes = self.layers.lock().get(&desc.digest).cloned();
        let bytes = bytes.ok_or_else(|| format!("layer {} is gone", desc.digest))?;
        sink.write(bytes).await?;
        Ok(())
    }

    fn is_permanent(&self) -> bool {
        !self.is_temporary
    }

    async fn put_layer(&self, desc: &Descriptor, _blob: &LayerBlob) -> Result<(), CacheError> {
        self.log
            .lock()
            .push(format!("layer {}", short(&desc.digest)));
        Ok(())
    }

    async fn put_document(
        &self,
        desc: &Descriptor,
        bytes: Bytes,
        role: DocumentRole,
    ) -> Result<(), CacheError> {
        if self.fails == Some(role) {
            return Err(CacheError::records("the disk is full"));
        }
        self.log.lock().push(format!("{role:?}"));
        self.documents.lock().insert(desc.digest.clone(), bytes);
        Ok(())
    }
}

pub(crate) fn short(digest: &Digest) -> String {
    digest.hex().get(..8).unwrap().to_owned()
}

pub(crate) fn digest(name: &str) -> Digest {
    Digest::sha256(name)
}

pub(crate) fn way(at: usize) -> Vec<InputLink> {
    vec![(at, String::new())]
}

/// A result with these named layers.
pub(crate) fn result(seconds: u64, layers: &[&str]) -> ChainResult {
    let layers = layers
        .iter()
        .map(|l| Arc::new(Descriptor::new(media_type::OCI_LAYER_GZIP, digest(l), 1)));
    ChainResult {
        created: UNIX_EPOCH + Duration::from_secs(seconds),
        layers: layers.collect(),
    }
}
