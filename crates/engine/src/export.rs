//! Stage 5: exporters of the request and of the client's session, and their finalizers.

use std::collections::BTreeMap;
use std::sync::Arc;

use exporter::{ExportContext, ExportSource, Exported, ExporterInstance, Exporters, Finalize};
use frontend::{Bridge, FrontendResult};
use futures::future::try_join_all;

use crate::api::{Failure, ResultHost};
use crate::cache_export::{CacheExports, Inline, Results};
use crate::reference::{LazyRef, refs};
use crate::scope::BuildScope;

/// The computed tree of each ref of a result, in the exporters' type.
pub(crate) async fn source(result: &FrontendResult) -> Result<ExportSource, Failure> {
    let mut source = ExportSource::default();
    if let Some(single) = &result.single {
        source.single = LazyRef::of(single)?.result().await?;
    }
    for (id, reference) in &result.refs {
        let tree = match reference {
            Some(reference) => LazyRef::of(reference)?.result().await?,
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

/// The exports of one build.
pub(crate) struct Exports<'a> {
    /// The build.
    pub(crate) scope: &'a Arc<BuildScope>,
    /// Where the result goes, in the order of the request.
    pub(crate) exporters: &'a [Arc<dyn ExporterInstance>],
    /// The result.
    pub(crate) source: &'a ExportSource,
    /// The caches that the build writes; images carry those that are inline.
    pub(crate) cache_exports: &'a CacheExports,
    /// The result with its cache keys.
    pub(crate) results: &'a Arc<Results>,
}

/// Work that exporters leave until all have exported, by the exporter's position.
pub(crate) type Finalizers = Vec<(usize, Box<dyn Finalize>)>;

impl Exports<'_> {
    /// Runs the exporters side by side, each shown as a vertex.
    pub(crate) async fn run(&self) -> Result<Vec<Exported>, Failure> {
        let exports = self.exporters.iter().enumerate().map(|(at, exporter)| {
            self.run_as_vertex(at, exporter, async |ctx| {
                Ok(exporter.export(&ctx, self.source).await?)
            })
        });
        try_join_all(exports).await
    }

    /// Runs the finalizers side by side, shown at the vertices of their exporters.
    pub(crate) async fn finalize(&self, finalizers: Finalizers) -> Result<(), Failure> {
        let last = finalizers.into_iter().filter_map(|(at, finalize)| {
            let exporter = self.exporters.get(at)?;
            Some(self.run_as_vertex(at, exporter, async |ctx| Ok(finalize.run(&ctx).await?)))
        });
        try_join_all(last).await?;
        Ok(())
    }

    async fn run_as_vertex<T>(
        &self,
        at: usize,
        exporter: &Arc<dyn ExporterInstance>,
        work: impl AsyncFnOnce(ExportContext) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let id = format!("{}-export-{at}", self.scope.session());
        let started = task::clock::monotonic();
        let result = self
            .scope
            .run_as_vertex(&exporter.name(), &id, |progress| {
                let (caches, results) = (self.cache_exports, self.results);
                let compression = exporter.compression();
                work(ExportContext {
                    sessions: self.scope.sessions(),
                    inline_cache: Inline::for_exporter(
                        caches,
                        self.scope,
                        results,
                        compression,
                        &progress,
                    ),
                    progress,
                })
            })
            .await;
        metrics::PHASE_DURATION.observe(metrics::Phase::Export, started.elapsed());
        result
    }
}

/// Exporters that the client's session adds once the result exists.
pub(crate) struct SessionExporters<'a> {
    /// The sessions that may answer for the build.
    pub(crate) sessions: &'a session::Group,
    /// Gives the client access to the result while it chooses exporters.
    pub(crate) host: &'a dyn ResultHost,
    /// The bridge through which the client reads the result.
    pub(crate) bridge: Arc<dyn Bridge>,
    /// The index of the first exporter that the client adds.
    pub(crate) first: usize,
}

impl SessionExporters<'_> {
    /// Requests the exporters of the client; none if it does not offer the service.
    pub(crate) async fn resolve(
        self,
        exporters: &Exporters,
        result: &FrontendResult,
    ) -> Result<Vec<Arc<dyn ExporterInstance>>, Failure> {
        let all = refs(result).cloned().collect();
        // The names of the refs are valid until `_hosted` is dropped.
        let (names, _hosted) = self.host.host(self.bridge, all);
        let exporters_of_client = self.sessions.any(|session| {
            let (metadata, names) = (result.metadata.clone(), names.clone());
            async move { session.find_exporters(metadata, names).await }
        });
        let specs = match exporters_of_client.await {
            Ok(specs) => specs,
            Err(error) => return absent(&error).ok_or_else(|| Failure::from(error)),
        };
        let mut out = Vec::with_capacity(specs.len());
        for (at, spec) in specs.iter().enumerate() {
            out.push(exporters.resolve(&spec.kind, self.first + at, &spec.attrs)?);
        }
        Ok(out)
    }
}

/// Sends the answers of all exporters to the session, if it offers the service.
pub(crate) async fn tell_session(
    sessions: &session::Group,
    response: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let finalized = sessions.any(|session| {
        let response = response.clone();
        async move { session.finalize_export(response).await }
    });
    Ok(finalized.await.or_else(|e| absent(&e).ok_or(e))?)
}

/// The default value if the client does not offer the service; none for any other error.
fn absent<T: Default>(error: &session::SessionError) -> Option<T> {
    let session::SessionError::Call(error) = error else {
        return None;
    };
    let unavailable = error.code() == session::error::code::UNAVAILABLE;
    (error.is_absent() || unavailable).then(T::default)
}
