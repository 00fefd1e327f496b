//! One solve, start to finish: the stages in their order.
//!
//! ```text
//!   solve ─► open the record
//!     1 admit      refuse what is not built, known or granted                      admit.rs
//!       begin      a job in the solver, the scope of the build, its evaluator      scope.rs, evaluate.rs
//!     2 frontend   a definition, a frontend of ours or one of the client           bridge.rs ─► frontend
//!     3 evaluate   every ref of the result is computed                             reference.rs ─► evaluate.rs
//!     4 attest     SBOMs are scanned, statements collected                         attestation.rs
//!     5 export     exporters of the request and of the session                     export.rs
//!     6 cache      remote caches are written, while exporters finish               cache_export.rs
//!     7 record     what the build gave is kept                                     history.rs
//! ```
//!
//! A stage gets what it needs, never the daemon. Calls go down this list of files; the one way back up is the frontend's: it solves
//! through its bridge.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use attest::{Attests, Run};
use exporter::{ExportSource, Exported};
use frontend::bridge::CacheImport;
use frontend::{FrontendRequest, FrontendResult};
use oci::{Descriptor, Platform};
use ops::{BuildDomain, BuildRights, JobValue, LoaderSlot, RequestPolicySlot};
use progress::{Hub, Writer};
use session::Group;
use solver::{JobOptions, SolveError, Solver};
use source::ResolvedSources;
use store::{Lease, Store};
use task::Clock;

use crate::admit::Admission;
use crate::api::{
    BuildRef, Failure, FailureKind, HistoryResult, Recording, ResultHost, SolveInput, SolveRequest,
    SolveResponse,
};
use crate::attestation::{self, CallScope, Scanner, Subject, call_by_client};
use crate::bridge::{BridgeParts, BuildBridge};
use crate::cache_export::{self, Results};
use crate::cache_import::CacheImports;
use crate::evaluate::Evaluator;
use crate::export::{self, Exports, Finalizers, SessionExporters};
use crate::failure::of_frontend;
use crate::history::BuildResults;
use crate::maintain::Collector;
use crate::policy::{Policy, SourcePolicies};
use crate::reference;
use crate::resolve::SourceResolver;
use crate::scope::{BuildScope, ScopeParts, canceled};
use crate::services::Services;
use crate::spans::BuildTrace;
use crate::usage::MachineSampler;
use crate::verify;

/// Runs one build to its end. Dropped, it cancels the build, whose record says so.
pub(crate) async fn solve(
    services: &Services,
    request: SolveRequest,
) -> Result<SolveResponse, Failure> {
    // Watchers of the build are told of its end, so its record is opened before anything is refused.
    let record = services.history.begin(&request)?;
    let mut running = Running {
        collector: Arc::clone(&services.collector),
        build: None,
    };
    let watched = (Arc::clone(record.hub()), Arc::clone(record.trace()));
    let outcome = tokio::select! {
        biased;
        () = record.closing() => Err(canceled()),
        outcome = run(services, request, watched, &mut running) => outcome,
    };
    running.end();
    match outcome {
        Ok(built) => {
            record.finish(Ok(built.results), built.held).await;
            Ok(built.response)
        }
        Err(failure) => {
            record.finish(Err(failure.clone()), ()).await;
            Err(failure)
        }
    }
}

/// Ends a running build, also when the future of its solve is dropped.
struct Running {
    collector: Arc<Collector>,
    build: Option<(Arc<BuildScope>, Arc<CallScope>)>,
}

