//! One edge: what it knows, and what follows from that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use oci::Digest;
use parking_lot::Mutex;

use super::{Consumer, Level, WorkId};
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
    pub(super) consumers: BTreeMap<Consumer, Level>,
    pub(super) level: Level,
    pub(super) maps: Maps<D>,
    /// Digests of all cache maps so far; more than one only without inputs.
    pub(super) map_digests: Vec<Digest>,
    pub(super) deps: Vec<Dep<D>>,
    /// Keys the output is known by. Grows.
    pub(super) keys: Vec<KeyInfo<D>>,
    /// Ids of keys that all inputs lead to.
    pub(super) matched: BTreeSet<String>,
    pub(super) records: BTreeMap<String, CacheRecord<D>>,
    /// Records whose load failed.
    pub(super) tried: BTreeSet<String>,
    pub(super) search: Search,
    /// What all inputs together are ready for, once all cache maps are known.
    pub(super) ready: Level,
    pub(super) state: State<D>,
    /// What the key stores are being asked. Keys are looked up in every state but the last two.
    pub(super) lookup: Option<LookingUp>,
    pub(super) secondaries: Secondaries<D>,
}

/// An input of an edge.
pub(super) struct Dep<D: Domain> {
    /// The edge that gives it, once it was asked for something.
    pub(super) edge: Option<EdgeId>,
    pub(super) wanted: Option<Level>,
    /// How many keys of which edge have been looked at.
    pub(super) seen: (EdgeId, usize),
    pub(super) level: Level,
    pub(super) keys: Vec<KeyInfo<D>>,
    /// Known keys of this edge's output that this input leads to.
    pub(super) matches: Matches<D>,
    pub(super) slow: SlowState<D>,
    pub(super) result: Option<Arc<Finished<D>>>,
}

/// The content key of an input.
pub(super) enum SlowState<D: Domain> {
    Unknown,
    Known {
        key: Option<KeyInfo<D>>,
        /// Whether it led to a key that was not found before.
        found: bool,
    },
}

/// A result and the keys it is known by.
pub(super) struct Finished<D: Domain> {
    pub(super) result: D::Result,
    pub(super) keys: Vec<KeyInfo<D>>,
}

/// A look-up of an edge that is under way.
#[derive(Debug)]
pub(super) struct LookingUp {
    pub(super) work: WorkId,
    /// What the edge came to know before it.
    pub(super) news: News,
    /// Whether vertex or inputs have come to know more meanwhile.
    pub(super) has_more: bool,
}

/// What an edge came to know of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that would change the key of its output.
    None,
    /// Keys or results: another edge may have an equal key.
    Keys,
}

/// The cache maps of an edge. Only edges without inputs have several.
pub(super) enum Maps<D: Domain> {
    /// None is known.
    None,
    /// The last one known; there are more.
    Some(Arc<CacheMap<D>>),
    /// The last one there is.
    All(Arc<CacheMap<D>>),
}

/// Whether a known key may lead to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// One may.
    Open,
    /// An input has been found that no known key follows from: nothing can match any more.
    Missed,
}

/// What consumers see of an edge: how far it is, how many keys it has, and whether it ended.
pub(super) type Progress = (Level, usize, bool);

/// How an edge ended.
pub(super) type EdgeOutcome<D> = Result<Arc<Finished<D>>, SolveError<D>>;

/// What an edge is at.
pub(super) enum State<D: Domain> {
    /// Finding out whether it is cached, and what its inputs are.
    Searching,
    /// Loading a known result.
    Loading { work: WorkId, record: String },
    /// Waiting for its vertex to run.
    Executing,
    /// Keeping its result.
    Saving { work: WorkId },
    /// Another edge goes on for this one.
    Merged { into: EdgeId },
    /// There is a result, or an error.
    Ended(EdgeOutcome<D>),
}

/// What is to be found out first, for all inputs of an edge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    first_slow: bool,
    first_fast: bool,
    all_have_matches: bool,
}

impl<D: Domain> State<D> {
    /// Work of the edge alone that it waits for.
    pub(super) fn work(&self) -> Option<WorkId> {
        match self {
            Self::Loading { work, .. } | Self::Saving { work } => Some(*work),
            Self::Searching | Self::Executing | Self::Merged { .. } | Self::Ended(_) => None,
        }
    }

