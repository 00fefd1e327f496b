//! Stage 1: a request is checked and its exporters, caches and rights resolved, before anything runs.

use std::sync::Arc;

use attest::Attests;
use exporter::{ExporterInstance, Exporters};
use ops::BuildRights;
use remotecache::Caches;
use session::Group;

use crate::api::{ExporterSpec, Failure, SolveRequest};
use crate::cache_export::CacheExports;
use crate::policy::Policy;
use crate::rights;

/// How options begin by which clients ask for a container beside the build, whatever the frontend is.
const SERVICE_PREFIX: &str = "service:";

/// The part of a daemon's configuration that decides which requests it admits.
pub(crate) struct Admission<'a> {
    /// Exporters of this daemon, by kind.
    pub(crate) exporters: &'a Exporters,
    /// Remote caches of this daemon, by kind.
    pub(crate) caches: &'a Caches,
    /// Entitlements that clients may ask for.
    pub(crate) entitlements: &'a [String],
    /// Whether steps of all builds are on the proxy network.
    pub(crate) proxy_network: bool,
    /// Whether the daemon has a proxy network at all; without one a request for it is refused.
    pub(crate) has_proxy_network: bool,
}

/// A request that was admitted: its strings resolved to exporters, caches, rights and policies.
pub(crate) struct Admitted {
    pub(crate) exporters: Vec<Arc<dyn ExporterInstance>>,
    pub(crate) cache_exports: CacheExports,
    pub(crate) rights: BuildRights,
    pub(crate) on_proxy_network: bool,
    pub(crate) policies: Vec<Arc<Policy>>,
    pub(crate) attests: Attests,
}

impl Admission<'_> {
    /// Refuses what this daemon does not build, know or grant. `sessions` are those that may answer for the build.
    pub(crate) async fn admit(
        &self,
        request: &SolveRequest,
        sessions: &Group,
    ) -> Result<Admitted, Failure> {
        let on_proxy_network = request.proxy_network || self.proxy_network;
        if on_proxy_network && !self.has_proxy_network {
            return Err(Failure::not_built("the proxy network"));
        }
        if request
            .frontend_opts
            .keys()
            .any(|key| key.starts_with(SERVICE_PREFIX))
        {
            return Err(Failure::not_built("a service beside a build (--service)"));
        }
        let exporters = exporters(request)
            .iter()
            .enumerate()
            .map(|(id, spec)| self.exporters.resolve(&spec.kind, id, &spec.attrs))
            .collect::<Result<Vec<_>, _>>()?;
        let cache_exports = CacheExports::resolve(self.caches, &request.cache_exports, sessions)?;
        let rights = BuildRights {
            entitlements: rights::grant(&request.entitlements, self.entitlements)?,
        };
        let policies = Policy::decode_all(request.source_policy.as_slice()).await?;
        let attests = Attests::parse(&request.frontend_opts)?;
        Ok(Admitted {
            exporters,
            cache_exports,
            rights,
            on_proxy_network,
            policies,
            attests,
        })
    }
}

/// The request's exporters; those that name no epoch get the one of the frontend's options.
fn exporters(request: &SolveRequest) -> Vec<ExporterSpec> {
    let mut specs = request.exporters.clone();
    // Other values, such as `context`, are for the frontend, which tells exporters the time.
    let is_time = |value: &&String| value.is_empty() || value.parse::<i64>().is_ok();
    let epoch = request.frontend_opts.get("build-arg:SOURCE_DATE_EPOCH");
    if let Some(epoch) = epoch.filter(is_time) {
        for spec in &mut specs {
            spec.attrs
                .entry("source-date-epoch".into())
                .or_insert_with(|| epoch.clone());
        }
    }
    specs
}
