//! What the engine makes a job with, and ops find again.

use std::sync::Arc;

use progress::Hub;
use solver::OpCtx;
use source::Memory;

/// The value of a job in the solver.
#[derive(Debug)]
pub struct JobValue {
    /// Where the build's progress goes.
    pub hub: Arc<Hub>,
    /// What the build's sources found out.
    pub memory: Arc<Memory>,
}

/// The memories of the builds that want a vertex.
pub(crate) fn memories(ctx: &OpCtx) -> Vec<Arc<Memory>> {
    ctx.job_values()
        .into_iter()
        .filter_map(|value| value.downcast::<JobValue>().ok())
        .map(|value| Arc::clone(&value.memory))
        .collect()
}
