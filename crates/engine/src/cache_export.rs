//! Remote caches that a build writes, once its results exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use exporter::{ExportError, InlineCache};
use frontend::FrontendResult;
use futures::future::{BoxFuture, try_join_all};
use oci::Digest;
use progress::Writer;
use remotecache::{CacheError, CacheExporter, CacheRecords, Caches};
use session::Group;
use store::CompressionSpec;

use crate::api::{CacheSpec, Failure, FailureKind};
use crate::evaluate::Computed;
use crate::reference::LazyRef;
use crate::scope::BuildScope;

/// The caches that a build writes.
#[derive(Debug, Default)]
pub(crate) struct CacheExports {
    /// Whether images carry records.
    inline: bool,
    /// The caches that are written on their own.
    separate: Vec<CacheExporter>,
}

impl CacheExports {
    /// Resolves the caches that the client asks for.
    pub(crate) fn resolve(
        caches: &Caches,
        specs: &[CacheSpec],
        sessions: &Group,
    ) -> Result<Self, Failure> {
        let mut out = Self::default();
        for spec in specs {
            match caches.exporter(&spec.kind, &spec.attrs, sessions) {
                Ok(exporter) if exporter.is_inline() => out.inline = true,
                Ok(exporter) => out.separate.push(exporter),
                Err(error @ CacheError::NotBuilt { .. }) if may_fail(spec) => {
                    tracing::warn!(%error, "the build continues without this cache: ignore-error is set");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(out)
    }
}

fn may_fail(spec: &CacheSpec) -> bool {
    let ignore_error = spec.attrs.get("ignore-error");
    ignore_error.is_some_and(|value| gostd::strconv::is_true(value))
}

/// The computed results of a build with their cache keys.
pub(crate) struct Results {
    single: Option<Arc<Computed>>,
    refs: BTreeMap<String, Option<Arc<Computed>>>,
}

impl Results {
    pub(crate) async fn of(result: &FrontendResult) -> Result<Self, Failure> {
        let mut refs = BTreeMap::new();
        for (id, reference) in &result.refs {
            let computed = match reference {
                Some(reference) => LazyRef::of(reference)?.computed().await?,
                None => None,
            };
            refs.insert(id.clone(), computed);
        }
        let single = match &result.single {
            Some(reference) => LazyRef::of(reference)?.computed().await?,
            None => None,
        };
        Ok(Self { single, refs })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Computed>> {
        self.single.iter().chain(self.refs.values().flatten())
    }

    /// The result for a platform. The only result of a map stands for any platform.
    fn find(&self, id: Option<&str>) -> Option<&Arc<Computed>> {
        if self.refs.is_empty() {
            return self.single.as_ref();
        }
        let by_id = id.and_then(|id| self.refs.get(id));
        let only_result = || self.refs.values().next().filter(|_| self.refs.len() == 1);
        by_id.or_else(only_result)?.as_ref()
    }
}

/// Writes the caches at the same time, and returns their answers to the client.
pub(crate) async fn write(
    scope: &BuildScope,
    exports: &CacheExports,
    results: &Results,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut writing: Vec<BoxFuture<'_, Result<BTreeMap<_, _>, Failure>>> = Vec::new();
    for (at, exporter) in exports.separate.iter().enumerate() {
        let id = format!("{}-cache-{at}", scope.session());
        writing.push(Box::pin(async move {
            let answer = scope
                .run_as_vertex(exporter.name(), &id, |progress| async move {
                    write_one(scope, exporter, results, &progress).await
                })
                .await;
            match answer {
                Err(error) if exporter.ignores_errors() && error.kind != FailureKind::Canceled => {
                    tracing::warn!(%error, cache = exporter.name(), "a cache was not written");
                    Ok(BTreeMap::new())
                }
                answer => answer,
            }
        }));
    }
    let answers = try_join_all(writing).await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn write_one(
    scope: &BuildScope,
    exporter: &CacheExporter,
    results: &Results,
    progress: &Writer,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut records = CacheRecords::default();
    {
        let _status = progress.status("preparing build cache for export", "");
        for computed in results.all() {
            if let Some(ctx) = computed.vertex.as_deref().and_then(|v| scope.op_ctx(v)) {
                exporter.gather(&mut records, &computed.keys, &ctx).await?;
            }
        }
    }
    let _status = progress.status("sending cache export", "");
    Ok(exporter.finish(&records, progress).await?)
}

/// Computes the cache records that images of one exporter carry.
pub(crate) struct Inline {
    scope: Arc<BuildScope>,
    results: Arc<Results>,
    compression: CompressionSpec,
    progress: Writer,
}

impl Inline {
    /// The records for one exporter; none if images carry no records, or if the exporter writes no images.
    pub(crate) fn for_exporter(
        exports: &CacheExports,
        scope: &Arc<BuildScope>,
        results: &Arc<Results>,
        compression: Option<CompressionSpec>,
        progress: &Writer,
    ) -> Option<Arc<dyn InlineCache>> {
        let compression = compression.filter(|_| exports.inline)?;
        Some(Arc::new(Self {
            scope: Arc::clone(scope),
            results: Arc::clone(results),
            compression,
            progress: progress.clone(),
        }))
    }
}

#[async_trait]
impl InlineCache for Inline {
    async fn entry(&self, platform_id: Option<&str>) -> Result<Option<Vec<u8>>, ExportError> {
        let Some(computed) = self.results.find(platform_id) else {
            return Ok(None);
        };
        let ctx = computed
            .vertex
            .as_deref()
            .and_then(|v| self.scope.op_ctx(v));
        let (Some(tree), Some(ctx)) = (&computed.result, ctx) else {
            return Ok(None);
        };
        let title = "preparing layers for inline cache";
        let _status = self.progress.status(title, "");
        let layers = tree.blobs(self.compression).await?;
        let layers: Vec<Digest> = layers.into_iter().map(|l| l.diff_id).collect();
        let records = CacheRecords::inline(&computed.keys, &layers, self.compression, &ctx).await;
        records.map_err(ExportError::supplied)
    }
}