impl Running {
    fn end(&mut self) {
        if let Some((scope, calls)) = self.build.take() {
            scope.end();
            // Who asked for what is of no interest any more.
            calls.release();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        self.collector.collect_later();
    }
}

/// The results of all stages of a build.
struct Built {
    response: SolveResponse,
    /// Results for the build's record.
    results: BuildResults,
    /// Leases that keep the exported blobs until the record pins them.
    held: (Lease, Vec<Exported>),
}

/// The stages in their order. Only here are the daemon's parts handed out, each to the stage that needs it.
async fn run(
    services: &Services,
    request: SolveRequest,
    (hub, trace): (Arc<Hub>, Arc<BuildTrace>),
    running: &mut Running,
) -> Result<Built, Failure> {
    let sessions = Group::new(
        Arc::clone(&services.parts.sessions),
        [request.session.clone()],
    );
    let admission = Admission {
        exporters: &services.exporters,
        caches: &services.caches,
        entitlements: &services.entitlements,
        proxy_network: services.proxy_network,
        has_proxy_network: services.parts.executor.proxy().is_some(),
    };
    let phase = trace.phase("admit");
    let admitted = admission.admit(&request, &sessions).await?;
    drop(phase);

    let client = Client {
        sessions,
        rights: admitted.rights.clone(),
        on_proxy_network: admitted.on_proxy_network,
        worker_id: services.worker.id.clone(),
    };
    let scope = begin(&services.solver, &request, (hub, &trace), client)?;
    let calls = CallScope::root(call_by_client(&request), &services.calls);
    running.build = Some((Arc::clone(&scope), Arc::clone(&calls)));
    let policies = policies(services, &scope, &admitted.policies, &request);
    if scope.on_proxy_network() && policies.can_refuse() {
        scope.set_request_policy(Arc::clone(&policies) as _);
    }
    let parts = Arc::new(bridge_parts(services, scope.clone(), policies));
    let bridge = BuildBridge::new(Arc::clone(&parts), Arc::clone(&calls));

    let options = Options::of(&request);
    let mut run = Run {
        invocation: invocation(&request.build, &services.clock),
        started: timestamp(&services.clock),
        compatibility_version: request.compatibility_version,
        dockerfile_version: services.version.dockerfile.clone(),
        environment: services.provenance_env.clone(),
        ..Run::default()
    };
    let machine = MachineSampler::start();
    let phase = trace.phase("frontend");
    let mut result = frontend(&bridge, request).await?;
    drop(phase);

    let phase = trace.phase("evaluate");
    let mut source = evaluate(&result).await?;
    drop(phase);
    run.finished = timestamp(&services.clock);
    run.machine = machine.finish().await;

    let attesting = Attesting {
        scope: &scope,
        calls: &calls,
        attests: &admitted.attests,
        run: &run,
    };
    let platform = services.worker.platforms.first().cloned();
    let scanner = Scanner {
        evaluator: &parts.evaluator,
        policies: &parts.policies,
        platform: &platform.unwrap_or_else(Platform::host),
        frontend_opts: &options.frontend_opts,
    };
    let version = &services.version.version;
    let phase = trace.phase("attest");
    attest(&attesting, &scanner, version, (&mut result, &mut source)).await?;
    drop(phase);
    verify(&scope, &options.frontend_opts, &source).await?;

    let mut exporters = admitted.exporters;
    if let Some(host) = &options.session_exporters {
        let session_exporters = SessionExporters {
            sessions: &scope.sessions(),
            host: &**host,
            bridge,
            first: exporters.len(),
        };
        exporters.extend(
            session_exporters
                .resolve(&services.exporters, &result)
                .await?,
        );
    }
    let exports = Exports {
        scope: &scope,
        exporters: &exporters,
        source: &source,
        cache_exports: &admitted.cache_exports,
        results: &Arc::new(Results::of(&result).await?),
    };
    let phase = trace.phase("export");
    let (mut exported, finalizers) = export(&exports).await?;
    drop(phase);
    let phase = trace.phase("finish exports and write caches");
    let cache_response = cache(&exports, finalizers).await?;
    drop(phase);

    let response = respond(&mut exported, &result, cache_response);
    if options.session_exporters.is_some() {
        export::tell_session(&scope.sessions(), &response.exporter_response).await?;
    }
    let lease = services.parts.store.lease();
    let provenance = if options.recording == Recording::Internal {
        BTreeMap::new()
    } else {
        let _phase = trace.phase("write provenance");
        provenance(
            &attesting,
            &result,
            &source,
            (&services.parts.store, &lease),
        )
        .await
    };
    Ok(Built {
        results: record(&response, &exported, provenance, &result),
        response,
        held: (lease, exported),
    })
}

/// Values of a request that later stages read when the frontend has consumed it.
struct Options {
    frontend_opts: BTreeMap<String, String>,
    session_exporters: Option<Arc<dyn ResultHost>>,
    recording: Recording,
}

impl Options {
    fn of(request: &SolveRequest) -> Self {
        Self {
            frontend_opts: request.frontend_opts.clone(),
            session_exporters: request.session_exporters.clone(),
            recording: request.recording,
        }
    }
}

/// The client of a build and its rights.
struct Client {
    sessions: Group,
    rights: BuildRights,
    /// Whether its steps are on the proxy network.
    on_proxy_network: bool,
    /// Id of the worker that builds.
    worker_id: String,
}

/// Opens a job for the build, and the scope in which all of it works.
fn begin(
    solver: &Solver<BuildDomain>,
    request: &SolveRequest,
    (hub, trace): (Arc<Hub>, &Arc<BuildTrace>),
    client: Client,
) -> Result<Arc<BuildScope>, Failure> {
    let context = request.frontend_opts.get("context");
    let context = context.map(String::as_str).unwrap_or_default();
    let resolved_sources = ResolvedSources::of(request.session.clone(), context);
    let cache_mounts = Arc::default();
    let nested = Arc::<LoaderSlot>::default();
    let request_policy = Arc::<RequestPolicySlot>::default();
    let job = solver.job(JobOptions {
        id: request.build.to_string(),
        session: (!request.session.is_empty()).then(|| request.session.to_string()),
        value: Arc::new(JobValue {
            hub: Arc::clone(&hub),
            resolved_sources: Arc::clone(&resolved_sources),
            cache_mounts: Arc::clone(&cache_mounts),
            nested: Arc::clone(&nested),
            request_policy: Arc::clone(&request_policy),
            trace: Some(Arc::clone(trace.steps())),
        }),
    });
    let job = job.map_err(|error| {
        let kind = if matches!(error, SolveError::JobExists(_)) {
            FailureKind::Unknown
        } else {
            FailureKind::Internal
        };
        Failure::new(kind, error)
    })?;
    Ok(BuildScope::new(ScopeParts {
        session: request.session.clone(),
        sessions: client.sessions,
        worker_id: client.worker_id,
        hub,
        rights: client.rights,
        resolved_sources,
        cache_mounts,
        nested,
        on_proxy_network: client.on_proxy_network,
        request_policy,
        trace: Arc::clone(trace),
        job,
    }))
}

/// The policies of the request, with what they need to resolve sources.
fn policies(
    services: &Services,
    scope: &Arc<BuildScope>,
    policies: &[Arc<Policy>],
    request: &SolveRequest,
) -> Arc<SourcePolicies> {
    let resolver = SourceResolver::new(
        Arc::clone(scope),
        services.images.clone(),
        services.layouts.clone(),
        Arc::clone(&services.parts.sources),
    );
    SourcePolicies::new(
        policies.to_vec(),
        request.policy_verifier.clone(),
        resolver,
        services.policy_pool.clone(),
    )
}

/// The parts that the build's bridges use.
fn bridge_parts(
    services: &Services,
    scope: Arc<BuildScope>,
    policies: Arc<SourcePolicies>,
) -> BridgeParts {
    let parts = Arc::clone(&services.parts);
    let imports = CacheImports::new(Arc::clone(&scope), services.caches.clone());
    let evaluator = Evaluator::new(
        Arc::clone(&scope),
        Arc::clone(&parts),
        Arc::clone(&policies),
        imports,
    );
    let loader: Weak<Evaluator> = Arc::downgrade(&evaluator);
    scope.nested().set(loader);
    BridgeParts {
        scope,
        evaluator,
        policies,
        parts,
        frontends: services.frontends.clone(),
        worker: services.worker.clone(),
    }
}

/// Computes the result of the request: of a definition, of a frontend of the daemon, or of a frontend in the client.
async fn frontend(
    bridge: &Arc<BuildBridge>,
    request: SolveRequest,
) -> Result<FrontendResult, Failure> {
    let call = call_by_client(&request);
    let input = match request.input {
        SolveInput::ClientFrontend(client) => {
            let inner = FrontendRequest {
                opts: call.opts,
                inputs: call.inputs,
                session_id: request.session,
            };
            let result = bridge.client(&*client, inner).await;
            return result.map_err(|error| of_frontend(error, None));
        }
        SolveInput::Definition(definition) => frontend::SolveInput::Definition(definition),
        SolveInput::Frontend(_) => frontend::SolveInput::Frontend(call),
    };
    let cache_imports = request.cache_imports.into_iter().map(|spec| CacheImport {
        kind: spec.kind,
        attrs: spec.attrs,
    });
    bridge
        .run(frontend::SolveRequest {
            input,
            cache_imports: cache_imports.collect(),
            ..frontend::SolveRequest::default()
        })
        .await
}

/// Computes the refs that are not computed yet, and returns their trees.
async fn evaluate(result: &FrontendResult) -> Result<ExportSource, Failure> {
    reference::evaluate(result).await?;
    export::source(result).await
}

/// The inputs of attestation.
struct Attesting<'a> {
    scope: &'a Arc<BuildScope>,
    calls: &'a Arc<CallScope>,
    attests: &'a Attests,
    run: &'a Run,
}

