//! The events of one build: many writers, many readers.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use task::Clock;
use tokio::sync::watch;

use crate::event::Event;
use crate::journal::{Cursor, Journal};
use crate::stream::VertexStream;

const LOG_BUDGET_BYTES: usize = 64 << 10;
const BATCH_EVENTS: usize = 256;

/// The events of one solve.
pub struct Hub {
    state: Mutex<HubState>,
    moved: watch::Sender<()>,
    clock: Clock,
}

struct HubState {
    journal: Journal,
    stream: VertexStream,
    closed: bool,
}

impl Hub {
    /// Makes an open hub with no events.
    pub fn new() -> Arc<Self> {
        Self::with(Clock::real(), None)
    }

    /// Makes a hub with its own clock and directory for log files.
    pub fn with(clock: Clock, spool_dir: Option<PathBuf>) -> Arc<Self> {
        let state = HubState {
            journal: Journal::new(LOG_BUDGET_BYTES, spool_dir),
            stream: VertexStream::default(),
            closed: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            moved: watch::Sender::new(()),
            clock,
        })
    }

    /// Adds an event; a closed hub drops it.
    pub fn publish(&self, event: Event) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        match event {
            Event::Vertex(vertex) => {
                for vertex in state.stream.push(vertex) {
                    state.journal.push(Event::Vertex(vertex));
                }
            }
            other @ (Event::Status(_) | Event::Log(_) | Event::Warning(_)) => {
                state.journal.push(other)
            }
        }
        drop(state);
        self.moved.send_replace(());
    }

    /// Closes the hub: running vertices become canceled, and subscriptions end after the last event.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if !state.closed {
            state.closed = true;
            let closed_at = self.clock.system();
            for vertex in state.stream.finish(closed_at) {
                state.journal.push(Event::Vertex(vertex));
            }
        }
        drop(state);
        self.moved.send_replace(());
    }

    /// Whether the hub was closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Returns a reader that starts with the first event.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription {
            moved: self.moved.subscribe(),
            hub: Arc::clone(self),
            cursor: Cursor::default(),
            ready: VecDeque::new(),
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// A reader of a hub's events.
pub struct Subscription {
    hub: Arc<Hub>,
    moved: watch::Receiver<()>,
    cursor: Cursor,
    ready: VecDeque<Event>,
}

impl Subscription {
    /// Waits for the next event; none after the last event of a closed hub. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let batch = self.fetch().await?;
            self.ready.extend(batch);
        }
    }

    /// Waits until there are events and returns a bounded number of them.
    pub async fn next_batch(&mut self) -> Option<Vec<Event>> {
        if !self.ready.is_empty() {
            return Some(self.ready.drain(..).collect());
        }
        self.fetch().await
    }

    async fn fetch(&mut self) -> Option<Vec<Event>> {
        loop {
            self.moved.borrow_and_update();
            let (batch, closed) = {
                let state = self.hub.state.lock();
                (
                    state.journal.read(&mut self.cursor, BATCH_EVENTS),
                    state.closed,
                )
            };
            if !batch.is_empty() {
                let events = batch.into_events();
                if !events.is_empty() {
                    return Some(events);
                }
            } else if closed || self.moved.changed().await.is_err() {
                return None;
            }
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}
