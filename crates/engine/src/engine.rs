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
use ops::{OpResolver, Parts, Results};
use remotecache::Caches;
use solver::{CacheManager, Solver};
use source::image::ImageSource;
use source::oci_layout::OciLayoutSource;
use store::GcPolicy;
use task::Clock;
use tokio::sync::watch;

use crate::api::{
    Backend, BlobLine, BuildRef, DeviceInfo, Failure, HistoryBlob, HistoryChange, HistoryEvent,
    HistoryQuery, PruneRequest, SolveRequest, SolveResponse, Span, UsageRecord, VersionInfo,
    WorkerRecord,
};
use crate::bridge::{DockerfileFrontend, Frontends};
use crate::build_log::BuildLog;
use crate::history::{History, HistorySettings};
use crate::maintain::{self, Collector};
use crate::observe::Progress;
use crate::services::Services;

/// Definitions whose sources are evaluated against policies at the same time.
const MAX_POLICY_EVALUATIONS: usize = 4;

/// The parts that an engine is composed of.
#[derive(Debug)]
pub struct EngineParts {
    /// What ops work with: store, executor, sources, sessions.
    pub parts: Arc<Parts>,
    /// Exporters by kind.
    pub exporters: Exporters,
    /// The remote caches that can be written and read.
    pub caches: Caches,
    /// Images of registries; the one that `parts` knows too.
    pub images: ImageSource,
    /// Images in stores of clients; the one that `parts` knows too.
    pub layouts: OciLayoutSource,
    /// Id, labels and platforms of the worker.
    pub worker: WorkerInfo,
    /// Versions that clients are shown.
    pub version: VersionInfo,
    /// Settings of builds.
    pub settings: Settings,
}

/// Settings of builds, from the daemon's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Entitlements that clients may ask for, such as `network.host`.
    pub entitlements: Vec<String>,
    /// Whether steps of all builds are on the proxy network.
    pub proxy_network: bool,
    /// Rules of garbage collection; an empty list collects nothing.
    pub gc_policies: Vec<GcPolicy>,
    /// Serves the bridge to frontends from images; none refuses such frontends.
    pub frontend_host: Option<Arc<dyn FrontendHost>>,
    /// Repositories that frontends may come from; empty for all.
    pub frontend_repositories: Vec<String>,
    /// How many records of finished builds are kept, and where.
    pub history: HistorySettings,
    /// The Dockerfile frontend that is built in.
    pub dockerfile: DockerfileFrontend,
    /// Values that the daemon's owner adds to provenance.
    pub provenance_env: std::collections::BTreeMap<String, serde_json::Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entitlements: Vec::new(),
            proxy_network: false,
            gc_policies: Vec::new(),
            frontend_host: None,
            frontend_repositories: Vec::new(),
            history: HistorySettings::default(),
            dockerfile: DockerfileFrontend::On {
                answers_syntax: true,
            },
            provenance_env: std::collections::BTreeMap::new(),
        }
    }
}

/// Runs builds. There is one in a daemon.
pub struct Engine {
    services: Arc<Services>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("worker", &self.services.worker)
            .field("frontends", &self.services.frontends)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Composes an engine.
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
        let cache = CacheManager::open("local", store.key_store(), Results::new(Arc::clone(store)));
        let resolver = Arc::new(OpResolver::new(Arc::clone(&parts)));
        let solver = Solver::new(resolver, cache, Arc::new(Progress));
        let clock = Clock::real();
        let spans = settings.history.spans.clone();
        let history = History::new(clock.clone(), store, &settings.history);
        let collector = Collector::new(store, settings.gc_policies, clock.clone());
        let services = Services {
            parts,
            exporters,
            caches,
            images,
            layouts,
            worker,
            version,
            entitlements: settings.entitlements,
            proxy_network: settings.proxy_network,
            frontends: Frontends {
                dockerfile: settings.dockerfile,
                host: settings.frontend_host,
                repositories: settings.frontend_repositories,
            },
            provenance_env: settings.provenance_env,
            solver,
            history,
            spans,
            calls: Arc::default(),
            clock,
            policy_pool: task::Pool::new("source policies", MAX_POLICY_EVALUATIONS),
            collector,
        };
        Arc::new(Self {
            services: Arc::new(services),
        })
    }

    /// What all builds of the daemon share.
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Ends the running builds, refuses new ones, and returns when the records of all are written. The store must stay
    /// open until then.
    pub async fn close(&self) {
        self.services.history.close().await;
    }
}

#[async_trait]
impl Backend for Engine {
    async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Failure> {
        let log = BuildLog::begin(&self.services.clock, &request);
        log.watch(Box::pin(crate::solve::solve(&self.services, request)))
            .await
    }

    async fn status(&self, build: &BuildRef) -> Result<progress::Subscription, Failure> {
        self.services.history.status(build).await
    }

    async fn workers(&self, filters: &[String]) -> Result<Vec<WorkerRecord>, Failure> {
        let filters = store::Filters::parse(filters)
            .map_err(|e| Failure::from(store::StoreError::from(e)))?;
        let worker = &self.services.worker;
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
        let parts = Arc::clone(&self.services.parts);
        let list = move || parts.devices.as_ref().map(|devices| devices.list());
        let devices = task::blocking("devices", list).await.unwrap_or_default();
        let devices = devices.into_iter().map(|device| DeviceInfo {
            name: device.name,
            auto_allow: device.auto_allow,
            annotations: device.annotations,
            ..DeviceInfo::default()
        });
        Ok(vec![WorkerRecord {
            info: worker.clone(),
            gc_policy: self.services.collector.rules(),
            devices: devices.collect(),
        }])
    }

    fn version(&self) -> VersionInfo {
        self.services.version.clone()
    }

    async fn disk_usage(
        &self,
        filters: &[String],
        age_limit: Duration,
    ) -> Result<Vec<UsageRecord>, Failure> {
        let (store, filters) = (Arc::clone(&self.services.parts.store), filters.to_vec());
        let records =
            task::blocking("disk usage", move || store.disk_usage(&filters, age_limit)).await?;
        Ok(records.into_iter().map(maintain::usage).collect())
    }

    async fn prune(
        &self,
        request: PruneRequest,
    ) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure> {
        maintain::prune(&self.services.parts.store, request)
    }

    async fn history(
        &self,
        query: HistoryQuery,
    ) -> Result<BoxStream<'static, Result<HistoryEvent, Failure>>, Failure> {
        self.services.history.listen(&query).await
    }

    async fn update_history(&self, build: &BuildRef, change: HistoryChange) -> Result<(), Failure> {
        self.services.history.update(build, change).await
    }

    async fn history_blob(&self, digest: &Digest) -> Result<HistoryBlob, Failure> {
        crate::blobs::open(&self.services.parts.store, digest).await
    }

    async fn list_blobs(&self, after: &str, limit: u32) -> Result<Vec<BlobLine>, Failure> {
        crate::blobs::list(&self.services.parts.store, after, limit).await
    }

    fn draining(&self) -> Option<watch::Receiver<bool>> {
        Some(self.services.history.draining())
    }

    fn add_step_spans(&self, spans: Vec<Span>, encoded: Bytes) -> bool {
        if !self.services.history.add_step_spans(spans) {
            return false;
        }
        if let Some(sink) = &self.services.spans {
            sink.forward(vec![encoded]);
        }
        true
    }

    async fn export_spans(&self, spans: Vec<Bytes>) -> Result<(), Failure> {
        // As with BuildKit, a client need not know whether anybody collects them.
        if let Some(sink) = &self.services.spans {
            sink.forward(spans);
        }
        Ok(())
    }
}