    /// Goes back to searching from whatever was begun; returns the work that it waited for.
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

impl<D: Domain> fmt::Debug for State<D> {
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
    /// Returns the last one that is known.
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

/// Keys with what of the input is read.
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
            wanted: None,
            seen: (0, 0),
            level: Level::Initial,
            keys: Vec::new(),
            matches: Matches::new(),
            slow: SlowState::Unknown,
            result: None,
        };
        Self {
            vertex,
            index,
            consumers: BTreeMap::new(),
            level: Level::Initial,
            maps: Maps::None,
            map_digests: Vec::new(),
            deps: (0..inputs).map(|_| dep()).collect(),
            keys: Vec::new(),
            matched: BTreeSet::new(),
            records: BTreeMap::new(),
            tried: BTreeSet::new(),
            search: Search::Open,
            ready: Level::Initial,
            state: State::Searching,
            lookup: None,
            secondaries: Arc::new(Mutex::new(Vec::new())),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        (self.level, self.keys.len(), self.outcome().is_some())
    }

    /// Returns how it ended, if it did.
    pub(super) fn outcome(&self) -> Option<&EdgeOutcome<D>> {
        match &self.state {
            State::Ended(outcome) => Some(outcome),
            State::Searching
            | State::Loading { .. }
            | State::Executing
            | State::Saving { .. }
            | State::Merged { .. } => None,
        }
    }

    /// Returns the edge that goes on for this one, if there is one.
    pub(super) fn owner(&self) -> Option<EdgeId> {
        match self.state {
            State::Merged { into } => Some(into),
            State::Searching
            | State::Loading { .. }
            | State::Executing
            | State::Saving { .. }
            | State::Ended(_) => None,
        }
    }

    /// Returns the cache map that counts.
    pub(super) fn map(&self) -> Option<&Arc<CacheMap<D>>> {
        self.maps.last()
    }

