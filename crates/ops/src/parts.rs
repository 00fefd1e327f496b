//! The daemon's parts that ops use: executor, stores, sources and devices.

use std::path::PathBuf;
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

use crate::admission::{Admission, AdmittedStep, MemoryBudget, Shortage};
use crate::cache_mounts::CacheMounts;
use crate::domain::BuildDomain;
use crate::nesting::NestedBuilds;

/// Devices and limits of this machine that steps may use.
#[derive(Debug, Default)]
pub struct StepLimits {
    /// Platforms that processes can run for.
    pub platforms: Vec<Platform>,
    /// Devices that steps may request; `None` if devices are turned off.
    pub devices: Option<Arc<Devices>>,
    /// Number of steps that run at a time, 0 for any number.
    pub max_parallelism: usize,
    /// Limits of each step; a step may request lower ones.
    pub resources: Resources,
    /// Memory that all steps together may use; none for any amount.
    pub memory: Option<MemoryBudget>,
    /// Where their spans are taken; none if nobody wants them.
    pub span_socket: Option<PathBuf>,
}

/// The daemon's parts that ops use.
#[derive(Debug)]
pub struct Parts {
    /// Stores refs and their metadata.
    pub store: Arc<Store>,
    /// Runs processes in containers.
    pub executor: Arc<dyn Executor>,
    /// Sources by scheme.
    pub sources: Arc<Sources>,
    /// Sessions of connected clients.
    pub sessions: Arc<SessionManager>,
    /// Platforms that processes can run for.
    pub platforms: Vec<Platform>,
    /// Devices that steps may request; `None` if devices are turned off.
    pub devices: Option<Arc<Devices>>,
    /// Cache mounts in use.
    pub cache_mounts: CacheMounts,
    /// Limits of each step; a step may request lower ones.
    pub resources: Resources,
    /// Where spans of steps are taken; none if nobody wants them.
    pub span_socket: Option<PathBuf>,
    admission: Admission,
    pub(crate) nested: NestedBuilds,
}

impl Parts {
    /// Combines the parts.
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
            span_socket,
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
            span_socket,
            admission: Admission::new(max_parallelism, memory),
            nested: NestedBuilds::default(),
        })
    }

    /// Waits until an operation on files may start: for space in the state directory and for a permit.
    pub(crate) async fn permit(&self) -> Permit {
        let _queued = metrics::STEPS_QUEUED.enter(NoLabels);
        let started = task::clock::monotonic();
        self.store.make_room().await;
        let permit = self.admission.permit().await;
        metrics::PHASE_DURATION.observe(Phase::Queue, started.elapsed());
        permit
    }

    /// Waits until a process may start: for space in the state directory, for a permit, and for memory. `step`, `limit` and `on_shortage`
    /// are those of [`Admission::begin`].
    pub(crate) async fn admit(
        &self,
        step: Digest,
        limit: u64,
        on_shortage: impl FnOnce(Shortage),
    ) -> AdmittedStep<'_> {
        let _queued = metrics::STEPS_QUEUED.enter(NoLabels);
        let started = task::clock::monotonic();
        self.store.make_room().await;
        let running = self.admission.begin(step, limit, on_shortage).await;
        metrics::PHASE_DURATION.observe(Phase::Queue, started.elapsed());
        running
    }

    /// Returns the sessions that may answer for the vertex of `ctx`.
    pub fn group(&self, ctx: &OpCtx<BuildDomain>) -> Group {
        Group::new(Arc::clone(&self.sessions), ctx.sessions.ids())
    }
}
