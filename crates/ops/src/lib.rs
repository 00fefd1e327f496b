//! What each op does and what its cache map is.
//!
//! | module | op |
//! |---|---|
//! | [`exec`] | a process in a container, over mounts of its inputs |
//! | [`file`] | copies, folders, files, links, removals |
//! | [`source`](mod@source_op) | the roots of the graph |
//! | [`combine`] | merge, diff and passthrough |
//!
//! Each op's module for its key opens with the table of what feeds the digest. [`OpResolver`] finds the op of a vertex;
//! [`Results`] keeps results by the name of their ref.
//!
//! Invariants: an op never reads the clock or the environment; secrets have no part in keys; a container is only made
//! with the rights that [`BuildRights`] grant.

pub mod callers;
pub mod combine;
pub mod content;
mod domain;
pub mod exec;
mod failure;
pub mod file;
mod gojson;
mod job_value;
mod resolver;
mod results;
pub mod source_op;

use std::sync::Arc;

use ::source::Sources;
use async_trait::async_trait;
use executor::cdi::Devices;
use executor::{Entitlements, Executor};
use oci::{Digest, Platform};
use progress::WriterSource as _;
use session::{Group, SessionManager};
use solver::{CacheMap, CacheMapDep, OpCtx, OpError, Preprocess};
use store::{ImmutableRef, Store};
use task::{Permit, Permits};

pub use domain::{BuildDomain, LayerHint, ProgressSink};
pub use exec::{BuildCacheMounts, CacheMounts};
pub use failure::OpFailure;
pub use fstree::{PathError, Root};
pub use job_value::JobValue;
pub use resolver::{BuildOp, OpResolver, OpSys};
pub use results::Results;

/// A result: a ref, or nothing at all for scratch.
pub type Ref = Option<ImmutableRef>;

/// What ops work with.
#[derive(Debug)]
pub struct Parts {
    /// Where results are.
    pub store: Arc<Store>,
    /// What runs processes.
    pub executor: Arc<dyn Executor>,
    /// The roots that are known.
    pub sources: Arc<Sources>,
    /// The clients that are connected.
    pub sessions: Arc<SessionManager>,
    /// Platforms that processes can run for.
    pub platforms: Vec<Platform>,
    /// Devices that steps may ask for; `None` when that is turned off.
    pub devices: Option<Arc<Devices>>,
    /// Cache mounts in use.
    pub cache_mounts: CacheMounts,
    permits: Permits,
}

impl Parts {
    /// Puts the parts together. `max_parallelism` is how many steps may run at a time, 0 for any number.
    pub fn new(
        store: Arc<Store>,
        executor: Arc<dyn Executor>,
        sources: Arc<Sources>,
        sessions: Arc<SessionManager>,
        platforms: Vec<Platform>,
        devices: Option<Arc<Devices>>,
        max_parallelism: usize,
    ) -> Arc<Self> {
        let permits = if max_parallelism == 0 {
            Permits::unlimited()
        } else {
            Permits::new(max_parallelism)
        };
        Arc::new(Self {
            cache_mounts: CacheMounts::new(&store),
            store,
            executor,
            sources,
            sessions,
            platforms,
            devices,
            permits,
        })
    }

    /// Waits until a step may begin: for room in the state directory, and for its turn.
    pub(crate) async fn permit(&self) -> Permit {
        self.store.make_room().await;
        self.permits.acquire().await
    }

    /// Returns the sessions that may answer for the vertex of `ctx`.
    pub fn group(&self, ctx: &OpCtx<BuildDomain>) -> Group {
        Group::new(Arc::clone(&self.sessions), ctx.sessions.ids())
    }
}

/// What the build that a vertex belongs to was granted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildRights {
    /// Asked for by the client and allowed by the daemon.
    pub entitlements: Entitlements,
}

/// A cache map before it is tied to the solver: what the formulas give, to be tested as values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlan {
    /// Digest of all that decides the output except the inputs.
    pub digest: Digest,
    /// What each input adds.
    pub deps: Vec<DepPlan>,
}

/// What one input adds to a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DepPlan {
    /// Restricts matches by the input's own key.
    pub selector: Option<Digest>,
    /// What of the input's content is a key of its own; empty is all of it.
    pub content: Option<Vec<content::Selector>>,
}

impl KeyPlan {
    /// Makes the solver's cache map. With `unlazy` the inputs are made real before the op runs.
    pub fn into_cache_map(self, unlazy: bool) -> CacheMap<BuildDomain> {
        let deps = self
            .deps
            .into_iter()
            .map(|dep| CacheMapDep {
                selector: dep.selector,
                slow: dep
                    .content
                    .map(|selectors| Arc::new(content::ContentKey::new(selectors)) as _),
                preprocess: unlazy.then(|| Arc::new(Unlazy) as _),
            })
            .collect();
        CacheMap {
            digest: self.digest,
            deps,
            hints: Vec::new(),
        }
    }
}

/// Pulls and unpacks an input before it is used.
#[derive(Debug)]
struct Unlazy;

#[async_trait]
impl Preprocess<BuildDomain> for Unlazy {
    async fn run(&self, ctx: &OpCtx<BuildDomain>, input: &Ref) -> Result<(), OpError> {
        if let Some(input) = input {
            ensure(ctx, input).await?;
        }
        Ok(())
    }
}

/// Pulls and unpacks `input` if it is lazy.
pub(crate) async fn ensure(
    _ctx: &OpCtx<BuildDomain>,
    input: &ImmutableRef,
) -> Result<(), OpFailure> {
    Ok(input.ensure().await?)
}

/// Returns where the vertex of `ctx` reports its progress.
pub fn writer(ctx: &OpCtx<BuildDomain>) -> progress::Writer {
    ctx.sink.writer()
}
