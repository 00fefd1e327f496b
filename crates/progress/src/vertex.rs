//! One vertex's progress, for all builds that want the vertex.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use oci::Digest;
use oci::address::{redact_text, redacted};
use parking_lot::Mutex;
use task::Clock;

use crate::event::{Event, Vertex};
use crate::hub::Hub;
use crate::journal::{Cursor, Journal};
use crate::writer::Writer;

const LOG_BUDGET: usize = 16 << 10;

/// The progress of a vertex's execution. Clones share it.
#[derive(Clone)]
pub struct VertexProgress {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) digest: Digest,
    pub(crate) clock: Clock,
    state: Mutex<State>,
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

impl VertexProgress {
    /// Makes the progress of `vertex`; the vertex itself is its first event.
    pub fn new(vertex: Vertex) -> Self {
        Self::with(vertex, Clock::real(), None)
    }

    /// Makes it with its own clock and directory for log files.
    ///
    /// No name and no error shows user or password of an address.
    pub fn with(mut vertex: Vertex, clock: Clock, spool_dir: Option<PathBuf>) -> Self {
        vertex.name = redacted(vertex.name);
        if let Some(group) = &mut vertex.group {
            group.name = redacted(std::mem::take(&mut group.name));
        }
        let digest = vertex.digest.clone();
        let mut journal = Journal::new(LOG_BUDGET, spool_dir);
        journal.push(Event::Vertex(vertex.clone()));
        let state = Mutex::new(State {
            vertex,
            work: 0,
            reopened: false,
            journal,
            hubs: Vec::new(),
        });
        Self {
            shared: Arc::new(Shared {
                digest,
                clock,
                state,
            }),
        }
    }

    /// Adds a hub: it gets everything said so far and everything to come. Twice is as once.
    pub fn attach(&self, hub: &Arc<Hub>) {
        let mut state = self.shared.state.lock();
        state.hubs.retain(|h| h.strong_count() > 0);
        if state
            .hubs
            .iter()
            .any(|h| std::ptr::eq(h.as_ptr(), Arc::as_ptr(hub)))
        {
            return;
        }
        let mut cursor = Cursor::default();
        loop {
            let batch = state.journal.read(&mut cursor, usize::MAX);
            if batch.is_empty() {
                break;
            }
            for event in batch.into_events() {
                hub.publish(event);
            }
        }
        state.hubs.push(Arc::downgrade(hub));
    }

    /// Work begins.
    pub fn start(&self) {
        self.begin(false);
    }

    /// A known result is being loaded.
    pub fn start_cached(&self) {
        self.begin(true);
    }

    /// Nothing had to be done.
    pub fn cached(&self) {
        self.begin(true);
        self.complete(None);
    }

    /// The work ended.
    pub fn complete(&self, error: Option<&str>) {
        let now = self.shared.clock.system();
        self.change(|vertex| {
            vertex.started.get_or_insert(now);
            vertex.completed = Some(now);
            vertex.error = redact_text(error.unwrap_or_default()).into_owned();
        });
    }

    /// Returns the state now.
    pub fn vertex(&self) -> Vertex {
        self.shared.state.lock().vertex.clone()
    }

    /// Returns what writes for the vertex.
    pub fn writer(&self) -> Writer {
        Writer::new(Some(Arc::clone(&self.shared)))
    }

    fn begin(&self, cached: bool) {
        let now = self.shared.clock.system();
        self.change(|vertex| vertex.begin(now, cached));
    }

    fn change(&self, change: impl FnOnce(&mut Vertex)) {
        let mut state = self.shared.state.lock();
        // Whoever says how the vertex is takes it over from work on the side.
        state.reopened = false;
        state.change(change);
    }
}

impl Shared {
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
    fn begin(&mut self, now: SystemTime, cached: bool) {
        self.started = Some(now);
        self.completed = None;
        self.cached = cached;
        self.error.clear();
    }
}

impl State {
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

impl fmt::Debug for VertexProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VertexProgress")
            .field(&self.shared.digest)
            .finish()
    }
}
