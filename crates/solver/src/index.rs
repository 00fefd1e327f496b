//! Finds active edges with equal keys, so that they can be merged.
//!
//! A graph like that of a key store, but of the keys of edges that are being computed now, and only in memory. An edge is
//! registered under an item; items are linked from the items of input keys by (input, output, digest, selector).
//!
//! Source of the facts: `solver/index.go` (v0.34.2).

use std::collections::{BTreeSet, HashMap};

use crate::domain::Domain;
use crate::keys::cachekey::{CacheKey, root_key};
use crate::keys::keystore::KeyLink;

pub(crate) type EdgeId = u64;

#[derive(Debug, Default)]
pub(crate) struct Index {
    items: HashMap<u64, Item>,
    roots: HashMap<String, u64>,
    by_edge: HashMap<EdgeId, BTreeSet<u64>>,
    next: u64,
}

#[derive(Debug, Default)]
struct Item {
    edge: Option<EdgeId>,
    root: Option<String>,
    links: HashMap<KeyLink, BTreeSet<u64>>,
    deps: BTreeSet<u64>,
}

impl Index {
    /// Registers `edge` under `key`, or returns the edge that is registered and may take it over.
    pub(crate) fn load_or_store<D: Domain>(
        &mut self,
        key: &CacheKey<D>,
        edge: EdgeId,
        ignores_cache: impl Fn(EdgeId) -> bool,
    ) -> Option<EdgeId> {
        self.prepare(key);
        let ids = self.matches(key);
        let registered = ids.iter().rev().find_map(|id| {
            let registered_edge = self.items.get(id)?.edge.filter(|e| *e != edge)?;
            Some((*id, registered_edge))
        });
        if let Some((id, registered_edge)) = registered
            && (ignores_cache(registered_edge) || !ignores_cache(edge))
        {
            self.link(id, key);
            return Some(registered_edge);
        }
        let id = ids.first().copied().unwrap_or_else(|| self.fresh());
        self.link(id, key);
        if let Some(item) = self.items.get_mut(&id) {
            item.edge = Some(edge);
        }
        self.by_edge.entry(edge).or_default().insert(id);
        None
    }

    /// Removes an edge, and the items that only led to it.
    pub(crate) fn release(&mut self, edge: EdgeId) {
        for id in self.by_edge.remove(&edge).unwrap_or_default() {
            if let Some(item) = self
                .items
                .get_mut(&id)
                .filter(|item| item.edge == Some(edge))
            {
                item.edge = None;
            }
            self.drop_if_useless(id);
        }
    }

    /// Removes everything once no edge is active, also items that refer to each other.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.roots.clear();
        self.by_edge.clear();
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.roots.is_empty() && self.by_edge.is_empty()
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn drop_if_useless(&mut self, id: u64) {
        let mut work = vec![id];
        while let Some(id) = work.pop() {
            if !self
                .items
                .get(&id)
                .is_some_and(|item| item.edge.is_none() && item.links.is_empty())
            {
                continue;
            }
            let Some(item) = self.items.remove(&id) else {
                continue;
            };
            if let Some(root) = item.root {
                self.roots.remove(&root);
            }
            for dep in item.deps {
                if let Some(dep_item) = self.items.get_mut(&dep) {
                    dep_item.links.retain(|_, targets| {
                        targets.remove(&id);
                        !targets.is_empty()
                    });
                    work.push(dep);
                }
            }
        }
    }

    fn root<D: Domain>(&mut self, key: &CacheKey<D>) -> u64 {
        let name = root_key(&key.digest, key.output).as_str().to_owned();
        if let Some(id) = self.roots.get(&name) {
            return *id;
        }
        let id = self.fresh();
        self.roots.insert(name.clone(), id);
        self.items.insert(
            id,
            Item {
                root: Some(name),
                ..Item::default()
            },
        );
        id
    }

    /// Assigns items to all keys below `key`, inputs first: chains are as long as definitions, so looking up items must not
    /// recurse.
    fn prepare<D: Domain>(&mut self, key: &CacheKey<D>) {
        fn below<D: Domain>(key: &CacheKey<D>) -> impl Iterator<Item = &CacheKey<D>> {
            key.deps.iter().flatten().map(|dep| &*dep.key.key)
        }
        let mut stack: Vec<(&CacheKey<D>, bool)> = below(key).map(|key| (key, false)).collect();
        while let Some((key, is_ready)) = stack.pop() {
            if self.has_items(key) {
                continue;
            }
            if is_ready {
                self.ids(key);
            } else {
                stack.push((key, true));
                stack.extend(below(key).map(|key| (key, false)));
            }
        }
    }

    fn has_items<D: Domain>(&self, key: &CacheKey<D>) -> bool {
        let ids = key.index_ids.lock();
        ids.iter().any(|id| self.items.contains_key(id))
    }

    /// Returns the items of a key; creates one if there is none.
    fn ids<D: Domain>(&mut self, key: &CacheKey<D>) -> Vec<u64> {
        let live_ids: Vec<u64> = key
            .index_ids
            .lock()
            .iter()
            .copied()
            .filter(|id| self.items.contains_key(id))
            .collect();
        if !live_ids.is_empty() {
            return live_ids;
        }
        let mut ids = self.matches(key);
        if ids.is_empty() {
            ids.push(self.fresh());
        }
        for id in &ids {
            self.link(*id, key);
        }
        key.index_ids.lock().clone_from(&ids);
        ids
    }

    /// Links the items of the inputs of `key` to item `id`.
    fn link<D: Domain>(&mut self, id: u64, key: &CacheKey<D>) {
        self.items.entry(id).or_default();
        for (input, deps) in key.deps.iter().enumerate() {
            for dep in deps {
                let link = label(key, input, dep.selector.as_ref());
                // An output may have the same content as its input; a link to itself would keep an item for ever.
                for from in self
                    .ids(&dep.key.key)
                    .into_iter()
                    .filter(|from| *from != id)
                {
                    if let Some(item) = self.items.get_mut(&from) {
                        item.links.entry(link.clone()).or_default().insert(id);
                    }
                    if let Some(item) = self.items.get_mut(&id) {
                        item.deps.insert(from);
                    }
                }
            }
        }
    }

    /// Returns the items to which every input leads by one of its keys.
    fn matches<D: Domain>(&mut self, key: &CacheKey<D>) -> Vec<u64> {
        if key.deps.is_empty() {
            return vec![self.root(key)];
        }
        let mut matches: Option<BTreeSet<u64>> = None;
        for (input, deps) in key.deps.iter().enumerate() {
            let mut here = BTreeSet::new();
            for dep in deps {
                let link = label(key, input, dep.selector.as_ref());
                for from in self.ids(&dep.key.key) {
                    here.extend(
                        self.items
                            .get(&from)
                            .and_then(|item| item.links.get(&link))
                            .into_iter()
                            .flatten(),
                    );
                }
            }
            matches = Some(match matches {
                None => here,
                Some(all) => all.intersection(&here).copied().collect(),
            });
        }
        matches.unwrap_or_default().into_iter().collect()
    }
}

fn label<D: Domain>(key: &CacheKey<D>, input: usize, selector: Option<&oci::Digest>) -> KeyLink {
    let output = usize::try_from(key.output).unwrap_or_default();
    KeyLink {
        input,
        output,
        digest: key.digest.clone(),
        selector: selector.cloned(),
    }
}

#[cfg(test)]
mod tests;
