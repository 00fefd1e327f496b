//! Limits the concurrent transfers of each namespace.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits by namespace. Documents (`…+json`) may use one slot that layers may not.
#[derive(Debug)]
pub(crate) struct TransferLimits {
    size: usize,
    by_host: Mutex<HashMap<String, Slots>>,
}

#[derive(Debug, Clone)]
struct Slots {
    layers: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// The right to one transfer; given back on drop.
#[derive(Debug)]
pub(crate) struct TransferPermit {
    _layer: Option<OwnedSemaphorePermit>,
    _any: OwnedSemaphorePermit,
}

impl TransferLimits {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size: size.max(1),
            by_host: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) async fn acquire(&self, namespace: &str, media_type: &str) -> TransferPermit {
        let slots = {
            let mut map = self.by_host.lock();
            map.entry(namespace.to_owned())
                .or_insert_with(|| Slots {
                    layers: Arc::new(Semaphore::new(self.size)),
                    all: Arc::new(Semaphore::new(self.size.saturating_add(1))),
                })
                .clone()
        };
        let layer = if media_type.ends_with("+json") {
            None
        } else {
            Some(
                slots
                    .layers
                    .acquire_owned()
                    .await
                    .expect("the semaphore is never closed"),
            )
        };
        let any = slots
            .all
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        TransferPermit {
            _layer: layer,
            _any: any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    const DOCUMENT: &str = "application/vnd.oci.image.manifest.v1+json";

    /// A permit, if there is one without waiting.
    fn try_acquire(
        limits: &TransferLimits,
        namespace: &str,
        media_type: &str,
    ) -> Option<TransferPermit> {
        limits.acquire(namespace, media_type).now_or_never()
    }

    #[test]
    fn layers_wait_for_each_other_and_a_document_has_a_place_of_its_own() {
        let limits = TransferLimits::new(2);
        let layers = [
            try_acquire(&limits, "a", LAYER),
            try_acquire(&limits, "a", LAYER),
        ];
        assert!(layers.iter().all(Option::is_some));
        assert!(try_acquire(&limits, "a", LAYER).is_none());
        let document = try_acquire(&limits, "a", DOCUMENT);
        assert!(document.is_some());
        assert!(try_acquire(&limits, "a", DOCUMENT).is_none());
        assert!(
            try_acquire(&limits, "b", LAYER).is_some(),
            "another registry has its own places"
        );
        drop(layers);
        assert!(try_acquire(&limits, "a", LAYER).is_some());
    }

    #[test]
    fn a_limit_of_none_still_lets_one_through() {
        let limits = TransferLimits::new(0);
        let first = try_acquire(&limits, "a", LAYER);
        assert!(first.is_some() && try_acquire(&limits, "a", LAYER).is_none());
    }
}
