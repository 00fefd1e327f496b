//! What everything that works for one build may use of it: its job, its progress, its clients, its rights.
//!
//! A scope knows nothing of the daemon. Whoever needs more (an executor, a store, caches) is made with it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use oci::Digest;
use ops::{BuildCacheMounts, BuildDomain, BuildRights, LoaderSlot, RequestPolicySlot};
use parking_lot::Mutex;
use progress::{Event, Hub, VertexProgress, Writer};
use solver::{Job, OpCtx, Vertex};
use source::ResolvedSources;
use store::ImmutableRef;
use tokio::sync::watch;

use crate::api::{Failure, FailureKind, SessionId};
use crate::spans::BuildTrace;

/// The parts that a scope is made of.
pub(crate) struct ScopeParts {
    /// The id of the client's session; empty for none.
    pub(crate) session: SessionId,
    /// The sessions that may answer for the build.
    pub(crate) sessions: session::Group,
    /// The id of the worker, a part of the names of failed steps' refs.
    pub(crate) worker_id: String,
    /// The hub of the build's progress.
    pub(crate) hub: Arc<Hub>,
    /// The rights that the client was granted.
    pub(crate) rights: BuildRights,
    /// Digests and revisions to which the build's sources were resolved.
    pub(crate) resolved_sources: Arc<ResolvedSources>,
    /// The instances of cache mounts that the build uses.
    pub(crate) cache_mounts: Arc<BuildCacheMounts>,
    /// Loads definitions that its steps produce; set once the evaluator exists.
    pub(crate) nested: Arc<LoaderSlot>,
    /// Whether the build's steps are on the proxy network.
    pub(crate) on_proxy_network: bool,
    /// Decides on requests of the build's steps.
    pub(crate) request_policy: Arc<RequestPolicySlot>,
    /// The build's trace.
    pub(crate) trace: Arc<BuildTrace>,
    /// The build's job in the solver.
    pub(crate) job: Job<BuildDomain>,
}

/// One running build, shared by all parts that work for it. It ends with [`BuildScope::end`], whoever still holds it.
pub(crate) struct BuildScope {
    session: SessionId,
    sessions: session::Group,
    worker_id: String,
    hub: Arc<Hub>,
    rights: BuildRights,
    resolved_sources: Mutex<Arc<ResolvedSources>>,
    cache_mounts: Mutex<Arc<BuildCacheMounts>>,
    nested: Arc<LoaderSlot>,
    on_proxy_network: bool,
    request_policy: Arc<RequestPolicySlot>,
    trace: Arc<BuildTrace>,
    job: Mutex<Option<Arc<Job<BuildDomain>>>>,
    ended: watch::Sender<bool>,
    /// Inputs and mounts of failed steps, until the build ends, by the names that errors carry.
    failed_refs: Mutex<HashMap<String, ImmutableRef>>,
}

/// The failure of calls for a build that has ended, or whose client left.
pub(crate) fn canceled() -> Failure {
    Failure::new(FailureKind::Canceled, "context canceled")
}

impl BuildScope {
    pub(crate) fn new(parts: ScopeParts) -> Arc<Self> {
        let ScopeParts {
            session,
            sessions,
            worker_id,
            hub,
            rights,
            resolved_sources,
            cache_mounts,
            nested,
            on_proxy_network,
            request_policy,
            trace,
            job,
        } = parts;
        Arc::new(Self {
            session,
            sessions,
            worker_id,
            hub,
            rights,
            resolved_sources: Mutex::new(resolved_sources),
            cache_mounts: Mutex::new(cache_mounts),
            nested,
            on_proxy_network,
            request_policy,
            trace,
            job: Mutex::new(Some(Arc::new(job))),
            ended: watch::Sender::new(false),
            failed_refs: Mutex::default(),
        })
    }

    /// The slot for the loader of definitions that the build's steps produce.
    pub(crate) fn nested(&self) -> &LoaderSlot {
        &self.nested
    }

    /// The build's trace.
    pub(crate) fn trace(&self) -> &BuildTrace {
        &self.trace
    }

