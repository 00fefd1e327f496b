//! Look-ups of keys, on threads that may block on a disk.
//!
//! A worker carries out one look-up after the other, and each answer gives it the scheduler's next question: a chain of
//! cached steps is looked up on one thread, as fast as the key store is. A look-up never waits for another one: if all workers
//! are busy and a look-up waits, a further worker starts. The runtime's limit on blocking threads bounds
//! their number.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::work::panic_text;
use crate::domain::Domain;
use crate::domain::error::KeyStoreError;
use crate::keys::lookup::{Answer, Lookup};
use crate::scheduler::WorkId;

/// Look-ups that wait for a worker, and the number of workers.
pub(super) struct Lookups<D: Domain> {
    queue: VecDeque<(WorkId, Box<Lookup<D>>)>,
    /// Workers that were started and have not ended.
    workers: usize,
    /// Workers that are asking a key store.
    asking: usize,
}

impl<D: Domain> Lookups<D> {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            workers: 0,
            asking: 0,
        }
    }

    pub(super) fn push(&mut self, work: WorkId, lookup: Box<Lookup<D>>) {
        self.queue.push_back((work, lookup));
    }

    /// Removes a look-up that no worker has taken, and returns it to be dropped outside of the lock.
    pub(super) fn cancel(&mut self, work: WorkId) -> Option<Box<Lookup<D>>> {
        let at = self.queue.iter().position(|(id, _)| *id == work)?;
        self.queue.remove(at).map(|(_, lookup)| lookup)
    }

    /// Whether the caller has to start a worker: a look-up waits and every worker is asking. The new worker is counted here.
    pub(super) fn wants_worker(&mut self) -> bool {
        let wants = !self.queue.is_empty() && self.workers == self.asking;
        self.workers += usize::from(wants);
        wants
    }

    /// Takes the next look-up for a worker; a worker that gets none ends.
    pub(super) fn take(&mut self) -> Option<(WorkId, Box<Lookup<D>>)> {
        let next = self.queue.pop_front();
        match next {
            Some(_) => self.asking += 1,
            None => self.workers -= 1,
        }
        next
    }

    /// A worker got its answer.
    pub(super) fn answered(&mut self) {
        self.asking -= 1;
    }
}

/// Carries out a look-up; a panic of the key store is an error of the look-up.
pub(super) fn run<D: Domain>(lookup: Lookup<D>) -> Result<Box<Answer<D>>, KeyStoreError> {
    match catch_unwind(AssertUnwindSafe(|| lookup.run())) {
        Ok(answer) => answer.map(Box::new),
        Err(panic) => Err(KeyStoreError::new(panic_text(&*panic))),
    }
}
