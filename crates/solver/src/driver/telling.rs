//! Jobs that are told what happened before they came.
//!
//! What a vertex told before may be megabytes, and lie on a disk. So a job that joins is told on a thread that may wait, one vertex
//! after the other, and only its own replies wait for that.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::runtime::Handle as Runtime;

use super::work::panic_text;
use super::{Core, Reply};
use crate::domain::Domain;
use crate::domain::op::VertexSink as _;
use crate::scheduler::{Attach, JobId};

/// What a job is yet to be told.
pub(super) struct Telling<D: Domain> {
    /// Vertices that have not told it everything.
    vertices: usize,
    /// Those of them that wait for a teller, in order.
    queue: VecDeque<Attach<D>>,
    has_teller: bool,
    /// Replies that wait for all of them.
    pub(super) replies: Vec<Reply<D>>,
}

/// How a vertex gets to tell a job.
pub(super) enum Next<D: Domain> {
    /// By whoever decided it: there is nothing to tell yet.
    AtOnce(Attach<D>),
    /// By a teller that is to be begun.
    Begin(JobId),
    /// By the teller that is at work.
    Wait,
}

impl<D: Domain> Telling<D> {
    pub(super) fn new() -> Self {
        Self {
            vertices: 0,
            queue: VecDeque::new(),
            has_teller: false,
            replies: Vec::new(),
        }
    }

    /// Adds a vertex. A job hears of vertices in the order in which they were loaded.
    pub(super) fn add(&mut self, attach: Attach<D>) -> Next<D> {
        self.vertices += 1;
        if !attach.has_history && !self.has_teller {
            return Next::AtOnce(attach);
        }
        let job = attach.job;
        self.queue.push_back(attach);
        if self.has_teller {
            return Next::Wait;
        }
        self.has_teller = true;
        Next::Begin(job)
    }
}

impl<D: Domain> Core<D> {
    /// A vertex has told a job everything. The last one lets the job's replies go.
    pub(super) fn told(&self, job: JobId) {
        let mut state = self.state.lock();
        let Some(telling) = state.telling.get_mut(&job) else {
            return;
        };
        telling.vertices -= 1;
        if telling.vertices > 0 {
            return;
        }
        let telling = state.telling.remove(&job);
        drop(state);
        for reply in telling.into_iter().flat_map(|telling| telling.replies) {
            reply.send();
        }
    }

    pub(super) fn start_teller(self: &Arc<Self>, job: JobId) {
        if Runtime::try_current().is_err() {
            // The runtime is gone: nobody is kept waiting.
            return self.tell(job);
        }
        let core = Arc::clone(self);
        let teller = task::blocking("tell a job", move || core.tell(job));
        task::spawn("tell a job", teller).detach();
    }

    /// Has vertices tell a job what they told before, until there are none.
    fn tell(&self, job: JobId) {
        loop {
            let next = {
                let mut state = self.state.lock();
                // It goes with the last vertex that it has.
                let Some(telling) = state.telling.get_mut(&job) else {
                    return;
                };
                let next = telling.queue.pop_front();
                telling.has_teller = next.is_some();
                next
            };
            let Some(Attach { handle, value, .. }) = next else {
                return;
            };
            let attach = AssertUnwindSafe(|| handle.sink.attach(&value));
            if let Err(panic) = catch_unwind(attach) {
                let (vertex, reason) = (&handle.vertex.digest, panic_text(&*panic));
                tracing::error!(%vertex, reason, "a job was not told what happened at a vertex");
            }
            self.told(job);
        }
    }
}
