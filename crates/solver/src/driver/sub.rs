//! Builds that are a part of a vertex.

use std::sync::Weak;

use async_trait::async_trait;

use super::Core;
use crate::domain::Domain;
use crate::domain::error::SolveError;
use crate::domain::op::SubBuilder;
use crate::domain::vertex::Edge;
use crate::scheduler::{BuildRequest, Handle, Requester};

/// Builds something as a part of a vertex, for as long as a job has the vertex loaded.
pub(super) struct VertexBuilder<D: Domain> {
    pub(super) core: Weak<Core<D>>,
    pub(super) handle: Weak<Handle<D>>,
}

#[async_trait]
impl<D: Domain> SubBuilder<D> for VertexBuilder<D> {
    async fn build(&self, edge: Edge<D>) -> Result<D::Result, SolveError<D>> {
        let core = self.core.upgrade().ok_or(SolveError::Canceled)?;
        let vertex = self.handle.upgrade().ok_or(SolveError::Canceled)?;
        let by = Requester::Vertex(vertex.vertex.digest.clone());
        drop(vertex);
        let loaded = core.load_graph(&by, &edge, &[]).await;
        let built = core
            .build(|build| BuildRequest {
                build,
                by,
                edge,
                sources: Vec::new(),
                loaded,
            })
            .await?;
        if let (Some(handle), Some(key)) = (self.handle.upgrade(), built.keys.first()) {
            handle.sub_keys.lock().push(key.clone());
        }
        Ok(built.result)
    }
}
