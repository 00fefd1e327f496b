//! A key store together with its result storage: looks up keys, loads and saves results.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use oci::Digest;
use task::Permits;

use crate::domain::Domain;
use crate::domain::error::KeyStoreError;
use crate::domain::op::OpCtx;
use crate::keys::cachekey::{CacheKey, CacheRecord, DepKey, root_key};
use crate::keys::keystore::{KeyLink, KeyStore, ResultStorage, StoredResult};

/// A loaded result with its key and its entry in the key store.
pub(crate) type LoadedResult<D> = (Arc<CacheKey<D>>, StoredResult, <D as Domain>::Result);

/// A key store with the results of its keys: this machine's, or a remote cache's.
pub struct CacheManager<D: Domain> {
    id: String,
    store: Arc<dyn KeyStore>,
    results: Arc<dyn ResultStorage<D>>,
    /// Finding the id of a key and adding links to it must not interleave with another save: the saver has the permit.
    saving: Permits,
}

impl<D: Domain> CacheManager<D> {
    /// Combines a key store and a result storage, without calling either. Managers of the same store must have the same `id`.
    pub fn new(
        id: impl Into<String>,
        store: Arc<dyn KeyStore>,
        results: Arc<dyn ResultStorage<D>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            store,
            results,
            saving: Permits::new(1),
        })
    }

    /// As [`Self::new`], for a store whose results may have been pruned since its last use: those are released in the background, which
    /// visits every key. Nothing waits for that: a look-up releases what it finds missing. Without a runtime it is done at once.
    pub fn open(
        id: impl Into<String>,
        store: Arc<dyn KeyStore>,
        results: Arc<dyn ResultStorage<D>>,
    ) -> Arc<Self> {
        let manager = Self::new(id, store, results);
        let opened = Arc::clone(&manager);
        let release = move || {
            if let Err(error) = opened.release_unreferenced() {
                tracing::warn!(%error, manager = opened.id, "failed to release cache records of pruned results");
            }
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            let release = task::blocking("release cache records", release);
            task::spawn("release cache records", release).detach();
        } else {
            release();
        }
        manager
    }

    /// Returns the id, which is the same for all managers of the store.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the key store.
    pub fn store(&self) -> &Arc<dyn KeyStore> {
        &self.store
    }

    /// Returns the result storage.
    pub fn results(&self) -> &Arc<dyn ResultStorage<D>> {
        &self.results
    }

    /// Releases all results that cannot be loaded any more, and the keys that are useless without them. Reads a disk.
    pub fn release_unreferenced(&self) -> Result<(), KeyStoreError> {
        let mut visited = BTreeSet::new();
        for key in self.store.keys()? {
            for result in self.store.results(&key)? {
                if visited.insert(result.id.clone()) && !self.results.exists(&result.id) {
                    self.store.release(&result.id)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the keys that any of `deps` leads to, and links all of `deps` to all of them.
    pub(crate) fn query(
        self: &Arc<Self>,
        deps: &[DepKey<D>],
        input: usize,
        digest: &Digest,
        output: usize,
    ) -> Result<Vec<CacheKey<D>>, KeyStoreError> {
        let signed = signed(output);
        if deps.is_empty() {
            let id = root_key(digest, signed).as_str().to_owned();
            let exists = self.store.exists(&id)?;
            return Ok(exists
                .then(|| CacheKey::stored(self, id, digest.clone(), signed))
                .into_iter()
                .collect());
        }
        let mut ways: Vec<(String, KeyLink, BTreeSet<String>)> = Vec::with_capacity(deps.len());
        let mut all = BTreeSet::new();
        for dep in deps {
            let id = self.id_of(&dep.key.key)?;
            let link = KeyLink {
                input,
                output,
                digest: digest.clone(),
                selector: dep.selector.clone(),
            };
            let targets: BTreeSet<String> = self.store.links(&id, &link)?.into_iter().collect();
            all.extend(targets.iter().cloned());
            ways.push((id, link, targets));
        }
        for (id, link, targets) in &ways {
            for missing in all.difference(targets) {
                self.store.add_link(id, link, missing)?;
            }
        }
        Ok(all
            .into_iter()
            .map(|id| CacheKey::stored(self, id, digest.clone(), signed))
            .collect())
    }

    /// Returns the loadable results of a key; releases the others.
    pub(crate) fn records(
        self: &Arc<Self>,
        id: &str,
        key: &Arc<CacheKey<D>>,
        local: bool,
    ) -> Result<Vec<CacheRecord<D>>, KeyStoreError> {
        let mut out = Vec::new();
        for result in self.store.results(id)? {
            if self.results.exists(&result.id) {
                out.push(CacheRecord {
                    id: result.id,
                    created_at: result.created_at,
                    local,
                    manager: Arc::clone(self),
                    key: Arc::clone(key),
                });
            } else {
                self.store.release(&result.id)?;
            }
        }
        Ok(out)
    }

    /// Loads a record and the further results that its storage returns with it, each with its key in the record's chain.
    pub(crate) async fn load(
        self: &Arc<Self>,
        record: &CacheRecord<D>,
        ctx: &OpCtx<D>,
    ) -> Result<Vec<LoadedResult<D>>, KeyStoreError> {
        let (manager, key) = (Arc::clone(self), Arc::clone(&record.key));
        let name = record.id.clone();
        let find = move || {
            let id = manager.id_of(&key)?;
            let stored = manager.store.load(&id, &name)?;
            let stored = stored.ok_or_else(|| KeyStoreError::new(RecordGone))?;
            Ok::<_, KeyStoreError>((id, stored))
        };
        let (id, stored) = task::blocking("find a cache record", find).await?;
        let mut loaded = self.results.load_with_parents(&id, &stored, ctx).await?;
        if loaded.len() == 1
            && let Some((_, result)) = loaded.pop_if(|(key_id, _)| *key_id == id)
        {
            return Ok(vec![(Arc::clone(&record.key), stored, result)]);
        }
        let (manager, key) = (Arc::clone(self), Arc::clone(&record.key));
        let assign = move || manager.assign(key, &id, &stored, loaded);
        task::blocking("find keys of loaded results", assign).await
    }

    /// Assigns each loaded result to its key in the chain of `top`, which has the id `id` in the store.
    fn assign(
        self: &Arc<Self>,
        top: Arc<CacheKey<D>>,
        id: &str,
        stored: &StoredResult,
        loaded: Vec<(String, D::Result)>,
    ) -> Result<Vec<LoadedResult<D>>, KeyStoreError> {
        let mut by_key: HashMap<String, D::Result> = loaded.into_iter().collect();
        let mut out = Vec::new();
        let mut visited = BTreeSet::new();
        let mut work = vec![top];
        while let Some(key) = work.pop() {
            let key_id = self.id_of(&key)?;
            if !visited.insert(key_id.clone()) {
                continue;
            }
            if let Some(result) = by_key.remove(&key_id) {
                let at = if key_id == id {
                    Some(stored.clone())
                } else {
                    self.store.results(&key_id)?.into_iter().next()
                };
                if let Some(at) = at {
                    out.push((Arc::clone(&key), at, result));
                }
            }
            for dep in key.deps.iter().flatten() {
                work.push(Arc::clone(&dep.key.key));
            }
        }
        if out.is_empty() {
            Err(KeyStoreError::new(RecordGone))
        } else {
            Ok(out)
        }
    }

    /// Saves results under keys, one after the other.
    pub(crate) async fn save_all(
        self: &Arc<Self>,
        entries: Vec<(Arc<CacheKey<D>>, D::Result, SystemTime)>,
    ) -> Result<Vec<CacheRecord<D>>, KeyStoreError> {
        let permit = self.saving.acquire().await;
        let manager = Arc::clone(self);
        let save = move || {
            // The saving thread releases the permit, because the caller may be cancelled earlier.
            let _permit = permit;
            entries
                .iter()
                .map(|(key, result, created_at)| manager.save(key, result, *created_at))
                .collect()
        };
        task::blocking("save cache records", save).await
    }

    /// Saves a result under a key. Callers hold the permit.
    pub(crate) fn save(
        self: &Arc<Self>,
        key: &Arc<CacheKey<D>>,
        result: &D::Result,
        created_at: SystemTime,
    ) -> Result<CacheRecord<D>, KeyStoreError> {
        let stored = self.results.save(result, created_at)?;
        let id = self.id_of(key)?;
        let mut links = Vec::new();
        self.missing_links(key, &id, &mut links)?;
        self.store.save(&id, &stored, &links)?;
        Ok(CacheRecord {
            id: stored.id,
            created_at: stored.created_at,
            local: true,
            manager: Arc::clone(self),
            key: Arc::clone(key),
        })
    }

    /// Collects the missing links that lead to `key`, and before them those that lead to their origins.
    fn missing_links(
        self: &Arc<Self>,
        key: &Arc<CacheKey<D>>,
        id: &str,
        out: &mut Vec<(String, KeyLink, String)>,
    ) -> Result<(), KeyStoreError> {
        let mut visited = BTreeSet::from([id.to_owned()]);
        let mut work = vec![(Arc::clone(key), id.to_owned())];
        while let Some((key, id)) = work.pop() {
            for (input, deps) in key.deps.iter().enumerate() {
                for dep in deps {
                    let output = usize::try_from(key.output).unwrap_or_default();
                    let link = KeyLink {
                        input,
                        output,
                        digest: key.digest.clone(),
                        selector: dep.selector.clone(),
                    };
                    let from = self.id_of(&dep.key.key)?;
                    if !self.store.has_link(&from, &link, &id)? {
                        if visited.insert(from.clone()) {
                            work.push((Arc::clone(&dep.key.key), from.clone()));
                        }
                        out.push((from, link, id.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the id of a key in this store; a key that it lacks gets the id under which it will be saved.
    pub(crate) fn id_of(self: &Arc<Self>, key: &Arc<CacheKey<D>>) -> Result<String, KeyStoreError> {
        // Chains are as long as Dockerfiles: an explicit stack, inputs first.
        let mut work = vec![Arc::clone(key)];
        while let Some(top) = work.last().cloned() {
            if top.ids.lock().contains_key(&self.id) {
                work.pop();
                continue;
            }
            let unknown: Vec<_> = top
                .deps
                .iter()
                .flatten()
                .map(|d| &d.key.key)
                .filter(|k| !k.ids.lock().contains_key(&self.id))
                .cloned()
                .collect();
            if !unknown.is_empty() {
                work.extend(unknown);
                continue;
            }
            let id = if top.deps.is_empty() {
                top.id.clone()
            } else {
                self.id_from_deps(&top)?
            };
            top.ids
                .lock()
                .entry(self.id.clone())
                .or_insert_with(|| (Arc::clone(self), id));
            work.pop();
        }
        Ok(key
            .ids
            .lock()
            .get(&self.id)
            .map(|(_, id)| id.clone())
            .expect("the loop ends once the key has an id"))
    }

    fn id_from_deps(&self, key: &CacheKey<D>) -> Result<String, KeyStoreError> {
        let mut matches: BTreeSet<String> = BTreeSet::new();
        for (input, deps) in key.deps.iter().enumerate() {
            if input > 0 && matches.is_empty() {
                break;
            }
            for dep in deps {
                let output = usize::try_from(key.output).unwrap_or_default();
                let link = KeyLink {
                    input,
                    output,
                    digest: key.digest.clone(),
                    selector: dep.selector.clone(),
                };
                let from = dep
                    .key
                    .key
                    .ids
                    .lock()
                    .get(&self.id)
                    .map(|(_, id)| id.clone())
                    .unwrap_or_default();
                let targets = self.store.links(&from, &link)?;
                if input == 0 {
                    matches.extend(targets);
                } else {
                    matches.retain(|m| targets.contains(m));
                }
            }
        }
        Ok(matches.pop_first().unwrap_or_else(random_id))
    }
}

/// The record was pruned between the decision to load it and the load.
#[derive(Debug, thiserror::Error)]
#[error("failed to load deleted cache")]
struct RecordGone;

/// The managers for one vertex: this machine's, and those of the remote caches that its jobs import.
pub(crate) struct Managers<D: Domain> {
    pub(crate) main: Arc<CacheManager<D>>,
    pub(crate) imported: Vec<Arc<CacheManager<D>>>,
}

impl<D: Domain> Managers<D> {
    fn all(&self) -> impl Iterator<Item = &Arc<CacheManager<D>>> {
        std::iter::once(&self.main).chain(&self.imported)
    }

    pub(crate) fn query(
        &self,
        deps: &[DepKey<D>],
        input: usize,
        digest: &Digest,
        output: usize,
    ) -> Result<Vec<Arc<CacheKey<D>>>, KeyStoreError> {
        let mut keys: BTreeMap<String, CacheKey<D>> = BTreeMap::new();
        for manager in self.all() {
            for key in manager.query(deps, input, digest, output)? {
                match keys.get(&key.id) {
                    // DIFFERS: a root key that several stores have keeps all of them; BuildKit keeps one.
                    Some(same_key) => same_key.ids.lock().extend(key.ids.lock().drain()),
                    None => {
                        keys.insert(key.id.clone(), key);
                    }
                }
            }
        }
        Ok(keys.into_values().map(Arc::new).collect())
    }

    pub(crate) fn records(
        &self,
        key: &Arc<CacheKey<D>>,
    ) -> Result<Vec<CacheRecord<D>>, KeyStoreError> {
        let places: Vec<_> = key.ids.lock().values().cloned().collect();
        let mut records: BTreeMap<String, CacheRecord<D>> = BTreeMap::new();
        for (manager, id) in places {
            let local = manager.id == self.main.id;
            for record in manager.records(&id, key, local)? {
                if local || !records.contains_key(&record.id) {
                    records.insert(record.id.clone(), record);
                }
            }
        }
        Ok(records.into_values().collect())
    }
}

fn signed(output: usize) -> i64 {
    i64::try_from(output).unwrap_or(i64::MAX)
}

/// Returns an id that no other call returns.
pub(crate) fn random_id() -> String {
    static SEED: LazyLock<(u64, u64)> = LazyLock::new(|| {
        (
            RandomState::new().hash_one(1),
            RandomState::new().hash_one(2),
        )
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{:x} {:x} {count}", SEED.0, SEED.1);
    Digest::sha256(text)
        .hex()
        .get(..32)
        .unwrap_or_default()
        .to_owned()
}

impl<D: Domain> fmt::Debug for CacheManager<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheManager")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
