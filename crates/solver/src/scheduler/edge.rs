//! The state of one edge, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use oci::Digest;
use parking_lot::Mutex;

use super::{Consumer, EdgeLevel, WorkId};
use crate::domain::Domain;
use crate::domain::error::SolveError;
use crate::domain::op::CacheMap;
use crate::index::EdgeId;
use crate::keys::cachekey::{CacheRecord, DepKey, KeyInfo};
use crate::keys::export::{Exporter, KeyExporter, Secondaries};
use crate::keys::lookup::{Answer, Matches};

/// One output of an active vertex.
pub(super) struct EdgeState<D: Domain> {
    pub(super) vertex: Digest,
    pub(super) index: usize,
    pub(super) consumers: BTreeMap<Consumer, EdgeLevel>,
    pub(super) level: EdgeLevel,
    pub(super) maps: Maps<D>,
    /// Digests of all cache maps so far; more than one only without inputs.
    pub(super) map_digests: Vec<Digest>,
    pub(super) deps: Vec<Dep<D>>,
    /// Known keys of the output; the list only grows.
    pub(super) keys: Vec<KeyInfo<D>>,
    /// Ids of keys that all inputs lead to.
    pub(super) matched: BTreeSet<String>,
    pub(super) records: BTreeMap<String, CacheRecord<D>>,
    /// Records whose load failed.
    pub(super) tried: BTreeSet<String>,
    pub(super) search: Search,
    /// The lowest level that all inputs have reached, once all cache maps are known.
    pub(super) ready: EdgeLevel,
    pub(super) state: EdgePhase<D>,
    /// The look-up in progress. Keys are looked up in every phase but the last two.
    pub(super) lookup: Option<OngoingLookup>,
    pub(super) secondaries: Secondaries<D>,
}

/// An input of an edge.
pub(super) struct Dep<D: Domain> {
    /// The edge of the input, once something was demanded of it.
    pub(super) edge: Option<EdgeId>,
    pub(super) demand: Option<EdgeLevel>,
    /// The input's edge and the number of its keys that were read.
    pub(super) keys_read: (EdgeId, usize),
    pub(super) level: EdgeLevel,
    pub(super) keys: Vec<KeyInfo<D>>,
    /// Known keys of this edge's output that the input leads to.
    pub(super) matches: Matches<D>,
    pub(super) slow: SlowState<D>,
    pub(super) result: Option<Arc<Finished<D>>>,
}

/// The content key of an input.
pub(super) enum SlowState<D: Domain> {
    Unknown,
    Known {
        key: Option<KeyInfo<D>>,
        /// Whether it led to a key that was unknown before.
        led_to_new_key: bool,
    },
}

/// A result with its keys.
pub(super) struct Finished<D: Domain> {
    pub(super) result: D::Result,
    pub(super) keys: Vec<KeyInfo<D>>,
}

/// A look-up in progress.
#[derive(Debug)]
pub(super) struct OngoingLookup {
    pub(super) work: WorkId,
    /// What the edge had learned before it started.
    pub(super) news: Learned,
    /// Whether the vertex or inputs have learned more since then.
    pub(super) has_more: bool,
}

/// What an edge has learned from its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// Nothing that could change the key of its output.
    None,
    /// Keys or results, after which another edge may have an equal key.
    Keys,
}

/// The cache maps of an edge. Only edges without inputs have several.
pub(super) enum Maps<D: Domain> {
    /// No cache map is known.
    None,
    /// The last known one; further ones may follow.
    Some(Arc<CacheMap<D>>),
    /// The last one of the vertex.
    All(Arc<CacheMap<D>>),
}

/// Whether a known key may still lead to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// A match is possible.
    Open,
    /// No known key follows from one of the inputs, so nothing can match.
    Missed,
}

/// The state of an edge that its consumers see: level, number of keys, and whether it ended.
pub(super) type EdgeProgress = (EdgeLevel, usize, bool);

