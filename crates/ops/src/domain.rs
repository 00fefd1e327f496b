//! The solver's types in this program.

use std::sync::Arc;

use bytes::Bytes;
use oci::Digest;
use progress::{VertexProgress, Writer, WriterSource};
use solver::Domain;
use store::BlobProvider;

use crate::resolver::{BuildOp, OpSys};
use crate::{JobValue, Ref};

/// The domain that builds are solved in: vertices are LLB ops, results are refs of the store.
#[derive(Debug)]
pub enum BuildDomain {}

impl Domain for BuildDomain {
    type Result = Ref;
    type System = OpSys;
    type Op = BuildOp;
    type Job = JobValue;
    type Sink = ProgressSink;
    type Hint = LayerHint;
}

/// Who can fetch a lazy layer: left in the cache maps of sources, found when a result that has the layer is loaded.
#[derive(Debug, Clone)]
pub struct LayerHint {
    /// Digest of the layer's blob.
    pub layer: Digest,
    /// Fetches it.
    pub provider: Arc<dyn BlobProvider>,
}

/// The progress of a vertex.
#[derive(Debug)]
pub struct ProgressSink(Option<VertexProgress>);

impl ProgressSink {
    /// Reports to the builds that want the vertex of `progress`.
    pub fn new(progress: VertexProgress) -> Self {
        Self(Some(progress))
    }

    /// Reports nothing: for work that belongs to no vertex.
    pub fn null() -> Self {
        Self(None)
    }
}

impl WriterSource for ProgressSink {
    fn writer(&self) -> Writer {
        let progress = self.0.as_ref();
        progress.map_or_else(Writer::null, VertexProgress::writer)
    }
}

impl solver::VertexSink<JobValue> for ProgressSink {
    fn attach(&self, job: &JobValue) {
        if let Some(progress) = &self.0 {
            progress.attach(&job.hub);
        }
    }

    fn started(&self, cached: bool) {
        match &self.0 {
            Some(progress) if cached => progress.start_cached(),
            Some(progress) => progress.start(),
            None => {}
        }
    }

    fn completed(&self, error: Option<&str>, _cached: bool) {
        if let Some(progress) = &self.0 {
            progress.complete(error);
        }
    }

    fn log(&self, stream: i64, data: &[u8]) {
        self.writer().log(stream, Bytes::copy_from_slice(data));
    }
}
