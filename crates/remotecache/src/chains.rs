//! Records of a cache and their links, with equal records merged.
//!
//! Two records are equal if they have the same digest and no inputs, or if for every input a link that leads to one
//! of them leads to the other. Imported records and those to be exported are both merged here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use gostd::Timestamp;
use oci::image::MAX_LAYERS;
use oci::{Descriptor, Digest, media_type};
use solver::{Domain, export};

use crate::error::CacheError;
use crate::format::{CacheConfig, CacheInput, CacheLayer, CacheRecord, CacheResult};

/// Limit on the layers that all results of a cache list together, far above those of real caches.
const MAX_LISTED_LAYERS: usize = 1 << 20;
/// Limit on the steps of merging the records of a cache, far above those of real caches.
const MAX_MERGE_STEPS: usize = 1 << 26;
/// Number of results of one record; real ones have a few, of which the newest is used.
const MAX_RESULTS_PER_RECORD: usize = 256;

/// The layers of a result, base first.
pub(crate) type ChainLayers = Arc<[Arc<Descriptor>]>;

/// A result of a record: its layers and its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainResult {
    pub(crate) created: SystemTime,
    pub(crate) layers: ChainLayers,
}

/// A link from an input: the index of its record, and the selector.
pub(crate) type InputLink = (usize, String);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct LinkKey {
    input: usize,
    digest: Digest,
    selector: String,
}

#[derive(Debug, Default)]
struct ChainRecord {
    digest: Option<Digest>,
    children: BTreeMap<LinkKey, BTreeSet<usize>>,
    parents: Vec<BTreeSet<InputLink>>,
    results: Vec<ChainResult>,
    /// The record into which this one was merged.
    merged: Option<usize>,
}

/// Records and the links between them.
#[derive(Debug, Default)]
pub(crate) struct RecordChains {
    items: Vec<ChainRecord>,
    roots: HashMap<Digest, usize>,
    listed: usize,
    steps: usize,
}

/// A record in the list of all records.
#[derive(Debug)]
pub(crate) struct RecordEntry<'a> {
    pub(crate) at: usize,
    pub(crate) digest: &'a Digest,
    /// Per input, the links that lead here.
    pub(crate) ways: &'a [BTreeSet<InputLink>],
    pub(crate) results: &'a [ChainResult],
}

impl RecordChains {
    /// Adds a record; returns its index. None for records that are not kept: those of a random key, and those that follow from one.
    pub(crate) fn add(
        &mut self,
        digest: &Digest,
        inputs: &[Vec<InputLink>],
        results: Vec<ChainResult>,
    ) -> Result<Option<usize>, CacheError> {
        if digest.as_str().starts_with("random:") {
            return Ok(None);
        }
        if inputs.is_empty() {
            let at = match self.roots.get(digest) {
                Some(at) => *at,
                None => self.new_item(digest),
            };
            self.roots.insert(digest.clone(), at);
            self.add_results(at, results);
            return Ok(Some(at));
        }
        if inputs.iter().any(Vec::is_empty) {
            return Ok(None);
        }
        let inputs: Vec<Vec<InputLink>> = inputs
            .iter()
            .map(|ways| {
                let ways = ways.iter();
                ways.map(|(at, selector)| (self.real(*at), selector.clone()))
                    .collect()
            })
            .collect();
        let mut same = self.records_of_links(digest, &inputs)?.into_iter();
        let (at, below) = match same.next() {
            None => (self.new_item(digest), HashSet::new()),
            Some(main) => {
                for duplicate in same {
                    self.merge(main, duplicate)?;
                }
                (main, self.descendants(main)?)
            }
        };
        self.add_results(at, results);
        for (input, ways) in inputs.into_iter().enumerate() {
            for way in ways {
                // A record that follows from this one must not become one of its inputs.
                if !below.contains(&way.0) {
                    self.link(way, input, at);
                }
            }
        }
        Ok(Some(at))
    }

    fn new_item(&mut self, digest: &Digest) -> usize {
        self.items.push(ChainRecord {
            digest: Some(digest.clone()),
            ..ChainRecord::default()
        });
        self.items.len() - 1
    }

    fn real(&self, mut at: usize) -> usize {
        while let Some(next) = self.items.get(at).and_then(|i| i.merged) {
            at = next;
        }
        at
    }

