//! Remote caches of a build: read before results are computed, written when they are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use exporter::{ExportError, InlineCache};
use frontend::FrontendResult;
use frontend::bridge::CacheImport;
use futures::future::{BoxFuture, join_all, try_join_all};
use oci::Digest;
use ops::BuildDomain;
use progress::Writer;
use remotecache::{CacheError, CacheExporter, Caches, Gathered, Scene};
use session::Group;
use solver::CacheManager;
use store::CompressionSpec;
use tokio::sync::OnceCell;

use crate::api::{CacheSpec, Failure, FailureKind};
use crate::build::Build;
use crate::engine::Engine;
use crate::provenance::Computed;
use crate::reference::LazyRef;

/// A cache that was read, once; none if it could not be.
pub(crate) type Import = Arc<OnceCell<Option<Arc<CacheManager<BuildDomain>>>>>;

/// The caches that a build writes.
#[derive(Debug, Default)]
pub(crate) struct CacheExports {
    /// Whether images carry records.
    inline: bool,
    /// All others.
    apart: Vec<CacheExporter>,
}

impl CacheExports {
    /// Reads what the client wants.
    pub(crate) fn resolve(
        engine: &Engine,
        specs: &[CacheSpec],
        session: &str,
    ) -> Result<Self, Failure> {
        let sessions = Arc::clone(&engine.parts.sessions);
        let sessions = Group::new(sessions, [session.to_owned()]);
        let mut out = Self::default();
        for spec in specs {
            match engine.caches.exporter(&spec.kind, &spec.attrs, &sessions) {
                Ok(exporter) if exporter.is_inline() => out.inline = true,
                Ok(exporter) => out.apart.push(exporter),
                Err(error @ CacheError::NotBuilt { .. }) if may_fail(spec) => {
                    tracing::warn!(%error, "the build goes on: errors of this cache are to be ignored");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(out)
    }
}

fn may_fail(spec: &CacheSpec) -> bool {
    let told = spec.attrs.get("ignore-error").map(String::as_str);
    matches!(told, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// The results of a build, as the solver knows them.
pub(crate) struct Results {
    single: Option<Arc<Computed>>,
    refs: BTreeMap<String, Option<Arc<Computed>>>,
}

impl Results {
    pub(crate) async fn of(result: &FrontendResult) -> Result<Self, Failure> {
        let mut refs = BTreeMap::new();
        for (id, found) in &result.refs {
            let found = match found {
                Some(found) => computed(found).await?,
                None => None,
            };
            refs.insert(id.clone(), found);
        }
        let single = match &result.single {
            Some(found) => computed(found).await?,
            None => None,
        };
        Ok(Self { single, refs })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Computed>> {
        self.single.iter().chain(self.refs.values().flatten())
    }

    /// The result for a platform; a map of one answers for any.
    fn find(&self, id: Option<&str>) -> Option<&Arc<Computed>> {
        if self.refs.is_empty() {
            return self.single.as_ref();
        }
        let found = id.and_then(|id| self.refs.get(id));
        let only = || self.refs.values().next().filter(|_| self.refs.len() == 1);
        found.or_else(only)?.as_ref()
    }
}

async fn computed(found: &Arc<dyn frontend::Ref>) -> Result<Option<Arc<Computed>>, Failure> {
    LazyRef::of(found)
        .ok_or_else(|| Failure::new(FailureKind::Internal, "a ref of another engine"))?
        .computed()
        .await
}

/// Writes the caches, side by side, and returns what the client is told.
pub(crate) async fn write(
    build: &Build,
    exports: &CacheExports,
    results: &Results,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut writing: Vec<BoxFuture<'_, Result<BTreeMap<_, _>, Failure>>> = Vec::new();
    for (at, exporter) in exports.apart.iter().enumerate() {
        let id = format!("{}-cache-{at}", build.session);
        writing.push(Box::pin(async move {
            let done = build
                .shown(exporter.name(), &id, |progress| async move {
                    write_one(build, exporter, results, &progress).await
                })
                .await;
            match done {
                Err(error) if exporter.ignores_errors() && error.kind != FailureKind::Canceled => {
                    tracing::warn!(%error, cache = exporter.name(), "a cache was not written");
                    Ok(BTreeMap::new())
                }
                done => done,
            }
        }));
    }
    let answers = try_join_all(writing).await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn write_one(
    build: &Build,
    exporter: &CacheExporter,
    results: &Results,
    progress: &Writer,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut gathered = Gathered::default();
    {
        let _status = progress.status("preparing build cache for export", "");
        for found in results.all() {
            if let Some(ctx) = found.vertex.as_deref().and_then(|v| build.op_ctx(v)) {
                exporter.gather(&mut gathered, &found.keys, &ctx).await?;
            }
        }
    }
    let _status = progress.status("sending cache export", "");
    Ok(exporter.finish(&gathered, progress).await?)
}

/// Makes the records that images carry, for one exporter.
pub(crate) struct Inline {
    build: Arc<Build>,
    results: Arc<Results>,
    compression: CompressionSpec,
    progress: Writer,
}

impl Inline {
    /// None if no image is to carry records, or the exporter makes no images.
    pub(crate) fn wanted(
        exports: &CacheExports,
        build: &Arc<Build>,
        results: &Arc<Results>,
        compression: Option<CompressionSpec>,
        progress: &Writer,
    ) -> Option<Arc<dyn InlineCache>> {
        let compression = compression.filter(|_| exports.inline)?;
        Some(Arc::new(Self {
            build: Arc::clone(build),
            results: Arc::clone(results),
            compression,
            progress: progress.clone(),
        }))
    }
}

#[async_trait]
impl InlineCache for Inline {
    async fn entry(&self, platform_id: Option<&str>) -> Result<Option<Vec<u8>>, ExportError> {
        let Some(found) = self.results.find(platform_id) else {
            return Ok(None);
        };
        let ctx = found.vertex.as_deref().and_then(|v| self.build.op_ctx(v));
        let (Some(tree), Some(ctx)) = (&found.result, ctx) else {
            return Ok(None);
        };
        let title = "preparing layers for inline cache";
        let _status = self.progress.status(title, "");
        let layers = tree.blobs(self.compression).await?;
        let layers: Vec<Digest> = layers.into_iter().map(|l| l.diff_id).collect();
        let made = Gathered::inline(&found.keys, &layers, self.compression, &ctx).await;
        made.map_err(|e| ExportError::Result {
            reason: e.to_string(),
        })
    }
}

impl Build {
    /// The caches to look into, each read once for the build. What cannot be read is shown, and left out.
    // DIFFERS: they are read before the solver looks anything up, so that it never waits for a registry.
    pub(crate) async fn caches(
        self: &Arc<Self>,
        imports: &[CacheImport],
    ) -> Vec<Arc<CacheManager<BuildDomain>>> {
        let mut reading: Vec<BoxFuture<'_, _>> = Vec::with_capacity(imports.len());
        for import in imports {
            reading.push(Box::pin(async move {
                let name = Caches::name_of(&import.kind, &import.attrs);
                let cell: Import = self.imports.lock().entry(name.clone()).or_default().clone();
                let read = cell.get_or_init(|| self.import(&name, import)).await;
                read.clone()
            }));
        }
        join_all(reading).await.into_iter().flatten().collect()
    }

    async fn import(
        &self,
        name: &str,
        import: &CacheImport,
    ) -> Option<Arc<CacheManager<BuildDomain>>> {
        let title = format!("importing cache manifest from {name}");
        let read = self.shown(&title, "", |progress| async move {
            let scene = Scene {
                sessions: self.sessions(),
                progress,
            };
            let caches = &self.engine.caches;
            Ok(caches.import(&import.kind, &import.attrs, &scene).await?)
        });
        read.await
            .inspect_err(|error| tracing::debug!(%error, name, "a cache was not read"))
            .ok()
    }
}
