//! Real and paused time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The machine's wall time. What decides by it takes a [`Clock`], which tests can hold; this is for what is only recorded or shown.
#[expect(clippy::disallowed_methods, reason = "the one place")]
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The machine's monotonic time, for measuring. On a runtime prefer `tokio::time::Instant`, which tests can pause.
#[expect(clippy::disallowed_methods, reason = "the one place")]
#[must_use]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Waits on the runtime's clock, which tests can pause.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn sleep(duration: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(duration)
}

/// Holds a thread that is not the runtime's.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn sleep_thread(duration: Duration) {
    std::thread::sleep(duration);
}

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
            origin: monotonic(),
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
            None => monotonic(),
            Some(paused) => paused.origin + paused.now.lock().0,
        }
    }

    /// Returns the wall time.
    pub fn system(&self) -> SystemTime {
        match &self.paused {
            None => wall(),
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
            return sleep(duration).await;
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
