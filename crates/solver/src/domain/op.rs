//! Ops as the solver sees them: cache maps, outputs and progress.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oci::Digest;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::domain::Domain;
use crate::domain::error::{OpError, SolveError};
use crate::domain::vertex::{Edge, Vertex};

/// Computes the cache map and the outputs of a vertex.
#[async_trait]
pub trait Op<D: Domain>: Send + Sync + 'static {
    /// Returns cache map number `index` and whether it is the last. Only ops without inputs may have several.
    async fn cache_map(&self, ctx: &OpCtx<D>, index: usize)
    -> Result<(CacheMap<D>, bool), OpError>;
    /// Computes all outputs.
    async fn exec(&self, ctx: &OpCtx<D>, inputs: Vec<D::Result>)
    -> Result<Vec<D::Result>, OpError>;
}

/// Finds the op of a vertex.
pub trait Resolver<D: Domain>: Send + Sync {
    /// Returns the op. `builder` lets an op build something as a part of this vertex.
    fn resolve(
        &self,
        vertex: &Arc<Vertex<D>>,
        builder: Arc<dyn SubBuilder<D>>,
    ) -> Result<Arc<D::Op>, OpError>;
}

/// Lets an op build something as a part of its vertex.
#[async_trait]
pub trait SubBuilder<D: Domain>: Send + Sync {
    /// Builds an edge for the jobs that want the vertex, and returns its result. The keys of the result are exported with those of
    /// the vertex. Dropping the future cancels what nobody else wants.
    async fn build(&self, edge: Edge<D>) -> Result<D::Result, SolveError<D>>;
}

/// The parts of an output's cache key that an op knows.
pub struct CacheMap<D: Domain> {
    /// Digest of everything that decides the output, without the inputs.
    pub digest: Digest,
    /// One entry per input, in their order.
    pub deps: Vec<CacheMapDep<D>>,
    /// Values for loads of results; they are no part of keys.
    pub hints: Vec<D::Hint>,
}

/// How one input takes part in the key.
pub struct CacheMapDep<D: Domain> {
    /// Digest of the part of the input that the op reads; it restricts matches by the input's own key.
    pub selector: Option<Digest>,
    /// Computes a key from the input's content.
    pub slow: Option<Arc<dyn SlowKey<D>>>,
    /// Runs on the input before the op uses it (unpacks a lazy ref).
    pub preprocess: Option<Arc<dyn Preprocess<D>>>,
}

/// Computes a key from the content of an input.
#[async_trait]
pub trait SlowKey<D: Domain>: Send + Sync {
    /// Returns the digest of the content.
    async fn digest(&self, ctx: &OpCtx<D>, input: &D::Result) -> Result<Digest, OpError>;
}

/// Prepares an input.
#[async_trait]
pub trait Preprocess<D: Domain>: Send + Sync {
    /// Prepares the input; `ctx` is that of the vertex that computed it.
    async fn run(&self, ctx: &OpCtx<D>, input: &D::Result) -> Result<(), OpError>;
}

impl<D: Domain> CacheMap<D> {
    /// Makes a cache map of an op with `deps` inputs that takes part by key only.
    pub fn new(digest: Digest, deps: usize) -> Self {
        Self {
            digest,
            deps: (0..deps).map(|_| CacheMapDep::default()).collect(),
            hints: Vec::new(),
        }
    }
}

impl<D: Domain> Default for CacheMapDep<D> {
    fn default() -> Self {
        Self {
            selector: None,
            slow: None,
            preprocess: None,
        }
    }
}

impl<D: Domain> fmt::Debug for CacheMap<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMap")
            .field("digest", &self.digest)
            .field("deps", &self.deps)
            .finish_non_exhaustive()
    }
}

impl<D: Domain> fmt::Debug for CacheMapDep<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMapDep")
            .field("selector", &self.selector)
            .field("slow", &self.slow.is_some())
            .field("preprocess", &self.preprocess.is_some())
            .finish()
    }
}

/// Takes the progress of one vertex, for jobs of type `J`.
pub trait VertexSink<J>: Send + Sync + 'static {
    /// A job joins the vertex; it gets everything that was reported so far.
    fn attach(&self, job: &J);
    /// Work on the vertex starts; `cached` if a stored result is loaded.
    fn started(&self, cached: bool);
    /// The work ended, with the sentence of its error if it failed.
    fn completed(&self, error: Option<&str>, cached: bool);
    /// The op wrote output (`stream` is 1 for standard output, 2 for standard error).
    fn log(&self, stream: i64, data: &[u8]);
}

