//! The parts of a daemon, put together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use exporter::Exporters;
use frontend::bridge::WorkerInfo;
use frontend::gateway_image::FrontendHost;
use futures::stream::BoxStream;
use oci::Digest;
use ops::{BuildDomain, OpResolver, Parts, Results};
use remotecache::Caches;
use solver::{CacheManager, Solver};
use source::image::ImageSource;
use source::oci_layout::OciLayoutSource;
use store::GcPolicy;
use task::Clock;

use crate::api::{
    Backend, BlobLine, DeviceInfo, Failure, FailureKind, HistoryBlob, HistoryChange, HistoryEvent,
    HistoryQuery, PruneRequest, SolveRequest, SolveResponse, UsageRecord, VersionInfo,
    WorkerRecord,
};
use crate::history::{History, HistorySettings};
use crate::maintain::{self, Collections};
use crate::observe::Progress;
use crate::provenance::Requests;

/// Definitions whose sources are judged at the same time.
const JUDGING: usize = 4;

/// What an engine is made of.
#[derive(Debug)]
pub struct EngineParts {
    /// What ops work with: store, executor, sources, sessions.
    pub parts: Arc<Parts>,
    /// The outputs that are known.
    pub exporters: Exporters,
    /// The remote caches that can be written and read.
    pub caches: Caches,
    /// Images of registries; the one that `parts` knows too.
    pub images: ImageSource,
    /// Images in stores of clients; the one that `parts` knows too.
    pub layouts: OciLayoutSource,
    /// Id, labels and platforms of the worker.
    pub worker: WorkerInfo,
    /// What this daemon is.
    pub version: VersionInfo,
    /// What the daemon's configuration says.
    pub settings: Settings,
}

/// What the daemon's configuration says about builds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Entitlements that clients may ask for, such as `network.host`.
    pub entitlements: Vec<String>,
    /// Rules of garbage collection, none for no collection.
    pub gc_policies: Vec<GcPolicy>,
    /// Speaks to frontends from images; none if there are none.
    pub frontend_host: Option<Arc<dyn FrontendHost>>,
    /// Repositories that frontends may come from; none for all.
    pub frontend_repositories: Vec<String>,
    /// What is kept of finished builds.
    pub history: HistorySettings,
    /// Whether the Dockerfile frontend is enabled.
    pub dockerfile: bool,
    /// Whether it answers `# syntax=docker/dockerfile:…` itself.
    pub answers_syntax: bool,
    /// What the daemon's owner adds to provenance.
    pub provenance_env: std::collections::BTreeMap<String, serde_json::Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entitlements: Vec::new(),
            gc_policies: Vec::new(),
            frontend_host: None,
            frontend_repositories: Vec::new(),
            history: HistorySettings::default(),
            dockerfile: true,
            answers_syntax: true,
            provenance_env: std::collections::BTreeMap::new(),
        }
    }
}

/// Runs builds. There is one in a daemon.
pub struct Engine {
    pub(crate) parts: Arc<Parts>,
    pub(crate) exporters: Exporters,
    pub(crate) caches: Caches,
    pub(crate) images: ImageSource,
    pub(crate) layouts: OciLayoutSource,
    pub(crate) worker: WorkerInfo,
    pub(crate) settings: Settings,
    pub(crate) solver: Solver<BuildDomain>,
    pub(crate) history: Arc<History>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) clock: Clock,
    /// Where sources are judged.
    pub(crate) judging: task::Pool,
    pub(crate) collections: Arc<Collections>,
    pub(crate) version: VersionInfo,
    this: std::sync::Weak<Self>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("worker", &self.worker)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Puts the parts together.
    #[must_use]
    pub fn new(from: EngineParts) -> Arc<Self> {
        let EngineParts {
            parts,
            exporters,
            caches,
            images,
            layouts,
            worker,
            version,
            settings,
        } = from;
        let store = &parts.store;
        store.set_budget(settings.gc_policies.clone());
        let cache = CacheManager::new("local", store.key_store(), Results::new(Arc::clone(store)));
        let resolver = Arc::new(OpResolver::new(Arc::clone(&parts)));
        let solver = Solver::new(resolver, cache, Arc::new(Progress));
        let clock = Clock::real();
        let history = History::new(clock.clone(), store, &settings.history);
        Arc::new_cyclic(|this| Self {
            parts,
            exporters,
            caches,
            images,
            layouts,
            worker,
            settings,
            solver,
            history,
            requests: Arc::default(),
            clock,
            judging: task::Pool::new("source policies", JUDGING),
            collections: Arc::default(),
            version,
            this: this.clone(),
        })
    }

    /// Ends the builds that run, refuses further ones, and returns when the records of all are written down. The store must be
    /// open until then.
    pub async fn close(&self) {
        self.history.close().await;
    }

    fn shared(&self) -> Result<Arc<Self>, Failure> {
        self.this
            .upgrade()
            .ok_or_else(|| Failure::new(FailureKind::Unavailable, "the daemon is stopping"))
    }
}

