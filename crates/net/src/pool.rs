//! How many prepared namespaces there shall be: a value without kernel and clock.
//!
//! A namespace serves one step. When as many steps have run at a time as `peak`, that many may soon run again, so namespaces for them
//! are made ahead, and those that nobody took within [`KEEP`] go again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long more namespaces are kept than the configuration wants; BuildKit's time.
pub(crate) const KEEP: Duration = Duration::from_secs(300);

/// How many namespaces the load of the last minutes can make us prepare beyond the configured number.
const MAX_AHEAD: usize = 32;

/// Prepared things and how many of them are wanted.
#[derive(Debug)]
pub(crate) struct Pool<N> {
    /// In the order in which they were made.
    ready: VecDeque<(N, Instant)>,
    floor: usize,
    in_use: usize,
    peak: usize,
    /// When as many as `peak` were last in use.
    peak_at: Instant,
}

impl<N> Pool<N> {
    /// An empty pool that shall always have `floor` ready.
    pub(crate) fn new(floor: usize, now: Instant) -> Self {
        Self {
            ready: VecDeque::new(),
            floor,
            in_use: 0,
            peak: 0,
            peak_at: now,
        }
    }

    /// Takes the one that was made last: the others may grow old and go.
    pub(crate) fn take(&mut self, now: Instant) -> Option<N> {
        let (namespace, _) = self.ready.pop_back()?;
        self.use_one(now);
        Some(namespace)
    }

    /// Counts one that is used without having been in the pool.
    pub(crate) fn use_one(&mut self, now: Instant) {
        self.in_use += 1;
        if self.in_use >= self.peak {
            self.peak = self.in_use;
            self.peak_at = now;
        }
    }

    /// Counts one that is not used any more.
    pub(crate) fn release(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    /// Adds one that has been made.
    pub(crate) fn add(&mut self, namespace: N, now: Instant) {
        self.ready.push_back((namespace, now));
    }

    /// How many are missing.
    pub(crate) fn missing(&self) -> usize {
        self.target().saturating_sub(self.ready.len())
    }

    /// Takes one out that is too many and has not been wanted for long. To be called again until there is none.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<N> {
        if now.saturating_duration_since(self.peak_at) >= KEEP {
            self.peak = self.in_use;
            self.peak_at = now;
        }
        let (_, since) = self.ready.front()?;
        let old = now.saturating_duration_since(*since) >= KEEP;
        if !old || self.ready.len() <= self.target() {
            return None;
        }
        self.ready.pop_front().map(|(namespace, _)| namespace)
    }

    /// When [`Pool::expire`] may have something to do.
    pub(crate) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        if self.ready.len() <= self.floor {
            return None;
        }
        let (_, since) = self.ready.front()?;
        let oldest = *since + KEEP;
        let peak = self.peak_at + KEEP;
        // At least a moment from now, so that nobody turns in a circle.
        Some(oldest.max(peak).max(now + Duration::from_secs(1)))
    }

    /// Everything that is ready.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = N> + '_ {
        self.ready.drain(..).map(|(namespace, _)| namespace)
    }

    fn target(&self) -> usize {
        self.floor + (self.peak.saturating_sub(self.in_use)).min(MAX_AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        pool: Pool<u32>,
        next: u32,
        now: Instant,
    }

    impl Made {
        fn new(floor: usize) -> Self {
            let now = task::clock::monotonic();
            Self {
                pool: Pool::new(floor, now),
                next: 0,
                now,
            }
        }

        fn fill(&mut self) -> usize {
            let missing = self.pool.missing();
            for _ in 0..missing {
                self.next += 1;
                self.pool.add(self.next, self.now);
            }
            assert_eq!(self.pool.missing(), 0);
            missing
        }

        fn expired(&mut self) -> Vec<u32> {
            let (pool, now) = (&mut self.pool, self.now);
            std::iter::from_fn(|| pool.expire(now)).collect()
        }
    }

    #[test]
    fn the_configured_number_is_always_ready() {
        let mut made = Made::new(2);
        assert_eq!(made.fill(), 2);
        assert_eq!(made.pool.take(made.now), Some(2));
        assert_eq!(made.fill(), 1);
        made.now += 10 * KEEP;
        assert_eq!(made.expired(), [0; 0]);
        assert_eq!(made.pool.next_expiry(made.now), None);
    }

    #[test]
    fn with_none_configured_the_first_step_waits_and_the_next_ones_do_not() {
        let mut made = Made::new(0);
        assert_eq!(made.fill(), 0);
        assert_eq!(made.pool.take(made.now), None);
        made.pool.use_one(made.now);
        made.pool.release();
        assert_eq!(made.fill(), 1);
        assert_eq!(made.pool.take(made.now), Some(1));
    }

    #[test]
    fn what_a_burst_made_us_prepare_goes_when_nobody_wants_it_for_five_minutes() {
        let mut made = Made::new(1);
        made.fill();
        for _ in 0..4 {
            made.pool.take(made.now);
            made.fill();
        }
        for _ in 0..4 {
            made.pool.release();
        }
        assert_eq!(made.fill(), 4, "four may come again at once");
        made.now += KEEP / 2;
        assert_eq!(made.expired(), [0; 0]);
        // A single step now and then does not keep them all.
        assert_eq!(made.pool.take(made.now), Some(made.next));
        made.pool.release();
        made.fill();
        let expiry = made.pool.next_expiry(made.now).unwrap();
        assert_eq!(expiry, made.now + KEEP / 2);
        made.now = expiry;
        assert_eq!(made.expired().len(), 4);
        assert_eq!(made.pool.next_expiry(made.now), None);
        let youngest = made.next;
        assert_eq!(made.pool.drain().collect::<Vec<_>>(), [youngest]);
    }

    #[test]
    fn a_huge_burst_is_not_prepared_for_as_a_whole() {
        let mut made = Made::new(0);
        for _ in 0..1000 {
            made.pool.use_one(made.now);
        }
        for _ in 0..1000 {
            made.pool.release();
        }
        assert_eq!(made.fill(), MAX_AHEAD);
        // More is given back than was taken: nothing underflows.
        made.pool.release();
        assert_eq!(made.pool.missing(), 0);
    }
}
