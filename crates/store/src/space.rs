//! The budget: how much the state directory may take, all of it counted.
//!
//! Rules name amounts of bytes. What is measured against them is not only what records hold but everything in the directory:
//!
//! | counted                                | how                                         |
//! |----------------------------------------|---------------------------------------------|
//! | layers, patches and their blobs        | the sizes of records                        |
//! | blobs that no record names             | rows of blobs: of history, of leases        |
//! | blobs on their way in                  | files in `ingest`                           |
//! | what is on its way out                 | trees in `trash`                            |
//! | index, its log, its reserve            | files directly under the root               |
//! | bundles of git that are being unpacked | folders in `git`; mounts there are records  |
//!
//! Collection runs a little after a build, and [`Store::make_room`] before a step: a step that begins on a full budget waits
//! for it. What running builds hold is never taken from them, so a build may pass the budget until it ends.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fstree::Root;
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::gc::PruneOptions;
use crate::id::RefId;
use crate::patch::disk_size;
use crate::policy::{DiskStat, GcPolicy};
use crate::store::Store;
use crate::usage::UsageRecord;

/// How long a count holds where the budget is far.
const FRESH: Duration = Duration::from_secs(1);
/// How long nothing is collected again for steps after a collection that did not bring the budget about: all is in use.
const FRUITLESS: Duration = Duration::from_secs(10);
/// From this part of the limit on (in percent), or with less than [`NEAR_BYTES`] left, steps wait for the count.
const NEAR_PERCENT: i64 = 90;
/// A step may write that much before anybody looks again.
const NEAR_BYTES: i64 = 1_000_000_000;

/// What is known of the space that is used.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    rules: Mutex<Vec<GcPolicy>>,
    known: Mutex<Known>,
    /// Something was written since the last count began.
    pub(crate) changed: AtomicBool,
    /// One counts or collects for steps; the others wait for the outcome. Held across awaits, hence not a parking_lot lock.
    alone: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    used: i64,
    counted: Option<Instant>,
    fruitless: Option<Instant>,
}

impl Known {
    /// What a step is to do about the count. `changed` says that something was written since.
    fn advice(&self, limit: i64, changed: bool, now: Instant) -> Advice {
        let is_recent =
            |at: Option<Instant>, age| at.is_some_and(|at| now.duration_since(at) < age);
        if is_recent(self.fruitless, FRUITLESS) {
            return Advice::Go;
        }
        let is_near =
            self.used >= limit / 100 * NEAR_PERCENT || limit.saturating_sub(self.used) < NEAR_BYTES;
        let is_known = self.counted.is_some() && !changed;
        match self.counted {
            None => Advice::Wait,
            Some(_) if is_near && is_known && self.used <= limit => Advice::Go,
            Some(_) if is_near => Advice::Wait,
            Some(_) if is_known || is_recent(self.counted, FRESH) => Advice::Go,
            Some(_) => Advice::CountBeside,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advice {
    Go,
    CountBeside,
    Wait,
}

/// Bytes that the files directly in a directory take.
fn files(dir: &Path) -> i64 {
    let mut total = 0_u64;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // What vanishes while it is counted takes nothing.
        if let Ok(meta) = entry.metadata()
            && meta.is_file()
        {
            total = total.saturating_add(meta.blocks().saturating_mul(512));
        }
    }
    i64::try_from(total).unwrap_or(i64::MAX)
}

fn tree(dir: &Path) -> i64 {
    Root::open(dir)
        .ok()
        .and_then(|root| disk_size(&root).ok())
        .unwrap_or(0)
}

/// The amount that rules hold everything to, if any of them does.
fn limit(rules: &[GcPolicy], disk: DiskStat) -> Option<i64> {
    rules
        .iter()
        .map(|rule| rule.to_prune(disk))
        // A rule about some records limits those, and one about time does not limit space.
        .filter(|o| o.filters.is_empty() && o.keep_duration.is_zero() && o.max_used_space > 0)
        .map(|o: PruneOptions| o.max_used_space.max(o.reserved_space))
        .min()
}

impl Store {
    /// Sets the rules that hold the directory to its budget, for [`Self::make_room`].
    pub fn set_budget(&self, rules: Vec<GcPolicy>) {
        *self.budget.rules.lock() = rules;
    }

    /// Bytes on disk that belong to no record.
    pub(crate) fn overhead(&self) -> Result<i64, StoreError> {
        let root = self.root();
        let loose: i64 = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT coalesce(sum(size), 0) FROM blobs WHERE size > 0 AND digest NOT IN (SELECT digest FROM layer_blobs)",
            )?;
            Ok(s.query_row([], |r| r.get(0))?)
        })?;
        let mut total = loose
            .saturating_add(files(root))
            .saturating_add(files(&root.join("ingest")))
            .saturating_add(tree(&root.join("trash")));
        for entry in std::fs::read_dir(root.join("git"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().as_encoded_bytes().starts_with(b"bundle") {
                total = total.saturating_add(tree(&entry.path()));
            }
        }
        Ok(total)
    }

