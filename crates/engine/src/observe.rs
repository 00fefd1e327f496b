//! Shows the solver's vertices to the builds that want them, and counts cache hits.

use std::sync::Arc;

use metrics::{CacheKind, NoLabels};
use ops::{BuildDomain, ProgressSink};
use progress::{ProgressGroup, VertexProgress};
use solver::{Observer, Obtained, Vertex};

/// Creates the progress of each vertex.
pub(crate) struct Progress;

impl Observer<BuildDomain> for Progress {
    fn vertex(&self, vertex: &Arc<Vertex<BuildDomain>>) -> Arc<ProgressSink> {
        let mut inputs = Vec::with_capacity(vertex.inputs.len());
        for edge in &vertex.inputs {
            if !inputs.contains(&edge.vertex.digest) {
                inputs.push(edge.vertex.digest.clone());
            }
        }
        let mut progress_vertex =
            progress::Vertex::new(vertex.digest.clone(), vertex.name.clone(), inputs);
        progress_vertex.group = vertex
            .options
            .progress_group
            .as_ref()
            .map(|g| ProgressGroup {
                id: g.id.clone(),
                name: g.name.clone(),
                weak: g.weak,
            });
        Arc::new(ProgressSink::new(VertexProgress::new(progress_vertex)))
    }

    fn obtained(&self, from: Obtained) {
        match from {
            Obtained::Executed => metrics::CACHE_MISSES.add(NoLabels, 1),
            Obtained::Loaded => metrics::CACHE_HITS.add(CacheKind::Local, 1),
            Obtained::Imported => metrics::CACHE_HITS.add(CacheKind::Imported, 1),
            Obtained::Merged => metrics::CACHE_HITS.add(CacheKind::Shared, 1),
        }
    }
}
