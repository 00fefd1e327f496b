//! The key algebra.
//!
//! | key of                                    | id                                                      |
//! |-------------------------------------------|---------------------------------------------------------|
//! | an output of an op without inputs         | sha256 of `<cache map digest>@<output>`                 |
//! | the same, digest is `random:x`            | `random:x` (never equal to anything of another build)   |
//! | the content of an input (slow key)        | sha256 of `<content digest>@-1`                         |
//! | an output of an op with inputs, in a store | the id all inputs' keys link to by (input, output, digest, selector); new ones are random |
//! | the same, in a remote cache               | sha256 of `<cache map digest>@<output>`, and links      |
//!
//! An op with inputs has one key per combination of its inputs' keys that was seen; a key holds, per input, all keys of the
//! input. The selector is part of a link only for an input's own keys, not for its content key.
//!
//! Source of the facts: `solver/cachekey.go`, `solver/cachemanager.go` (v0.34.2).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use oci::Digest;
use parking_lot::Mutex;

use crate::domain::Domain;
use crate::keys::export::Exporter;
use crate::keys::manager::CacheManager;

/// Returns the id of a key without inputs. Content keys have output −1.
pub fn root_key(digest: &Digest, output: i64) -> Digest {
    if digest.as_str().starts_with("random:") {
        return digest.clone();
    }
    Digest::sha256(format!("{digest}@{output}"))
}

/// Ids of a key in stores, by the manager's id.
pub(crate) type StoreIds<D> = HashMap<String, (Arc<CacheManager<D>>, String)>;

/// A key: a digest, and for each input the keys of the input.
pub struct CacheKey<D: Domain> {
    pub(crate) id: String,
    pub(crate) digest: Digest,
    pub(crate) output: i64,
    /// Client's digest of the vertex that the key was computed for, if any.
    pub(crate) vertex: Option<Digest>,
    pub(crate) deps: Vec<Vec<DepKey<D>>>,
    /// Ids in stores, by the manager's id.
    pub(crate) ids: Mutex<StoreIds<D>>,
    /// Ids in the index of active edges.
    pub(crate) index_ids: Mutex<Vec<u64>>,
}

/// A key of an input with its selector.
pub struct DepKey<D: Domain> {
    /// Digest of the part of the input that is read; none for all of it.
    pub selector: Option<Digest>,
    /// The input's key.
    pub key: KeyInfo<D>,
}

/// A key with what can be exported for it.
pub struct KeyInfo<D: Domain> {
    /// The key.
    pub key: Arc<CacheKey<D>>,
    /// The records that can be exported for it.
    pub(crate) exporter: Arc<Exporter<D>>,
}

/// A result of a key, in a store.
pub struct CacheRecord<D: Domain> {
    /// Id in the result storage.
    pub id: String,
    /// When the result was created.
    pub created_at: SystemTime,
    /// Whether this machine's own store has it.
    pub(crate) local: bool,
    pub(crate) manager: Arc<CacheManager<D>>,
    pub(crate) key: Arc<CacheKey<D>>,
}

impl<D: Domain> CacheKey<D> {
    pub(crate) fn new(
        digest: Digest,
        output: i64,
        vertex: Option<Digest>,
        deps: Vec<Vec<DepKey<D>>>,
    ) -> Self {
        let id = root_key(&digest, output).as_str().to_owned();
        Self {
            id,
            digest,
            output,
            vertex,
            deps,
            ids: Mutex::default(),
            index_ids: Mutex::default(),
        }
    }

    /// Creates a key that a store has under `id`.
    pub(crate) fn stored(
        manager: &Arc<CacheManager<D>>,
        id: String,
        digest: Digest,
        output: i64,
    ) -> Self {
        let ids = HashMap::from([(manager.id().to_owned(), (Arc::clone(manager), id.clone()))]);
        Self {
            id,
            digest,
            output,
            vertex: None,
            deps: Vec::new(),
            ids: Mutex::new(ids),
            index_ids: Mutex::default(),
        }
    }

    /// A copy with other inputs and vertex.
    pub(crate) fn with(&self, vertex: Digest, deps: Vec<Vec<DepKey<D>>>) -> Self {
        Self {
            id: self.id.clone(),
            digest: self.digest.clone(),
            output: self.output,
            vertex: Some(vertex),
            deps,
            ids: Mutex::new(self.ids.lock().clone()),
            index_ids: Mutex::default(),
        }
    }

