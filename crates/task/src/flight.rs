//! One run for many waiters.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{Shared, WeakShared};
use parking_lot::Mutex;

use crate::spawn::{Task, spawn};

/// Runs one future per key at a time; callers with the same key share it and each get a clone of its output.
///
/// A waiter that leaves cancels nothing; the last one leaving drops the run. An ended run is forgotten: the next
/// caller starts anew, so what should be kept belongs in a map of the caller's.
pub struct Flight<K, V: Clone> {
    running: Arc<Mutex<HashMap<K, WeakShared<Task<V>>>>>,
}

impl<K, V> Flight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Makes a flight with nothing under way.
    pub fn new() -> Self {
        Self {
            running: Arc::default(),
        }
    }

    /// Joins the run for `key`, or starts it with what `start` returns.
    pub async fn run<F, Fut>(&self, key: K, start: F) -> V
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let (shared, _leave) = self.join(key, start);
        shared.await
    }

    fn join<F, Fut>(&self, key: K, start: F) -> (Shared<Task<V>>, Leave<K, V>)
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock();
        let leave = Leave {
            running: Arc::clone(&self.running),
            key: key.clone(),
        };
        // A finished run that a slow waiter still holds is history, not something to join.
        if let Some(shared) = running
            .get(&key)
            .and_then(WeakShared::upgrade)
            .filter(|s| s.peek().is_none())
        {
            return (shared, leave);
        }
        let shared = spawn("flight", start()).shared();
        if let Some(weak) = shared.downgrade() {
            running.insert(key, weak);
        }
        (shared, leave)
    }
}

/// Forgets the key when its run has ended or lost its last waiter. By then the waiter's own share is gone: it was
/// moved into the await. The count below is of the other waiters and the one made to look.
struct Leave<K: Eq + Hash, V: Clone> {
    running: Arc<Mutex<HashMap<K, WeakShared<Task<V>>>>>,
    key: K,
}

impl<K: Eq + Hash, V: Clone> Drop for Leave<K, V> {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        if let Some(weak) = running.get(&self.key) {
            let live = weak.upgrade();
            let stays = live
                .as_ref()
                .is_some_and(|s| s.peek().is_none() && s.strong_count().unwrap_or(0) > 1);
            if !stays {
                running.remove(&self.key);
            }
            drop(running);
            drop(live);
        }
    }
}

impl<K, V> Default for Flight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V: Clone> fmt::Debug for Flight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("running", &self.running.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn waiters_share_a_run_and_the_last_one_leaving_ends_it() {
        struct Gone(Arc<AtomicUsize>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let flight = Arc::new(Flight::<u8, u32>::new());
        let (started, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let run = |flight: &Arc<Flight<u8, u32>>| {
            let (flight, started, gone) =
                (Arc::clone(flight), Arc::clone(&started), Arc::clone(&gone));
            spawn("waiter", async move {
                flight
                    .run(1, move || {
                        started.fetch_add(1, Ordering::SeqCst);
                        let gone = Gone(gone);
                        async move {
                            let _gone = gone;
                            crate::clock::sleep(Duration::from_secs(5)).await;
                            7
                        }
                    })
                    .await
            })
        };
        let (a, b) = (run(&flight), run(&flight));
        crate::clock::sleep(Duration::from_secs(1)).await;
        drop(a);
        crate::clock::sleep(Duration::from_secs(1)).await;
        let c = run(&flight);
        assert_eq!((b.await, c.await), (7, 7));
        assert_eq!(
            (started.load(Ordering::SeqCst), gone.load(Ordering::SeqCst)),
            (1, 1)
        );
        assert_eq!(flight.running.lock().len(), 0);

        let (a, b) = (run(&flight), run(&flight));
        crate::clock::sleep(Duration::from_secs(1)).await;
        assert_eq!(started.load(Ordering::SeqCst), 2);
        drop((a, b));
        crate::clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(gone.load(Ordering::SeqCst), 2);
        assert_eq!(run(&flight).await, 7);
        assert_eq!(flight.running.lock().len(), 0);
    }
}