    /// Takes in what the key stores answered.
    pub(super) fn take_answer(&mut self, answer: Answer<D>, allowed: Option<bool>) {
        for (input, (dep, new)) in self.deps.iter_mut().zip(answer.matches).enumerate() {
            dep.matches.extend(new);
            if answer.found_by_content.contains(&input)
                && let SlowState::Known { found, .. } = &mut dep.slow
            {
                *found = true;
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
            self.level = self.level.max(Level::Slow);
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

    /// Whether the content key of an input is still to be computed, now that it could be or will soon.
    pub(super) fn slow_pending(&self, input: usize, dep: &Dep<D>) -> bool {
        self.has_slow(input)
            && dep.level >= Level::Slow
            && (dep.level == Level::Slow || !dep.slow_known())
    }

    pub(super) fn input_pending(&self, input: usize, dep: &Dep<D>) -> bool {
        (self.has_slow(input) || self.has_preprocess(input))
            && dep.level >= Level::Slow
            && (dep.level == Level::Slow || !dep.slow_known())
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

    /// The keys of each input as links to a key of the output are made of.
    pub(super) fn dep_keys(&self) -> Vec<Vec<DepKey<D>>> {
        let Some(map) = self.map() else {
            return Vec::new();
        };
        self.deps
            .iter()
            .zip(&map.deps)
            .map(|(dep, how)| {
                let Some(result) = &dep.result else {
                    return with_selector(&dep.keys, how.selector.as_ref());
                };
                let mut keys = with_selector(&result.keys, how.selector.as_ref());
                keys.extend(dep.slow_key().map(|key| DepKey {
                    selector: None,
                    key: key.clone(),
                }));
                keys
            })
            .collect()
    }

    /// Works out how far the edge is from how far its inputs are.
    pub(super) fn measure(&mut self) {
        if self.map().is_none() {
            return;
        }
        let (mut low, mut high) = (Level::Initial, Level::Slow);
        let mut ready = Level::Complete;
        let mut all_known = true;
        for (input, dep) in self.deps.iter().enumerate() {
            let (slow_pending, input_pending) = (
                self.slow_pending(input, dep),
                self.input_pending(input, dep),
            );
            if dep.level > low && dep.matches.is_empty() && !input_pending {
                low = dep.level.min(Level::Slow);
            }
            high = high.min(if slow_pending { Level::Fast } else { dep.level });
            ready = ready.min(match dep.level {
                Level::Complete if input_pending && slow_pending => Level::Fast,
                Level::Complete if input_pending => Level::Slow,
                Level::Slow if slow_pending => Level::Fast,
                level @ (Level::Initial | Level::Fast | Level::Slow | Level::Complete) => level,
            });
            all_known &= dep.level >= Level::Slow || !dep.matches.is_empty();
        }
        if self.level < Level::Complete {
            self.level = self.level.max(low).max(high);
            if !self.maps.is_all() && self.keys.is_empty() {
                self.level = Level::Initial;
            }
        }
        self.ready = if self.maps.is_all() {
            ready
        } else {
            Level::Initial
        };
        if self.maps.is_all()
            && all_known
            && !self.records.is_empty()
            && self.level == Level::Fast
            && self.nothing_else_can_match()
        {
            self.level = Level::Slow;
        }
        for (input, dep) in self.deps.iter().enumerate() {
            let missed = match &dep.slow {
                SlowState::Known { found, .. } if self.has_slow(input) => !found,
                SlowState::Known { .. } | SlowState::Unknown => {
                    !self.has_slow(input) && dep.level >= Level::Slow
                }
            };
            if missed && dep.matches.is_empty() {
                self.search = Search::Missed;
            }
        }
    }

    /// With records at hand: whether no key is left that all inputs might still lead to.
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
            let left = match open {
                None => here,
                Some(open) => open.intersection(&here).copied().collect(),
            };
            if left.is_empty() {
                return true;
            }
            open = Some(left);
        }
        false
    }

    /// What all inputs together say, looked at once for all of them.
    pub(super) fn rounds(&self) -> Rounds {
        let unmatched = || {
            let deps = self.deps.iter().enumerate();
            deps.filter(|(_, d)| d.matches.is_empty())
                .map(|(i, d)| (d, !d.slow_known(), self.has_slow(i)))
        };
        Rounds {
            first_slow: unmatched().any(|(d, open, slow)| (open && slow) || d.level < Level::Slow),
            first_fast: unmatched()
                .any(|(d, open, slow)| (open && slow) || (d.level < Level::Complete && !slow)),
            all_have_matches: self.all_have_matches(),
        }
    }

    /// Content keys are computed in two rounds: first for inputs that nothing was found for.
    fn later_slow(&self, input: usize, dep: &Dep<D>, rounds: Rounds) -> bool {
        rounds.first_slow && !dep.slow_known() && self.has_slow(input) && !dep.matches.is_empty()
    }

    /// An input that something was found for goes beyond its fast keys only after those that nothing was found for.
    fn later_fast(&self, dep: &Dep<D>, rounds: Rounds) -> bool {
        self.map().is_none() || (rounds.first_fast && !dep.matches.is_empty())
    }

    /// What the edge needs of an input to get to `demand`.
    pub(super) fn desired(
        &self,
        input: usize,
        dep: &Dep<D>,
        demand: Level,
        rounds: Rounds,
    ) -> Level {
        if self.search == Search::Missed {
            return Level::Complete;
        }
        let slow = self.has_slow(input);
        let unmatched = dep.matches.is_empty();
        match dep.level {
            Level::Initial if demand > Level::Initial => Level::Fast,
            Level::Fast if demand > Level::Fast => {
                let due = (self.ready >= Level::Fast && self.keys.is_empty())
                    || unmatched
                    || rounds.all_have_matches;
                if due && !self.later_fast(dep, rounds) {
                    Level::Slow
                } else {
                    dep.level
                }
            }
            Level::Slow if self.map().is_some() && demand == Level::Complete => {
                let due = unmatched
                    || self.ready >= Level::Slow
                    || (slow && !self.later_fast(dep, rounds));
                let later = !unmatched && self.later_slow(input, dep, rounds);
                if due && self.records.is_empty() && !later {
                    Level::Complete
                } else {
                    dep.level
                }
            }
            Level::Slow if self.map().is_some() && slow && demand == Level::Slow => {
                if unmatched || !self.later_slow(input, dep, rounds) {
                    Level::Complete
                } else {
                    dep.level
                }
            }
            level @ (Level::Initial | Level::Fast | Level::Slow | Level::Complete) => level,
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
                dep.wanted,
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
