//! Chains of records for cache exporters.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use oci::Digest;
use parking_lot::Mutex;

use crate::domain::Domain;
use crate::domain::error::KeyStoreError;
use crate::keys::cachekey::{CacheKey, CacheRecord, DepKey, KeyInfo, root_key};
use crate::keys::keystore::{KeyLink, StoredResult};
use crate::keys::manager::CacheManager;

/// The records that can be exported for a key.
pub(crate) enum Exporter<D: Domain> {
    /// The key, its chain, and one or several results of it.
    Key(KeyExporter<D>),
    /// The keys of one result together.
    Merged(Vec<Arc<Exporter<D>>>),
}

pub(crate) struct KeyExporter<D: Domain> {
    pub(crate) key: Arc<CacheKey<D>>,
    /// The result that was computed or loaded.
    pub(crate) record: Option<CacheRecord<D>>,
    /// Results that look-ups returned.
    pub(crate) records: Vec<CacheRecord<D>>,
    /// The client's option on exporting this vertex.
    pub(crate) allowed: Option<bool>,
    /// Keys of inputs of edges that were merged into the edge of this key.
    pub(crate) secondaries: Option<Secondaries<D>>,
}

pub(crate) type Secondaries<D> = Arc<Mutex<Vec<(usize, DepKey<D>)>>>;

impl<D: Domain> Exporter<D> {
    /// Exports the key alone, without results.
    pub(crate) fn bare(key: &Arc<CacheKey<D>>) -> Arc<Self> {
        Arc::new(Self::Key(KeyExporter {
            key: Arc::clone(key),
            record: None,
            records: Vec::new(),
            allowed: None,
            secondaries: None,
        }))
    }
}

/// Which results to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportMode {
    /// The topmost results; of those below only the ones that have blobs already.
    Min,
    /// All results.
    Max,
    /// Only results that have blobs already.
    RemoteOnly,
}

/// Whether results of ops without inputs are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootResults {
    /// They are exported like all others.
    Exported,
    /// Their records have no results: whoever reads the cache loads the sources anew.
    LeftOut,
}

/// Whether chains that took no part in the build are exported too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlinks {
    /// All chains that lead to the exported keys.
    Followed,
    /// Only the chains of this build.
    Ignored,
}

/// Options of an export.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// Which results are exported.
    pub mode: ExportMode,
    /// Whether results of ops without inputs are exported.
    pub roots: RootResults,
    /// Whether chains that took no part in the build are exported too.
    pub backlinks: Backlinks,
}

/// Cache records and the links between them.
#[derive(Debug)]
pub struct Chains<D: Domain> {
    /// The records; links point to earlier ones.
    pub records: Vec<ExportRecord<D>>,
    /// Index of the record of each exported key.
    pub tops: Vec<usize>,
}

/// One record: a digest, links that lead to it, and results.
#[derive(Debug)]
pub struct ExportRecord<D: Domain> {
    /// [`root_key`] of the cache map's digest and the output.
    pub digest: Digest,
    /// Per input, links from the records that it may come from.
    pub inputs: Vec<Vec<RecordLink>>,
    /// Results that can be loaded for it.
    pub results: Vec<RecordResult<D>>,
}

/// A link from the record of an input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordLink {
    /// Index of the input's record.
    pub record: usize,
    /// Digest of the part of the input that is read.
    pub selector: Option<Digest>,
}

/// A result of a record.
pub struct RecordResult<D: Domain> {
    /// The manager that loads it: `manager.results().load(…)`.
    pub manager: Arc<CacheManager<D>>,
    /// Id and time of the result in its store.
    pub stored: StoredResult,
    /// Digest of the vertex that it was computed for.
    pub vertex: Option<Digest>,
    /// Index of the output.
    pub output: i64,
    /// Whether to leave it out if it has no blobs yet.
    pub only_with_blobs: bool,
}

impl<D: Domain> fmt::Debug for RecordResult<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordResult")
            .field("stored", &self.stored)
            .field("only_with_blobs", &self.only_with_blobs)
            .finish_non_exhaustive()
    }
}

/// Returns the chains of `keys`.
pub fn export<D: Domain>(
    keys: &[KeyInfo<D>],
    options: ExportOptions,
) -> Result<Chains<D>, KeyStoreError> {
    let mut walk = Walk {
        chains: Chains {
            records: Vec::new(),
            tops: Vec::new(),
        },
        done: HashMap::new(),
        backlinks: HashMap::new(),
        options,
    };
    for key in keys {
        let tops = walk.run(&key.exporter, options.mode)?;
        walk.chains.tops.extend(tops);
    }
    Ok(walk.chains)
}

/// The state of an export. Chains are as long as definitions, so the walk has an explicit stack.
struct Walk<D: Domain> {
    chains: Chains<D>,
    /// Records by address of the exporter, which the keys keep alive; an entry without records may still be in progress.
    done: HashMap<usize, Vec<usize>>,
    /// Records by manager and key.
    backlinks: HashMap<(String, String), Vec<usize>>,
    options: ExportOptions,
}