/// How an edge ended.
pub(super) type EdgeOutcome<D> = Result<Arc<Finished<D>>, SolveError<D>>;

/// The phase of an edge.
pub(super) enum EdgePhase<D: Domain> {
    /// Finding out whether a result is stored, and computing keys of inputs.
    Searching,
    /// Loading a stored result.
    Loading { work: WorkId, record: String },
    /// Waiting for its vertex to run.
    Executing,
    /// Saving the result.
    Saving { work: WorkId },
    /// Another edge continues for this one.
    Merged { into: EdgeId },
    /// The edge has a result or an error.
    Ended(EdgeOutcome<D>),
}

/// Which inputs are examined first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    first_slow: bool,
    first_fast: bool,
    all_have_matches: bool,
}

impl<D: Domain> EdgePhase<D> {
    /// The work of this edge alone that it waits for.
    pub(super) fn work(&self) -> Option<WorkId> {
        match self {
            Self::Loading { work, .. } | Self::Saving { work } => Some(*work),
            Self::Searching | Self::Executing | Self::Merged { .. } | Self::Ended(_) => None,
        }
    }

    /// Returns to searching; returns the work that the edge waited for.
    pub(super) fn give_up(&mut self) -> Option<WorkId> {
        let work = self.work();
        match self {
            Self::Searching | Self::Loading { .. } | Self::Executing | Self::Saving { .. } => {
                *self = Self::Searching;
            }
            Self::Merged { .. } | Self::Ended(_) => {}
        }
        work
    }
}

impl<D: Domain> fmt::Debug for EdgePhase<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Searching => f.write_str("Searching"),
            Self::Loading { work, record } => write!(f, "Loading({work}, {record})"),
            Self::Executing => f.write_str("Executing"),
            Self::Saving { work } => write!(f, "Saving({work})"),
            Self::Merged { into } => write!(f, "Merged({into})"),
            Self::Ended(outcome) => write!(f, "Ended(ok={})", outcome.is_ok()),
        }
    }
}

impl<D: Domain> Maps<D> {
    /// Returns the last known cache map.
    pub(super) fn last(&self) -> Option<&Arc<CacheMap<D>>> {
        match self {
            Self::None => None,
            Self::Some(map) | Self::All(map) => Some(map),
        }
    }

    pub(super) fn is_all(&self) -> bool {
        matches!(self, Self::All(_))
    }
}

impl<D: Domain> Dep<D> {
    pub(super) fn slow_key(&self) -> Option<&KeyInfo<D>> {
        match &self.slow {
            SlowState::Known { key, .. } => key.as_ref(),
            SlowState::Unknown => None,
        }
    }

    pub(super) fn slow_known(&self) -> bool {
        matches!(self.slow, SlowState::Known { .. })
    }
}

/// Keys with the selector of an input.
pub(super) fn with_selector<D: Domain>(
    keys: &[KeyInfo<D>],
    selector: Option<&Digest>,
) -> Vec<DepKey<D>> {
    keys.iter()
        .map(|key| DepKey {
            selector: selector.cloned(),
            key: key.clone(),
        })
        .collect()
}

impl<D: Domain> EdgeState<D> {
    pub(super) fn new(vertex: Digest, index: usize, inputs: usize) -> Self {
        let dep = || Dep {
            edge: None,
            demand: None,
            keys_read: (0, 0),
            level: EdgeLevel::Initial,
            keys: Vec::new(),
            matches: Matches::new(),
            slow: SlowState::Unknown,
            result: None,
        };
        Self {
            vertex,
            index,
            consumers: BTreeMap::new(),
            level: EdgeLevel::Initial,
            maps: Maps::None,
            map_digests: Vec::new(),
            deps: (0..inputs).map(|_| dep()).collect(),
            keys: Vec::new(),
            matched: BTreeSet::new(),
            records: BTreeMap::new(),
            tried: BTreeSet::new(),
            search: Search::Open,
            ready: EdgeLevel::Initial,
            state: EdgePhase::Searching,
            lookup: None,
            secondaries: Arc::new(Mutex::new(Vec::new())),
        }
    }

