//! The budget of work for policies on the sources of one definition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::error::PolicyError;

/// Characters that may be matched. A processor matches some hundred million per second with a small expression.
const MAX_WORK: u64 = 1 << 30;
/// Bytes that rules may add to the sources of one definition.
const MAX_ADDED_BYTES: u64 = 64 << 20;

// DIFFERS: BuildKit has no such limit.
/// Counts the cost of rules on the sources of one definition, and stops them when the client has left. Clones share the counters.
#[derive(Debug, Clone)]
pub(crate) struct Work(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    work_left: AtomicU64,
    bytes_left: AtomicU64,
    stopped: AtomicBool,
}

impl Default for Work {
    fn default() -> Self {
        Self::of(MAX_WORK)
    }
}

impl Work {
    /// A budget of `max_work` matched characters.
    pub(crate) fn of(max_work: u64) -> Self {
        Self(Arc::new(Counts {
            work_left: AtomicU64::new(max_work),
            bytes_left: AtomicU64::new(MAX_ADDED_BYTES),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Takes the cost of a match from the budget.
    pub(crate) fn spend(&self, amount: u64) -> Result<(), PolicyError> {
        if self.0.stopped.load(Ordering::Relaxed) {
            return Err(PolicyError::Stopped);
        }
        take(&self.0.work_left, amount).ok_or(PolicyError::TooMuchWork)
    }

    /// Takes bytes that a rule adds to a source from their budget.
    pub(crate) fn add_bytes(&self, bytes: usize) -> Result<(), PolicyError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        take(&self.0.bytes_left, bytes).ok_or(PolicyError::TooMuchAdded)
    }

    /// Returns a guard that stops all matches on this budget when it is dropped.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper(Some(self.clone()))
    }
}

fn take(from: &AtomicU64, amount: u64) -> Option<()> {
    from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |work_left| {
        work_left.checked_sub(amount)
    })
    .ok()
    .map(drop)
}

/// Stops the work when it is dropped, because the client that waited for the decision has left.
#[derive(Debug)]
pub(crate) struct Stopper(Option<Work>);

impl Stopper {
    /// Drops the guard without stopping anything: the decision has been made.
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
