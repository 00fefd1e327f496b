//! What a vertex does, as the solver sees it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oci::Digest;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::domain::Domain;
use crate::domain::error::{OpError, SolveError};
use crate::domain::vertex::{Edge, Vertex};

/// How a vertex is cached and computed.
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
    /// Returns the op. `builder` lets an op that solves something itself do so as a part of this vertex.
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

/// How the results of an op are found again.
pub struct CacheMap<D: Domain> {
    /// Digest of all that decides the output except the inputs.
    pub digest: Digest,
    /// One entry per input.
    pub deps: Vec<CacheMapDep<D>>,
    /// What loads of results may need; has no part in keys.
    pub hints: Vec<D::Hint>,
}

/// How one input takes part in the key.
pub struct CacheMapDep<D: Domain> {
    /// Restricts a match by the input's own key to ops that read the same part of it.
    pub selector: Option<Digest>,
    /// Computes a key from the input's content.
    pub slow: Option<Arc<dyn SlowKey<D>>>,
    /// Runs on the input before the op uses it (makes a lazy ref real).
    pub preprocess: Option<Arc<dyn Preprocess<D>>>,
}

/// Computes a key from the content of an input.
#[async_trait]
pub trait SlowKey<D: Domain>: Send + Sync {
    /// Returns the digest.
    async fn digest(&self, ctx: &OpCtx<D>, input: &D::Result) -> Result<Digest, OpError>;
}

/// Prepares an input.
#[async_trait]
pub trait Preprocess<D: Domain>: Send + Sync {
    /// Does it; `ctx` is that of the vertex that made the input.
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

/// Where the progress of one vertex is reported, for jobs of type `J`.
pub trait VertexSink<J>: Send + Sync + 'static {
    /// A job became interested; it is told everything that was reported so far.
    fn attach(&self, job: &J);
    /// Work on the vertex begins; `cached` when a known result is being loaded.
    fn started(&self, cached: bool);
    /// The work ended.
    fn completed(&self, error: Option<&str>, cached: bool);
    /// The op wrote something (1 is standard output, 2 standard error).
    fn log(&self, stream: i64, data: &[u8]);
}

/// Makes sinks.
pub trait Observer<D: Domain>: Send + Sync {
    /// Returns the sink for a vertex that is being loaded; its digest is the one to show. Called while the scheduler decides:
    /// must not wait.
    fn vertex(&self, vertex: &Arc<Vertex<D>>) -> Arc<D::Sink>;

    /// A result of a vertex is there. Called while the scheduler decides: must not wait.
    fn obtained(&self, _from: Obtained) {}
}

/// Where a result came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obtained {
    /// The vertex ran.
    Executed,
    /// It was loaded from the daemon's own records.
    Loaded,
    /// It was loaded from a cache that the build imported.
    Imported,
    /// Another vertex has the same key, and what comes of that one is the result of both.
    Merged,
}

/// The sink of a domain whose vertices nobody watches.
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

/// Who may answer for a running vertex: the sessions of all jobs interested in it, now and as more join.
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

    /// Returns the ids of the sessions there are now, in order of joining.
    pub fn ids(&self) -> Vec<String> {
        self.ids.borrow().clone()
    }

    /// Waits until the group differs from what it was when the last wait ended; never ends for a fixed group.
    pub async fn changed(&mut self) -> Vec<String> {
        if self.ids.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.ids.borrow_and_update().clone()
    }
}

/// Finds the first hint that a predicate accepts, the nearest vertex first.
pub(crate) type FindHint<D> = Arc<
    dyn Fn(&mut dyn FnMut(&<D as Domain>::Hint) -> bool) -> Option<<D as Domain>::Hint>
        + Send
        + Sync,
>;
pub(crate) type JobValues<D> = Arc<RwLock<Vec<Arc<<D as Domain>::Job>>>>;

/// What an op may use while it works.
pub struct OpCtx<D: Domain> {
    /// The vertex.
    pub vertex: Arc<Vertex<D>>,
    /// Where its progress is reported.
    pub sink: Arc<D::Sink>,
    /// Who may answer.
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

    /// Returns the values that the interested jobs were made with, in order of joining.
    pub fn job_values(&self) -> Vec<Arc<D::Job>> {
        self.values.read().clone()
    }

    /// Finds a hint that a cache map of this vertex, or the nearest below it, left. `is_wanted` is called while the scheduler
    /// is locked: it must only compare.
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
