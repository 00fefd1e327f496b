//! A definition to its result: allowed by policy, loaded, looked up in caches, built by the solver.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use attest::{Capture, IncompleteMaterial};
use frontend::bridge::CacheImport;
use llb::pb;
use oci::Digest;
use ops::{BuildDomain, BuildRights, NestedLoader, Parts};
use parking_lot::Mutex;
use solver::{CacheManager, Edge, Job, KeyInfo, OpError, Vertex};

use crate::api::Failure;
use crate::cache_import::CacheImports;
use crate::failure::{Place, of_solve};
use crate::load::load;
use crate::policy::{self, Policy, SourcePolicies};
use crate::scope::BuildScope;
use crate::usage;

/// A result with its vertex and its cache keys.
pub(crate) struct Computed {
    pub(crate) result: ops::Ref,
    /// None for an empty result, which no vertex computes.
    pub(crate) vertex: Option<Arc<Vertex<BuildDomain>>>,
    pub(crate) keys: Vec<KeyInfo<BuildDomain>>,
}

/// Computes the definitions of one build.
pub(crate) struct Evaluator {
    scope: Arc<BuildScope>,
    parts: Arc<Parts>,
    policies: Arc<SourcePolicies>,
    imports: CacheImports,
    /// Places of vertices in the user's files.
    places: Mutex<HashMap<Digest, Vec<Place>>>,
}

impl Evaluator {
    pub(crate) fn new(
        scope: Arc<BuildScope>,
        parts: Arc<Parts>,
        policies: Arc<SourcePolicies>,
        imports: CacheImports,
    ) -> Arc<Self> {
        Arc::new(Self {
            scope,
            parts,
            policies,
            imports,
            places: Mutex::default(),
        })
    }

    /// The build that it computes for.
    pub(crate) fn scope(&self) -> &Arc<BuildScope> {
        &self.scope
    }

    /// Computes the result of a definition, provided that the policies of the build and `request_policies` allow its sources.
    pub(crate) async fn compute(
        &self,
        definition: &Arc<pb::Definition>,
        request_policies: &[Arc<Policy>],
        imports: &[CacheImport],
    ) -> Result<Computed, Failure> {
        let edge = self
            .edge(definition, request_policies, self.scope.rights().clone(), 0)
            .await?;
        let open = async { Ok(self.imports.open(imports).await) };
        let caches = self.scope.alive(open).await?;
        self.scope.alive(self.build(edge, &caches)).await
    }

    /// The edge of a definition's terminal op.
    async fn edge(
        &self,
        definition: &Arc<pb::Definition>,
        request_policies: &[Arc<Policy>],
        rights: BuildRights,
        nesting: usize,
    ) -> Result<Edge<BuildDomain>, Failure> {
        let definition = match self.policies.evaluator(request_policies) {
            None => Arc::clone(definition),
            Some(evaluator) => {
                let allowed = self.scope.alive(policy::rewrite(&evaluator, definition));
                allowed.await.map_err(|e| e.during("failed to load LLB"))?
            }
        };
        let parts = Arc::clone(&self.parts);
        let on_proxy_network = self.scope.on_proxy_network();
        let load = move || {
            let devices = parts.devices.as_deref();
            load(&definition, &rights, nesting, devices, on_proxy_network)
        };
        let loaded = task::blocking("load a definition", load).await?;
        self.places.lock().extend(loaded.places);
        self.forget_cache_mounts(loaded.reset_cache_mounts).await?;
        Ok(loaded.edge)
    }

    async fn forget_cache_mounts(
        &self,
        reset_cache_mounts: HashMap<String, bool>,
    ) -> Result<(), Failure> {
        if reset_cache_mounts.is_empty() {
            return Ok(());
        }
        let parts = Arc::clone(&self.parts);
        let of_build = self.scope.cache_mounts();
        let forget = move || {
            reset_cache_mounts.iter().try_for_each(|(id, on_inputs)| {
                parts.cache_mounts.forget(&of_build, id, *on_inputs)
            })
        };
        Ok(task::blocking("forget-cache-mounts", forget).await?)
    }

    async fn build(
        &self,
        edge: Edge<BuildDomain>,
        caches: &[Arc<CacheManager<BuildDomain>>],
    ) -> Result<Computed, Failure> {
        let job = self.scope.job()?;
        match job.build_from(edge, caches).await {
            Ok(built) => Ok(Computed {
                result: built.result,
                vertex: Some(built.vertex),
                keys: built.keys,
            }),
            Err(error) => Err(of_solve(
                error,
                |vertex| self.places.lock().get(vertex).cloned().unwrap_or_default(),
                |tree| self.scope.keep_failed(tree),
            )),
        }
    }

    /// What went into a computed vertex; none once the build has ended.
    pub(crate) async fn captured(&self, vertex: Arc<Vertex<BuildDomain>>) -> Option<Capture> {
        let job = self.scope.job().ok()?;
        Some(task::blocking("capture", move || capture(&job, &vertex)).await)
    }
}

#[async_trait]
impl NestedLoader for Evaluator {
    async fn load(
        &self,
        definition: Arc<pb::Definition>,
        rights: &BuildRights,
        nesting: usize,
    ) -> Result<Edge<BuildDomain>, OpError> {
        Ok(self.edge(&definition, &[], rights.clone(), nesting).await?)
    }
}

/// What went into a vertex of a job.
fn capture(job: &Job<BuildDomain>, vertex: &Vertex<BuildDomain>) -> Capture {
    let mut out = Capture::new();
    for (vertex, op) in job.ops(vertex) {
        out.op(&vertex.sys.op, &op.pin());
        if vertex.sys.proxied {
            let requests = op.requests();
            proxied(&mut out, &vertex, requests.as_deref());
        }
        let usage = op.samples().and_then(|samples| usage::of_step(&samples));
        if let Some(usage) = usage {
            out.usage(vertex.digest.clone(), usage);
        }
    }
    out
}

/// Adds the requests of a step on the proxy network, if it has run.
fn proxied(out: &mut Capture, vertex: &Vertex<BuildDomain>, requests: Option<&proxy::Capture>) {
    out.proxy_network();
    let Some(requests) = requests else { return };
    for material in requests.materials() {
        if let Ok(digest) = Digest::parse(&format!("sha256:{}", material.sha256)) {
            out.download(&material.url, digest);
        }
    }
    let name = match &vertex.sys.op.op {
        Some(pb::op::Op::Exec(exec)) => exec.meta.as_ref().map(|meta| meta.args.join(" ")),
        _ => None,
    };
    let name = name.unwrap_or_default();
    for incomplete in requests.incompletes() {
        out.incomplete_material(IncompleteMaterial {
            op: vertex.digest.to_string(),
            name: name.clone(),
            method: incomplete.method,
            uri: incomplete.url,
            reason: incomplete.reason.to_owned(),
        });
    }
}
