//! A request from its registration to its response.

use std::collections::BTreeMap;
use std::sync::Arc;

use exporter::{ExportContext, ExportSource, Exported, ExporterInstance};
use frontend::bridge::CacheImport;
use frontend::{FrontendRequest, FrontendResult};
use futures::future::try_join_all;
use oci::Descriptor;
use ops::{BuildRights, JobValue};
use progress::{Hub, Writer};
use solver::{JobOptions, SolveError};
use store::{ImmutableRef, Lease};

use crate::api::{Failure, FailureKind, HistoryResult, ResultHost, SolveRequest, SolveResponse};
use crate::bridge::{BuildBridge, evaluate, refs};
use crate::build::{Build, canceled};
use crate::cache::{self, CacheExports, Inline};
use crate::engine::Engine;
use crate::failure::of_frontend;
use crate::history::BuildResults;
use crate::policy::Policy;
use crate::provenance::{Asked, Scope};
use crate::reference::LazyRef;
use crate::{attestations, request as asked, rights, sbom, verify};

/// Ends a running build, also when the future of its solve is dropped.
struct Running {
    engine: Arc<Engine>,
    build: Option<Arc<Build>>,
}

impl Running {
    fn end(&mut self) {
        if let Some(build) = self.build.take() {
            build.end();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        self.engine.collect_later();
    }
}

/// What a build gave, with what its record keeps.
struct Done {
    response: SolveResponse,
    results: BTreeMap<i64, Descriptor>,
    /// What is known of the single result, or of each by platform.
    provenance: (Option<Descriptor>, BTreeMap<String, Descriptor>),
    /// Their leases hold what was exported until the record does.
    held: (Lease, Vec<Exported>),
}

/// Runs one build to its end.
pub(crate) async fn solve(
    engine: Arc<Engine>,
    request: SolveRequest,
) -> Result<SolveResponse, Failure> {
    // Whoever watches the build learns of its end, so its record is opened before anything is refused.
    let record = engine.history.begin(&request)?;
    let mut running = Running {
        engine: Arc::clone(&engine),
        build: None,
    };
    let hub = Arc::clone(record.hub());
    let done = tokio::select! {
        biased;
        () = record.closing() => Err(canceled()),
        done = prepare(&engine, request, hub, &mut running) => done,
    };
    running.end();
    match done {
        Ok(done) => {
            let results = results_of(&done);
            record.finish(Ok(results), done.held).await;
            Ok(done.response)
        }
        Err(failure) => {
            record.finish(Err(failure.clone()), ()).await;
            Err(failure)
        }
    }
}

/// What the record keeps of the results.
fn results_of(done: &Done) -> BuildResults {
    let (single, by_platform) = &done.provenance;
    let single = HistoryResult {
        results: done.results.clone(),
        attestations: single.iter().cloned().collect(),
    };
    let one = |(id, provenance): (&String, &Descriptor)| {
        let result = HistoryResult {
            attestations: vec![provenance.clone()],
            ..HistoryResult::default()
        };
        (id.clone(), result)
    };
    BuildResults {
        response: done.response.exporter_response.clone(),
        single,
        by_platform: by_platform.iter().map(one).collect(),
    }
}

async fn prepare(
    engine: &Arc<Engine>,
    request: SolveRequest,
    hub: Arc<Hub>,
    running: &mut Running,
) -> Result<Done, Failure> {
    asked::check(&request)?;
    let exporters = asked::exporters(&request)
        .iter()
        .enumerate()
        .map(|(id, spec)| engine.exporters.resolve(&spec.kind, id, &spec.attrs))
        .collect::<Result<Vec<_>, _>>()?;
    let caches = CacheExports::resolve(engine, &request.cache_exports, &request.session)?;
    let rights = BuildRights {
        entitlements: rights::grant(&request.entitlements, &engine.settings.entitlements)?,
    };
    let encoded = request.source_policy.as_slice();
    let judges = (
        Policy::decode_all(encoded).await?,
        request.policy_verifier.clone(),
    );
    let context = request.frontend_opts.get("context");
    let memory = source::Memory::of(
        &request.session,
        context.map(String::as_str).unwrap_or_default(),
    );
    let cache_mounts = Arc::default();
    let job = engine.solver.job(JobOptions {
        id: request.build.clone(),
        session: (!request.session.is_empty()).then(|| request.session.clone()),
        value: Arc::new(JobValue {
            hub: Arc::clone(&hub),
            memory: Arc::clone(&memory),
            cache_mounts: Arc::clone(&cache_mounts),
        }),
    });
    match job {
        Ok(job) => {
            let build = Build::new(
                Arc::clone(engine),
                request.session.clone(),
                hub,
                memory,
                rights,
                judges,
                (job, cache_mounts),
            );
            running.build = Some(Arc::clone(&build));
            run(&build, request, exporters, &caches).await
        }
        Err(error @ SolveError::JobExists(_)) => {
            Err(Failure::new(FailureKind::Unknown, error.to_string()))
        }
        Err(error) => Err(Failure::new(FailureKind::Internal, error.to_string())),
    }
}

async fn run(
    build: &Arc<Build>,
    request: SolveRequest,
    mut exporters: Vec<Arc<dyn ExporterInstance>>,
    caches: &CacheExports,
) -> Result<Done, Failure> {
    let (session_exporters, internal) = (request.session_exporters, request.internal);
    let host = request.result_host.clone();
    let opts = request.frontend_opts.clone();
    let attests = attest::Attests::parse(&opts)
        .map_err(|e| Failure::new(FailureKind::Unknown, e.to_string()))?;
    let mut how = attest::Run {
        invocation: invocation(build, &request.build),
        started: now(build),
        compatibility_version: request.compatibility_version,
        ..attest::Run::default()
    };
    let asked = Asked::by_client(&request.frontend, &opts, &request.frontend_inputs);
    let scope = Scope::root(asked, &build.engine.requests);
    let _released = Released(Arc::clone(&scope));
    let mut result = frontend(build, &scope, request).await?;
    evaluate(&result).await?;
    how.finished = now(build);
    let mut source = export_source(&result).await?;
    if attests != attest::Attests::default() || !result.attestations.is_empty() {
        let platforms = source.platforms()?;
        if let Some(options) = &attests.sbom {
            sbom::scan(build, &mut result, &platforms, options, &opts).await?;
        }
        let made = attestations::collect(build, &scope, &result, &platforms, &attests, how.clone());
        source.attester = made.await?.map(|a| Arc::new(a) as _);
    }
    let odd = verify::platforms(&opts, &source);
    if !odd.is_empty() {
        let tell = |progress: Writer| async move {
            for line in odd {
                progress.warn(1, line, Vec::new(), "", None);
            }
            Ok(())
        };
        let id = format!("{}-verify", build.session);
        build.shown("Verifying build result", &id, tell).await?;
    }
    let results = Arc::new(cache::Results::of(&result).await?);
    let ctx = |exporter: &dyn ExporterInstance, progress| ExportContext {
        sessions: build.sessions(),
        inline_cache: Inline::wanted(caches, build, &results, exporter.compression(), &progress),
        progress,
    };

    if session_exporters {
        let (host, first) = (host.as_deref(), exporters.len());
        exporters.extend(from_session(build, &scope, &result, host, first).await?);
    }
    let vertex = |exporter: &dyn ExporterInstance, at: usize| {
        (exporter.name(), format!("{}-export-{at}", build.session))
    };
    let exports = exporters.iter().enumerate().map(|(at, exporter)| {
        let (name, id) = vertex(&**exporter, at);
        let source = &source;
        async move {
            build
                .shown(&name, &id, |progress| async move {
                    Ok(exporter.export(&ctx(&**exporter, progress), source).await?)
                })
                .await
        }
    });
    let mut exported: Vec<Exported> = try_join_all(exports).await?;

    let mut response = BTreeMap::new();
    let mut last = Vec::new();
    for (at, done) in exported.iter_mut().enumerate() {
        response.append(&mut done.response);
        if let Some(finalize) = done.finalize.take() {
            last.push((at, finalize));
        }
    }
    let last = last.into_iter().filter_map(|(at, finalize)| {
        let exporter = exporters.get(at)?;
        let (name, id) = vertex(&**exporter, at);
        let ctx = &ctx;
        Some(async move {
            build
                .shown(&name, &id, |progress| async move {
                    Ok(finalize.run(&ctx(&**exporter, progress)).await?)
                })
                .await
        })
    });
    // What the exporters made is there for the caches to use.
    let written = cache::write(build, caches, &results);
    let (_, written) = futures::future::try_join(try_join_all(last), written).await?;
    let results = exported
        .iter()
        .enumerate()
        .filter_map(|(at, done)| Some((i64::try_from(at).ok()?, done.descriptor.clone()?)))
        .collect();

    for (key, value) in &result.metadata {
        if key.starts_with("frontend.") {
            response.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
        }
    }
    let written = written.into_iter().filter(|(k, _)| k.starts_with("cache."));
    response.extend(written);
    if session_exporters {
        let told = response.clone();
        build
            .sessions()
            .any(|session| {
                let told = told.clone();
                async move { session.finalize_export(told).await }
            })
            .await
            .or_else(|e| absent(&e).ok_or(e))
            .map_err(|e| Failure::new(FailureKind::Unknown, e.to_string()))?;
    }
    let lease = build.engine.parts.store.lease();
    let mut provenance = (None, BTreeMap::new());
    if !internal {
        let made = match source.platforms() {
            Ok(platforms) => {
                attestations::for_record(build, &scope, &result, &platforms, &attests, &how, &lease)
                    .await
            }
            Err(error) => Err(error.into()),
        };
        match made {
            Ok(kept) if result.refs.is_empty() => provenance.0 = kept.into_values().next(),
            Ok(kept) => provenance.1 = kept,
            Err(error) => tracing::warn!(%error, "the build's record has no provenance"),
        }
    }
    Ok(Done {
        response: SolveResponse {
            exporter_response: response,
        },
        results,
        provenance,
        held: (lease, exported),
    })
}

/// Nothing, if the client does not offer what it was asked for.
fn absent<T: Default>(error: &session::SessionError) -> Option<T> {
    let session::SessionError::Call(error) = error else {
        return None;
    };
    let unavailable = error.code() == session::error::code::UNAVAILABLE;
    (error.is_absent() || unavailable).then(T::default)
}

/// Forgets who asked for what when the build ends, however it ends.
struct Released(Arc<Scope>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn now(build: &Build) -> String {
    exporter::Timestamp::from(build.engine.clock.system()).to_string()
}

/// A name for this run of a build; builds of one name follow each other.
fn invocation(build: &Build, name: &str) -> String {
    let id = oci::Digest::sha256(format!("{name} {}", now(build)));
    id.hex().chars().take(25).collect()
}

async fn frontend(
    build: &Arc<Build>,
    scope: &Arc<Scope>,
    mut request: SolveRequest,
) -> Result<FrontendResult, Failure> {
    let asked = Asked::by_client(
        &request.frontend,
        &request.frontend_opts,
        &request.frontend_inputs,
    );
    (request.frontend, request.frontend_opts) = (asked.frontend, asked.opts);
    let bridge = BuildBridge::new(Arc::clone(build), Arc::clone(scope));
    let nothing = request.definition.is_none() && request.frontend.is_empty();
    if let Some(client) = request.client_frontend.filter(|_| nothing) {
        let inner = FrontendRequest {
            opts: request.frontend_opts,
            inputs: request.frontend_inputs,
            session_id: request.session,
        };
        return bridge
            .client(&*client, inner)
            .await
            .map_err(|error| of_frontend(&error, None));
    }
    let cache_imports = request
        .cache_imports
        .into_iter()
        .map(|c| CacheImport {
            kind: c.kind,
            attrs: c.attrs,
        })
        .collect();
    bridge
        .run(frontend::SolveRequest {
            definition: request.definition,
            frontend: request.frontend,
            frontend_opts: request.frontend_opts,
            frontend_inputs: request.frontend_inputs,
            cache_imports,
            ..frontend::SolveRequest::default()
        })
        .await
}

async fn computed(found: &Arc<dyn frontend::Ref>) -> Result<Option<ImmutableRef>, Failure> {
    LazyRef::of(found)
        .ok_or_else(|| Failure::new(FailureKind::Internal, "a ref of another engine"))?
        .result()
        .await
}

async fn export_source(result: &FrontendResult) -> Result<ExportSource, Failure> {
    let mut source = ExportSource::default();
    if let Some(single) = &result.single {
        source.single = computed(single).await?;
    }
    for (id, found) in &result.refs {
        let tree = match found {
            Some(found) => computed(found).await?,
            None => None,
        };
        source.refs.insert(id.clone(), tree);
    }
    source.metadata = result
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), value.to_vec()))
        .collect();
    Ok(source)
}

