//! The executor, the stores and the devices that ops use.

use std::sync::Arc;

use ::source::Sources;
use executor::cdi::Devices;
use executor::{Executor, Resources};
use metrics::{NoLabels, Phase};
use oci::{Digest, Platform};
use session::{Group, SessionManager};
use solver::OpCtx;
use store::Store;
use task::Permit;

use crate::admission::{Admission, MemoryBudget, Running, Shortage};
use crate::cache_mounts::CacheMounts;
use crate::domain::BuildDomain;
use crate::nesting::NestedBuilds;

/// Devices and limits of this machine that steps may use.
#[derive(Debug, Default)]
pub struct StepLimits {
    /// Platforms that processes can run for.
    pub platforms: Vec<Platform>,
    /// Devices that steps may ask for; `None` when that is turned off.
    pub devices: Option<Arc<Devices>>,
    /// How many steps may run at a time, 0 for any number.
    pub max_parallelism: usize,
    /// What each step is limited to, unless it asks for less.
    pub resources: Resources,
    /// The memory that steps may use together; without, any.
    pub memory: Option<MemoryBudget>,
}

/// The executor, the stores and the devices that ops use.
#[derive(Debug)]
pub struct Parts {
    /// Where results are.
    pub store: Arc<Store>,
    /// Runs processes in containers.
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
    /// What each step is limited to, unless it asks for less.
    pub resources: Resources,
    admission: Admission,
    pub(crate) nested: NestedBuilds,
}

impl Parts {
    /// Puts the parts together.
    pub fn new(
        store: Arc<Store>,
        executor: Arc<dyn Executor>,
        sources: Arc<Sources>,
        sessions: Arc<SessionManager>,
        limits: StepLimits,
    ) -> Arc<Self> {
        let StepLimits {
            platforms,
            devices,
            max_parallelism,
            resources,
            memory,
        } = limits;
        Arc::new(Self {
            cache_mounts: CacheMounts::new(&store),
            store,
            executor,
            sources,
            sessions,
            platforms,
            devices,
            resources,
            admission: Admission::new(max_parallelism, memory),
            nested: NestedBuilds::default(),
        })
    }

    /// Waits until an operation on files may begin: for room in the state directory, and for its turn.
    pub(crate) async fn permit(&self) -> Permit {
        let _queued = metrics::STEPS_QUEUED.enter(NoLabels);
        let begun = task::clock::monotonic();
        self.store.make_room().await;
        let permit = self.admission.turn().await;
        metrics::PHASE_DURATION.observe(Phase::Queue, begun.elapsed());
        permit
    }

    /// Waits until a process may begin: for room in the state directory, for its turn, and for memory. `step`, `limit` and `waits`
    /// are those of [`Admission::begin`].
    pub(crate) async fn admit(
        &self,
        step: Digest,
        limit: u64,
        waits: impl FnOnce(Shortage),
    ) -> Running<'_> {
        let _queued = metrics::STEPS_QUEUED.enter(NoLabels);
        let begun = task::clock::monotonic();
        self.store.make_room().await;
        let running = self.admission.begin(step, limit, waits).await;
        metrics::PHASE_DURATION.observe(Phase::Queue, begun.elapsed());
        running
    }

    /// Returns the sessions that may answer for the vertex of `ctx`.
    pub fn group(&self, ctx: &OpCtx<BuildDomain>) -> Group {
        Group::new(Arc::clone(&self.sessions), ctx.sessions.ids())
    }
}
