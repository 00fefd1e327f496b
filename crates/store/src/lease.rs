//! Leases: they protect blobs that no record names yet.

use std::collections::HashMap;
use std::sync::Arc;

use oci::Digest;
use parking_lot::Mutex;

/// The number of leases that hold each blob.
#[derive(Debug, Default)]
pub(crate) struct HeldBlobs(Mutex<HashMap<Digest, usize>>);

impl HeldBlobs {
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.0.lock().contains_key(digest)
    }
}

#[derive(Debug)]
struct LeaseInner {
    held: Arc<HeldBlobs>,
    blobs: Mutex<Vec<Digest>>,
}

/// Protects blobs from pruning while work goes on. Released when the last clone and the last blob writer made with it are
/// gone; a process that dies releases it as well.
#[derive(Debug, Clone)]
pub struct Lease(Arc<LeaseInner>);

impl Lease {
    pub(crate) fn new(held: Arc<HeldBlobs>) -> Self {
        Self(Arc::new(LeaseInner {
            held,
            blobs: Mutex::new(Vec::new()),
        }))
    }

    /// Adds a blob to what the lease protects, whether it exists yet or not.
    pub fn hold(&self, digest: &Digest) {
        *self.0.held.0.lock().entry(digest.clone()).or_insert(0) += 1;
        self.0.blobs.lock().push(digest.clone());
    }
}

impl Drop for LeaseInner {
    fn drop(&mut self) {
        let mut held = self.held.0.lock();
        for digest in self.blobs.get_mut().drain(..) {
            if let Some(n) = held.get_mut(&digest) {
                *n -= 1;
                if *n == 0 {
                    held.remove(&digest);
                }
            }
        }
    }
}
