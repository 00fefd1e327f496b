//! Imported chains as a key store and a result storage.
//!
//! The id of a key without inputs is its digest, as in all stores. The id of any other key is a digest of the links that lead to
//! it, so that equal caches have equal ids. The id of a result is made of the digests of its layers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use gostd::Timestamp;
use oci::{Descriptor, Digest};
use progress::{Writer, WriterSource as _};
use session::{Group, SessionManager};
use solver::{
    CacheManager, KeyLink, KeyStore, KeyStoreError, OpCtx, ResultStorage, SessionGroup,
    StoredResult, root_key,
};
use store::{
    BlobProvider, BlobSink, FetchError, ImmutableRef, LayerDesc, Shown, Store, StoreError,
    StoreResult,
};

use crate::CacheDomain;
use crate::chains::{ChainLayers, RecordChains};
use crate::import::{CREATED_AT, DESCRIPTION, UNCOMPRESSED};
use crate::place::Place;

/// Annotations that are kept with a layer; all others describe its origin.
const KEPT_ANNOTATIONS: &[&str] = &[
    "containerd.io/snapshot/stargz/toc.digest",
    "io.containers.estargz.uncompressed-size",
];

#[derive(Debug, Default)]
struct ImportedKey {
    results: Vec<(StoredResult, ChainLayers)>,
    /// By input, digest of the record (not of the cache map), selector.
    links: BTreeMap<(usize, Digest, String), Vec<String>>,
    /// Keys that lead here, with the links.
    backlinks: Vec<(String, KeyLink)>,
}

/// Keys of an imported cache; they never change.
#[derive(Debug, Default)]
struct ImportedKeys {
    keys: BTreeMap<String, ImportedKey>,
    by_result: HashMap<String, BTreeSet<String>>,
}

/// Creates a manager of chains whose layers are at a place.
pub(crate) fn manager<D: CacheDomain>(
    id: String,
    chains: &RecordChains,
    place: Arc<dyn Place>,
    (store, sessions): (Arc<Store>, Arc<SessionManager>),
) -> Arc<CacheManager<D>> {
    let keys = Arc::new(ImportedKeys::new(chains));
    let results = ImportedResults {
        keys: Arc::clone(&keys),
        place,
        store,
        sessions,
    };
    CacheManager::new(id, keys, Arc::new(results))
}

impl ImportedKeys {
    fn new(chains: &RecordChains) -> Self {
        let mut out = Self::default();
        let mut names: HashMap<usize, String> = HashMap::new();
        for entry in chains.entries() {
            let mut name = entry.digest.to_string();
            if !entry.ways.is_empty() {
                for (input, ways) in entry.ways.iter().enumerate() {
                    for (from, selector) in ways {
                        let from = names.get(from).map(String::as_str).unwrap_or_default();
                        name += &format!("\n{input} {from} {selector}");
                    }
                }
                name = Digest::sha256(&name).hex().to_owned();
            }
            let mut key = ImportedKey::default();
            for (input, ways) in entry.ways.iter().enumerate() {
                for (from, selector) in ways {
                    let Some(from) = names.get(from) else {
                        continue;
                    };
                    let place = (input, entry.digest.clone(), selector.clone());
                    let above = out.keys.entry(from.clone()).or_default();
                    above.links.entry(place).or_default().push(name.clone());
                    let link = KeyLink {
                        input,
                        output: 0,
                        digest: entry.digest.clone(),
                        selector: (!selector.is_empty()).then(|| Digest::key(selector)),
                    };
                    key.backlinks.push((from.clone(), link));
                }
            }
            for result in entry.results {
                let id = result_id(&result.layers);
                if key.results.iter().any(|(r, _)| r.id == id) {
                    continue;
                }
                out.by_result
                    .entry(id.clone())
                    .or_default()
                    .insert(name.clone());
                let stored = StoredResult {
                    id,
                    created_at: result.created,
                };
                key.results.push((stored, Arc::clone(&result.layers)));
            }
            names.insert(entry.at, name.clone());
            out.keys.insert(name, key);
        }
        out
    }

    fn targets(&self, key: &str, link: &KeyLink) -> &[String] {
        let output = i64::try_from(link.output).unwrap_or(i64::MAX);
        let selector = link.selector.as_ref().map(Digest::to_string);
        let place = (
            link.input,
            root_key(&link.digest, output),
            selector.unwrap_or_default(),
        );
        let targets = self.keys.get(key).and_then(|k| k.links.get(&place));
        targets.map(Vec::as_slice).unwrap_or_default()
    }

