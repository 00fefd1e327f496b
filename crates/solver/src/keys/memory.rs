//! Keys and results in memory: for remote caches that are read completely, and for tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::domain::Domain;
use crate::domain::error::KeyStoreError;
use crate::domain::op::OpCtx;
use crate::keys::cachekey::root_key;
use crate::keys::keystore::{KeyLink, KeyStore, ResultStorage, StoredResult};

/// A key store in memory.
#[derive(Debug, Default)]
pub struct MemoryKeyStore {
    inner: Mutex<MemoryKeys>,
}

#[derive(Debug, Default)]
struct MemoryKeys {
    keys: BTreeMap<String, MemoryKey>,
    by_result: HashMap<String, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct MemoryKey {
    results: BTreeMap<String, StoredResult>,
    links: BTreeMap<KeyLink, BTreeSet<String>>,
    backlinks: BTreeSet<String>,
}

impl MemoryKeyStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl MemoryKeys {
    /// Removes `id` if it is useless, then the keys that only led to it.
    fn drop_if_useless(&mut self, id: &str) {
        let mut work = vec![id.to_owned()];
        while let Some(id) = work.pop() {
            let useless = self
                .keys
                .get(&id)
                .is_some_and(|k| k.results.is_empty() && k.links.is_empty());
            if !useless {
                continue;
            }
            let Some(key) = self.keys.remove(&id) else {
                continue;
            };
            for parent in key.backlinks {
                if let Some(p) = self.keys.get_mut(&parent) {
                    p.links.retain(|_, targets| {
                        targets.remove(&id);
                        !targets.is_empty()
                    });
                    work.push(parent);
                }
            }
        }
    }
}

impl KeyStore for MemoryKeyStore {
    fn exists(&self, key: &str) -> Result<bool, KeyStoreError> {
        Ok(self
            .inner
            .lock()
            .keys
            .get(key)
            .is_some_and(|k| !k.results.is_empty() || !k.links.is_empty()))
    }

    fn keys(&self) -> Result<Vec<String>, KeyStoreError> {
        Ok(self.inner.lock().keys.keys().cloned().collect())
    }

    fn results(&self, key: &str) -> Result<Vec<StoredResult>, KeyStoreError> {
        Ok(self
            .inner
            .lock()
            .keys
            .get(key)
            .map(|k| k.results.values().cloned().collect())
            .unwrap_or_default())
    }

    fn load(&self, key: &str, result: &str) -> Result<Option<StoredResult>, KeyStoreError> {
        Ok(self
            .inner
            .lock()
            .keys
            .get(key)
            .and_then(|k| k.results.get(result))
            .cloned())
    }

    fn add_result(&self, key: &str, result: &StoredResult) -> Result<(), KeyStoreError> {
        let mut inner = self.inner.lock();
        inner
            .keys
            .entry(key.to_owned())
            .or_default()
            .results
            .insert(result.id.clone(), result.clone());
        inner
            .by_result
            .entry(result.id.clone())
            .or_default()
            .insert(key.to_owned());
        Ok(())
    }

    fn release(&self, result: &str) -> Result<(), KeyStoreError> {
        let mut inner = self.inner.lock();
        for id in inner.by_result.remove(result).unwrap_or_default() {
            if let Some(key) = inner.keys.get_mut(&id) {
                key.results.remove(result);
            }
            inner.drop_if_useless(&id);
        }
        Ok(())
    }

    fn keys_of_result(&self, result: &str) -> Result<Vec<String>, KeyStoreError> {
        Ok(self
            .inner
            .lock()
            .by_result
            .get(result)
            .map(|ids| ids.iter().cloned().collect())
            .unwrap_or_default())
    }

    fn add_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<(), KeyStoreError> {
        let mut inner = self.inner.lock();
        inner
            .keys
            .entry(key.to_owned())
            .or_default()
            .links
            .entry(link.clone())
            .or_default()
            .insert(target.to_owned());
        inner
            .keys
            .entry(target.to_owned())
            .or_default()
            .backlinks
            .insert(key.to_owned());
        Ok(())
    }

    fn links(&self, key: &str, link: &KeyLink) -> Result<Vec<String>, KeyStoreError> {
        let inner = self.inner.lock();
        let targets = inner.keys.get(key).and_then(|k| k.links.get(link));
        Ok(targets
            .map(|t| t.iter().cloned().collect())
            .unwrap_or_default())
    }

    fn has_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<bool, KeyStoreError> {
        let inner = self.inner.lock();
        Ok(inner
            .keys
            .get(key)
            .and_then(|k| k.links.get(link))
            .is_some_and(|t| t.contains(target)))
    }

    fn backlinks(&self, key: &str) -> Result<Vec<(String, KeyLink)>, KeyStoreError> {
        let inner = self.inner.lock();
        let Some(target) = inner.keys.get(key) else {
            return Ok(Vec::new());
        };
        let mut out = Vec::new();
        for from in &target.backlinks {
            for (link, targets) in inner.keys.get(from).map(|k| &k.links).into_iter().flatten() {
                if targets.contains(key) {
                    let digest =
                        root_key(&link.digest, i64::try_from(link.output).unwrap_or(i64::MAX));
                    out.push((
                        from.clone(),
                        KeyLink {
                            digest,
                            output: 0,
                            input: link.input,
                            selector: link.selector.clone(),
                        },
                    ));
                }
            }
        }
        Ok(out)
    }
}

/// Results in memory, under ids that a function makes of them.
pub struct MemoryResults<R> {
    inner: Mutex<HashMap<String, R>>,
    name: Box<dyn Fn(&R) -> String + Send + Sync>,
}

impl<R> MemoryResults<R> {
    /// Makes an empty storage that names results by `name`.
    pub fn new(name: impl Fn(&R) -> String + Send + Sync + 'static) -> Self {
        Self {
            inner: Mutex::default(),
            name: Box::new(name),
        }
    }

    /// Drops a result, as pruning would.
    pub fn remove(&self, id: &str) -> Option<R> {
        self.inner.lock().remove(id)
    }

    /// The ids of all results.
    pub fn ids(&self) -> Vec<String> {
        self.inner.lock().keys().cloned().collect()
    }
}

#[async_trait]
impl<D: Domain> ResultStorage<D> for MemoryResults<D::Result> {
    fn exists(&self, id: &str) -> bool {
        self.inner.lock().contains_key(id)
    }

    fn save(
        &self,
        result: &D::Result,
        created_at: SystemTime,
    ) -> Result<StoredResult, KeyStoreError> {
        let id = (self.name)(result);
        self.inner.lock().insert(id.clone(), result.clone());
        Ok(StoredResult { id, created_at })
    }

    async fn load(
        &self,
        result: &StoredResult,
        _ctx: &OpCtx<D>,
    ) -> Result<D::Result, KeyStoreError> {
        self.inner
            .lock()
            .get(&result.id)
            .cloned()
            .ok_or_else(|| KeyStoreError::new("not found"))
    }
}

impl<R> fmt::Debug for MemoryResults<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryResults")
            .field("results", &self.inner.lock().len())
            .finish_non_exhaustive()
    }
}