    /// Ends the build: work that still runs for it is dropped, whoever still holds it.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
        drop(self.job.lock().take());
        // What the build keeps in the store is released here, because frontends may hold the scope longer.
        *self.resolved_sources.lock() = ResolvedSources::new();
        *self.cache_mounts.lock() = Arc::default();
        self.request_policy.clear();
        let failed_refs = std::mem::take(&mut *self.failed_refs.lock());
        drop(failed_refs);
    }

    /// Runs `work` until the build ends, which cancels it.
    pub(crate) async fn alive<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut ended = self.ended.subscribe();
        tokio::select! {
            biased;
            _ = ended.wait_for(|ended| *ended) => Err(canceled()),
            done = work => done,
        }
    }

    /// Runs `work` as a vertex that is in no definition. The vertex is named by `id`, or by `name` where `id` is empty.
    pub(crate) async fn run_as_vertex<T, F>(
        &self,
        name: &str,
        id: &str,
        work: impl FnOnce(Writer) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let id = if id.is_empty() { name } else { id };
        let vertex = progress::Vertex::new(Digest::sha256(id.as_bytes()), name, Vec::new());
        let vertex = VertexProgress::new(vertex);
        vertex.start();
        vertex.attach(&self.hub);
        let outcome = self.alive(work(vertex.writer())).await;
        vertex.complete(outcome.as_ref().err().map(Failure::message).as_deref());
        outcome
    }

    /// Publishes an event to all readers of the build's progress.
    pub(crate) fn publish(&self, event: Event) {
        self.hub.publish(event);
    }

    /// The build's job in the solver; an error once the build has ended.
    pub(crate) fn job(&self) -> Result<Arc<Job<BuildDomain>>, Failure> {
        self.job.lock().clone().ok_or_else(canceled)
    }

    /// The context in which results of a vertex are loaded; none once the build has ended.
    pub(crate) fn op_ctx(&self, vertex: &Vertex<BuildDomain>) -> Option<OpCtx<BuildDomain>> {
        self.job().ok()?.ctx(vertex)
    }

    /// The id of the client's session; empty for none.
    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    /// The sessions that may answer for the build.
    pub(crate) fn sessions(&self) -> session::Group {
        self.sessions.clone()
    }

    /// The rights that the client was granted.
    pub(crate) fn rights(&self) -> &BuildRights {
        &self.rights
    }

    /// Whether the build's steps are on the proxy network.
    pub(crate) fn on_proxy_network(&self) -> bool {
        self.on_proxy_network
    }

    /// Sets the policy for requests of the build's steps.
    pub(crate) fn set_request_policy(&self, policy: Arc<dyn proxy::RequestPolicy>) {
        if !*self.ended.borrow() {
            self.request_policy.set(policy);
        }
    }

    /// The policy for requests of the build's steps.
    pub(crate) fn request_policy(&self) -> Option<Arc<dyn proxy::RequestPolicy>> {
        self.request_policy.get()
    }

    /// Digests and revisions to which the build's sources were resolved.
    pub(crate) fn resolved_sources(&self) -> Arc<ResolvedSources> {
        Arc::clone(&self.resolved_sources.lock())
    }

    /// The instances of cache mounts that the build uses.
    pub(crate) fn cache_mounts(&self) -> Arc<BuildCacheMounts> {
        Arc::clone(&self.cache_mounts.lock())
    }

    /// Keeps a ref of a failed step until the build ends, and returns its name; empty if there is no ref.
    pub(crate) fn keep_failed(&self, tree: &ops::Ref) -> String {
        let Some(tree) = tree else {
            return String::new();
        };
        let name = format!("{}::{}", self.worker_id, tree.id());
        if !*self.ended.borrow() {
            self.failed_refs
                .lock()
                .entry(name.clone())
                .or_insert_with(|| tree.clone());
        }
        name
    }

    /// The ref with a name that [`BuildScope::keep_failed`] returned.
    pub(crate) fn failed_ref(&self, name: &str) -> Option<ImmutableRef> {
        self.failed_refs.lock().get(name).cloned()
    }
}
