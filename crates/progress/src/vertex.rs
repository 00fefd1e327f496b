//! One vertex's progress, for all builds that want the vertex.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use oci::Digest;
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
    pub fn with(vertex: Vertex, clock: Clock, spool_dir: Option<PathBuf>) -> Self {
        let digest = vertex.digest.clone();
        let mut journal = Journal::new(LOG_BUDGET, spool_dir);
        journal.push(Event::Vertex(vertex.clone()));
        let state = Mutex::new(State {
            vertex,
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
            vertex.error = error.unwrap_or_default().to_owned();
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
        self.change(|vertex| {
            vertex.started = Some(now);
            vertex.completed = None;
            vertex.cached = cached;
            vertex.error.clear();
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vertex)) {
        let mut state = self.shared.state.lock();
        change(&mut state.vertex);
        let event = Event::Vertex(state.vertex.clone());
        state.publish(event);
    }
}

impl Shared {
    pub(crate) fn publish(&self, event: Event) {
        self.state.lock().publish(event);
    }
}

impl State {
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