    /// Returns the id: a root key's digest, or the store's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the digest of the op's cache map, or that of the content.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the index of the output; −1 for a content key.
    pub fn output(&self) -> i64 {
        self.output
    }
}

/// A link of a chain of keys while the chain is dropped.
enum ChainLink<D: Domain> {
    Key(Arc<CacheKey<D>>),
    Exporter(Arc<Exporter<D>>),
}

impl<D: Domain> Drop for CacheKey<D> {
    /// Drops the keys of its inputs one after the other: dropping a chain as long as a definition by recursion would overflow the stack.
    fn drop(&mut self) {
        fn unlink<D: Domain>(deps: Vec<Vec<DepKey<D>>>, links: &mut Vec<ChainLink<D>>) {
            for KeyInfo { key, exporter } in deps.into_iter().flatten().map(|dep| dep.key) {
                links.push(ChainLink::Exporter(exporter));
                links.push(ChainLink::Key(key));
            }
        }
        let mut links = Vec::new();
        unlink(std::mem::take(&mut self.deps), &mut links);
        while let Some(link) = links.pop() {
            match link {
                ChainLink::Key(key) => {
                    if let Some(mut key) = Arc::into_inner(key) {
                        unlink(std::mem::take(&mut key.deps), &mut links);
                    }
                }
                ChainLink::Exporter(exporter) => match Arc::into_inner(exporter) {
                    None => {}
                    Some(Exporter::Merged(parts)) => {
                        links.extend(parts.into_iter().map(ChainLink::Exporter));
                    }
                    Some(Exporter::Key(part)) => {
                        let records = part.record.into_iter().chain(part.records);
                        links.extend(records.map(|record| ChainLink::Key(record.key)));
                        links.push(ChainLink::Key(part.key));
                        let secondaries = part.secondaries.and_then(Arc::into_inner);
                        let secondaries = secondaries.map(Mutex::into_inner).unwrap_or_default();
                        unlink(
                            vec![secondaries.into_iter().map(|(_, dep)| dep).collect()],
                            &mut links,
                        );
                    }
                },
            }
        }
    }
}

impl<D: Domain> CacheRecord<D> {
    /// Orders by preference: the newest first; of equally new ones, that of another store first, as BuildKit does.
    pub(crate) fn order(&self, other: &Self) -> std::cmp::Ordering {
        other
            .created_at
            .cmp(&self.created_at)
            .then(self.local.cmp(&other.local))
            .then_with(|| self.id.cmp(&other.id))
    }
}

impl<D: Domain> Clone for DepKey<D> {
    fn clone(&self) -> Self {
        Self {
            selector: self.selector.clone(),
            key: self.key.clone(),
        }
    }
}

impl<D: Domain> Clone for KeyInfo<D> {
    fn clone(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            exporter: Arc::clone(&self.exporter),
        }
    }
}

impl<D: Domain> Clone for CacheRecord<D> {
    fn clone(&self) -> Self {
        Self {
            id: self.id.clone(),
            created_at: self.created_at,
            local: self.local,
            manager: Arc::clone(&self.manager),
            key: Arc::clone(&self.key),
        }
    }
}

impl<D: Domain> fmt::Debug for CacheKey<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} {}", self.digest, self.output, self.id)
    }
}

impl<D: Domain> fmt::Debug for DepKey<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DepKey")
            .field("selector", &self.selector)
            .field("key", &self.key.key)
            .finish()
    }
}

impl<D: Domain> fmt::Debug for KeyInfo<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

impl<D: Domain> fmt::Debug for CacheRecord<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheRecord")
            .field("id", &self.id)
            .field("created_at", &self.created_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ResultsOnly;

    #[test]
    fn a_chain_of_keys_is_dropped_on_a_small_stack() {
        let chain = || {
            let digest = Digest::sha256(b"x");
            let mut top = Arc::new(CacheKey::<ResultsOnly<()>>::new(
                digest.clone(),
                0,
                None,
                Vec::new(),
            ));
            for _ in 0..100_000 {
                let exporter = Exporter::Merged(vec![Exporter::bare(&top), Exporter::bare(&top)]);
                let dep = DepKey {
                    selector: None,
                    key: KeyInfo {
                        key: top,
                        exporter: Arc::new(exporter),
                    },
                };
                top = Arc::new(CacheKey::new(digest.clone(), 0, None, vec![vec![dep]]));
            }
            drop(top);
        };
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small.spawn(chain).unwrap().join().unwrap();
    }
}
