//! How many namespaces are kept prepared, decided without the kernel and the clock.
//!
//! A namespace serves one step. When as many steps have run at a time as `peak`, that many may soon run again, so namespaces for them
//! are made ahead, and those that nobody took within [`UNUSED_TIMEOUT`] go again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long namespaces beyond the configured number are kept while nobody takes them: BuildKit's time.
pub(crate) const UNUSED_TIMEOUT: Duration = Duration::from_secs(300);

/// How many namespaces the load of the last minutes can make us prepare beyond the configured number.
const MAX_PREPARED_AHEAD: usize = 32;

/// Prepared namespaces, and how many are needed.
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

    /// Takes the namespace that was made last, so that the oldest ones expire.
    pub(crate) fn take(&mut self, now: Instant) -> Option<N> {
        let (namespace, _) = self.ready.pop_back()?;
        self.use_one(now);
        Some(namespace)
    }

    /// Counts a namespace that is used without having been in the pool.
    pub(crate) fn use_one(&mut self, now: Instant) {
        self.in_use += 1;
        if self.in_use >= self.peak {
            self.peak = self.in_use;
            self.peak_at = now;
        }
    }

    /// Counts a namespace that is not used any more.
    pub(crate) fn release(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    /// Adds a namespace that has just been made.
    pub(crate) fn add(&mut self, namespace: N, now: Instant) {
        self.ready.push_back((namespace, now));
    }

    /// How many namespaces have to be made.
    pub(crate) fn missing(&self) -> usize {
        self.target().saturating_sub(self.ready.len())
    }

    /// Takes out a namespace beyond the number needed that nobody took for [`UNUSED_TIMEOUT`]. To be called until it returns `None`.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<N> {
        if now.saturating_duration_since(self.peak_at) >= UNUSED_TIMEOUT {
            self.peak = self.in_use;
            self.peak_at = now;
        }
        let (_, since) = self.ready.front()?;
        let old = now.saturating_duration_since(*since) >= UNUSED_TIMEOUT;
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
        let oldest = *since + UNUSED_TIMEOUT;
        let peak = self.peak_at + UNUSED_TIMEOUT;
        // At least a second from now, so that the caller does not spin.
        Some(oldest.max(peak).max(now + Duration::from_secs(1)))
    }

    /// Everything that is ready.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = N> + '_ {
        self.ready.drain(..).map(|(namespace, _)| namespace)
    }

    fn target(&self) -> usize {
        self.floor + (self.peak.saturating_sub(self.in_use)).min(MAX_PREPARED_AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FakePool {
        pool: Pool<u32>,
        next: u32,
        now: Instant,
    }

    impl FakePool {
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
        let mut fake = FakePool::new(2);
        assert_eq!(fake.fill(), 2);
        assert_eq!(fake.pool.take(fake.now), Some(2));
        assert_eq!(fake.fill(), 1);
        fake.now += 10 * UNUSED_TIMEOUT;
        assert_eq!(fake.expired(), [0; 0]);
        assert_eq!(fake.pool.next_expiry(fake.now), None);
    }

    #[test]
    fn with_none_configured_the_first_step_waits_and_the_next_ones_do_not() {
        let mut fake = FakePool::new(0);
        assert_eq!(fake.fill(), 0);
        assert_eq!(fake.pool.take(fake.now), None);
        fake.pool.use_one(fake.now);
        fake.pool.release();
        assert_eq!(fake.fill(), 1);
        assert_eq!(fake.pool.take(fake.now), Some(1));
    }

    #[test]
    fn what_a_burst_made_us_prepare_goes_when_nobody_wants_it_for_five_minutes() {
        let mut fake = FakePool::new(1);
        fake.fill();
        for _ in 0..4 {
            fake.pool.take(fake.now);
            fake.fill();
        }
        for _ in 0..4 {
            fake.pool.release();
        }
        assert_eq!(fake.fill(), 4, "four may come again at once");
        fake.now += UNUSED_TIMEOUT / 2;
        assert_eq!(fake.expired(), [0; 0]);
        // A single step now and then does not keep them all.
        assert_eq!(fake.pool.take(fake.now), Some(fake.next));
        fake.pool.release();
        fake.fill();
        let expiry = fake.pool.next_expiry(fake.now).unwrap();
        assert_eq!(expiry, fake.now + UNUSED_TIMEOUT / 2);
        fake.now = expiry;
        assert_eq!(fake.expired().len(), 4);
        assert_eq!(fake.pool.next_expiry(fake.now), None);
        let youngest = fake.next;
        assert_eq!(fake.pool.drain().collect::<Vec<_>>(), [youngest]);
    }

    #[test]
    fn a_huge_burst_is_not_prepared_for_as_a_whole() {
        let mut fake = FakePool::new(0);
        for _ in 0..1000 {
            fake.pool.use_one(fake.now);
        }
        for _ in 0..1000 {
            fake.pool.release();
        }
        assert_eq!(fake.fill(), MAX_PREPARED_AHEAD);
        // More is released than was taken: the count does not underflow.
        fake.pool.release();
        assert_eq!(fake.pool.missing(), 0);
    }
}
