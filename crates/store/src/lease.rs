//! Holds on blobs that nothing else names yet.

use std::collections::HashMap;
use std::sync::Arc;

use oci::Digest;
use parking_lot::Mutex;

/// How many leases hold each blob.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<HashMap<Digest, usize>>);

impl Held {
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.0.lock().contains_key(digest)
    }
}

/// Protects blobs from pruning while work goes on. Released on drop; a process that dies releases it as well.
#[derive(Debug)]
pub struct Lease {
    held: Arc<Held>,
    mine: Mutex<Vec<Digest>>,
}

impl Lease {
    pub(crate) fn new(held: Arc<Held>) -> Self {
        Self { held, mine: Mutex::new(Vec::new()) }
    }

    /// Adds a blob to what the lease protects, whether it exists yet or not.
    pub fn hold(&self, digest: &Digest) {
        *self.held.0.lock().entry(digest.clone()).or_insert(0) += 1;
        self.mine.lock().push(digest.clone());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.held.0.lock();
        for digest in self.mine.get_mut().drain(..) {
            if let Some(n) = held.get_mut(&digest) {
                *n -= 1;
                if *n == 0 {
                    held.remove(&digest);
                }
            }
        }
    }
}