    /// Bytes on disk of everything in the state directory. Measures what was not measured yet. Blocks.
    pub fn used(&self) -> Result<i64, StoreError> {
        self.budget.changed.store(false, Ordering::Relaxed);
        // Of a pair of twins the mutable one is counted.
        let unknown: Vec<(String, Option<String>, bool)> = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT id, snapshot, mutable FROM refs WHERE size < 0 AND twin IS NULL",
            )?;
            let rows = s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        for (id, snapshot, is_mutable) in unknown {
            // What is being written is counted when its writer is done.
            if is_mutable && RefId::parse(&id).is_ok_and(|id| self.live().lock().has(&id)) {
                continue;
            }
            // It may have gone meanwhile.
            let Ok(size) = crate::refs::lazy::measure(self, &id, snapshot.as_deref()) else {
                continue;
            };
            self.later(|c| {
                c.prepare_cached("UPDATE refs SET size = ?2 WHERE id = ?1 AND size < 0")?
                    .execute(rusqlite::params![id, size])?;
                Ok(())
            })?;
        }
        let records: i64 = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT coalesce(sum(size), 0) FROM refs WHERE size > 0 AND twin IS NULL",
            )?;
            Ok(s.query_row([], |r| r.get(0))?)
        })?;
        let used = records.saturating_add(self.overhead()?);
        let mut known = self.budget.known.lock();
        known.used = used;
        known.counted = Some(Instant::now());
        Ok(used)
    }

    /// Bytes by which the directory is over what `rules` allow, 0 if it is not. Blocks.
    pub fn excess(&self, rules: &[GcPolicy]) -> Result<i64, StoreError> {
        match limit(rules, DiskStat::of(self.root())) {
            Some(limit) => Ok(self.used()?.saturating_sub(limit).max(0)),
            None => Ok(0),
        }
    }

    /// Tells whether all that `rules` say about space holds, where that can be told without going through all records. What rules
    /// say about things that were used long ago is not looked at. Blocks.
    pub fn keeps_to(&self, rules: &[GcPolicy]) -> Result<bool, StoreError> {
        let disk = DiskStat::of(self.root());
        let holds = rules.iter().map(|rule| rule.to_prune(disk)).all(|o| {
            let is_measured = o.filters.is_empty() && o.max_used_space > 0;
            o.min_free_space <= disk.free && (is_measured || !o.keep_duration.is_zero())
        });
        Ok(holds && self.excess(rules)? == 0)
    }

    /// Sees to it that a step does not begin on a full budget: collects if the directory is over it. Never fails; what cannot
    /// be counted or collected is for the collection after the build to tell.
    pub async fn make_room(self: &Arc<Self>) {
        let rules = self.budget.rules.lock().clone();
        let Some(limit) = limit(&rules, DiskStat::of(self.root())) else {
            return;
        };
        let advice = |store: &Self| {
            let changed = store.budget.changed.load(Ordering::Relaxed);
            let known = store.budget.known.lock();
            known.advice(limit, changed, Instant::now())
        };
        match advice(self) {
            Advice::Go => {}
            Advice::CountBeside => {
                // Others go on with what is known until then.
                self.budget.known.lock().counted = Some(Instant::now());
                let store = Arc::clone(self);
                let counting = task::blocking("count used space", move || store.used().map(drop));
                task::spawn("count used space", async move {
                    if let Err(error) = counting.await {
                        tracing::debug!(%error, "used space was not counted");
                    }
                })
                .detach();
            }
            Advice::Wait => {
                let _alone = self.budget.alone.lock().await;
                if advice(self) == Advice::Go {
                    return;
                }
                let store = Arc::clone(self);
                let made = task::blocking("make room", move || store.make_room_now(&rules));
                if let Err(error) = made.await {
                    tracing::warn!(%error, "no room could be made");
                }
            }
        }
    }

    fn make_room_now(&self, rules: &[GcPolicy]) -> Result<(), StoreError> {
        if self.excess(rules)? == 0 {
            return Ok(());
        }
        let mut freed = 0_i64;
        let mut count = |record: UsageRecord| freed = freed.saturating_add(record.size);
        self.collect(rules, &mut count)?;
        let excess = self.excess(rules)?;
        self.budget.known.lock().fruitless = (excess > 0).then(Instant::now);
        tracing::info!(bytes = freed, excess, "room made for a step");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::DiskSpace;

    #[test]
    fn a_step_waits_for_the_count_only_where_the_budget_is_near() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let known = |used, counted, fruitless| Known {
            used,
            counted,
            fruitless,
        };
        const GB: i64 = NEAR_BYTES;
        let cases = [
            ("never counted", known(0, None, None), true, Advice::Wait),
            (
                "far, just counted",
                known(5 * GB, ago(0), None),
                true,
                Advice::Go,
            ),
            (
                "far, counted long ago",
                known(5 * GB, ago(5), None),
                true,
                Advice::CountBeside,
            ),
            (
                "far, nothing new",
                known(5 * GB, ago(5), None),
                false,
                Advice::Go,
            ),
            (
                "near, nothing new",
                known(95 * GB, ago(5), None),
                false,
                Advice::Go,
            ),
            (
                "near, something new",
                known(95 * GB, ago(0), None),
                true,
                Advice::Wait,
            ),
            ("over", known(101 * GB, ago(0), None), false, Advice::Wait),
            (
                "over, all in use",
                known(101 * GB, ago(0), ago(3)),
                true,
                Advice::Go,
            ),
            (
                "over, in use a while ago",
                known(101 * GB, ago(0), ago(30)),
                true,
                Advice::Wait,
            ),
        ];
        for (what, known, changed, advice) in cases {
            assert_eq!(known.advice(100 * GB, changed, now), advice, "{what}");
        }
        // Of a small budget any step may be more than what is left.
        let small = known(1_000, ago(0), None);
        assert_eq!(small.advice(60_000_000, true, now), Advice::Wait);
    }

    #[test]
    fn the_limit_is_that_of_the_strictest_rule_about_everything() {
        let rule = |filters: &[&str], keep, max, reserved| GcPolicy {
            filters: filters.iter().map(|f| (*f).to_owned()).collect(),
            keep_duration: Duration::from_secs(keep),
            max_used: DiskSpace::bytes(max),
            reserved: DiskSpace::bytes(reserved),
            ..GcPolicy::default()
        };
        let of = |rules: &[GcPolicy]| limit(rules, DiskStat::default());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[rule(&["type==source.local"], 0, 5, 0)]), None);
        assert_eq!(of(&[rule(&[], 60, 5, 0)]), None);
        assert_eq!(of(&[rule(&[], 0, 9, 0), rule(&[], 0, 7, 0)]), Some(7));
        assert_eq!(of(&[rule(&[], 0, 9, 20)]), Some(20));
    }
}
