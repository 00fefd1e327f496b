//! A client's interest in edges.

use std::fmt;
use std::sync::Arc;

use task::Clock;

use crate::built::Built;
use crate::domain::Domain;
use crate::domain::error::SolveError;
use crate::domain::op::{Observer, OpCtx, Resolver};
use crate::domain::vertex::{Edge, Vertex};
use crate::driver::Core;
use crate::keys::manager::CacheManager;
use crate::scheduler::waits::WaitGraph;
use crate::scheduler::{BuildRequest, Event, JobId, Requester};

/// The graph of everything that is being built. Clones share it.
pub struct Solver<D: Domain> {
    core: Arc<Core<D>>,
}

/// A vertex and its op.
pub type ResolvedOp<D> = (Arc<Vertex<D>>, Arc<<D as Domain>::Op>);

/// The parameters of a job.
pub struct JobOptions<D: Domain> {
    /// Name; no other job may have it at the same time.
    pub id: String,
    /// The session that answers for this job's vertices, if there is one.
    pub session: Option<String>,
    /// The value for ops and sinks of the job's vertices.
    pub value: Arc<D::Job>,
}

/// One solve request. Its vertices stay loaded, with their results, until the last job that loaded them is dropped.
pub struct Job<D: Domain> {
    core: Arc<Core<D>>,
    id: JobId,
    name: String,
}

impl<D: Domain> Solver<D> {
    /// Creates a solver over this machine's keys and results.
    pub fn new(
        resolver: Arc<dyn Resolver<D>>,
        cache: Arc<CacheManager<D>>,
        observer: Arc<dyn Observer<D>>,
    ) -> Self {
        Self {
            core: Core::new(resolver, cache, observer, Clock::real()),
        }
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core<D>> {
        &self.core
    }

    /// Starts a job.
    pub fn job(&self, options: JobOptions<D>) -> Result<Job<D>, SolveError<D>> {
        let id = self.core.id();
        if !self.core.reserve(&options.id, id) {
            return Err(SolveError::JobExists(options.id));
        }
        self.core.apply(Event::Job {
            job: id,
            session: options.session,
            value: options.value,
        });
        Ok(Job {
            core: Arc::clone(&self.core),
            id,
            name: options.id,
        })
    }
}

/// Number of edges that [`Solver::waits`] visits at most.
const MAX_EDGES_SHOWN: usize = 20_000;

impl<D: Domain> Solver<D> {
    /// The vertices that are being built and those that wait, of the first 20,000 edges.
    #[must_use]
    pub fn waits(&self) -> WaitGraph {
        self.core.waits(MAX_EDGES_SHOWN)
    }
}

impl<D: Domain> Job<D> {
    /// Builds an edge. Dropping the future cancels the work that no other build wants.
    pub async fn build(&self, edge: Edge<D>) -> Result<Built<D>, SolveError<D>> {
        self.build_from(edge, &[]).await
    }

    /// Builds an edge, also looking for results in `sources`.
    pub async fn build_from(
        &self,
        edge: Edge<D>,
        sources: &[Arc<CacheManager<D>>],
    ) -> Result<Built<D>, SolveError<D>> {
        let (by, sources) = (Requester::Job(self.id), sources.to_vec());
        let loaded = self.core.load_graph(&by, &edge, &sources).await;
        let built = self.core.build(|build| BuildRequest {
            build,
            by,
            edge,
            sources,
            loaded,
        });
        built.await
    }

    /// Returns the ops that were resolved for `vertex` (of a [`Built`]) and all its dependencies.
    pub fn ops(&self, vertex: &Vertex<D>) -> Vec<ResolvedOp<D>> {
        let handles = self.core.with_scheduler(|s| s.handles(&vertex.digest));
        handles
            .iter()
            .filter_map(|h| Some((Arc::clone(&h.vertex), h.op.get()?.as_ref().ok()?.clone())))
            .collect()
    }

    /// Returns the context of a vertex the job has loaded, for work on its result outside ops (exports).
    pub fn ctx(&self, vertex: &Vertex<D>) -> Option<OpCtx<D>> {
        let handle = self.core.with_scheduler(|s| s.handle(&vertex.digest))?;
        Some(self.core.ctx(&handle))
    }
}

impl<D: Domain> Drop for Job<D> {
    fn drop(&mut self) {
        self.core.apply_or_leave(Event::Discard(self.id));
        self.core.unreserve(&self.name);
    }
}

impl<D: Domain> Clone for Solver<D> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl<D: Domain> fmt::Debug for Solver<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Solver")
    }
}

impl<D: Domain> fmt::Debug for Job<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Job").field(&self.name).finish()
    }
}

impl<D: Domain> fmt::Debug for JobOptions<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobOptions")
            .field("id", &self.id)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
