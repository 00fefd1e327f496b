//! The progress of a vertex, shared by its writers and the builds that show it.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use oci::Digest;
use parking_lot::Mutex;
use task::Clock;

use crate::event::{Event, Vertex};
use crate::hub::Hub;
use crate::journal::{Cursor, Journal};

/// Bytes of logs of one vertex that stay in memory.
const LOG_BUDGET_BYTES: usize = 16 << 10;
/// Events that are replayed to a joining hub at a time, while writers of the vertex wait.
const MAX_REPLAYED_EVENTS_AT_ONCE: usize = 256;

pub(crate) struct Shared {
    pub(crate) digest: Digest,
    pub(crate) clock: Clock,
    state: Mutex<State>,
    /// Held by whoever tells a hub what was said before: a hub that joins twice is told once. Taken before `state`.
    joining: Mutex<()>,
}

struct State {
    vertex: Vertex,
    /// How many pieces of work go on, and whether the first of them began the vertex again.
    work: usize,
    reopened: bool,
    journal: Journal,
    /// A hub that is gone wants nothing more.
    hubs: Vec<Weak<Hub>>,
}

impl Shared {
    pub(crate) fn new(vertex: Vertex, clock: Clock, spool_dir: Option<PathBuf>) -> Self {
        let digest = vertex.digest.clone();
        let mut journal = Journal::new(LOG_BUDGET_BYTES, spool_dir);
        journal.push(Event::Vertex(vertex.clone()));
        let state = State {
            vertex,
            work: 0,
            reopened: false,
            journal,
            hubs: Vec::new(),
        };
        Self {
            digest,
            clock,
            state: Mutex::new(state),
            joining: Mutex::new(()),
        }
    }

    pub(crate) fn vertex(&self) -> Vertex {
        self.state.lock().vertex.clone()
    }

    /// Tells a hub what was said so far, a bounded number of events at a time, and adds it when it has heard everything.
    pub(crate) fn attach(&self, hub: &Arc<Hub>) {
        let _joining = self.joining.lock();
        let mut cursor = Cursor::default();
        loop {
            let batch = {
                let mut state = self.state.lock();
                if state.has(hub) {
                    return;
                }
                let batch = state.journal.read(&mut cursor, MAX_REPLAYED_EVENTS_AT_ONCE);
                if batch.is_rest(MAX_REPLAYED_EVENTS_AT_ONCE) {
                    // Under the lock, so that nothing is said between the last of these and the first that the hub hears itself.
                    for event in batch.into_events() {
                        hub.publish(event);
                    }
                    state.hubs.push(Arc::downgrade(hub));
                    return;
                }
                batch
            };
            // The file is read while others write.
            for event in batch.into_events() {
                hub.publish(event);
            }
        }
    }

    /// Changes the state of the vertex. Whoever says how the vertex is takes it over from work on the side.
    pub(crate) fn take_over(&self, change: impl FnOnce(&mut Vertex)) {
        let mut state = self.state.lock();
        state.reopened = false;
        state.change(change);
    }

    pub(crate) fn publish(&self, event: Event) {
        self.state.lock().publish(event);
    }

    /// Work on the side begins: a vertex that ended begins again.
    pub(crate) fn begin_work(&self) {
        let now = self.clock.system();
        let mut state = self.state.lock();
        state.work += 1;
        if state.work == 1 && state.vertex.completed.is_some() {
            state.reopened = true;
            state.change(|vertex| vertex.begin(now, false));
        }
    }

    /// Work on the side ends: with the last of it, a vertex that it began again ends.
    pub(crate) fn end_work(&self) {
        let now = self.clock.system();
        let mut state = self.state.lock();
        state.work = state.work.saturating_sub(1);
        if state.work == 0 && std::mem::take(&mut state.reopened) {
            state.change(|vertex| vertex.completed = Some(now));
        }
    }
}

impl Vertex {
    pub(crate) fn begin(&mut self, now: SystemTime, cached: bool) {
        self.started = Some(now);
        self.completed = None;
        self.cached = cached;
        self.error.clear();
    }
}

impl State {
    fn has(&self, hub: &Arc<Hub>) -> bool {
        let mut hubs = self.hubs.iter();
        hubs.any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(hub)))
    }

    fn change(&mut self, change: impl FnOnce(&mut Vertex)) {
        change(&mut self.vertex);
        let event = Event::Vertex(self.vertex.clone());
        self.publish(event);
    }

    fn publish(&mut self, event: Event) {
        // Under the vertex's lock, then the hub's: that is the only nesting here, and hubs see one order.
        self.hubs.retain(|hub| match hub.upgrade() {
            Some(hub) => {
                hub.publish(event.clone());
                true
            }
            None => false,
        });
        self.journal.push(event);
    }
}
