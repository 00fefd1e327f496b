//! The questions of an edge to the key stores, as one piece of work.
//!
//! Key stores read disks, so the scheduler never calls them: it collects the questions of an edge, in the order in which
//! inputs are probed, and a thread that may block asks them ([`Lookup::run`]). An edge has one look-up at a time and
//! learns nothing else meanwhile, so its state is the same when the answer arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use oci::Digest;

use crate::domain::Domain;
use crate::domain::error::KeyStoreError;
use crate::keys::cachekey::{CacheKey, CacheRecord, DepKey};
use crate::keys::manager::Managers;

/// Keys of an output, by id.
pub(crate) type Matches<D> = BTreeMap<String, Arc<CacheKey<D>>>;

/// Questions of one edge to the key stores.
pub(crate) struct Lookup<D: Domain> {
    pub(crate) managers: Managers<D>,
    /// The vertex of the edge.
    pub(crate) vertex: Digest,
    /// Digest of the vertex's cache map.
    pub(crate) digest: Digest,
    /// Index of the output.
    pub(crate) output: usize,
    /// Questions in their order.
    pub(crate) probes: Vec<Probe<D>>,
    /// For each input, the known keys of the output that it leads to.
    pub(crate) matches: Vec<Matches<D>>,
    /// Ids of the keys that all inputs lead to and whose results are known.
    pub(crate) matched: BTreeSet<String>,
    /// For each input, its known keys.
    pub(crate) dep_keys: Vec<Vec<DepKey<D>>>,
}

/// One question to the key stores.
pub(crate) enum Probe<D: Domain> {
    /// Does the key of an output without inputs exist?
    Root,
    /// Which keys of the output do these keys of an input lead to?
    Keys {
        input: usize,
        keys: Vec<DepKey<D>>,
        /// Whether these are content keys.
        is_content: bool,
    },
    /// Links all these keys of an input to the same keys of the output.
    Join { input: usize, keys: Vec<DepKey<D>> },
}

/// A key and the results that can be loaded for it.
pub(crate) type FoundKey<D> = (Arc<CacheKey<D>>, Vec<CacheRecord<D>>);

/// The answers of the key stores.
pub(crate) struct Answer<D: Domain> {
    /// For each input, keys of the output that were not known to follow from it.
    pub(crate) matches: Vec<Matches<D>>,
    /// Inputs whose content key led to a new key.
    pub(crate) found_by_content: BTreeSet<usize>,
    /// Ids of the keys that all inputs lead to.
    pub(crate) matched: Vec<String>,
    /// New keys of the output, each with the results that can be loaded for it.
    pub(crate) keys: Vec<FoundKey<D>>,
}

impl<D: Domain> Lookup<D> {
    /// Asks the key stores. Waits for disks.
    pub(crate) fn run(mut self) -> Result<Answer<D>, KeyStoreError> {
        let mut answer = Answer {
            matches: self.matches.iter().map(|_| Matches::new()).collect(),
            found_by_content: BTreeSet::new(),
            matched: Vec::new(),
            keys: Vec::new(),
        };
        for probe in std::mem::take(&mut self.probes) {
            match probe {
                Probe::Root => {
                    for key in self.query(&[], 0)? {
                        self.add_key(&key, &mut answer)?;
                    }
                }
                Probe::Keys {
                    input,
                    keys,
                    is_content,
                } => {
                    let is_found = self.probe(input, &keys, &mut answer)?;
                    if is_content && is_found {
                        answer.found_by_content.insert(input);
                    }
                }
                Probe::Join { input, keys } => drop(self.query(&keys, input)?),
            }
        }
        for key in self.candidates() {
            answer.matched.push(key.id.clone());
            self.add_key(&key, &mut answer)?;
        }
        match self.miss(&answer) {
            None => tracing::debug!(vertex = %self.vertex, output = self.output, "cache key found"),
            Some(reason) => tracing::debug!(
                vertex = %self.vertex,
                output = self.output,
                cache_map = %self.digest,
                reason,
                "cache key missed"
            ),
        }
        Ok(answer)
    }

    /// The reason why the answer leads to no result; none if it leads to one.
    fn miss(&self, answer: &Answer<D>) -> Option<String> {
        if answer.keys.iter().any(|(_, records)| !records.is_empty()) {
            return None;
        }
        if !answer.keys.is_empty() {
            return Some("the key exists, but none of its results can be loaded".to_owned());
        }
        if self.matches.is_empty() {
            return Some("no output with this cache map exists".to_owned());
        }
        let unknown = self.matches.iter().position(BTreeMap::is_empty);
        Some(unknown.map_or_else(
            || "the inputs lead to different keys, or to keys that were tried before".to_owned(),
            |input| {
                format!(
                    "no key follows from input {input}, neither by definition nor by content so far"
                )
            },
        ))
    }

    fn query(
        &self,
        keys: &[DepKey<D>],
        input: usize,
    ) -> Result<Vec<Arc<CacheKey<D>>>, KeyStoreError> {
        self.managers.query(keys, input, &self.digest, self.output)
    }

    /// Looks up the keys of the output that `keys` of an input lead to. True if there are new ones.
    fn probe(
        &mut self,
        input: usize,
        keys: &[DepKey<D>],
        answer: &mut Answer<D>,
    ) -> Result<bool, KeyStoreError> {
        let mut is_found = false;
        let targets = self.query(keys, input)?;
        let (Some(matches), Some(new_matches)) =
            (self.matches.get_mut(input), answer.matches.get_mut(input))
        else {
            return Ok(false);
        };
        for key in targets {
            if !matches.contains_key(&key.id) {
                matches.insert(key.id.clone(), Arc::clone(&key));
                new_matches.insert(key.id.clone(), key);
                is_found = true;
            }
        }
        Ok(is_found)
    }

    /// Returns the keys that all inputs lead to and whose results are not known yet.
    fn candidates(&self) -> Vec<Arc<CacheKey<D>>> {
        let Some((first, other_inputs)) = self.matches.split_first() else {
            return Vec::new();
        };
        first
            .iter()
            .filter(|(id, _)| !self.matched.contains(*id))
            .filter(|(id, _)| other_inputs.iter().all(|matches| matches.contains_key(*id)))
            .map(|(_, key)| Arc::clone(key))
            .collect()
    }

    /// Adds a key of the output with its results.
    fn add_key(&self, key: &CacheKey<D>, answer: &mut Answer<D>) -> Result<(), KeyStoreError> {
        let key = Arc::new(key.with(self.vertex.clone(), self.dep_keys.clone()));
        let records = self.managers.records(&key)?;
        answer.keys.push((key, records));
        Ok(())
    }
}