    fn layers(&self, result: &str) -> Option<&ChainLayers> {
        let key = self.keys.get(self.by_result.get(result)?.first()?)?;
        let entry = key.results.iter().find(|(r, _)| r.id == result);
        entry.map(|(_, layers)| layers)
    }

    /// For each key with a result, or that such a key leads to: the number of the result's layers that are its own.
    fn parts(&self, result: &str) -> Vec<(String, usize)> {
        let Some(all) = self.layers(result) else {
            return Vec::new();
        };
        let mut work: Vec<&String> = self.by_result.get(result).into_iter().flatten().collect();
        let mut visited: BTreeSet<&String> = work.iter().copied().collect();
        let mut out = Vec::new();
        while let Some(name) = work.pop() {
            let Some(key) = self.keys.get(name) else {
                continue;
            };
            let own = key.results.iter().filter(|(_, layers)| {
                layers.len() <= all.len()
                    && layers
                        .iter()
                        .zip(all.iter())
                        .all(|(a, b)| a.digest == b.digest)
            });
            if let Some(most) = own.map(|(_, layers)| layers.len()).max() {
                out.push((name.clone(), most));
            }
            for (from, _) in &key.backlinks {
                if visited.insert(from) {
                    work.push(from);
                }
            }
        }
        out
    }
}

fn result_id(layers: &ChainLayers) -> String {
    let mut digester = oci::Digester::new();
    for layer in layers.iter() {
        digester.update(layer.digest.as_str().as_bytes());
    }
    digester.finish().to_string()
}

impl KeyStore for ImportedKeys {
    fn exists(&self, key: &str) -> Result<bool, KeyStoreError> {
        Ok(self.keys.contains_key(key))
    }

    fn keys(&self) -> Result<Vec<String>, KeyStoreError> {
        Ok(self.keys.keys().cloned().collect())
    }

    fn results(&self, key: &str) -> Result<Vec<StoredResult>, KeyStoreError> {
        let results = self.keys.get(key).into_iter().flat_map(|k| &k.results);
        Ok(results.map(|(stored, _)| stored.clone()).collect())
    }

    fn load(&self, key: &str, result: &str) -> Result<Option<StoredResult>, KeyStoreError> {
        Ok(self.results(key)?.into_iter().find(|r| r.id == result))
    }

    fn add_result(&self, _key: &str, _result: &StoredResult) -> Result<(), KeyStoreError> {
        Ok(())
    }

    fn release(&self, _result: &str) -> Result<(), KeyStoreError> {
        Ok(())
    }

    fn keys_of_result(&self, result: &str) -> Result<Vec<String>, KeyStoreError> {
        let names = self.by_result.get(result).into_iter().flatten();
        Ok(names.cloned().collect())
    }

    fn add_link(&self, _key: &str, _link: &KeyLink, _target: &str) -> Result<(), KeyStoreError> {
        Ok(())
    }

    fn links(&self, key: &str, link: &KeyLink) -> Result<Vec<String>, KeyStoreError> {
        Ok(self.targets(key, link).to_vec())
    }

    fn has_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<bool, KeyStoreError> {
        Ok(self.targets(key, link).iter().any(|t| t == target))
    }

    fn backlinks(&self, key: &str) -> Result<Vec<(String, KeyLink)>, KeyStoreError> {
        let entry = self.keys.get(key);
        Ok(entry.map(|k| k.backlinks.clone()).unwrap_or_default())
    }
}

/// Creates lazy refs for results.
struct ImportedResults {
    keys: Arc<ImportedKeys>,
    place: Arc<dyn Place>,
    store: Arc<Store>,
    sessions: Arc<SessionManager>,
}

impl fmt::Debug for ImportedResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("importer is immutable")]
struct Immutable;

#[derive(Debug, thiserror::Error)]
#[error("not found")]
struct NotFound;

impl ImportedResults {
    /// The refs of all layers of a result, each with those below it.
    async fn refs<D: CacheDomain>(
        &self,
        layers: ChainLayers,
        ctx: &OpCtx<D>,
    ) -> Result<Vec<ImmutableRef>, KeyStoreError> {
        let provider: Arc<dyn BlobProvider> = Arc::new(CacheLayers {
            place: Arc::clone(&self.place),
            manager: Arc::clone(&self.sessions),
            sessions: ctx.sessions.clone(),
            progress: ctx.sink.writer(),
        });
        let store = Arc::clone(&self.store);
        let import = move || {
            let mut out: Vec<ImmutableRef> = Vec::with_capacity(layers.len());
            for layer in layers.iter() {
                let desc = described(layer)?;
                let imported = store.import_layer(out.last(), desc, Arc::clone(&provider));
                out.push(imported.map_err(KeyStoreError::new)?);
            }
            Ok::<_, KeyStoreError>(out)
        };
        task::blocking("import cached layers", import).await
    }