/// Scans for SBOMs, and collects the statements that exporters ask for.
async fn attest(
    attesting: &Attesting<'_>,
    scanner: &Scanner<'_>,
    version: &str,
    (result, source): (&mut FrontendResult, &mut ExportSource),
) -> Result<(), Failure> {
    let attests = attesting.attests;
    if *attests == Attests::default() && result.attestations.is_empty() {
        return Ok(());
    }
    let platforms = source.platforms()?;
    if let Some(options) = &attests.sbom {
        attestation::scan(scanner, result, &platforms, options).await?;
    }
    let subject = Subject {
        scope: attesting.scope,
        calls: attesting.calls,
        result,
        platforms: &platforms,
        run: attesting.run,
    };
    let attestations = attestation::collect(&subject, attests, version).await?;
    source.attester = attestations.map(|a| Arc::new(a) as _);
    Ok(())
}

/// Warns of a result for other platforms than those asked for.
async fn verify(
    scope: &BuildScope,
    frontend_opts: &BTreeMap<String, String>,
    source: &ExportSource,
) -> Result<(), Failure> {
    let warnings = verify::platforms(frontend_opts, source);
    if warnings.is_empty() {
        return Ok(());
    }
    let warn = |progress: Writer| async move {
        for line in warnings {
            progress.warn(1, line, Vec::new(), "", None);
        }
        Ok(())
    };
    let id = format!("{}-verify", scope.session());
    scope
        .run_as_vertex("Verifying build result", &id, warn)
        .await
}