/// The index of an input, and its selector.
type InputPlace = (usize, Option<Digest>);

/// A key whose backlinks are being walked, and how many of them are done.
type BacklinkWalk = (String, Vec<(String, KeyLink)>, usize);

/// An exporter that is in progress.
struct Frame<D: Domain> {
    exporter: Arc<Exporter<D>>,
    /// Mode of the exporters below.
    mode: ExportMode,
    /// Exporters below; for a key's inputs with their places.
    below: Vec<(Option<InputPlace>, Arc<Exporter<D>>)>,
    next: usize,
    /// For merged exporters: the records of all of them.
    records: Vec<usize>,
    /// For a key: per input, links from the records that it may come from.
    inputs: Vec<Vec<RecordLink>>,
    chosen: Option<Chosen<D>>,
    only_with_blobs: bool,
}

/// The record that is exported for a key.
struct Chosen<D: Domain> {
    record: CacheRecord<D>,
    /// Id of the key in its store.
    key: String,
    /// None if only the key's links are exported, not the result.
    stored: Option<StoredResult>,
}

impl<D: Domain> Frame<D> {
    /// Adds the records of the exporter below.
    fn take(&mut self, records: Vec<usize>) {
        let Some((place, _)) = self.next.checked_sub(1).and_then(|at| self.below.get(at)) else {
            return;
        };
        match place {
            None => self.records.extend(records),
            Some((input, selector)) => {
                if let Some(links) = self.inputs.get_mut(*input) {
                    for record in records {
                        let selector = selector.clone();
                        push(links, RecordLink { record, selector });
                    }
                }
            }
        }
    }

    fn below(&mut self) -> Option<Arc<Exporter<D>>> {
        let (_, next) = self.below.get(self.next)?;
        self.next += 1;
        Some(Arc::clone(next))
    }
}

impl<D: Domain> Walk<D> {
    fn run(
        &mut self,
        top: &Arc<Exporter<D>>,
        mode: ExportMode,
    ) -> Result<Vec<usize>, KeyStoreError> {
        let mut stack = Vec::new();
        let mut ended = self.enter(top, mode, &mut stack)?;
        while let Some(frame) = stack.last_mut() {
            if let Some(records) = ended.take() {
                frame.take(records);
            }
            if let Some(next) = frame.below() {
                let mode = frame.mode;
                ended = self.enter(&next, mode, &mut stack)?;
            } else if let Some(frame) = stack.pop() {
                ended = Some(self.leave(frame)?);
            }
        }
        Ok(ended.unwrap_or_default())
    }

    /// Starts an exporter, or returns its records if it is done.
    fn enter(
        &mut self,
        exporter: &Arc<Exporter<D>>,
        mode: ExportMode,
        stack: &mut Vec<Frame<D>>,
    ) -> Result<Option<Vec<usize>>, KeyStoreError> {
        let mut frame = Frame {
            exporter: Arc::clone(exporter),
            mode,
            below: Vec::new(),
            next: 0,
            records: Vec::new(),
            inputs: Vec::new(),
            chosen: None,
            only_with_blobs: mode == ExportMode::RemoteOnly,
        };
        match &**exporter {
            Exporter::Merged(parts) => {
                frame.below = parts.iter().map(|p| (None, Arc::clone(p))).collect();
            }
            Exporter::Key(key) => {
                let address = Arc::as_ptr(exporter) as usize;
                if let Some(records) = self.done.get(&address) {
                    return Ok(Some(records.clone()));
                }
                self.done.insert(address, Vec::new());
                frame.chosen = self.choose(key)?;
                let has_layers = frame.chosen.as_ref().is_some_and(|c| {
                    let results = c.record.manager.results();
                    c.stored.as_ref().is_some_and(|s| results.has_layers(&s.id))
                });
                if has_layers && mode == ExportMode::Min {
                    frame.mode = ExportMode::RemoteOnly;
                }
                frame.inputs = vec![Vec::new(); key.key.deps.len()];
                let secondaries = key.secondaries.as_ref().map(|s| s.lock().clone());
                let deps = key.key.deps.iter().enumerate();
                let deps = deps.flat_map(|(input, deps)| deps.iter().map(move |d| (input, d)));
                let secondaries = secondaries.iter().flatten().map(|(input, d)| (*input, d));
                frame.below = deps
                    .chain(secondaries)
                    .map(|(input, dep)| {
                        let place = Some((input, dep.selector.clone()));
                        (place, Arc::clone(&dep.key.exporter))
                    })
                    .collect();
            }
        }
        stack.push(frame);
        Ok(None)
    }

