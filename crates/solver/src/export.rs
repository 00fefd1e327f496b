//! Chains of records for cache exporters.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use oci::Digest;
use parking_lot::Mutex;

use crate::cachekey::{CacheKey, CacheRecord, DepKey, KeyInfo, root_key};
use crate::error::KeyStoreError;
use crate::keystore::StoredResult;
use crate::manager::CacheManager;

/// What can be exported for a key.
pub(crate) enum Exporter<R> {
    /// The key, its chain, and one or several results of it.
    Key(KeyExporter<R>),
    /// Several at once: the keys of one result.
    Merged(Vec<Arc<Exporter<R>>>),
}

pub(crate) struct KeyExporter<R> {
    pub(crate) key: Arc<CacheKey<R>>,
    /// The result that was made or loaded.
    pub(crate) record: Option<CacheRecord<R>>,
    /// Results that were found.
    pub(crate) records: Vec<CacheRecord<R>>,
    /// What the client said about exporting this vertex.
    pub(crate) allowed: Option<bool>,
    /// Keys of inputs of edges that were merged into the one that made this.
    pub(crate) secondaries: Option<Secondaries<R>>,
}

pub(crate) type Secondaries<R> = Arc<Mutex<Vec<(usize, DepKey<R>)>>>;

impl<R> Exporter<R> {
    /// Exports the key alone, without results.
    pub(crate) fn bare(key: &Arc<CacheKey<R>>) -> Arc<Self> {
        Arc::new(Self::Key(KeyExporter {
            key: Arc::clone(key),
            record: None,
            records: Vec::new(),
            allowed: None,
            secondaries: None,
        }))
    }
}

/// What to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The topmost results, and below them only those that have blobs already.
    Min,
    /// All results.
    Max,
    /// Only results that have blobs already.
    RemoteOnly,
}

/// How to export.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Which results.
    pub mode: Mode,
    /// Whether results of ops without inputs are exported too.
    pub roots: bool,
    /// Whether chains that did not take part in the build are left out.
    pub ignore_backlinks: bool,
}

/// Cache records and the links between them.
#[derive(Debug)]
pub struct Chains<R> {
    /// The records; links point to earlier ones.
    pub records: Vec<Record<R>>,
    /// The records of the keys asked for.
    pub tops: Vec<usize>,
}

/// One record: a digest, ways that lead to it, and results.
#[derive(Debug)]
pub struct Record<R> {
    /// `root_key` of the cache map's digest and the output.
    pub digest: Digest,
    /// Per input, the records it may come from.
    pub inputs: Vec<Vec<RecordLink>>,
    /// What can be loaded for it.
    pub results: Vec<RecordResult<R>>,
}

/// One way from an input.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordLink {
    /// Index of the record.
    pub record: usize,
    /// What of it is read.
    pub selector: Option<Digest>,
}

/// A result of a record.
pub struct RecordResult<R> {
    /// Where it can be loaded: `manager.results().load(…)`.
    pub manager: Arc<CacheManager<R>>,
    /// Its name there.
    pub stored: StoredResult,
    /// The vertex it was made for.
    pub vertex: Option<Digest>,
    /// The output.
    pub output: i64,
    /// Whether to leave it out unless it has blobs already.
    pub only_with_blobs: bool,
}

impl<R> fmt::Debug for RecordResult<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordResult")
            .field("stored", &self.stored)
            .field("only_with_blobs", &self.only_with_blobs)
            .finish_non_exhaustive()
    }
}

/// Returns the chains of `keys`.
pub fn export<R>(keys: &[KeyInfo<R>], options: Options) -> Result<Chains<R>, KeyStoreError> {
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
        let tops = walk.exporter(&key.exporter, options.mode)?;
        walk.chains.tops.extend(tops);
    }
    Ok(walk.chains)
}

struct Walk<R> {
    chains: Chains<R>,
    /// By address of the exporter, which the keys keep alive; an entry without records is being walked.
    done: HashMap<usize, Vec<usize>>,
    backlinks: HashMap<(String, String), Vec<usize>>,
    options: Options,
}

impl<R> Walk<R> {
    fn exporter(
        &mut self,
        exporter: &Arc<Exporter<R>>,
        mode: Mode,
    ) -> Result<Vec<usize>, KeyStoreError> {
        match &**exporter {
            Exporter::Key(key) => {
                let address = Arc::as_ptr(exporter) as usize;
                if let Some(done) = self.done.get(&address) {
                    return Ok(done.clone());
                }
                self.done.insert(address, Vec::new());
                let records = self.key(key, mode)?;
                self.done.insert(address, records.clone());
                Ok(records)
            }
            Exporter::Merged(parts) => {
                let mut out = Vec::new();
                for part in parts {
                    out.extend(self.exporter(part, mode)?);
                }
                Ok(out)
            }
        }
    }

