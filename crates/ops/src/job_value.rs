//! What the engine makes a job with, and ops find again.

use std::sync::Arc;

use progress::Hub;
use solver::OpCtx;
use source::Memory;

use crate::exec::BuildCacheMounts;

/// The value of a job in the solver.
#[derive(Debug)]
pub struct JobValue {
    /// Where the build's progress goes.
    pub hub: Arc<Hub>,
    /// What the build's sources found out.
    pub memory: Arc<Memory>,
    /// What the build sees of cache mounts.
    pub cache_mounts: Arc<BuildCacheMounts>,
}

impl JobValue {
    fn all(ctx: &OpCtx) -> impl Iterator<Item = Arc<Self>> {
        let values = ctx.job_values().into_iter();
        values.filter_map(|value| value.downcast().ok())
    }
}

/// The memories of the builds that want a vertex.
pub(crate) fn memories(ctx: &OpCtx) -> Vec<Arc<Memory>> {
    JobValue::all(ctx)
        .map(|value| Arc::clone(&value.memory))
        .collect()
}

/// What the builds that want a vertex see of cache mounts.
pub(crate) fn cache_mounts(ctx: &OpCtx) -> Vec<Arc<BuildCacheMounts>> {
    JobValue::all(ctx)
        .map(|value| Arc::clone(&value.cache_mounts))
        .collect()
}
