//! What is done with a result: exporters of the request and of the client's session, and what they leave to do at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use exporter::{ExportContext, ExportSource, Exported, ExporterInstance, Exporters, Finalize};
use frontend::{Bridge, FrontendResult};
use futures::future::try_join_all;

use crate::api::{Failure, ResultHost};
use crate::cache_export::{CacheExports, Inline, Results};
use crate::reference::{LazyRef, refs};
use crate::scope::BuildScope;

/// The tree of each ref of a result that was computed, as exporters take it.
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
    /// The result as the solver knows it.
    pub(crate) results: &'a Arc<Results>,
}

/// What an exporter left to do when all have exported, by the exporter's position.
pub(crate) type Finalizers = Vec<(usize, Box<dyn Finalize>)>;

impl Exports<'_> {
    /// Runs the exporters side by side, each shown as a vertex.
    pub(crate) async fn run(&self) -> Result<Vec<Exported>, Failure> {
        let exports = self.exporters.iter().enumerate().map(|(at, exporter)| {
            self.shown(at, exporter, async |ctx| {
                Ok(exporter.export(&ctx, self.source).await?)
            })
        });
        try_join_all(exports).await
    }

    /// Does what exporters left to do, side by side, shown with the vertices of their exporters.
    pub(crate) async fn finalize(&self, finalizers: Finalizers) -> Result<(), Failure> {
        let last = finalizers.into_iter().filter_map(|(at, finalize)| {
            let exporter = self.exporters.get(at)?;
            Some(self.shown(at, exporter, async |ctx| Ok(finalize.run(&ctx).await?)))
        });
        try_join_all(last).await?;
        Ok(())
    }

    async fn shown<T>(
        &self,
        at: usize,
        exporter: &Arc<dyn ExporterInstance>,
        work: impl AsyncFnOnce(ExportContext) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let id = format!("{}-export-{at}", self.scope.session());
        self.scope
            .shown(&exporter.name(), &id, |progress| {
                let (caches, results) = (self.cache_exports, self.results);
                let compression = exporter.compression();
                work(ExportContext {
                    sessions: self.scope.sessions(),
                    inline_cache: Inline::wanted(
                        caches,
                        self.scope,
                        results,
                        compression,
                        &progress,
                    ),
                    progress,
                })
            })
            .await
    }
}

/// Exporters that the client's session adds when the result is there.
pub(crate) struct SessionExporters<'a> {
    /// The sessions that may answer for the build.
    pub(crate) sessions: &'a session::Group,
    /// Lets the client look into the result while it is asked.
    pub(crate) host: &'a dyn ResultHost,
    /// Through which it looks.
    pub(crate) bridge: Arc<dyn Bridge>,
    /// The number of the first of them.
    pub(crate) first: usize,
}

impl SessionExporters<'_> {
    /// Asks the client; none if it does not offer this.
    pub(crate) async fn resolve(
        self,
        exporters: &Exporters,
        result: &FrontendResult,
    ) -> Result<Vec<Arc<dyn ExporterInstance>>, Failure> {
        let all = refs(result).cloned().collect();
        // The names are good as long as the client is asked.
        let (names, _hosted) = self.host.host(self.bridge, all);
        let asked = self.sessions.any(|session| {
            let (metadata, names) = (result.metadata.clone(), names.clone());
            async move { session.find_exporters(metadata, names).await }
        });
        let specs = match asked.await {
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

/// Tells the session what all exporters answered, if it wants to know.
pub(crate) async fn tell_session(
    sessions: &session::Group,
    response: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let told = sessions.any(|session| {
        let response = response.clone();
        async move { session.finalize_export(response).await }
    });
    Ok(told.await.or_else(|e| absent(&e).ok_or(e))?)
}

/// Nothing, if the client does not offer what it was asked for.
fn absent<T: Default>(error: &session::SessionError) -> Option<T> {
    let session::SessionError::Call(error) = error else {
        return None;
    };
    let unavailable = error.code() == session::error::code::UNAVAILABLE;
    (error.is_absent() || unavailable).then(T::default)
}
