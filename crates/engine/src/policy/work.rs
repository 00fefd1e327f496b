//! What judging the sources of one definition may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Letters that may be looked at. A processor does some hundred million a second, where an expression is simple.
const MOST: u64 = 1 << 30;
/// Bytes that rules may add to sources.
const MOST_KEPT: u64 = 64 << 20;

// DIFFERS: BuildKit has no such limit.
/// Counts what the rules on the sources of one definition cost, and stops them when nobody waits any more. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Work(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    left: AtomicU64,
    keeps: AtomicU64,
    stopped: AtomicBool,
}

impl Default for Work {
    fn default() -> Self {
        Self::of(MOST)
    }
}

impl Work {
    /// So much work and no more.
    pub(crate) fn of(most: u64) -> Self {
        Self(Arc::new(Counts {
            left: AtomicU64::new(most),
            keeps: AtomicU64::new(MOST_KEPT),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Counts work that is to be done.
    pub(crate) fn spend(&self, amount: u64) -> Result<(), String> {
        if self.0.stopped.load(Ordering::Relaxed) {
            return Err("context canceled".into());
        }
        take(&self.0.left, amount)
            .ok_or_else(|| "the source policies are too much work for so many sources".into())
    }

    /// Counts bytes that stay.
    pub(crate) fn keep(&self, bytes: usize) -> Result<(), String> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        take(&self.0.keeps, bytes)
            .ok_or_else(|| "the source policies add too much to the sources".into())
    }

    /// Stops all that works on this when it is dropped.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper(Some(self.clone()))
    }
}

fn take(from: &AtomicU64, amount: u64) -> Option<()> {
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(amount)
    })
    .ok()
    .map(drop)
}

/// Stops the work when it is dropped: whoever waited has left.
#[derive(Debug)]
pub(crate) struct Stopper(Option<Work>);

impl Stopper {
    /// Nothing is to be stopped any more.
    pub(crate) fn done(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        if let Some(work) = &self.0 {
            work.0.stopped.store(true, Ordering::Relaxed);
        }
    }
}
