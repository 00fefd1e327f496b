//! What one build owns.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use frontend::bridge::CacheImport;
use llb::pb;
use oci::Digest;
use ops::{BuildCacheMounts, BuildDomain, BuildRights};
use parking_lot::Mutex;
use progress::{Hub, VertexProgress, Writer};
use solver::{CacheManager, Edge, Job, OpCtx, Vertex};
use source::Memory;
use store::ImmutableRef;
use tokio::sync::watch;

use crate::api::{Failure, FailureKind, PolicyVerifier};
use crate::cache::Import;
use crate::engine::Engine;
use crate::failure::{Place, of_solve};
use crate::load::load;
use crate::policy::{self, Judge, Policy};
use crate::provenance::{Computed, capture};

/// One running build, shared by its bridge and its refs.
pub(crate) struct Build {
    pub(crate) engine: Arc<Engine>,
    pub(crate) session: String,
    pub(crate) hub: Arc<Hub>,
    /// What the build's sources found out.
    memory: Mutex<Arc<Memory>>,
    pub(crate) rights: BuildRights,
    /// The rules on its sources.
    pub(crate) policies: Vec<Arc<Policy>>,
    /// Who has a say in its sources.
    pub(crate) verifier: Option<Arc<dyn PolicyVerifier>>,
    job: Mutex<Option<Arc<Job<BuildDomain>>>>,
    /// What the build sees of cache mounts.
    cache_mounts: Mutex<Arc<BuildCacheMounts>>,
    ended: watch::Sender<bool>,
    places: Mutex<HashMap<Digest, Vec<Place>>>,
    /// The caches that its definitions were looked up in.
    pub(crate) imports: Mutex<HashMap<String, Import>>,
    /// What failed steps had and left, by the names that their errors give it.
    kept: Mutex<HashMap<String, ImmutableRef>>,
}

pub(crate) fn canceled() -> Failure {
    Failure::new(FailureKind::Canceled, "context canceled")
}

impl Build {
    pub(crate) fn new(
        engine: Arc<Engine>,
        session: String,
        hub: Arc<Hub>,
        memory: Arc<Memory>,
        rights: BuildRights,
        (policies, verifier): (Vec<Arc<Policy>>, Option<Arc<dyn PolicyVerifier>>),
        (job, cache_mounts): (Job<BuildDomain>, Arc<BuildCacheMounts>),
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            session,
            hub,
            memory: Mutex::new(memory),
            rights,
            policies,
            verifier,
            job: Mutex::new(Some(Arc::new(job))),
            cache_mounts: Mutex::new(cache_mounts),
            ended: watch::Sender::new(false),
            places: Mutex::default(),
            imports: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// Ends the build: what still runs for it is dropped, whoever still holds it.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
        drop(self.job.lock().take());
        // What it keeps in the store may go, whoever still holds the build.
        *self.memory.lock() = Memory::new();
        *self.cache_mounts.lock() = Arc::default();
        let kept = std::mem::take(&mut *self.kept.lock());
        drop(kept);
    }

    /// Keeps a ref of a failed step until the build ends, and returns its name; empty for nothing.
    pub(crate) fn keep(&self, found: &ops::Ref) -> String {
        let Some(found) = found else {
            return String::new();
        };
        let name = format!("{}::{}", self.engine.worker.id, found.id());
        if !*self.ended.borrow() {
            self.kept
                .lock()
                .entry(name.clone())
                .or_insert_with(|| found.clone());
        }
        name
    }

    /// The ref of a name that [`Build::keep`] gave.
    pub(crate) fn kept(&self, name: &str) -> Option<ImmutableRef> {
        self.kept.lock().get(name).cloned()
    }

    /// Runs `work` unless the build ends before.
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

    /// Computes what a definition wants, if its sources are allowed by the build's policies and by `more`.
    pub(crate) async fn compute(
        self: &Arc<Self>,
        definition: &Arc<pb::Definition>,
        more: &[Arc<Policy>],
        imports: &[CacheImport],
    ) -> Result<Computed, Failure> {
        let definition = match Judge::new(self, more) {
            None => Arc::clone(definition),
            Some(judge) => {
                let allowed = self.alive(policy::rewrite(&judge, definition)).await;
                allowed.map_err(|mut e| {
                    e.message = format!("failed to load LLB: {}", e.message);
                    e
                })?
            }
        };
        let (parts, rights) = (Arc::clone(&self.engine.parts), self.rights.clone());
        let load = move || load(&definition, &rights, parts.devices.as_deref());
        let loaded = task::blocking("load a definition", load).await?;
        self.places.lock().extend(loaded.places);
        self.forget_cache_mounts(loaded.unwanted).await?;
        let caches = self.alive(async { Ok(self.caches(imports).await) }).await?;
        self.alive(self.run(loaded.edge, &caches)).await
    }

    async fn forget_cache_mounts(&self, unwanted: HashMap<String, bool>) -> Result<(), Failure> {
        if unwanted.is_empty() {
            return Ok(());
        }
        let parts = Arc::clone(&self.engine.parts);
        let build = Arc::clone(&self.cache_mounts.lock());
        let forget = move || {
            unwanted
                .iter()
                .try_for_each(|(id, on_inputs)| parts.cache_mounts.forget(&build, id, *on_inputs))
        };
        let done = task::blocking("forget-cache-mounts", forget).await;
        done.map_err(|e| Failure::new(FailureKind::Unknown, e.to_string()))
    }

    async fn run(
        &self,
        edge: Edge<BuildDomain>,
        caches: &[Arc<CacheManager<BuildDomain>>],
    ) -> Result<Computed, Failure> {
        let job = self.job.lock().clone().ok_or_else(canceled)?;
        match job.build_from(edge, caches).await {
            Ok(built) => Ok(Computed {
                result: built.result,
                vertex: Some(built.vertex),
                keys: built.keys,
            }),
            Err(error) => Err(of_solve(
                &error,
                |vertex| self.places.lock().get(vertex).cloned().unwrap_or_default(),
                |found| self.keep(found),
            )),
        }
    }

    /// What went into a vertex that was computed; none when the build is over.
    pub(crate) fn captured(&self, vertex: &Vertex<BuildDomain>) -> Option<attest::Capture> {
        let job = self.job.lock().clone()?;
        Some(capture(&job, vertex))
    }

    /// The context in which results of a vertex are loaded.
    pub(crate) fn op_ctx(&self, vertex: &Vertex<BuildDomain>) -> Option<OpCtx<BuildDomain>> {
        let job = self.job.lock().clone()?;
        job.ctx(vertex)
    }

    /// Runs `work` as a vertex of its own that is in no definition.
    pub(crate) async fn shown<T, F>(
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
        let shown = VertexProgress::new(vertex);
        shown.start();
        shown.attach(&self.hub);
        let done = self.alive(work(shown.writer())).await;
        shown.complete(done.as_ref().err().map(|e| e.message.as_str()));
        done
    }

    /// What the build's sources found out.
    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory.lock())
    }

    /// The sessions that may answer for the build.
    pub(crate) fn sessions(&self) -> session::Group {
        session::Group::new(
            Arc::clone(&self.engine.parts.sessions),
            [self.session.clone()],
        )
    }
}