/// Exporters that the client adds when the result is there.
async fn from_session(
    build: &Arc<Build>,
    scope: &Arc<Scope>,
    result: &FrontendResult,
    host: Option<&dyn ResultHost>,
    first: usize,
) -> Result<Vec<Arc<dyn ExporterInstance>>, Failure> {
    let all = refs(result).cloned().collect();
    // The names are good as long as the client is asked.
    let (names, _hosted) = match host {
        Some(host) => host.host(BuildBridge::new(Arc::clone(build), Arc::clone(scope)), all),
        None => (Vec::new(), Box::new(()) as _),
    };
    let sessions = build.sessions();
    let asked = sessions.any(|session| {
        let (metadata, names) = (result.metadata.clone(), names.clone());
        async move { session.find_exporters(metadata, names).await }
    });
    let asked = match asked.await {
        Ok(asked) => asked,
        Err(error) => {
            return absent(&error)
                .ok_or_else(|| Failure::new(FailureKind::Unknown, error.to_string()));
        }
    };
    let mut out = Vec::with_capacity(asked.len());
    for (at, spec) in asked.iter().enumerate() {
        out.push(
            build
                .engine
                .exporters
                .resolve(&spec.kind, first + at, &spec.attrs)?,
        );
    }
    Ok(out)
}
