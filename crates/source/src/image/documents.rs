//! A cache of manifests, indexes and configs, by the repository that served them.
//!
//! A document is found by repository *and* digest: bytes that one repository served do not make an image exist in another
//! (P9). The cache is bounded; the least recently used document is dropped first, and costs one request when it is needed.

use std::collections::HashMap;

use bytes::Bytes;
use oci::{Descriptor, Digest};
use parking_lot::Mutex;

/// Bytes of all documents together.
const MAX_BYTES: usize = 32 << 20;

#[derive(Debug, Default)]
pub(crate) struct DocumentCache {
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    entries: HashMap<(String, Digest), CachedDocument>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct CachedDocument {
    media_type: String,
    body: Bytes,
    used: u64,
}

impl DocumentCache {
    /// The document and its descriptor, if that repository has served it.
    pub(crate) fn get(&self, authority: &str, digest: &Digest) -> Option<(Descriptor, Bytes)> {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let entry = state
            .entries
            .get_mut(&(authority.to_owned(), digest.clone()))?;
        entry.used = now;
        let desc = Descriptor::new(
            entry.media_type.clone(),
            digest.clone(),
            entry.body.len() as u64,
        );
        Some((desc, entry.body.clone()))
    }

    pub(crate) fn put(&self, authority: &str, desc: &Descriptor, body: Bytes) {
        let mut state = self.state.lock();
        state.clock += 1;
        state.bytes += body.len();
        let entry = CachedDocument {
            media_type: desc.media_type.clone(),
            body,
            used: state.clock,
        };
        if let Some(replaced) = state
            .entries
            .insert((authority.to_owned(), desc.digest.clone()), entry)
        {
            state.bytes -= replaced.body.len();
        }
        while state.bytes > MAX_BYTES {
            let oldest = state
                .entries
                .iter()
                .min_by_key(|(_, e)| e.used)
                .map(|(k, _)| k.clone());
            let Some(oldest) = oldest else { break };
            if let Some(removed) = state.entries.remove(&oldest) {
                state.bytes -= removed.body.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DocumentCache;
    use bytes::Bytes;
    use oci::Descriptor;

    #[test]
    fn a_document_belongs_to_the_repository_that_showed_it() {
        let documents = DocumentCache::default();
        let desc = Descriptor::of_bytes("t", b"{}");
        documents.put("a.example/x", &desc, Bytes::from_static(b"{}"));
        assert!(documents.get("a.example/x", &desc.digest).is_some());
        assert!(documents.get("b.example/x", &desc.digest).is_none());
    }
}
