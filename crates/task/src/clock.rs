//! Real and paused time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Where the time comes from: the machine, or a test that moves it by hand. Clones share it.
#[derive(Clone)]
pub struct Clock {
    paused: Option<Arc<Paused>>,
}

struct Paused {
    origin: Instant,
    now: Mutex<(Duration, SystemTime)>,
    moved: Notify,
}

impl Clock {
    /// Returns the machine's clock.
    pub fn real() -> Self {
        Self { paused: None }
    }

    /// Returns a clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn paused(start: SystemTime) -> Self {
        let paused = Paused {
            origin: Instant::now(),
            now: Mutex::new((Duration::ZERO, start)),
            moved: Notify::new(),
        };
        Self {
            paused: Some(Arc::new(paused)),
        }
    }

    /// Returns the monotonic time.
    pub fn now(&self) -> Instant {
        match &self.paused {
            None => Instant::now(),
            Some(paused) => paused.origin + paused.now.lock().0,
        }
    }

    /// Returns the wall time.
    pub fn system(&self) -> SystemTime {
        match &self.paused {
            None => SystemTime::now(),
            Some(paused) => paused.now.lock().1,
        }
    }

    /// Moves a paused clock and wakes the sleepers; does nothing to the real one.
    pub fn advance(&self, by: Duration) {
        if let Some(paused) = &self.paused {
            let mut now = paused.now.lock();
            now.0 += by;
            now.1 += by;
            drop(now);
            paused.moved.notify_waiters();
        }
    }

    /// Waits until `duration` has passed on this clock.
    pub async fn sleep(&self, duration: Duration) {
        let Some(paused) = &self.paused else {
            return tokio::time::sleep(duration).await;
        };
        let until = paused.now.lock().0 + duration;
        loop {
            let moved = paused.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if paused.now.lock().0 >= until {
                return;
            }
            moved.await;
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("paused", &self.paused.is_some())
            .finish()
    }
}