    /// Downloads layers that will be unavailable once the client is gone.
    async fn secure(&self, top: Option<&ImmutableRef>) -> Result<(), StoreError> {
        let Some(top) = top.filter(|_| !self.place.is_permanent()) else {
            return Ok(());
        };
        for layer in top.known_blobs()?.unwrap_or_default() {
            if layer.layer().is_lazy() {
                layer.ensure().await?;
            }
        }
        Ok(())
    }
}

/// The description of a layer for the store.
fn described(layer: &Descriptor) -> Result<LayerDesc, KeyStoreError> {
    let note = |key: &str| layer.annotations.get(key);
    let plain = layer.media_type.ends_with(".tar") || layer.media_type.ends_with(".diff");
    let diff_id = match note(UNCOMPRESSED) {
        Some(text) => Digest::parse(text).map_err(KeyStoreError::new)?,
        None if plain => layer.digest.clone(),
        None => {
            let missing = format!("missing uncompressed annotation for {}", layer.digest);
            return Err(KeyStoreError::new(missing));
        }
    };
    let created = note(CREATED_AT).map(|text| {
        let time = Timestamp::parse(text);
        time.ok_or_else(|| KeyStoreError::new(format!("invalid time {text:?}")))
    });
    let description = note(DESCRIPTION).cloned();
    let mut descriptor = layer.clone();
    descriptor.urls = Vec::new();
    descriptor
        .annotations
        .retain(|key, _| KEPT_ANNOTATIONS.contains(&key.as_str()));
    let description = description.unwrap_or_else(|| format!("imported {}", layer.digest));
    let mut out = LayerDesc::new(descriptor, diff_id, description);
    out.created = created.transpose()?.map(SystemTime::from);
    Ok(out)
}

#[async_trait]
impl<D: CacheDomain> ResultStorage<D> for ImportedResults {
    fn exists(&self, id: &str) -> bool {
        self.keys.by_result.contains_key(id)
    }

    fn save(
        &self,
        _result: &StoreResult,
        _created_at: SystemTime,
    ) -> Result<StoredResult, KeyStoreError> {
        Err(KeyStoreError::new(Immutable))
    }

    /// Loads a single result; a build that continues from one calls `load_with_parents`.
    async fn load(
        &self,
        result: &StoredResult,
        ctx: &OpCtx<D>,
    ) -> Result<StoreResult, KeyStoreError> {
        let layers = self.keys.layers(&result.id).cloned();
        let layers = layers.ok_or_else(|| KeyStoreError::new(NotFound))?;
        Ok(self.refs(layers, ctx).await?.pop())
    }

    async fn load_with_parents(
        &self,
        key: &str,
        result: &StoredResult,
        ctx: &OpCtx<D>,
    ) -> Result<Vec<(String, StoreResult)>, KeyStoreError> {
        let layers = self.keys.layers(&result.id).cloned();
        let layers = layers.ok_or_else(|| KeyStoreError::new(NotFound))?;
        let refs = self.refs(layers, ctx).await?;
        let secured = self.secure(refs.last()).await;
        secured.map_err(KeyStoreError::new)?;
        let mut out = vec![(key.to_owned(), refs.last().cloned())];
        for (name, length) in self.keys.parts(&result.id) {
            let parent = length.checked_sub(1).and_then(|at| refs.get(at));
            if name != key && parent.is_some() {
                out.push((name, parent.cloned()));
            }
        }
        Ok(out)
    }
}

/// Downloads layers of a cache for the builds that need them, shown at the first vertex that needs them. That vertex stays
/// cached.
#[derive(Debug)]
struct CacheLayers {
    place: Arc<dyn Place>,
    manager: Arc<SessionManager>,
    /// Sessions of the builds that want the vertex.
    sessions: SessionGroup,
    progress: Writer,
}

#[async_trait]
impl BlobProvider for CacheLayers {
    async fn fetch(&self, desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError> {
        let status = self.progress.status(desc.digest.as_str(), "downloading");
        // Sessions of builds that have ended are not waited for.
        let mut asking = self.sessions.ids();
        asking.retain(|id| self.manager.get(id).is_some());
        let asking = Group::new(Arc::clone(&self.manager), asking);
        self.place.layer(desc, &asking, sink, &status).await
    }

    fn unpacking(&self, desc: &Descriptor) -> Shown {
        let title = format!("extracting {}", desc.digest);
        Box::new(self.progress.status(title, "extracting"))
    }

    fn repositories(&self) -> Vec<String> {
        self.place.repositories()
    }
}

#[cfg(test)]
mod tests;
