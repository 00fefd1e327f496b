//! From the solver's words about a vertex to the hubs of the builds that want it.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use ops::JobValue;
use progress::{ProgressGroup, VertexProgress};
use solver::{Observer, Vertex, VertexSink};

/// Makes a progress for each vertex.
pub(crate) struct Progress;

struct Sink(VertexProgress);

impl Observer for Progress {
    fn vertex(&self, vertex: &Arc<Vertex>) -> Arc<dyn VertexSink> {
        let mut inputs = Vec::with_capacity(vertex.inputs.len());
        for edge in &vertex.inputs {
            if !inputs.contains(&edge.vertex.digest) {
                inputs.push(edge.vertex.digest.clone());
            }
        }
        let mut shown = progress::Vertex::new(vertex.digest.clone(), vertex.name.clone(), inputs);
        shown.group = vertex
            .options
            .progress_group
            .as_ref()
            .map(|g| ProgressGroup {
                id: g.id.clone(),
                name: g.name.clone(),
                weak: g.weak,
            });
        Arc::new(Sink(VertexProgress::new(shown)))
    }
}

impl VertexSink for Sink {
    fn attach(&self, job: &Arc<dyn Any + Send + Sync>) {
        if let Some(value) = (**job).downcast_ref::<JobValue>() {
            self.0.attach(&value.hub);
        }
    }

    fn started(&self, cached: bool) {
        if cached {
            self.0.start_cached();
        } else {
            self.0.start();
        }
    }

    fn completed(&self, error: Option<&str>, _cached: bool) {
        self.0.complete(error);
    }

    fn log(&self, stream: i64, data: &[u8]) {
        self.0.writer().log(stream, Bytes::copy_from_slice(data));
    }

    fn any(&self) -> &(dyn Any + Send + Sync) {
        &self.0
    }
}