/// Runs the exporters. Some of them leave work for the end of the build, which is returned beside their results.
async fn export(exports: &Exports<'_>) -> Result<(Vec<Exported>, Finalizers), Failure> {
    let mut exported = exports.run().await?;
    let mut finalizers = Finalizers::new();
    for (at, one_export) in exported.iter_mut().enumerate() {
        finalizers.extend(one_export.finalize.take().map(|finalize| (at, finalize)));
    }
    Ok((exported, finalizers))
}

/// Writes the caches, which may use blobs of the exporters, while the exporters finish; returns the answers of the caches.
async fn cache(
    exports: &Exports<'_>,
    finalizers: Finalizers,
) -> Result<BTreeMap<String, String>, Failure> {
    let written = cache_export::write(exports.scope, exports.cache_exports, exports.results);
    let (_, cache_response) =
        futures::future::try_join(exports.finalize(finalizers), written).await?;
    Ok(cache_response)
}

/// Puts the answer to the client together: of the exporters, the frontend and the caches.
fn respond(
    exported: &mut [Exported],
    result: &FrontendResult,
    cache_response: BTreeMap<String, String>,
) -> SolveResponse {
    let mut response = BTreeMap::new();
    for one_export in exported {
        response.append(&mut one_export.response);
    }
    for (key, value) in &result.metadata {
        if key.starts_with("frontend.") {
            response.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
        }
    }
    let caches = cache_response.into_iter();
    response.extend(caches.filter(|(key, _)| key.starts_with("cache.")));
    SolveResponse {
        exporter_response: response,
    }
}

/// Provenance for the build's record, by platform id, in blobs that the lease holds. The build succeeds without it.
async fn provenance(
    attesting: &Attesting<'_>,
    result: &FrontendResult,
    source: &ExportSource,
    (store, lease): (&Arc<Store>, &Lease),
) -> BTreeMap<String, Descriptor> {
    let written = async {
        let subject = Subject {
            scope: attesting.scope,
            calls: attesting.calls,
            result,
            platforms: &source.platforms()?,
            run: attesting.run,
        };
        attestation::for_record(&subject, attesting.attests, store, lease).await
    };
    written.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the build's record has no provenance");
        BTreeMap::new()
    })
}

/// The results that the build's record keeps.
fn record(
    response: &SolveResponse,
    exported: &[Exported],
    provenance: BTreeMap<String, Descriptor>,
    result: &FrontendResult,
) -> BuildResults {
    let descriptor =
        |(at, done): (usize, &Exported)| Some((i64::try_from(at).ok()?, done.descriptor.clone()?));
    let mut single = HistoryResult {
        results: exported.iter().enumerate().filter_map(descriptor).collect(),
        ..HistoryResult::default()
    };
    let mut by_platform = BTreeMap::new();
    if result.refs.is_empty() {
        single.attestations.extend(provenance.into_values().next());
    } else {
        let attested = |(id, blob)| {
            let result = HistoryResult {
                attestations: vec![blob],
                ..HistoryResult::default()
            };
            (id, result)
        };
        by_platform.extend(provenance.into_iter().map(attested));
    }
    BuildResults {
        response: response.exporter_response.clone(),
        single,
        by_platform,
    }
}

fn timestamp(clock: &Clock) -> String {
    exporter::Timestamp::from(clock.system()).to_string()
}

/// A name for this run of the build; later builds may have the same name.
fn invocation(build: &BuildRef, clock: &Clock) -> String {
    let id = oci::Digest::sha256(format!("{build} {}", timestamp(clock)));
    id.hex().chars().take(25).collect()
}
