//! One vertex's progress, for all builds that want the vertex.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use oci::address::{redact_text, redacted};
use task::Clock;

use crate::event::Vertex;
use crate::hub::Hub;
use crate::shared::SharedVertex;
use crate::writer::Writer;

/// The progress of a vertex's execution. Clones share it.
#[derive(Clone)]
pub struct VertexProgress {
    shared: Arc<SharedVertex>,
}

impl VertexProgress {
    /// Creates the progress of `vertex`; the vertex itself is its first event.
    pub fn new(vertex: Vertex) -> Self {
        Self::with(vertex, Clock::real(), None)
    }

    /// Creates it with its own clock and folder for log files.
    ///
    /// Names and errors are shown without users and passwords of addresses.
    pub fn with(mut vertex: Vertex, clock: Clock, spool_dir: Option<PathBuf>) -> Self {
        vertex.name = redacted(vertex.name);
        if let Some(group) = &mut vertex.group {
            group.name = redacted(std::mem::take(&mut group.name));
        }
        Self {
            shared: Arc::new(SharedVertex::new(vertex, clock, spool_dir)),
        }
    }

    /// Adds a hub: it gets all past events in order, and all future ones. A hub that was added before is not added again.
    ///
    /// Reads the log file of the vertex if there is one, so it may take as long as a disk. Writers of the vertex wait for a bounded
    /// number of events at most.
    pub fn attach(&self, hub: &Arc<Hub>) {
        self.shared.attach(hub);
    }

    /// Work starts.
    pub fn start(&self) {
        self.begin(false);
    }

    /// A stored result is being loaded.
    pub fn start_cached(&self) {
        self.begin(true);
    }

    /// The result was there without any work.
    pub fn cached(&self) {
        self.begin(true);
        self.complete(None);
    }

    /// The work ended.
    pub fn complete(&self, error: Option<&str>) {
        let ended_at = self.shared.clock.system();
        self.change(|vertex| {
            vertex.started.get_or_insert(ended_at);
            vertex.completed = Some(ended_at);
            vertex.error = redact_text(error.unwrap_or_default()).into_owned();
        });
    }

    /// Returns the current state.
    pub fn vertex(&self) -> Vertex {
        self.shared.vertex()
    }

    /// Returns a writer for the vertex.
    pub fn writer(&self) -> Writer {
        Writer::new(Some(Arc::clone(&self.shared)))
    }

    fn begin(&self, cached: bool) {
        let started_at = self.shared.clock.system();
        self.change(|vertex| vertex.begin(started_at, cached));
    }

    fn change(&self, change: impl FnOnce(&mut Vertex)) {
        self.shared.take_over(change);
    }
}

impl fmt::Debug for VertexProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VertexProgress")
            .field(&self.shared.digest)
            .finish()
    }
}
