//! What tests of this crate share: a place in memory, sinks that show nothing, names.

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

use crate::chains::{ChainResult, Way};
use crate::error::CacheError;
use crate::import::UNCOMPRESSED;
use crate::place::{Place, Role};

/// A sink that shows nothing.
#[derive(Debug)]
pub(crate) struct Unseen;

impl progress::WriterSource for Unseen {
    fn writer(&self) -> Writer {
        Writer::null()
    }
}

impl solver::VertexSink<()> for Unseen {
    fn attach(&self, (): &()) {}
    fn started(&self, _cached: bool) {}
    fn completed(&self, _error: Option<&str>, _cached: bool) {}
    fn log(&self, _stream: i64, _data: &[u8]) {}
}

/// The domain of tests.
pub(crate) type Plain = ResultsOnly<StoreResult, Unseen>;

pub(crate) fn context() -> OpCtx<Plain> {
    let vertex = Vertex::new(Digest::sha256("vertex"), "vertex", Arc::new(()));
    OpCtx::detached(Arc::new(vertex), Arc::new(Unseen), Vec::new())
}

/// Documents and layers by digest.
#[derive(Debug, Default)]
pub(crate) struct MemoryPlace {
    documents: Mutex<BTreeMap<Digest, Bytes>>,
    layers: Mutex<BTreeMap<Digest, Bytes>>,
    /// What was done, in order.
    log: Mutex<Vec<String>>,
    /// Layers go with the client.
    goes: bool,
    /// Writing such a document fails.
    fails: Option<Role>,
}

impl MemoryPlace {
    pub(crate) fn that_goes() -> Self {
        Self {
            goes: true,
            ..Self::default()
        }
    }

    pub(crate) fn that_refuses(role: Role) -> Self {
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

    /// Adds a layer; its descriptor says what its uncompressed digest is.
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

    fn stays(&self) -> bool {
        !self.goes
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
        role: Role,
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

pub(crate) fn way(at: usize) -> Vec<Way> {
    vec![(at, String::new())]
}

/// A result of layers that are named by words.
pub(crate) fn result(seconds: u64, layers: &[&str]) -> ChainResult {
    let layers = layers
        .iter()
        .map(|l| Arc::new(Descriptor::new(media_type::OCI_LAYER_GZIP, digest(l), 1)));
    ChainResult {
        created: UNIX_EPOCH + Duration::from_secs(seconds),
        layers: layers.collect(),
    }
}
