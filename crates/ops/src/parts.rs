//! What all ops work with.

use std::sync::Arc;

use ::source::Sources;
use executor::Executor;
use executor::cdi::Devices;
use oci::Platform;
use session::{Group, SessionManager};
use solver::OpCtx;
use store::Store;
use task::{Permit, Permits};

use crate::cache_mounts::CacheMounts;
use crate::domain::BuildDomain;

/// What steps of this machine may use.
#[derive(Debug)]
pub struct StepLimits {
    /// Platforms that processes can run for.
    pub platforms: Vec<Platform>,
    /// Devices that steps may ask for; `None` when that is turned off.
    pub devices: Option<Arc<Devices>>,
    /// How many steps may run at a time, 0 for any number.
    pub max_parallelism: usize,
}

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
        } = limits;
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
