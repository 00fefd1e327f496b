//! What the engine makes a job with, and ops find again.

use std::sync::Arc;

use progress::Hub;
use solver::OpCtx;
use source::Memory;

use crate::exec::BuildCacheMounts;

use crate::BuildDomain;

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

/// The memories of the builds that want a vertex.
pub(crate) fn memories(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<Memory>> {
    let jobs = ctx.job_values();
    jobs.iter().map(|job| Arc::clone(&job.memory)).collect()
}

/// What the builds that want a vertex see of cache mounts.
pub(crate) fn cache_mounts(ctx: &OpCtx<BuildDomain>) -> Vec<Arc<BuildCacheMounts>> {
    let jobs = ctx.job_values();
    jobs.iter()
        .map(|job| Arc::clone(&job.cache_mounts))
        .collect()
}
