//! Who holds a thread of the runtime.
//!
//! A future that computes for long in one poll keeps everybody else on its thread waiting; some of them on as many threads keep all
//! clients waiting, and timers too. Every poll of a task is measured in processor time of its thread, so that a loaded machine makes
//! nobody guilty, and one that took longer than [`MAX_POLL_TIME`] is logged with the task's name. What holds a thread right now is
//! known as well, for a thread outside the runtime to tell.
//!
//! It costs one system call and two looks at the clock a poll.

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A poll that takes more processor time than this belongs on another thread, see [`crate::blocking`].
pub const MAX_POLL_TIME: Duration = Duration::from_millis(50);
/// How many polls that took too long are remembered, the last ones.
const MAX_LONG_POLLS: usize = 64;

/// A poll that took too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongPoll {
    /// The task, or the part of it, that was polled.
    pub name: &'static str,
    /// How much processor time it took.
    pub took: Duration,
}

/// What a thread of the runtime is polling now.
type Slot = Mutex<Option<(&'static str, Instant)>>;

static LONG_POLLS: Mutex<VecDeque<LongPoll>> = Mutex::new(VecDeque::new());
static SLOTS: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());

thread_local! {
    /// Polls of this thread that were reported: one that a part of it was reported for is not reported again.
    static REPORTED: Cell<u64> = const { Cell::new(0) };
    static SLOT: OnceCell<Arc<Slot>> = const { OnceCell::new() };
}

/// Watches a future that is polled by somebody else, such as the answer to a call.
pub async fn watched<F: Future>(name: &'static str, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |cx| measured(name, || future.as_mut().poll(cx))).await
}

/// Does a piece of work on the runtime, measured.
pub fn measured<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let reported = REPORTED.get();
    let start = crate::clock::monotonic();
    let used = sys::memory::thread_time();
    // The outermost name stays: it is the task's.
    let _busy = Busy::begin(name, start);
    let output = work();
    if start.elapsed() > MAX_POLL_TIME && REPORTED.get() == reported {
        let took = sys::memory::thread_time().saturating_sub(used);
        if took > MAX_POLL_TIME {
            REPORTED.set(reported + 1);
            report(LongPoll { name, took });
        }
    }
    output
}

fn report(poll: LongPoll) {
    let ms = u64::try_from(poll.took.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(task = poll.name, ms, "a thread of the runtime was held");
    let mut all = LONG_POLLS.lock();
    if all.len() == MAX_LONG_POLLS {
        all.pop_front();
    }
    all.push_back(poll);
}

/// The polls of this process that took too long, the last of them.
#[must_use]
pub fn long_polls() -> Vec<LongPoll> {
    LONG_POLLS.lock().iter().cloned().collect()
}

/// What threads of the runtime have been polling for longer than `limit`, by the clock on the wall.
#[must_use]
pub fn holding(limit: Duration) -> Vec<LongPoll> {
    let mut slots = SLOTS.lock();
    slots.retain(|slot| slot.strong_count() > 0);
    let busy = slots.iter().filter_map(|slot| *slot.upgrade()?.lock());
    busy.map(|(name, since)| LongPoll {
        name,
        took: since.elapsed(),
    })
    .filter(|poll| poll.took > limit)
    .collect()
}

/// Says what its thread polls until it is dropped.
struct Busy(Option<Arc<Slot>>);

impl Busy {
    fn begin(name: &'static str, since: Instant) -> Self {
        // The thread may be going away.
        let slot = SLOT.try_with(|slot| {
            Arc::clone(slot.get_or_init(|| {
                let slot = Arc::new(Slot::default());
                SLOTS.lock().push(Arc::downgrade(&slot));
                slot
            }))
        });
        let Ok(slot) = slot else { return Self(None) };
        {
            let mut now = slot.lock();
            if now.is_some() {
                return Self(None);
            }
            *now = Some((name, since));
        }
        Self(Some(slot))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(slot) = &self.0 {
            *slot.lock() = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(for_so_long: Duration) {
        let start = sys::memory::thread_time();
        while sys::memory::thread_time().saturating_sub(start) < for_so_long {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn who_computes_on_a_thread_of_the_runtime_is_named_and_who_waits_is_not() {
        crate::spawn("computes", async {
            spin(MAX_POLL_TIME * 2);
        })
        .await;
        crate::spawn("waits", async {
            // On the wall clock, not on the processor's.
            crate::clock::sleep_thread(MAX_POLL_TIME * 2);
        })
        .await;
        crate::spawn("computes elsewhere", async {
            crate::blocking("hash", || spin(MAX_POLL_TIME * 2)).await;
        })
        .await;
        crate::spawn("takes breaks", async {
            for _ in 0..4 {
                spin(MAX_POLL_TIME / 2);
                tokio::task::yield_now().await;
            }
        })
        .await;
        let names: Vec<_> = long_polls().iter().map(|poll| poll.name).collect();
        assert!(names.contains(&"computes"), "{names:?}");
        for innocent in ["waits", "computes elsewhere", "takes breaks"] {
            assert!(!names.contains(&innocent), "{names:?}");
        }
    }

    #[test]
    fn what_holds_a_thread_is_known_while_it_does() {
        let output = measured("outer", || {
            measured("inner", || {
                spin(Duration::from_millis(1));
                holding(Duration::ZERO)
            })
        });
        let names: Vec<_> = output.iter().map(|poll| poll.name).collect();
        assert!(
            names.contains(&"outer") && !names.contains(&"inner"),
            "{names:?}"
        );
        let after: Vec<_> = holding(Duration::ZERO)
            .iter()
            .map(|poll| poll.name)
            .collect();
        assert!(!after.contains(&"outer"), "{after:?}");
    }
}