    pub(super) fn progress(&self) -> EdgeProgress {
        (self.level, self.keys.len(), self.outcome().is_some())
    }

    /// Returns the outcome of an edge that has ended.
    pub(super) fn outcome(&self) -> Option<&EdgeOutcome<D>> {
        match &self.state {
            EdgePhase::Ended(outcome) => Some(outcome),
            EdgePhase::Searching
            | EdgePhase::Loading { .. }
            | EdgePhase::Executing
            | EdgePhase::Saving { .. }
            | EdgePhase::Merged { .. } => None,
        }
    }

    /// Returns the edge that continues for this one, if it was merged.
    pub(super) fn owner(&self) -> Option<EdgeId> {
        match self.state {
            EdgePhase::Merged { into } => Some(into),
            EdgePhase::Searching
            | EdgePhase::Loading { .. }
            | EdgePhase::Executing
            | EdgePhase::Saving { .. }
            | EdgePhase::Ended(_) => None,
        }
    }

    /// Returns the cache map that keys are made with.
    pub(super) fn map(&self) -> Option<&Arc<CacheMap<D>>> {
        self.maps.last()
    }

    /// Adds the answers of the key stores.
    pub(super) fn take_answer(&mut self, answer: Answer<D>, allowed: Option<bool>) {
        for (input, (dep, new)) in self.deps.iter_mut().zip(answer.matches).enumerate() {
            dep.matches.extend(new);
            if answer.found_by_content.contains(&input)
                && let SlowState::Known { led_to_new_key, .. } = &mut dep.slow
            {
                *led_to_new_key = true;
            }
        }
        self.matched.extend(answer.matched);
        for (key, records) in answer.keys {
            for record in &records {
                if !self.tried.contains(&record.id) {
                    self.records.insert(record.id.clone(), record.clone());
                }
            }
            let exporter = Exporter::Key(KeyExporter {
                key: Arc::clone(&key),
                record: None,
                records,
                allowed,
                secondaries: None,
            });
            self.keys.push(KeyInfo {
                key,
                exporter: Arc::new(exporter),
            });
        }
        if self.deps.is_empty() {
            self.level = self.level.max(EdgeLevel::Slow);
        }
    }

    pub(super) fn has_slow(&self, input: usize) -> bool {
        self.map()
            .and_then(|m| m.deps.get(input))
            .is_some_and(|d| d.slow.is_some())
    }

    pub(super) fn has_preprocess(&self, input: usize) -> bool {
        self.map()
            .and_then(|m| m.deps.get(input))
            .is_some_and(|d| d.preprocess.is_some())
    }

    pub(super) fn wants_more_maps(&self) -> bool {
        match self.maps {
            Maps::None => true,
            Maps::Some(_) => self.records.is_empty(),
            Maps::All(_) => false,
        }
    }

    /// Whether the content key of an input is yet to be computed, and can be, now or soon.
    pub(super) fn slow_pending(&self, input: usize, dep: &Dep<D>) -> bool {
        self.has_slow(input)
            && dep.level >= EdgeLevel::Slow
            && (dep.level == EdgeLevel::Slow || !dep.slow_known())
    }

    pub(super) fn input_pending(&self, input: usize, dep: &Dep<D>) -> bool {
        (self.has_slow(input) || self.has_preprocess(input))
            && dep.level >= EdgeLevel::Slow
            && (dep.level == EdgeLevel::Slow || !dep.slow_known())
    }

    pub(super) fn all_have_matches(&self) -> bool {
        self.map().is_some()
            && self
                .deps
                .iter()
                .all(|d| !d.matches.is_empty() || d.slow_key().is_some() || d.result.is_some())
    }