    fn key(
        &mut self,
        exporter: &KeyExporter<R>,
        mut mode: Mode,
    ) -> Result<Vec<usize>, KeyStoreError> {
        let key = &exporter.key;
        let mut chosen = None;
        if (self.options.roots || !key.deps.is_empty()) && exporter.allowed.unwrap_or(true) {
            let mut records = exporter.records.clone();
            records.sort_by(CacheRecord::order);
            for record in exporter.record.iter().chain(&records) {
                let id = record.manager.id_of(&record.key)?;
                if let Some(stored) = record.manager.store().load(&id, &record.id)? {
                    chosen = Some((record.clone(), id, stored));
                    break;
                }
            }
        }
        let results = |only_with_blobs| {
            let (record, _, stored) = chosen.as_ref()?;
            Some(RecordResult {
                manager: Arc::clone(&record.manager),
                stored: stored.clone(),
                vertex: key.vertex.clone(),
                output: key.output,
                only_with_blobs,
            })
        };
        let only_with_blobs = mode == Mode::RemoteOnly;
        if chosen.is_some() && mode == Mode::Min {
            mode = Mode::RemoteOnly;
        }
        let mut inputs: Vec<Vec<RecordLink>> = Vec::with_capacity(key.deps.len());
        for deps in &key.deps {
            let mut links = Vec::new();
            for dep in deps {
                for record in self.exporter(&dep.key.exporter, mode)? {
                    push(
                        &mut links,
                        RecordLink {
                            record,
                            selector: dep.selector.clone(),
                        },
                    );
                }
            }
            inputs.push(links);
        }
        let secondaries = exporter
            .secondaries
            .as_ref()
            .map(|s| s.lock().clone())
            .unwrap_or_default();
        for (input, dep) in secondaries {
            for record in self.exporter(&dep.key.exporter, mode)? {
                if let Some(links) = inputs.get_mut(input) {
                    push(
                        links,
                        RecordLink {
                            record,
                            selector: dep.selector.clone(),
                        },
                    );
                }
            }
        }
        if !self.options.ignore_backlinks {
            let places: Vec<_> = key.ids.lock().values().cloned().collect();
            for (manager, id) in places {
                self.backlinks(&manager, &id)?;
            }
        }
        if inputs.iter().any(Vec::is_empty) {
            return Ok(Vec::new());
        }
        if let Some((record, id, _)) = &chosen
            && key.deps.is_empty()
        {
            for other in record.manager.store().keys_of_result(&record.id)? {
                if other == *id || !record.manager.store().backlinks(&other)?.is_empty() {
                    continue;
                }
                if let Ok(digest) = Digest::parse(&other) {
                    self.add(digest, Vec::new(), results(only_with_blobs));
                }
            }
        }
        let digest = root_key(&key.digest, key.output);
        Ok(vec![self.add(digest, inputs, results(only_with_blobs))])
    }

    /// Adds what else is known to lead to the key `id` of a store.
    fn backlinks(
        &mut self,
        manager: &Arc<CacheManager<R>>,
        id: &str,
    ) -> Result<Vec<usize>, KeyStoreError> {
        let at = (manager.id().to_owned(), id.to_owned());
        if let Some(done) = self.backlinks.get(&at) {
            return Ok(done.clone());
        }
        self.backlinks.insert(at.clone(), Vec::new());
        let ways = manager.store().backlinks(id)?;
        let mut out = Vec::new();
        if ways.is_empty()
            && let Ok(digest) = Digest::parse(id)
        {
            out.push(self.add(digest, Vec::new(), None));
        }
        let mut by_digest: std::collections::BTreeMap<Digest, Vec<Vec<RecordLink>>> =
            std::collections::BTreeMap::new();
        for (from, link) in ways {
            let records = self.backlinks(manager, &from)?;
            let inputs = by_digest.entry(link.digest).or_default();
            if inputs.len() <= link.input {
                inputs.resize_with(link.input + 1, Vec::new);
            }
            if let Some(links) = inputs.get_mut(link.input) {
                for record in records {
                    push(
                        links,
                        RecordLink {
                            record,
                            selector: link.selector.clone(),
                        },
                    );
                }
            }
        }
        for (digest, inputs) in by_digest {
            if !inputs.iter().any(Vec::is_empty) {
                out.push(self.add(digest, inputs, None));
            }
        }
        self.backlinks.insert(at, out.clone());
        Ok(out)
    }

    fn add(
        &mut self,
        digest: Digest,
        inputs: Vec<Vec<RecordLink>>,
        result: Option<RecordResult<R>>,
    ) -> usize {
        self.chains.records.push(Record {
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