    fn add_results(&mut self, at: usize, results: Vec<ChainResult>) {
        if let Some(item) = self.items.get_mut(at) {
            for result in results {
                let is_same = |r: &ChainResult| {
                    let mut layers = r.layers.iter().zip(result.layers.iter());
                    r.created == result.created
                        && r.layers.len() == result.layers.len()
                        && layers.all(|(a, b)| Arc::ptr_eq(a, b) || a.digest == b.digest)
                };
                if item.results.len() < MAX_RESULTS_PER_RECORD && !item.results.iter().any(is_same)
                {
                    item.results.push(result);
                }
            }
        }
    }

    /// The records to which a link of every input leads.
    fn records_of_links(
        &mut self,
        digest: &Digest,
        inputs: &[Vec<InputLink>],
    ) -> Result<BTreeSet<usize>, CacheError> {
        let mut all: Option<BTreeSet<usize>> = None;
        for (input, ways) in inputs.iter().enumerate() {
            let mut here = BTreeSet::new();
            for (from, selector) in ways {
                let key = LinkKey {
                    input,
                    digest: digest.clone(),
                    selector: selector.clone(),
                };
                let children = self.items.get(*from).and_then(|i| i.children.get(&key));
                here.extend(children.into_iter().flatten().copied());
            }
            self.steps += here.len() + 1;
            all = Some(match all {
                None => here,
                Some(all) => all.intersection(&here).copied().collect(),
            });
            if all.as_ref().is_some_and(BTreeSet::is_empty) {
                break;
            }
        }
        self.within_bounds()?;
        Ok(all.unwrap_or_default())
    }

    fn within_bounds(&self) -> Result<(), CacheError> {
        if self.steps > MAX_MERGE_STEPS || self.listed > MAX_LISTED_LAYERS {
            return Err(CacheError::records("the cache has too many records"));
        }
        Ok(())
    }

    fn link(&mut self, way: InputLink, input: usize, to: usize) {
        let Some(digest) = self.items.get(to).and_then(|i| i.digest.clone()) else {
            return;
        };
        let (from, selector) = way;
        let key = LinkKey {
            input,
            digest,
            selector: selector.clone(),
        };
        if let Some(item) = self.items.get_mut(from) {
            item.children.entry(key).or_default().insert(to);
        }
        if let Some(item) = self.items.get_mut(to) {
            if item.parents.len() <= input {
                item.parents.resize_with(input + 1, BTreeSet::new);
            }
            if let Some(ways) = item.parents.get_mut(input) {
                ways.insert((from, selector));
            }
        }
    }

    /// The indexes of a record and of all that follow from it.
    fn descendants(&mut self, at: usize) -> Result<HashSet<usize>, CacheError> {
        let mut visited = HashSet::from([at]);
        let mut work = vec![at];
        while let Some(at) = work.pop() {
            self.steps += 1;
            let item = self.items.get(at);
            for child in item.iter().flat_map(|i| i.children.values()).flatten() {
                if visited.insert(*child) {
                    work.push(*child);
                }
            }
        }
        self.within_bounds()?;
        Ok(visited)
    }

    /// Merges `other` into `main`: links from and to `other` become those of `main`.
    fn merge(&mut self, main: usize, other: usize) -> Result<(), CacheError> {
        let Some(merged_item) = self.items.get_mut(other).map(std::mem::take) else {
            return Ok(());
        };
        if let Some(item) = self.items.get_mut(other) {
            item.merged = Some(main);
        }
        self.add_results(main, merged_item.results);
        let unlink = |item: Option<&mut ChainRecord>| {
            for children in item.into_iter().flat_map(|i| i.children.values_mut()) {
                children.remove(&other);
            }
        };
        for (from, _) in merged_item.parents.iter().flatten() {
            unlink(self.items.get_mut(*from));
        }
        for (key, children) in merged_item.children {
            for child in children {
                let item = self.items.get_mut(child);
                if let Some(ways) = item.and_then(|i| i.parents.get_mut(key.input)) {
                    ways.remove(&(other, key.selector.clone()));
                }
                if child != main {
                    self.link((main, key.selector.clone()), key.input, child);
                }
            }
        }
        let below = self.descendants(main)?;
        for (input, ways) in merged_item.parents.into_iter().enumerate() {
            for way in ways {
                if !below.contains(&way.0) {
                    self.link(way, input, main);
                }
            }
        }
        Ok(())
    }