    pub(super) fn all_have_keys(&self) -> bool {
        self.map().is_some()
            && self
                .deps
                .iter()
                .all(|d| !d.keys.is_empty() || d.slow_key().is_some() || d.result.is_some())
    }

    /// The keys of each input, as links to a key of the output need them.
    pub(super) fn dep_keys(&self) -> Vec<Vec<DepKey<D>>> {
        let Some(map) = self.map() else {
            return Vec::new();
        };
        self.deps
            .iter()
            .zip(&map.deps)
            .map(|(dep, map_dep)| {
                let Some(result) = &dep.result else {
                    return with_selector(&dep.keys, map_dep.selector.as_ref());
                };
                let mut keys = with_selector(&result.keys, map_dep.selector.as_ref());
                keys.extend(dep.slow_key().map(|key| DepKey {
                    selector: None,
                    key: key.clone(),
                }));
                keys
            })
            .collect()
    }

    /// Derives the level of the edge from the levels of its inputs.
    pub(super) fn measure(&mut self) {
        if self.map().is_none() {
            return;
        }
        let (mut low, mut high) = (EdgeLevel::Initial, EdgeLevel::Slow);
        let mut ready = EdgeLevel::Complete;
        let mut all_known = true;
        for (input, dep) in self.deps.iter().enumerate() {
            let (slow_pending, input_pending) = (
                self.slow_pending(input, dep),
                self.input_pending(input, dep),
            );
            if dep.level > low && dep.matches.is_empty() && !input_pending {
                low = dep.level.min(EdgeLevel::Slow);
            }
            high = high.min(if slow_pending {
                EdgeLevel::Fast
            } else {
                dep.level
            });
            ready = ready.min(match dep.level {
                EdgeLevel::Complete if input_pending && slow_pending => EdgeLevel::Fast,
                EdgeLevel::Complete if input_pending => EdgeLevel::Slow,
                EdgeLevel::Slow if slow_pending => EdgeLevel::Fast,
                level @ (EdgeLevel::Initial
                | EdgeLevel::Fast
                | EdgeLevel::Slow
                | EdgeLevel::Complete) => level,
            });
            all_known &= dep.level >= EdgeLevel::Slow || !dep.matches.is_empty();
        }
        if self.level < EdgeLevel::Complete {
            self.level = self.level.max(low).max(high);
            if !self.maps.is_all() && self.keys.is_empty() {
                self.level = EdgeLevel::Initial;
            }
        }
        self.ready = if self.maps.is_all() {
            ready
        } else {
            EdgeLevel::Initial
        };
        if self.maps.is_all()
            && all_known
            && !self.records.is_empty()
            && self.level == EdgeLevel::Fast
            && self.nothing_else_can_match()
        {
            self.level = EdgeLevel::Slow;
        }
        for (input, dep) in self.deps.iter().enumerate() {
            let missed = match &dep.slow {
                SlowState::Known { led_to_new_key, .. } if self.has_slow(input) => !led_to_new_key,
                SlowState::Known { .. } | SlowState::Unknown => {
                    !self.has_slow(input) && dep.level >= EdgeLevel::Slow
                }
            };
            if missed && dep.matches.is_empty() {
                self.search = Search::Missed;
            }
        }
    }

    /// Whether no key is left that all inputs might still lead to; records are known.
    pub(super) fn nothing_else_can_match(&self) -> bool {
        let mut open: Option<BTreeSet<&String>> = None;
        for (input, dep) in self.deps.iter().enumerate() {
            if self.slow_pending(input, dep) {
                continue;
            }
            let here: BTreeSet<&String> = dep
                .matches
                .keys()
                .filter(|k| !self.matched.contains(*k))
                .collect();
            let remaining_keys = match open {
                None => here,
                Some(open) => open.intersection(&here).copied().collect(),
            };
            if remaining_keys.is_empty() {
                return true;
            }
            open = Some(remaining_keys);
        }
        false
    }

