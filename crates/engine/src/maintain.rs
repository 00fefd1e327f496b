//! Disk usage, pruning, and garbage collection after builds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream, StreamExt};
use metrics::{GcOutcome, NoLabels};
use parking_lot::Mutex;
use store::{GcPolicy, PruneOptions, Store};
use task::Clock;
use tokio::sync::mpsc;

use crate::api::{
    Failure, GcRule, PruneRequest, RecordAccess, RecordUsage, StoreSize, UsageRecord,
};

/// The time between the end of a build and the collection of garbage.
const GC_DELAY_AFTER_BUILD: Duration = Duration::from_secs(1);
/// The shortest time between two collections for builds.
///
/// DIFFERS: BuildKit collects once a minute, and forgets the builds that end in between.
const GC_INTERVAL: Duration = Duration::from_secs(5);
/// The time between two collections that go through all records although the budget is kept.
const GC_FULL_INTERVAL: Duration = Duration::from_secs(60);
/// The time until the next collection if one could not free enough. It doubles with each collection.
const GC_RETRY_DELAY: Duration = Duration::from_secs(10);
/// The longest time between such repeated collections.
const MAX_GC_RETRY_DELAY: Duration = Duration::from_secs(60);

pub(crate) fn usage(record: store::UsageRecord) -> UsageRecord {
    UsageRecord {
        id: record.id.as_str().into(),
        access: if record.mutable {
            RecordAccess::Mutable
        } else {
            RecordAccess::Immutable
        },
        usage: if record.in_use {
            RecordUsage::InUse
        } else {
            RecordUsage::Unused
        },
        size: record.size,
        parents: record.parents.iter().map(|p| p.as_str().into()).collect(),
        created: record.created,
        last_used: record.last_used,
        usage_count: record.usage_count,
        description: record.description,
        record_type: record.record_type.as_str().to_owned(),
        shared: record.shared,
    }
}

fn rule(policy: &GcPolicy, store: &Store) -> GcRule {
    let options = policy.to_prune(store::DiskStat::of(store.root()));
    GcRule {
        all: options.all,
        keep: options.keep_duration,
        filters: options.filters,
        reserved: options.reserved_space,
        max_used: options.max_used_space,
        min_free: options.min_free_space,
    }
}

/// Deletes records as the request allows, and returns each deleted record as soon as it is deleted.
pub(crate) fn prune(
    store: &Arc<Store>,
    request: PruneRequest,
) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure> {
    store::Filters::parse(&request.filters)
        .map_err(|e| Failure::from(store::StoreError::from(e)))?;
    let store = Arc::clone(store);
    let options = PruneOptions {
        filters: request.filters,
        all: request.all,
        keep_duration: request.keep,
        reserved_space: request.reserved,
        max_used_space: request.max_used,
        min_free_space: request.min_free,
    };
    // The number of records bounds the channel, so a client that does not read blocks neither a thread nor the store.
    let (sender, receiver) = mpsc::unbounded_channel();
    let work = task::blocking("prune", move || {
        // Pruning continues if the client leaves.
        let outcome = store.prune(&options, &mut |freed| {
            let _gone = sender.send(Ok(usage(freed)));
        });
        if let Err(error) = outcome {
            let _gone = sender.send(Err(error.into()));
        }
    });
    task::spawn("prune", work).detach();
    Ok(stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    })
    .boxed())
}

/// When garbage is collected: shortly after every build, and again while the store exceeds its budget.
#[derive(Debug, Default)]
struct Collections(Mutex<Schedule>);

#[derive(Debug, Default)]
struct Schedule {
    /// Whether a collection is scheduled. It also covers builds that end before it starts.
    is_waiting: bool,
    last: Option<Instant>,
    /// The last collection that went through all records.
    last_full: Option<Instant>,
}

impl Collections {
    /// The delay of the collection for a build that ends now; none if one is scheduled already.
    fn after_build(&self, now: Instant) -> Option<Duration> {
        let mut schedule = self.0.lock();
        if std::mem::replace(&mut schedule.is_waiting, true) {
            return None;
        }
        let spaced = schedule.last.map_or(Duration::ZERO, |last| {
            (last + GC_INTERVAL).saturating_duration_since(now)
        });
        Some(spaced.max(GC_DELAY_AFTER_BUILD))
    }

    fn begin(&self, now: Instant) {
        let mut schedule = self.0.lock();
        schedule.is_waiting = false;
        schedule.last = Some(now);
    }

    /// Whether a collection should go through all records although the budget is kept: once a minute. Marks it as done.
    fn is_full_one_due(&self, now: Instant) -> bool {
        let mut schedule = self.0.lock();
        let is_due = schedule
            .last_full
            .is_none_or(|last| now.duration_since(last) >= GC_FULL_INTERVAL);
        if is_due {
            schedule.last_full = Some(now);
        }
        is_due
    }