/// Creates the sinks of vertices, and is told how results were obtained.
pub trait Observer<D: Domain>: Send + Sync {
    /// Returns the sink of a newly loaded vertex, whose digest is the client's. Called with the scheduler locked, so it
    /// must not wait.
    fn vertex(&self, vertex: &Arc<Vertex<D>>) -> Arc<D::Sink>;

    /// A vertex has a result. Called with the scheduler locked, so it must not wait.
    fn obtained(&self, _from: Obtained) {}
}

/// How a result was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obtained {
    /// The vertex ran.
    Executed,
    /// It was loaded by the daemon's own records.
    Loaded,
    /// It was loaded from a cache that the build imported.
    Imported,
    /// Another vertex has the same key, and its result serves both.
    Merged,
}

/// A sink that drops all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

impl<D: Domain<Sink = NullSink>> Observer<D> for NullSink {
    fn vertex(&self, _vertex: &Arc<Vertex<D>>) -> Arc<NullSink> {
        Arc::new(Self)
    }
}

impl<J> VertexSink<J> for NullSink {
    fn attach(&self, _job: &J) {}
    fn started(&self, _cached: bool) {}
    fn completed(&self, _error: Option<&str>, _cached: bool) {}
    fn log(&self, _stream: i64, _data: &[u8]) {}
}

/// Sessions of all jobs that want a running vertex. It changes as jobs join and leave.
#[derive(Clone, Debug)]
pub struct SessionGroup {
    ids: watch::Receiver<Vec<String>>,
    _fixed: Option<Arc<watch::Sender<Vec<String>>>>,
}

impl SessionGroup {
    /// Makes a group that does not change.
    pub fn fixed(ids: Vec<String>) -> Self {
        let (sender, receiver) = watch::channel(ids);
        Self {
            ids: receiver,
            _fixed: Some(Arc::new(sender)),
        }
    }

    pub(crate) fn live(ids: watch::Receiver<Vec<String>>) -> Self {
        Self { ids, _fixed: None }
    }

    /// Returns the current session ids, in the order in which jobs joined.
    pub fn ids(&self) -> Vec<String> {
        self.ids.borrow().clone()
    }

    /// Waits until the group differs from the state at the end of the last wait; never ends for a fixed group.
    pub async fn changed(&mut self) -> Vec<String> {
        if self.ids.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.ids.borrow_and_update().clone()
    }
}

/// Finds the first hint that a predicate accepts, in the nearest vertex first.
pub(crate) type FindHint<D> = Arc<
    dyn Fn(&mut dyn FnMut(&<D as Domain>::Hint) -> bool) -> Option<<D as Domain>::Hint>
        + Send
        + Sync,
>;
pub(crate) type JobValues<D> = Arc<RwLock<Vec<Arc<<D as Domain>::Job>>>>;

/// The context of an op's work.
pub struct OpCtx<D: Domain> {
    /// The vertex of the op.
    pub vertex: Arc<Vertex<D>>,
    /// Takes the progress of the vertex.
    pub sink: Arc<D::Sink>,
    /// Sessions that may answer for the vertex.
    pub sessions: SessionGroup,
    pub(crate) values: JobValues<D>,
    pub(crate) hints: Option<FindHint<D>>,
}

impl<D: Domain> OpCtx<D> {
    /// Makes a context outside a solver, for tests and one-off calls.
    pub fn detached(vertex: Arc<Vertex<D>>, sink: Arc<D::Sink>, sessions: Vec<String>) -> Self {
        Self {
            vertex,
            sink,
            sessions: SessionGroup::fixed(sessions),
            values: JobValues::<D>::default(),
            hints: None,
        }
    }

    /// Returns the values of the jobs that want the vertex, in the order in which they joined.
    pub fn job_values(&self) -> Vec<Arc<D::Job>> {
        self.values.read().clone()
    }

    /// Finds a hint in the cache maps of this vertex or of the nearest vertex below it. `is_wanted` is called while the scheduler
    /// is locked, so it must only compare.
    pub fn hint(&self, mut is_wanted: impl FnMut(&D::Hint) -> bool) -> Option<D::Hint> {
        self.hints.as_ref()?(&mut is_wanted)
    }
}

impl<D: Domain> Clone for OpCtx<D> {
    fn clone(&self) -> Self {
        Self {
            vertex: Arc::clone(&self.vertex),
            sink: Arc::clone(&self.sink),
            sessions: self.sessions.clone(),
            values: Arc::clone(&self.values),
            hints: self.hints.clone(),
        }
    }
}

impl<D: Domain> fmt::Debug for OpCtx<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpCtx")
            .field("vertex", &self.vertex.digest)
            .field("sessions", &self.sessions.ids())
            .finish_non_exhaustive()
    }
}