    /// The state of all inputs together, computed once for all of them.
    pub(super) fn rounds(&self) -> Rounds {
        let unmatched = || {
            let deps = self.deps.iter().enumerate();
            deps.filter(|(_, d)| d.matches.is_empty())
                .map(|(i, d)| (d, !d.slow_known(), self.has_slow(i)))
        };
        Rounds {
            first_slow: unmatched()
                .any(|(d, open, slow)| (open && slow) || d.level < EdgeLevel::Slow),
            first_fast: unmatched()
                .any(|(d, open, slow)| (open && slow) || (d.level < EdgeLevel::Complete && !slow)),
            all_have_matches: self.all_have_matches(),
        }
    }

    /// Content keys are computed in two rounds: first for inputs without matches.
    fn later_slow(&self, input: usize, dep: &Dep<D>, rounds: Rounds) -> bool {
        rounds.first_slow && !dep.slow_known() && self.has_slow(input) && !dep.matches.is_empty()
    }

    /// An input with matches goes beyond its fast keys only after those without matches.
    fn later_fast(&self, dep: &Dep<D>, rounds: Rounds) -> bool {
        self.map().is_none() || (rounds.first_fast && !dep.matches.is_empty())
    }

    /// The level that the edge needs of an input to reach `demand`.
    pub(super) fn desired(
        &self,
        input: usize,
        dep: &Dep<D>,
        demand: EdgeLevel,
        rounds: Rounds,
    ) -> EdgeLevel {
        if self.search == Search::Missed {
            return EdgeLevel::Complete;
        }
        let slow = self.has_slow(input);
        let unmatched = dep.matches.is_empty();
        match dep.level {
            EdgeLevel::Initial if demand > EdgeLevel::Initial => EdgeLevel::Fast,
            EdgeLevel::Fast if demand > EdgeLevel::Fast => {
                let due = (self.ready >= EdgeLevel::Fast && self.keys.is_empty())
                    || unmatched
                    || rounds.all_have_matches;
                if due && !self.later_fast(dep, rounds) {
                    EdgeLevel::Slow
                } else {
                    dep.level
                }
            }
            EdgeLevel::Slow if self.map().is_some() && demand == EdgeLevel::Complete => {
                let due = unmatched
                    || self.ready >= EdgeLevel::Slow
                    || (slow && !self.later_fast(dep, rounds));
                let later = !unmatched && self.later_slow(input, dep, rounds);
                if due && self.records.is_empty() && !later {
                    EdgeLevel::Complete
                } else {
                    dep.level
                }
            }
            EdgeLevel::Slow if self.map().is_some() && slow && demand == EdgeLevel::Slow => {
                if unmatched || !self.later_slow(input, dep, rounds) {
                    EdgeLevel::Complete
                } else {
                    dep.level
                }
            }
            level @ (EdgeLevel::Initial
            | EdgeLevel::Fast
            | EdgeLevel::Slow
            | EdgeLevel::Complete) => level,
        }
    }
}

impl<D: Domain> fmt::Debug for EdgeState<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} for={:?} maps={} all={} lookup={:?} ",
            self.level,
            self.state,
            self.consumers,
            self.map_digests.len(),
            self.maps.is_all(),
            self.lookup,
        )?;
        write!(
            f,
            "{:?} ready={:?} records={:?} tried={:?}",
            self.search,
            self.ready,
            self.records.keys(),
            self.tried
        )?;
        for (input, dep) in self.deps.iter().enumerate() {
            write!(
                f,
                "\n    dep {:?} {:?} wants {:?} matches={:?} keys={} ",
                dep.edge,
                dep.level,
                dep.demand,
                dep.matches.keys(),
                dep.keys.len()
            )?;
            write!(
                f,
                "slow={} known={}",
                self.has_slow(input),
                dep.slow_known()
            )?;
        }
        Ok(())
    }
}
