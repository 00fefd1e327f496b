//! A request from its registration to its response.

use std::collections::BTreeMap;
use std::sync::Arc;

use exporter::{ExportContext, ExportSource, Exported, ExporterInstance};
use frontend::bridge::CacheImport;
use frontend::{FrontendRequest, FrontendResult};
use futures::future::try_join_all;
use ops::{BuildRights, JobValue};
use solver::{JobOptions, SolveError};
use store::ImmutableRef;

use crate::api::{Failure, FailureKind, SolveRequest, SolveResponse};
use crate::bridge::{BuildBridge, evaluate};
use crate::build::Build;
use crate::engine::Engine;
use crate::failure::of_frontend;
use crate::reference::LazyRef;
use crate::{request as asked, rights};

/// Ends what the engine knows of a running build, also when the future of its solve is dropped.
struct Running {
    engine: Arc<Engine>,
    name: String,
    build: Option<Arc<Build>>,
    outcome: Option<Result<SolveResponse, Failure>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(build) = self.build.take() {
            build.end();
        }
        let canceled = Failure::new(FailureKind::Canceled, "context canceled");
        let outcome = self.outcome.take().unwrap_or(Err(canceled));
        self.engine.records.finish(&self.name, outcome.as_ref());
        self.engine.collect_later();
    }
}

/// Runs one build to its end.
pub(crate) async fn solve(
    engine: Arc<Engine>,
    request: SolveRequest,
) -> Result<SolveResponse, Failure> {
    asked::check(&request)?;
    let exporters = asked::exporters(&request)
        .iter()
        .enumerate()
        .map(|(id, spec)| engine.exporters.resolve(&spec.kind, id, &spec.attrs))
        .collect::<Result<Vec<_>, _>>()?;
    let rights = BuildRights {
        entitlements: rights::grant(&request.entitlements, &engine.settings.entitlements)?,
    };
    let hub = engine.records.begin(&request)?;
    let mut running = Running {
        engine: Arc::clone(&engine),
        name: request.build.clone(),
        build: None,
        outcome: None,
    };
    let memory = source::Memory::new();
    let job = engine.solver.job(JobOptions {
        id: request.build.clone(),
        session: (!request.session.is_empty()).then(|| request.session.clone()),
        value: Arc::new(JobValue {
            hub: Arc::clone(&hub),
            memory: Arc::clone(&memory),
        }),
    });
    let done = match job {
        Ok(job) => {
            let build = Build::new(
                Arc::clone(&engine),
                request.session.clone(),
                hub,
                memory,
                rights,
                job,
            );
            running.build = Some(Arc::clone(&build));
            run(&build, request, exporters).await
        }
        Err(error @ SolveError::JobExists(_)) => {
            Err(Failure::new(FailureKind::Unknown, error.to_string()))
        }
        Err(error) => Err(Failure::new(FailureKind::Internal, error.to_string())),
    };
    running.outcome = Some(done.clone());
    done
}

async fn run(
    build: &Arc<Build>,
    request: SolveRequest,
    mut exporters: Vec<Arc<dyn ExporterInstance>>,
) -> Result<SolveResponse, Failure> {
    let session_exporters = request.session_exporters;
    let result = frontend(build, request).await?;
    evaluate(&result).await?;
    let source = export_source(&result).await?;
    let ctx = |progress| ExportContext {
        sessions: build.sessions(),
        progress,
        inline_cache: None,
    };

    if session_exporters {
        exporters.extend(from_session(build, &result, exporters.len()).await?);
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
                    Ok(exporter.export(&ctx(progress), source).await?)
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
        let (name, id) = vertex(&**exporters.get(at)?, at);
        Some(async move {
            build
                .shown(&name, &id, |progress| async move {
                    Ok(finalize.run(&ctx(progress)).await?)
                })
                .await
        })
    });
    try_join_all(last).await?;
    // The leases of what was exported end here.
    drop(exported);

    for (key, value) in &result.metadata {
        if key.starts_with("frontend.") {
            response.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
        }
    }
    if session_exporters {
        let told = response.clone();
        build
            .sessions()
            .any(|session| {
                let told = told.clone();
                async move { session.finalize_export(told).await }
            })
            .await
            .map_err(|e| Failure::new(FailureKind::Unknown, e.to_string()))?;
    }
    Ok(SolveResponse {
        exporter_response: response,
    })
}

async fn frontend(build: &Arc<Build>, request: SolveRequest) -> Result<FrontendResult, Failure> {
    let bridge = BuildBridge::new(Arc::clone(build));
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
    let lazy = found.as_any().downcast_ref::<LazyRef>();
    lazy.ok_or_else(|| Failure::new(FailureKind::Internal, "a ref of another engine"))?
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
    build: &Build,
    result: &FrontendResult,
    first: usize,
) -> Result<Vec<Arc<dyn ExporterInstance>>, Failure> {
    let names: Vec<String> = result.refs.keys().cloned().collect();
    let sessions = build.sessions();
    let asked = sessions.any(|session| {
        let (metadata, names) = (result.metadata.clone(), names.clone());
        async move { session.find_exporters(metadata, names).await }
    });
    let asked = match asked.await {
        Ok(asked) => asked,
        Err(session::SessionError::Call(error)) if error.is_absent() => return Ok(Vec::new()),
        Err(error) => return Err(Failure::new(FailureKind::Unknown, error.to_string())),
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
