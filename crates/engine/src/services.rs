//! Parts of a daemon that all its builds share.

use std::collections::BTreeMap;
use std::sync::Arc;

use exporter::Exporters;
use frontend::bridge::WorkerInfo;
use ops::{BuildDomain, Parts};
use remotecache::Caches;
use solver::Solver;
use source::image::ImageSource;
use source::oci_layout::OciLayoutSource;
use task::Clock;

use crate::api::{SpanSink, VersionInfo};
use crate::attestation::Calls;
use crate::bridge::Frontends;
use crate::history::History;
use crate::maintain::Collector;

/// Parts of a daemon that all its builds share. A stage of a solve is given the parts that it needs, never all of this.
pub(crate) struct Services {
    pub(crate) parts: Arc<Parts>,
    pub(crate) exporters: Exporters,
    pub(crate) caches: Caches,
    pub(crate) images: ImageSource,
    pub(crate) layouts: OciLayoutSource,
    pub(crate) worker: WorkerInfo,
    pub(crate) version: VersionInfo,
    /// Entitlements that clients may ask for.
    pub(crate) entitlements: Vec<String>,
    /// Whether steps of all builds are on the proxy network.
    pub(crate) proxy_network: bool,
    pub(crate) frontends: Frontends,
    /// Values that the daemon's owner adds to provenance.
    pub(crate) provenance_env: BTreeMap<String, serde_json::Value>,
    pub(crate) solver: Solver<BuildDomain>,
    pub(crate) history: Arc<History>,
    /// Takes spans of clients; none drops them.
    pub(crate) spans: Option<Arc<dyn SpanSink>>,
    /// Calls of frontends in all running builds.
    pub(crate) calls: Arc<Calls>,
    pub(crate) clock: Clock,
    /// Threads on which source policies are evaluated.
    pub(crate) policy_pool: task::Pool,
    pub(crate) collector: Arc<Collector>,
}