    /// Schedules a collection for a build that has just ended. `collect` returns the bytes by which the store then exceeds its budget, or none
    /// if nothing more can be collected.
    fn collect_later<F>(
        self: &Arc<Self>,
        clock: &Clock,
        collect: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Option<i64>> + Send,
    {
        let Some(mut delay) = self.after_build(clock.now()) else {
            return;
        };
        let (collections, clock) = (Arc::clone(self), clock.clone());
        let work = async move {
            let mut retry_delay = GC_RETRY_DELAY;
            loop {
                clock.sleep(delay).await;
                collections.begin(clock.now());
                if collect().await.is_none_or(|excess| excess <= 0) {
                    return;
                }
                // Running builds hold the rest, or have not released it yet. The end of another build schedules a collection.
                if collections.after_build(clock.now()).is_none() {
                    return;
                }
                delay = retry_delay;
                retry_delay = (retry_delay * 2).min(MAX_GC_RETRY_DELAY);
            }
        };
        task::spawn("collect garbage", work).detach();
    }
}

/// Collects garbage after builds.
pub(crate) struct Collector {
    store: Arc<Store>,
    rules: Vec<GcPolicy>,
    clock: Clock,
    collections: Arc<Collections>,
}

impl Collector {
    /// A collector with these rules; without rules it collects nothing.
    pub(crate) fn new(store: &Arc<Store>, rules: Vec<GcPolicy>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            rules,
            clock,
            collections: Arc::default(),
        })
    }

    /// The rules as clients see them.
    pub(crate) fn rules(&self) -> Vec<GcRule> {
        self.rules.iter().map(|p| rule(p, &self.store)).collect()
    }

    /// Schedules a collection shortly after a build, with a minimum interval.
    pub(crate) fn collect_later(self: &Arc<Self>) {
        if self.rules.is_empty() {
            return;
        }
        let collector = Arc::downgrade(self);
        self.collections.collect_later(&self.clock, move || {
            let collector = collector.clone();
            task::blocking("collect garbage", move || {
                Some(collector.upgrade()?.collect())
            })
        });
    }

    /// The space of the state directory. Blocks.
    pub(crate) fn size(&self) -> Result<StoreSize, store::StoreError> {
        let disk = store::DiskStat::of(self.store.root());
        Ok(StoreSize {
            used: self.store.used()?,
            limit: self.store.limit(&self.rules).unwrap_or(0),
            disk_free: disk.free,
        })
    }

    /// Collects by the rules, whenever the last collection was. Blocks.
    pub(crate) fn collect_now(&self) {
        self.collections.begin(self.clock.now());
        self.collect();
    }

    /// Collects now; returns the bytes by which the store then exceeds its budget. While the budget is kept, it goes through all records
    /// once a minute only.
    fn collect(&self) -> i64 {
        let mut freed = 0_i64;
        if !self.collections.is_full_one_due(self.clock.now())
            && matches!(self.store.keeps_to(&self.rules), Ok(true))
        {
            return 0;
        }
        let started = task::clock::monotonic();
        let collected = self.store.collect(&self.rules, &mut |record| {
            freed = freed.saturating_add(record.size);
        });
        metrics::GC_DURATION.observe(NoLabels, started.elapsed());
        metrics::GC_FREED.add(NoLabels, u64::try_from(freed).unwrap_or(0));
        let outcome = if collected.is_ok() {
            GcOutcome::Done
        } else {
            GcOutcome::Failed
        };
        metrics::GC_RUNS.add(outcome, 1);
        if freed > 0 {
            tracing::info!(bytes = freed, "garbage collected");
        }
        match collected.and_then(|()| self.store.excess(&self.rules)) {
            Ok(excess) => excess,
            Err(error) => {
                tracing::warn!(%error, "failed to collect garbage");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;

    /// Builds that end, and the times (in seconds) of the collections.
    struct Daemon {
        clock: Clock,
        collections: Arc<Collections>,
        excess: Arc<Mutex<Vec<i64>>>,
        collected: UnboundedReceiver<u64>,
        tell: mpsc::UnboundedSender<u64>,
    }

    impl Daemon {
        /// `excess` are the bytes over the budget after each collection.
        fn new(excess: &[i64]) -> Self {
            let (tell, collected) = mpsc::unbounded_channel();
            let mut excess = excess.to_vec();
            excess.reverse();
            Self {
                clock: Clock::paused(SystemTime::UNIX_EPOCH),
                collections: Arc::default(),
                excess: Arc::new(Mutex::new(excess)),
                collected,
                tell,
            }
        }

        fn seconds(clock: &Clock) -> u64 {
            let passed = clock.system().duration_since(SystemTime::UNIX_EPOCH);
            passed.unwrap().as_secs()
        }

        fn build_ends(&self) {
            let (clock, tell) = (self.clock.clone(), self.tell.clone());
            let excess = Arc::clone(&self.excess);
            self.collections.collect_later(&self.clock, move || {
                tell.send(Self::seconds(&clock)).unwrap();
                std::future::ready(Some(excess.lock().pop().unwrap_or(0)))
            });
        }

        /// Advances the clock second by second until a collection; returns its time.
        async fn next(&mut self) -> u64 {
            for _ in 0..300 {
                // Woken tasks run here.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                if let Ok(at) = self.collected.try_recv() {
                    return at;
                }
                self.clock.advance(Duration::from_secs(1));
            }
            panic!("no collection within the time");
        }
    }

    #[tokio::test]
    async fn every_build_that_ends_is_followed_by_a_collection_within_seconds() {
        let mut daemon = Daemon::new(&[]);
        daemon.build_ends();
        let first = daemon.next().await;
        assert_eq!(first, 1);
        // This build ends right after a collection: the next collection waits for its interval.
        daemon.build_ends();
        daemon.build_ends();
        let second = daemon.next().await;
        assert_eq!(second, first + 5);
        daemon.build_ends();
        let third = daemon.next().await;
        assert_eq!(third, second + 5);
        assert!(daemon.collected.try_recv().is_err(), "one for both builds");
    }

    #[tokio::test]
    async fn a_collection_is_repeated_until_builds_have_released_their_records() {
        let mut daemon = Daemon::new(&[1_000, 500, 0]);
        daemon.build_ends();
        let first = daemon.next().await;
        let second = daemon.next().await;
        assert_eq!(second, first + 10);
        let third = daemon.next().await;
        assert_eq!(third, second + 20);
        assert_eq!(*daemon.excess.lock(), [0_i64; 0]);
        for _ in 0..100 {
            daemon.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
        assert!(
            daemon.collected.try_recv().is_err(),
            "all is within the budget"
        );
    }
}
