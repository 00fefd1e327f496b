//! Remote caches that a build reads, before its results are computed.

use std::collections::HashMap;
use std::sync::Arc;

use frontend::bridge::CacheImport;
use futures::future::{BoxFuture, join_all};
use ops::BuildDomain;
use parking_lot::Mutex;
use remotecache::{CacheContext, Caches};
use solver::CacheManager;
use tokio::sync::OnceCell;

use crate::scope::BuildScope;

/// An imported cache, shared by all who name it; none if it could not be read.
type Import = Arc<OnceCell<Option<Arc<CacheManager<BuildDomain>>>>>;

/// The caches that the definitions of a build are looked up in.
pub(crate) struct CacheImports {
    scope: Arc<BuildScope>,
    caches: Caches,
    /// By name; each is read once per build.
    read: Mutex<HashMap<String, Import>>,
}

impl CacheImports {
    pub(crate) fn new(scope: Arc<BuildScope>, caches: Caches) -> Self {
        Self {
            scope,
            caches,
            read: Mutex::default(),
        }
    }

    /// Opens the named caches. One that cannot be read is shown as a failed step and left out.
    // DIFFERS: they are read before the solver looks up any key, so that it never waits for a registry.
    pub(crate) async fn open(
        &self,
        imports: &[CacheImport],
    ) -> Vec<Arc<CacheManager<BuildDomain>>> {
        let mut reading: Vec<BoxFuture<'_, _>> = Vec::with_capacity(imports.len());
        for import in imports {
            reading.push(Box::pin(async move {
                let name = Caches::name_of(&import.kind, &import.attrs);
                let cell: Import = self.read.lock().entry(name.clone()).or_default().clone();
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
        let read = self.scope.run_as_vertex(&title, "", |progress| async move {
            let context = CacheContext {
                sessions: self.scope.sessions(),
                progress,
            };
            let caches = &self.caches;
            Ok(caches.import(&import.kind, &import.attrs, &context).await?)
        });
        read.await
            .inspect_err(|error| tracing::debug!(%error, name, "a cache was not read"))
            .ok()
    }
}
