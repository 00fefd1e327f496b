//! What a vertex does, as the solver sees it.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use oci::Digest;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::error::OpError;
use crate::job::SubBuilder;
use crate::vertex::Vertex;

/// How a vertex is cached and computed.
#[async_trait]
pub trait Op<R>: Send + Sync {
    /// Returns cache map number `index` and whether it is the last. Only ops without inputs may have several.
    async fn cache_map(&self, ctx: &OpCtx, index: usize) -> Result<(CacheMap<R>, bool), OpError>;
    /// Computes all outputs.
    async fn exec(&self, ctx: &OpCtx, inputs: Vec<R>) -> Result<Vec<R>, OpError>;
    /// Returns itself for those who know its type (provenance).
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// Finds the op of a vertex.
pub trait Resolver<R>: Send + Sync {
    /// Returns the op. `builder` lets an op that solves something itself do so as a part of this vertex.
    fn resolve(
        &self,
        vertex: &Arc<Vertex>,
        builder: SubBuilder<R>,
    ) -> Result<Arc<dyn Op<R>>, OpError>;
}

/// How the results of an op are found again.
pub struct CacheMap<R> {
    /// Digest of all that decides the output except the inputs.
    pub digest: Digest,
    /// One entry per input.
    pub deps: Vec<CacheMapDep<R>>,
    /// What loads of results may need; has no part in keys.
    pub opts: OpOpts,
}

/// How one input takes part in the key.
pub struct CacheMapDep<R> {
    /// Restricts a match by the input's own key to ops that read the same part of it.
    pub selector: Option<Digest>,
    /// Computes a key from the input's content.
    pub slow: Option<Arc<dyn SlowKey<R>>>,
    /// Runs on the input before the op uses it (makes a lazy ref real).
    pub preprocess: Option<Arc<dyn Preprocess<R>>>,
}

/// Computes a key from the content of an input.
#[async_trait]
pub trait SlowKey<R>: Send + Sync {
    /// Returns the digest.
    async fn digest(&self, ctx: &OpCtx, input: &R) -> Result<Digest, OpError>;
}

/// Prepares an input.
#[async_trait]
pub trait Preprocess<R>: Send + Sync {
    /// Does it; `ctx` is that of the vertex that made the input.
    async fn run(&self, ctx: &OpCtx, input: &R) -> Result<(), OpError>;
}

impl<R> CacheMap<R> {
    /// Makes a cache map of an op with `deps` inputs that takes part by key only.
    pub fn new(digest: Digest, deps: usize) -> Self {
        Self {
            digest,
            deps: (0..deps).map(|_| CacheMapDep::default()).collect(),
            opts: OpOpts::default(),
        }
    }
}

impl<R> Default for CacheMapDep<R> {
    fn default() -> Self {
        Self {
            selector: None,
            slow: None,
            preprocess: None,
        }
    }
}

impl<R> fmt::Debug for CacheMap<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMap")
            .field("digest", &self.digest)
            .field("deps", &self.deps)
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for CacheMapDep<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheMapDep")
            .field("selector", &self.selector)
            .field("slow", &self.slow.is_some())
            .field("preprocess", &self.preprocess.is_some())
            .finish()
    }
}

/// Named values that an op leaves for loads of its results, e.g. who can provide a lazy blob.
#[derive(Clone, Default)]
pub struct OpOpts(HashMap<String, Arc<dyn Any + Send + Sync>>);

impl OpOpts {
    /// Adds a value.
    #[must_use]
    pub fn with<T: Any + Send + Sync>(mut self, name: impl Into<String>, value: T) -> Self {
        self.0.insert(name.into(), Arc::new(value));
        self
    }

    /// Returns a value by name and type.
    pub fn get<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        Arc::downcast(Arc::clone(self.0.get(name)?)).ok()
    }

    pub(crate) fn any(&self, name: &str) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.get(name).cloned()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for OpOpts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where what happens to a vertex is told.
pub trait VertexSink: Send + Sync {
    /// A job with this value became interested; it should learn everything said so far.
    fn attach(&self, job: &Arc<dyn Any + Send + Sync>);
    /// Work on the vertex begins; `cached` when a known result is being loaded.
    fn started(&self, cached: bool);
    /// The work ended.
    fn completed(&self, error: Option<&str>, cached: bool);
    /// The op wrote something (1 is standard output, 2 standard error).
    fn log(&self, stream: i64, data: &[u8]);
    /// Returns what the ops crates know to be behind the sink.
    fn any(&self) -> &(dyn Any + Send + Sync);
}

/// Makes sinks.
pub trait Observer: Send + Sync {
    /// Returns the sink for a vertex that is being loaded; its digest is the one to show.
    fn vertex(&self, vertex: &Arc<Vertex>) -> Arc<dyn VertexSink>;
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullObserver;

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

impl Observer for NullObserver {
    fn vertex(&self, _vertex: &Arc<Vertex>) -> Arc<dyn VertexSink> {
        Arc::new(NullSink)
    }
}

impl VertexSink for NullSink {
    fn attach(&self, _job: &Arc<dyn Any + Send + Sync>) {}
    fn started(&self, _cached: bool) {}
    fn completed(&self, _error: Option<&str>, _cached: bool) {}
    fn log(&self, _stream: i64, _data: &[u8]) {}
    fn any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
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
        let (to, from) = watch::channel(ids);
        Self {
            ids: from,
            _fixed: Some(Arc::new(to)),
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

pub(crate) type FindOpts = Arc<dyn Fn(&str) -> Option<Arc<dyn Any + Send + Sync>> + Send + Sync>;
pub(crate) type JobValues = Arc<RwLock<Vec<Arc<dyn Any + Send + Sync>>>>;

/// What an op may use while it works.
#[derive(Clone)]
pub struct OpCtx {
    /// The vertex.
    pub vertex: Arc<Vertex>,
    /// Where to tell how it goes.
    pub sink: Arc<dyn VertexSink>,
    /// Who may answer.
    pub sessions: SessionGroup,
    pub(crate) values: JobValues,
    pub(crate) opts: Option<FindOpts>,
}

impl OpCtx {
    /// Makes a context outside a solver, for tests and one-off calls.
    pub fn detached(vertex: Arc<Vertex>, sink: Arc<dyn VertexSink>, sessions: Vec<String>) -> Self {
        Self {
            vertex,
            sink,
            sessions: SessionGroup::fixed(sessions),
            values: JobValues::default(),
            opts: None,
        }
    }

    /// Returns the values that the interested jobs were made with, in order of joining.
    pub fn job_values(&self) -> Vec<Arc<dyn Any + Send + Sync>> {
        self.values.read().clone()
    }

    /// Finds an option that a cache map of this vertex, or the nearest below it, left.
    pub fn opt<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        Arc::downcast(self.opts.as_ref()?(name)?).ok()
    }
}

impl fmt::Debug for OpCtx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpCtx")
            .field("vertex", &self.vertex.digest)
            .field("sessions", &self.sessions.ids())
            .finish_non_exhaustive()
    }
}