    /// All records; each comes after its inputs.
    pub(crate) fn entries(&self) -> Vec<RecordEntry<'_>> {
        let mut out = Vec::with_capacity(self.items.len());
        let mut visited = HashSet::new();
        for (top, item) in self.items.iter().enumerate() {
            if item.merged.is_some() || !visited.insert(top) {
                continue;
            }
            let mut stack = vec![(top, self.ways(top), 0)];
            while let Some((at, ways, next)) = stack.last_mut() {
                if let Some(below) = ways.get(*next).copied() {
                    *next += 1;
                    if visited.insert(below) {
                        stack.push((below, self.ways(below), 0));
                    }
                    continue;
                }
                let at = *at;
                stack.pop();
                if let Some(item) = self.items.get(at)
                    && let Some(digest) = &item.digest
                {
                    out.push(RecordEntry {
                        at,
                        digest,
                        ways: &item.parents,
                        results: &item.results,
                    });
                }
            }
        }
        out
    }

    fn ways(&self, at: usize) -> Vec<usize> {
        let parents = self.items.get(at).map(|i| i.parents.iter().flatten());
        parents.into_iter().flatten().map(|way| way.0).collect()
    }

    /// Adds the records that the solver exported, with their layers by the index of the record.
    pub(crate) fn add_exported<D: Domain>(
        &mut self,
        exported: &export::Chains<D>,
        mut results: HashMap<usize, Vec<ChainResult>>,
    ) -> Result<(), CacheError> {
        let mut items: Vec<Option<usize>> = Vec::with_capacity(exported.records.len());
        for (at, record) in exported.records.iter().enumerate() {
            let inputs: Vec<Vec<InputLink>> = record
                .inputs
                .iter()
                .map(|links| {
                    let ways = links.iter().filter_map(|link| {
                        let from = items.get(link.record).copied().flatten()?;
                        let selector = link.selector.as_ref().map(Digest::as_str);
                        Some((from, selector.unwrap_or_default().to_owned()))
                    });
                    ways.collect()
                })
                .collect();
            let results = results.remove(&at).unwrap_or_default();
            items.push(self.add(&record.digest, &inputs, results)?);
        }
        Ok(())
    }

    /// Adds the records of a config; `descriptors` describe its layers. A result with a layer that is not described is left out.
    pub(crate) fn add_config(
        &mut self,
        config: &CacheConfig,
        descriptors: &HashMap<Digest, Arc<Descriptor>>,
    ) -> Result<(), CacheError> {
        let mut items: Vec<Option<Option<usize>>> = vec![None; config.records.len()];
        let mut is_begun = vec![false; config.records.len()];
        for top in 0..config.records.len() {
            let mut stack = vec![top];
            while let Some(at) = stack.last().copied() {
                let (Some(record), Some(index_of_record)) = (config.records.get(at), items.get(at))
                else {
                    return Err(CacheError::records(format!("invalid record ID: {at}")));
                };
                if index_of_record.is_some() {
                    stack.pop();
                    continue;
                }
                let mut waits = false;
                let mut inputs = Vec::with_capacity(record.inputs.len());
                for links in &record.inputs {
                    if links.is_empty() {
                        return Err(CacheError::records(format!(
                            "invalid empty input for record {at}"
                        )));
                    }
                    let mut ways = Vec::with_capacity(links.len());
                    for input in links {
                        let from = usize::try_from(input.link).ok();
                        let Some((from, descriptors)) = from.and_then(|i| Some((i, items.get(i)?)))
                        else {
                            return Err(CacheError::records(format!(
                                "invalid record ID: {}",
                                input.link
                            )));
                        };
                        match descriptors {
                            Some(item) => ways.extend(item.map(|i| (i, input.selector.clone()))),
                            None => {
                                waits = true;
                                stack.push(from);
                            }
                        }
                    }
                    inputs.push(ways);
                }
                if waits {
                    if is_begun.get(at).copied().unwrap_or(true) {
                        return Err(CacheError::records("invalid looping record"));
                    }
                    if let Some(is_begun) = is_begun.get_mut(at) {
                        *is_begun = true;
                    }
                    self.steps += stack.len();
                    self.within_bounds()?;
                    continue;
                }
                let results = self.results_of(config, record, descriptors)?;
                let item = self.add(&record.digest, &inputs, results)?;
                if let Some(index_of_record) = items.get_mut(at) {
                    *index_of_record = Some(item);
                }
                stack.pop();
            }
        }
        Ok(())
    }

    fn results_of(
        &mut self,
        config: &CacheConfig,
        record: &CacheRecord,
        descriptors: &HashMap<Digest, Arc<Descriptor>>,
    ) -> Result<Vec<ChainResult>, CacheError> {
        let layer = |index: i64| {
            let layer = usize::try_from(index)
                .ok()
                .and_then(|i| config.layers.get(i));
            layer.ok_or_else(|| CacheError::records(format!("invalid layer index {index}")))
        };
        let mut out = Vec::new();
        for result in &record.results {
            let mut layers = Vec::new();
            let mut next = result.layer;
            loop {
                let layer = layer(next)?;
                layers.push(descriptors.get(&layer.blob).cloned());
                if layer.parent == -1 {
                    break;
                }
                if layers.len() > config.layers.len() {
                    return Err(CacheError::records("invalid looping layer"));
                }
                next = layer.parent;
            }
            layers.reverse();
            self.keep(&mut out, layers, &result.created_at)?;
        }
        for chain in &record.chains {
            let mut layers = Vec::with_capacity(chain.layers.len());
            for index in &chain.layers {
                layers.push(descriptors.get(&layer(*index)?.blob).cloned());
            }
            self.keep(&mut out, layers, &chain.created_at)?;
        }
        Ok(out)
    }

    fn keep(
        &mut self,
        out: &mut Vec<ChainResult>,
        layers: Vec<Option<Arc<Descriptor>>>,
        created: &Timestamp,
    ) -> Result<(), CacheError> {
        self.listed += layers.len();
        self.within_bounds()?;
        let layers: Option<Vec<Arc<Descriptor>>> = layers.into_iter().collect();
        let fits = |layers: &Vec<_>| !layers.is_empty() && layers.len() <= MAX_LAYERS;
        if let Some(layers) = layers.filter(fits) {
            out.push(ChainResult {
                created: (*created).into(),
                layers: layers.into(),
            });
        }
        Ok(())
    }

    /// The config with all records, each with its newest result, and the descriptors of the layers it names.
    pub(crate) fn config(&self) -> (CacheConfig, HashMap<Digest, Arc<Descriptor>>) {
        let mut out = ConfigWriter::default();
        let mut places: HashMap<usize, i64> = HashMap::new();
        for entry in self.entries() {
            let inputs = entry
                .ways
                .iter()
                .map(|ways| {
                    let ways = ways.iter().filter_map(|(from, selector)| {
                        Some(CacheInput {
                            selector: selector.clone(),
                            link: *places.get(from)?,
                        })
                    });
                    ways.collect()
                })
                .collect();
            // Of equally new results, the first is written.
            let best = entry.results.iter().rev().max_by_key(|r| r.created);
            let results = best.and_then(|best| {
                Some(CacheResult {
                    layer: out.layers(&best.layers)?,
                    created_at: best.created.into(),
                })
            });
            places.insert(entry.at, index(out.config.records.len()));
            out.config.records.push(CacheRecord {
                results: results.into_iter().collect(),
                chains: Vec::new(),
                digest: entry.digest.clone(),
                inputs,
            });
        }
        out.config.sort();
        (out.config, out.blobs)
    }
}

#[derive(Default)]
struct ConfigWriter {
    config: CacheConfig,
    /// Indexes of layers, by blob and the layer below.
    places: HashMap<(Digest, i64), i64>,
    blobs: HashMap<Digest, Arc<Descriptor>>,
}

impl ConfigWriter {
    /// The index of the topmost layer of a result.
    fn layers(&mut self, layers: &ChainLayers) -> Option<i64> {
        let mut below = None;
        for layer in layers.iter() {
            let parent = below.unwrap_or(-1);
            let key = (layer.digest.clone(), parent);
            let at = match self.places.get(&key) {
                Some(at) => *at,
                None => {
                    let at = index(self.config.layers.len());
                    self.config.layers.push(CacheLayer {
                        blob: layer.digest.clone(),
                        parent,
                        annotations: None,
                    });
                    self.places.insert(key, at);
                    let mut desc = Descriptor::clone(layer);
                    desc.media_type = media_type::layer_to_oci(&desc.media_type).to_owned();
                    self.blobs.insert(layer.digest.clone(), Arc::new(desc));
                    at
                }
            };
            below = Some(at);
        }
        below
    }
}

fn index(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