#[async_trait]
impl Backend for Engine {
    async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Failure> {
        crate::solve::solve(self.shared()?, request).await
    }

    async fn status(&self, build: &str) -> Result<progress::Subscription, Failure> {
        self.history.status(build).await
    }

    async fn workers(&self, filters: &[String]) -> Result<Vec<WorkerRecord>, Failure> {
        let filters = store::Filters::parse(filters)
            .map_err(|e| Failure::from(store::StoreError::from(e)))?;
        let worker = &self.worker;
        let fits = filters.matches(|path| match path.first().map(String::as_str) {
            Some("id") => Some(worker.id.clone()),
            Some("labels") => worker
                .labels
                .get(&path.get(1..).unwrap_or_default().join("."))
                .cloned(),
            _ => None,
        });
        if !fits {
            return Ok(Vec::new());
        }
        let parts = Arc::clone(&self.parts);
        let list = move || parts.devices.as_ref().map(|devices| devices.list());
        let devices = task::blocking("devices", list).await.unwrap_or_default();
        let devices = devices.into_iter().map(|device| DeviceInfo {
            name: device.name,
            auto_allow: device.auto_allow,
            annotations: device.annotations,
            ..DeviceInfo::default()
        });
        let gc_policy = self
            .settings
            .gc_policies
            .iter()
            .map(|p| maintain::rule(p, &self.parts.store))
            .collect();
        Ok(vec![WorkerRecord {
            info: worker.clone(),
            gc_policy,
            devices: devices.collect(),
        }])
    }

    fn version(&self) -> VersionInfo {
        self.version.clone()
    }

    async fn disk_usage(
        &self,
        filters: &[String],
        age_limit: Duration,
    ) -> Result<Vec<UsageRecord>, Failure> {
        let (store, filters) = (Arc::clone(&self.parts.store), filters.to_vec());
        let found =
            task::blocking("disk usage", move || store.disk_usage(&filters, age_limit)).await?;
        Ok(found.into_iter().map(maintain::usage).collect())
    }

    async fn prune(
        &self,
        request: PruneRequest,
    ) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure> {
        maintain::prune(&self.parts.store, request)
    }

    async fn history(
        &self,
        query: HistoryQuery,
    ) -> Result<BoxStream<'static, Result<HistoryEvent, Failure>>, Failure> {
        self.history.listen(&query).await
    }

    async fn update_history(&self, build: &str, change: HistoryChange) -> Result<(), Failure> {
        self.history.update(build, change).await
    }

    async fn history_blob(&self, digest: &Digest) -> Result<HistoryBlob, Failure> {
        crate::blobs::open(&self.parts.store, digest).await
    }

    async fn list_blobs(&self, after: &str, limit: u32) -> Result<Vec<BlobLine>, Failure> {
        crate::blobs::list(&self.parts.store, after, limit).await
    }

    async fn export_spans(&self, _spans: Vec<Bytes>) -> Result<(), Failure> {
        Err(Failure::not_built("collecting traces"))
    }
}
