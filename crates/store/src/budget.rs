//! The amount that rules hold the state directory to, and what is known of how much of it is used.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::policy::{DiskStat, GcPolicy, PruneOptions};

/// How long a count holds where the budget is far.
const COUNT_VALID_FOR: Duration = Duration::from_secs(1);
/// How long nothing is collected again for steps after a collection that did not bring the budget about: all is in use.
const RETRY_COLLECTION_AFTER: Duration = Duration::from_secs(10);
/// From this part of the limit on (in percent), or with less than [`NEAR_BYTES`] left, steps wait for the count.
const NEAR_PERCENT: i64 = 90;
/// A step may write that much before anybody looks again.
const NEAR_BYTES: i64 = 1_000_000_000;

/// What is known of the space that is used.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    pub(crate) rules: Mutex<Vec<GcPolicy>>,
    pub(crate) count: Mutex<SpaceCount>,
    /// Something was written since the last count began.
    pub(crate) changed: AtomicBool,
    /// One counts or collects for steps; the others wait for the outcome. Held across awaits, hence not a parking_lot lock.
    pub(crate) alone: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
pub(crate) struct SpaceCount {
    pub(crate) used: i64,
    pub(crate) counted: Option<Instant>,
    pub(crate) fruitless: Option<Instant>,
}

impl SpaceCount {
    /// What a step is to do about the count. `changed` says that something was written since.
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

/// The amount that rules hold everything to, if any of them does.
pub(crate) fn limit(rules: &[GcPolicy], disk: DiskStat) -> Option<i64> {
    rules
        .iter()
        .map(|rule| rule.to_prune(disk))
        // A rule about some records limits those, and one about time does not limit space.
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
