//! Results by the id of their ref, with the providers of their lazy layers.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use solver::{KeyStoreError, OpCtx, ResultStorage, StoredResult};
use store::{ImmutableRef, RefId, Store};

use crate::{BuildDomain, Ref};

/// Stores results under the ids of their refs. Loading one gives its lazy layers the providers that the source ops
/// below it have put into their cache maps.
pub struct Results {
    store: Arc<Store>,
    inner: Arc<dyn ResultStorage<BuildDomain>>,
}

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Results")
    }
}

impl Results {
    /// Results in `store`.
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        let inner = store.result_storage();
        Arc::new(Self { store, inner })
    }
}

#[async_trait]
impl ResultStorage<BuildDomain> for Results {
    fn exists(&self, id: &str) -> bool {
        self.inner.exists(id)
    }

    fn has_layers(&self, id: &str) -> bool {
        self.inner.has_layers(id)
    }

    fn save(&self, result: &Ref, created_at: SystemTime) -> Result<StoredResult, KeyStoreError> {
        self.inner.save(result, created_at)
    }

    async fn load(
        &self,
        result: &StoredResult,
        ctx: &OpCtx<BuildDomain>,
    ) -> Result<Ref, KeyStoreError> {
        let (store, name) = (Arc::clone(&self.store), result.id.clone());
        let look = move || {
            let reference = RefId::parse(&name).ok().and_then(|id| store.get(&id).ok());
            let Some(reference) = reference.filter(ImmutableRef::is_lazy) else {
                return Ok(None);
            };
            let layers = reference.known_blobs().map_err(KeyStoreError::new)?;
            Ok::<_, KeyStoreError>(Some((reference, layers.unwrap_or_default())))
        };
        // The handle keeps the record and its providers alive until the load below has read them.
        let lazy = task::blocking("find the layers of a result", look).await?;
        for layer in lazy.iter().flat_map(|(_, layers)| layers) {
            let digest = &layer.descriptor.digest;
            if let (Some((reference, _)), Some(hint)) =
                (&lazy, ctx.hint(|hint| hint.layer == *digest))
            {
                reference.add_provider(digest, hint.provider);
            }
        }
        self.inner.load(result, ctx).await
    }
}
