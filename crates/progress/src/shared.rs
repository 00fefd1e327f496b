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
/// Number of events that are replayed to a joining hub at a time, while writers of the vertex wait.
const MAX_REPLAYED_EVENTS_AT_ONCE: usize = 256;

pub(crate) struct SharedVertex {
    pub(crate) digest: Digest,
    pub(crate) clock: Clock,
    state: Mutex<VertexState>,
    /// Locked while past events are replayed to a hub, so that a hub that joins twice gets them once. Locked before `state`.
    joining: Mutex<()>,
}

struct VertexState {
    vertex: Vertex,
    /// Number of pieces of work in progress, and whether the first of them restarted the vertex.
    work: usize,
    reopened: bool,
    journal: Journal,
    /// Hubs by weak reference: one that was dropped needs no events.
    hubs: Vec<Weak<Hub>>,
}

impl SharedVertex {
    pub(crate) fn new(vertex: Vertex, clock: Clock, spool_dir: Option<PathBuf>) -> Self {
        let digest = vertex.digest.clone();
        let mut journal = Journal::new(LOG_BUDGET_BYTES, spool_dir);
        journal.push(Event::Vertex(vertex.clone()));
        let state = VertexState {
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

    /// Replays past events to a hub, a bounded number at a time, and adds the hub when it has all of them.
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
                    // Under the lock, so that no event gets in between the last replayed one and the first that the hub gets directly.
                    for event in batch.into_events() {
                        hub.publish(event);
                    }
                    state.hubs.push(Arc::downgrade(hub));
                    return;
                }
                batch
            };
            // The file is read while writers continue.
            for event in batch.into_events() {
                hub.publish(event);
            }
        }
    }

    /// Changes the state of the vertex, which ends its reopening by work on the side.
    pub(crate) fn take_over(&self, change: impl FnOnce(&mut Vertex)) {
        let mut state = self.state.lock();
        state.reopened = false;
        state.change(change);
    }

    pub(crate) fn publish(&self, event: Event) {
        self.state.lock().publish(event);
    }

    /// Starts work on the side: a vertex that has ended is shown as running again.
    pub(crate) fn begin_work(&self) {
        let started_at = self.clock.system();
        let mut state = self.state.lock();
        state.work += 1;
        if state.work == 1 && state.vertex.completed.is_some() {
            state.reopened = true;
            state.change(|vertex| vertex.begin(started_at, false));
        }
    }

    /// Ends work on the side: with the last piece, a vertex that it restarted ends.
    pub(crate) fn end_work(&self) {
        let ended_at = self.clock.system();
        let mut state = self.state.lock();
        state.work = state.work.saturating_sub(1);
        if state.work == 0 && std::mem::take(&mut state.reopened) {
            state.change(|vertex| vertex.completed = Some(ended_at));
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

impl VertexState {
    fn has(&self, hub: &Arc<Hub>) -> bool {
        let mut hubs = self.hubs.iter();
        hubs.any(|member| std::ptr::eq(member.as_ptr(), Arc::as_ptr(hub)))
    }

    fn change(&mut self, change: impl FnOnce(&mut Vertex)) {
        change(&mut self.vertex);
        let event = Event::Vertex(self.vertex.clone());
        self.publish(event);
    }

    fn publish(&mut self, event: Event) {
        // The lock of the vertex comes before that of the hub, and there is no other nesting. So all hubs see one order.
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
