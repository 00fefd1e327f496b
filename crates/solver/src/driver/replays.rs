//! Replays past progress of vertices to jobs that join them.
//!
//! The progress of a vertex may be megabytes of logs on a disk. So a thread that may block replays it, one vertex after the
//! other, and only replies to the joining job wait for it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::runtime::Handle as Runtime;

use super::work::panic_text;
use super::{Core, Reply};
use crate::domain::Domain;
use crate::domain::op::VertexSink as _;
use crate::scheduler::{Attach, JobId};

/// The replays that a job waits for.
pub(super) struct Replay<D: Domain> {
    /// Vertices whose progress has not been replayed completely.
    vertices: usize,
    /// Vertices that wait for the thread, in order.
    queue: VecDeque<Attach<D>>,
    has_thread: bool,
    /// Replies to the job, sent after the last replay.
    pub(super) replies: Vec<Reply<D>>,
}

/// How the progress of a vertex reaches a job.
pub(super) enum AttachAction<D: Domain> {
    /// The caller attaches the vertex at once: it has no progress yet.
    AtOnce(Attach<D>),
    /// The caller starts a thread for the replays of the job.
    Begin(JobId),
    /// The thread that replays to the job takes the vertex later.
    Wait,
}

impl<D: Domain> Replay<D> {
    pub(super) fn new() -> Self {
        Self {
            vertices: 0,
            queue: VecDeque::new(),
            has_thread: false,
            replies: Vec::new(),
        }
    }

    /// Adds a vertex. A job gets the progress of vertices in the order in which they were loaded.
    pub(super) fn add(&mut self, attach: Attach<D>) -> AttachAction<D> {
        self.vertices += 1;
        if !attach.has_history && !self.has_thread {
            return AttachAction::AtOnce(attach);
        }
        let job = attach.job;
        self.queue.push_back(attach);
        if self.has_thread {
            return AttachAction::Wait;
        }
        self.has_thread = true;
        AttachAction::Begin(job)
    }
}

impl<D: Domain> Core<D> {
    /// Notes that the progress of a vertex has been replayed. After the last one the replies to the job are sent.
    pub(super) fn replayed(&self, job: JobId) {
        let mut state = self.state.lock();
        let Some(replays) = state.replays.get_mut(&job) else {
            return;
        };
        replays.vertices -= 1;
        if replays.vertices > 0 {
            return;
        }
        let replays = state.replays.remove(&job);
        drop(state);
        for reply in replays.into_iter().flat_map(|replays| replays.replies) {
            reply.send();
        }
    }

    pub(super) fn start_replay(self: &Arc<Self>, job: JobId) {
        if Runtime::try_current().is_err() {
            // The runtime has ended, so this thread may block.
            return self.replay_vertices(job);
        }
        let core = Arc::clone(self);
        let replay = task::blocking("replay progress", move || core.replay_vertices(job));
        task::spawn("replay progress", replay).detach();
    }

    /// Replays the progress of vertices to a job until none is left.
    fn replay_vertices(&self, job: JobId) {
        loop {
            let next = {
                let mut state = self.state.lock();
                // The entry is removed with the last replay.
                let Some(replays) = state.replays.get_mut(&job) else {
                    return;
                };
                let next = replays.queue.pop_front();
                replays.has_thread = next.is_some();
                next
            };
            let Some(Attach { handle, value, .. }) = next else {
                return;
            };
            let attach = AssertUnwindSafe(|| handle.sink.attach(&value));
            if let Err(panic) = catch_unwind(attach) {
                let (vertex, reason) = (&handle.vertex.digest, panic_text(&*panic));
                tracing::error!(%vertex, reason, "failed to replay the progress of a vertex to a job");
            }
            self.replayed(job);
        }
    }
}