    /// The record of a key to export: the one that was computed or loaded, else the best one that is still stored.
    fn choose(&self, exporter: &KeyExporter<D>) -> Result<Option<Chosen<D>>, KeyStoreError> {
        let with_result = (self.options.roots == RootResults::Exported
            || !exporter.key.deps.is_empty())
            && exporter.allowed.unwrap_or(true);
        if !with_result {
            let Some(record) = exporter.record.clone() else {
                return Ok(None);
            };
            return Ok(Some(Chosen {
                key: record.manager.id_of(&record.key)?,
                record,
                stored: None,
            }));
        }
        let mut records = exporter.records.clone();
        records.sort_by(CacheRecord::order);
        for record in exporter.record.iter().chain(&records) {
            let key = record.manager.id_of(&record.key)?;
            if let Some(stored) = record.manager.store().load(&key, &record.id)? {
                return Ok(Some(Chosen {
                    record: record.clone(),
                    key,
                    stored: Some(stored),
                }));
            }
        }
        Ok(None)
    }

    /// Finishes an exporter whose inputs are all done.
    fn leave(&mut self, frame: Frame<D>) -> Result<Vec<usize>, KeyStoreError> {
        let Exporter::Key(exporter) = &*frame.exporter else {
            return Ok(frame.records);
        };
        let key = &exporter.key;
        let result = || {
            let chosen = frame.chosen.as_ref()?;
            Some(RecordResult {
                manager: Arc::clone(&chosen.record.manager),
                stored: chosen.stored.clone()?,
                vertex: key.vertex.clone(),
                output: key.output,
                only_with_blobs: frame.only_with_blobs,
            })
        };
        if self.options.backlinks == Backlinks::Followed {
            let places: Vec<_> = key.ids.lock().values().cloned().collect();
            for (manager, id) in places {
                self.backlinks(&manager, &id)?;
            }
        }
        if frame.inputs.iter().any(Vec::is_empty) {
            return Ok(Vec::new());
        }
        if let Some(chosen) = &frame.chosen
            && key.deps.is_empty()
        {
            let store = chosen.record.manager.store();
            for alias in store.keys_of_result(&chosen.record.id)? {
                if alias == chosen.key || !store.backlinks(&alias)?.is_empty() {
                    continue;
                }
                if let Ok(digest) = Digest::parse(&alias) {
                    self.add(digest, Vec::new(), result());
                }
            }
        }
        let digest = root_key(&key.digest, key.output);
        let records = vec![self.add(digest, frame.inputs.clone(), result())];
        let address = Arc::as_ptr(&frame.exporter) as usize;
        self.done.insert(address, records.clone());
        Ok(records)
    }

    /// Adds the records of further chains that lead to the key `top` of a store.
    fn backlinks(
        &mut self,
        manager: &Arc<CacheManager<D>>,
        top: &str,
    ) -> Result<(), KeyStoreError> {
        let at = |key: &str| (manager.id().to_owned(), key.to_owned());
        let mut stack: Vec<BacklinkWalk> = Vec::new();
        let mut todo = Some(top.to_owned());
        loop {
            if let Some(key) = todo.take()
                && !self.backlinks.contains_key(&at(&key))
            {
                self.backlinks.insert(at(&key), Vec::new());
                let ways = manager.store().backlinks(&key)?;
                stack.push((key, ways, 0));
            }
            let Some((key, ways, next)) = stack.last_mut() else {
                return Ok(());
            };
            if let Some((from, _)) = ways.get(*next) {
                *next += 1;
                todo = Some(from.clone());
                continue;
            }
            let (key, ways) = (std::mem::take(key), std::mem::take(ways));
            stack.pop();
            let records = self.ways(manager, &key, ways);
            self.backlinks.insert(at(&key), records);
        }
    }

    /// The records of a key, once all its backlinks are done.
    fn ways(
        &mut self,
        manager: &Arc<CacheManager<D>>,
        key: &str,
        ways: Vec<(String, KeyLink)>,
    ) -> Vec<usize> {
        let mut out = Vec::new();
        if ways.is_empty()
            && let Ok(digest) = Digest::parse(key)
        {
            out.push(self.add(digest, Vec::new(), None));
        }
        let mut by_digest: BTreeMap<Digest, Vec<Vec<RecordLink>>> = BTreeMap::new();
        for (from, link) in ways {
            let records = self.backlinks.get(&(manager.id().to_owned(), from));
            let inputs = by_digest.entry(link.digest).or_default();
            if inputs.len() <= link.input {
                inputs.resize_with(link.input + 1, Vec::new);
            }
            if let Some(links) = inputs.get_mut(link.input) {
                for record in records.into_iter().flatten() {
                    let (record, selector) = (*record, link.selector.clone());
                    push(links, RecordLink { record, selector });
                }
            }
        }
        for (digest, inputs) in by_digest {
            if !inputs.iter().any(Vec::is_empty) {
                out.push(self.add(digest, inputs, None));
            }
        }
        out
    }

    fn add(
        &mut self,
        digest: Digest,
        inputs: Vec<Vec<RecordLink>>,
        result: Option<RecordResult<D>>,
    ) -> usize {
        self.chains.records.push(ExportRecord {
            digest,
            inputs,
            results: result.into_iter().collect(),
        });
        self.chains.records.len() - 1
    }
}

fn push(links: &mut Vec<RecordLink>, link: RecordLink) {
    if !links.contains(&link) {
        links.push(link);
    }
}
