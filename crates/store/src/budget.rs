//! The budget that rules set for the state directory, and the last count of the space in use.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::policy::{DiskStat, GcPolicy, PruneOptions};

/// How long a count is used while the limit is far away.
const COUNT_VALID_FOR: Duration = Duration::from_secs(1);
/// Pause before the next collection for a step, after one that could not free enough because everything is in use.
const RETRY_COLLECTION_AFTER: Duration = Duration::from_secs(10);
/// Steps wait for a new count once this percentage of the limit is used, or less than [`NEAR_BYTES`] are left.
const NEAR_PERCENT: i64 = 90;
/// Bytes that a step may write before the next count.
const NEAR_BYTES: i64 = 1_000_000_000;

/// The rules, and the last count of the space in use.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    pub(crate) rules: Mutex<Vec<GcPolicy>>,
    pub(crate) count: Mutex<SpaceCount>,
    /// Whether something was written since the last count began.
    pub(crate) changed: AtomicBool,
    /// Held while one caller counts or collects for steps; the others wait for the outcome. Held across awaits, hence not a
    /// parking_lot lock.
    pub(crate) counting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct SpaceCount {
    /// Bytes in use at the last count.
    pub(crate) used: i64,
    /// When that was; `None` before the first count.
    pub(crate) counted: Option<Instant>,
    /// When a collection last could not free enough.
    pub(crate) fruitless: Option<Instant>,
}

impl SpaceCount {
    /// Whether a step may start, or has to wait for a count or a collection. `changed` says that something was written since
    /// the last count.
    pub(crate) fn advice(&self, limit: i64, changed: bool, now: Instant) -> Advice {
        let is_recent =
            |at: Option<Instant>, age| at.is_some_and(|at| now.duration_since(at) < age);
        if is_recent(self.fruitless, RETRY_COLLECTION_AFTER) {
            return Advice::Go;
        }
        let is_near =
            self.used >= limit / 100 * NEAR_PERCENT || limit.saturating_sub(self.used) < NEAR_BYTES;
        let is_known = self.counted.is_some() && !changed;
        match self.counted {
            None => Advice::Wait,
            Some(_) if is_near && is_known && self.used <= limit => Advice::Go,
            Some(_) if is_near => Advice::Wait,
            Some(_) if is_known || is_recent(self.counted, COUNT_VALID_FOR) => Advice::Go,
            Some(_) => Advice::CountBeside,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    Go,
    CountBeside,
    Wait,
}

/// The strictest limit that a rule sets for all records together, in bytes; `None` if no rule does.
pub(crate) fn limit(rules: &[GcPolicy], disk: DiskStat) -> Option<i64> {
    rules
        .iter()
        .map(|rule| rule.to_prune(disk))
        // A rule with filters limits some records only, and one with a duration limits no space.
        .filter(|o| o.filters.is_empty() && o.keep_duration.is_zero() && o.max_used_space > 0)
        .map(|o: PruneOptions| o.max_used_space.max(o.reserved_space))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::DiskSpace;

    #[test]
    fn a_step_waits_for_the_count_only_where_the_budget_is_near() {
        let now = task::clock::monotonic();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let count = |used, counted, fruitless| SpaceCount {
            used,
            counted,
            fruitless,
        };
        const GB: i64 = NEAR_BYTES;
        let cases = [
            ("never counted", count(0, None, None), true, Advice::Wait),
            (
                "far, just counted",
                count(5 * GB, ago(0), None),
                true,
                Advice::Go,
            ),
            (
                "far, counted long ago",
                count(5 * GB, ago(5), None),
                true,
                Advice::CountBeside,
            ),
            (
                "far, nothing new",
                count(5 * GB, ago(5), None),
                false,
                Advice::Go,
            ),
            (
                "near, nothing new",
                count(95 * GB, ago(5), None),
                false,
                Advice::Go,
            ),
            (
                "near, something new",
                count(95 * GB, ago(0), None),
                true,
                Advice::Wait,
            ),
            ("over", count(101 * GB, ago(0), None), false, Advice::Wait),
            (
                "over, all in use",
                count(101 * GB, ago(0), ago(3)),
                true,
                Advice::Go,
            ),
            (
                "over, in use a while ago",
                count(101 * GB, ago(0), ago(30)),
                true,
                Advice::Wait,
            ),
        ];
        for (what, count, changed, advice) in cases {
            assert_eq!(count.advice(100 * GB, changed, now), advice, "{what}");
        }
        // Of a small budget any step may be more than what is left.
        let small = count(1_000, ago(0), None);
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
