//! A client's interest in edges.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::cachekey::KeyInfo;
use crate::error::SolveError;
use crate::manager::CacheManager;
use crate::op::{Observer, Op, Resolver};
use crate::vertex::{Edge, Vertex};

/// The graph of everything that is being built now. Clones share it.
pub struct Solver<R> {
    core: PhantomData<fn() -> R>,
}

/// What a job is made with.
#[derive(Clone)]
pub struct JobOptions {
    /// Identity; must not be in use.
    pub id: String,
    /// The session that may answer for this job's vertices.
    pub session: Option<String>,
    /// What ops and sinks of the job's vertices are given.
    pub value: Arc<dyn Any + Send + Sync>,
}

/// One solve request. Vertices it loaded stay, with results, until the last job that loaded them is dropped.
pub struct Job<R> {
    core: PhantomData<fn() -> R>,
}

/// Lets an op build something as a part of its vertex.
pub struct SubBuilder<R> {
    core: PhantomData<fn() -> R>,
}

/// The outcome of a build.
pub struct Built<R> {
    /// The result.
    pub result: R,
    /// The keys it is known by; what a cache exporter starts from.
    pub keys: Vec<KeyInfo<R>>,
    /// The vertex as the solver holds it.
    pub vertex: Arc<Vertex>,
}

impl<R: Clone + Send + Sync + 'static> Solver<R> {
    /// Makes a solver over this machine's keys and results.
    pub fn new(resolver: Arc<dyn Resolver<R>>, cache: Arc<CacheManager<R>>, observer: Arc<dyn Observer>) -> Self {
        drop((resolver, cache, observer));
        Self { core: PhantomData }
    }

    /// Starts a job.
    pub fn job(&self, options: JobOptions) -> Result<Job<R>, SolveError> {
        Err(SolveError::JobExists(options.id))
    }
}

impl<R: Clone + Send + Sync + 'static> Job<R> {
    /// Builds an edge. Dropping the future cancels what nobody else wants.
    pub async fn build(&self, edge: Edge) -> Result<Built<R>, SolveError> {
        self.build_from(edge, &[]).await
    }

    /// Builds an edge, looking for results in `sources` too.
    pub async fn build_from(&self, edge: Edge, sources: &[Arc<CacheManager<R>>]) -> Result<Built<R>, SolveError> {
        drop(edge);
        let _ = sources;
        Err(SolveError::Canceled)
    }

    /// Returns the ops that were resolved for the vertices `edge` depends on, itself included.
    pub fn ops(&self, edge: &Edge) -> Vec<(Arc<Vertex>, Arc<dyn Op<R>>)> {
        let _ = edge;
        Vec::new()
    }
}

impl<R: Clone + Send + Sync + 'static> SubBuilder<R> {
    /// Builds an edge as a part of the vertex.
    pub async fn build(&self, edge: Edge) -> Result<Built<R>, SolveError> {
        self.build_from(edge, &[]).await
    }

    /// Builds an edge, looking for results in `sources` too.
    pub async fn build_from(&self, edge: Edge, sources: &[Arc<CacheManager<R>>]) -> Result<Built<R>, SolveError> {
        drop(edge);
        let _ = sources;
        Err(SolveError::Canceled)
    }

    /// Returns the values of the jobs that want the vertex.
    pub fn job_values(&self) -> Vec<Arc<dyn Any + Send + Sync>> {
        Vec::new()
    }
}

impl<R> Clone for Solver<R> {
    fn clone(&self) -> Self {
        Self { core: PhantomData }
    }
}

impl<R> Clone for SubBuilder<R> {
    fn clone(&self) -> Self {
        Self { core: PhantomData }
    }
}

impl<R> fmt::Debug for Solver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Solver")
    }
}

impl<R> fmt::Debug for Job<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

impl<R> fmt::Debug for SubBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubBuilder")
    }
}

impl<R> fmt::Debug for Built<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").field("keys", &self.keys).field("vertex", &self.vertex.digest).finish_non_exhaustive()
    }
}

impl fmt::Debug for JobOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobOptions").field("id", &self.id).field("session", &self.session).finish_non_exhaustive()
    }
}
