//! Results by the name of their ref, with what lazy layers need to be fetched.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use solver::{KeyStoreError, OpCtx, ResultStorage, StoredResult};
use store::{RefId, Store};

use crate::Ref;

use crate::BuildDomain;

/// Keeps results under the names of their refs. Loading one gives its lazy layers the providers that the source ops
/// below it left in their cache maps.
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
    /// Results of `store`.
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
        // The handle keeps the record alive, and with it the providers, until the load below has looked.
        let held = RefId::parse(&result.id)
            .ok()
            .and_then(|id| self.store.get(&id).ok());
        if let Some(reference) = held.as_ref().filter(|r| r.is_lazy()) {
            let known = reference
                .known_blobs()
                .map_err(KeyStoreError::new)?
                .unwrap_or_default();
            for layer in known {
                let digest = layer.descriptor.digest;
                if let Some(hint) = ctx.hint(|hint| hint.layer == digest) {
                    reference.add_provider(&digest, hint.provider);
                }
            }
        }
        self.inner.load(result, ctx).await
    }
}
