//! How many transfers run at once for each namespace.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits by namespace. Documents (`…+json`) may use one slot that layers may not.
#[derive(Debug)]
pub(crate) struct Limits {
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
pub(crate) struct Permit {
    _layer: Option<OwnedSemaphorePermit>,
    _any: OwnedSemaphorePermit,
}

impl Limits {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size: size.max(1),
            by_host: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) async fn acquire(&self, namespace: &str, media_type: &str) -> Permit {
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
        Permit {
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
    fn now(limits: &Limits, namespace: &str, media_type: &str) -> Option<Permit> {
        limits.acquire(namespace, media_type).now_or_never()
    }

    #[test]
    fn layers_wait_for_each_other_and_a_document_has_a_place_of_its_own() {
        let limits = Limits::new(2);
        let layers = [now(&limits, "a", LAYER), now(&limits, "a", LAYER)];
        assert!(layers.iter().all(Option::is_some));
        assert!(now(&limits, "a", LAYER).is_none());
        let document = now(&limits, "a", DOCUMENT);
        assert!(document.is_some());
        assert!(now(&limits, "a", DOCUMENT).is_none());
        assert!(
            now(&limits, "b", LAYER).is_some(),
            "another registry has its own places"
        );
        drop(layers);
        assert!(now(&limits, "a", LAYER).is_some());
    }

    #[test]
    fn a_limit_of_none_still_lets_one_through() {
        let limits = Limits::new(0);
        let first = now(&limits, "a", LAYER);
        assert!(first.is_some() && now(&limits, "a", LAYER).is_none());
    }
}
