//! The driver by itself: lock and waits.

use std::sync::mpsc::channel;

use super::*;
use crate::domain::error::OpError;
use crate::domain::op::{NullSink, SubBuilder};
use crate::domain::vertex::{Edge, Vertex};
use crate::domain::{NoOp, ResultsOnly};
use crate::job::{JobOptions, Solver};
use crate::keys::memory::{MemoryKeyStore, MemoryResults};

type Plain = ResultsOnly<u64>;

/// A resolver under which every vertex fails.
struct NoOps;

impl Resolver<Plain> for NoOps {
    fn resolve(
        &self,
        _vertex: &Arc<Vertex<Plain>>,
        _builder: Arc<dyn SubBuilder<Plain>>,
    ) -> Result<Arc<NoOp>, OpError> {
        Err(std::io::Error::other("no op").into())
    }
}

fn core() -> (Solver<Plain>, Arc<Core<Plain>>) {
    let results = Arc::new(MemoryResults::new(u64::to_string));
    let cache = CacheManager::new("local", Arc::new(MemoryKeyStore::new()), results);
    let solver = Solver::new(Arc::new(NoOps), cache, Arc::new(NullSink));
    let core = Arc::clone(solver.core());
    (solver, core)
}

fn edge() -> Edge<Plain> {
    let vertex = Vertex::new(oci::Digest::sha256(b"x"), "x", Arc::new(()));
    Edge {
        vertex: Arc::new(vertex),
        index: 0,
    }
}

fn options(id: &str) -> JobOptions<Plain> {
    JobOptions {
        id: id.into(),
        session: None,
        value: Arc::new(()),
    }
}

fn is_idle(core: &Core<Plain>) -> bool {
    let state = core.state.lock();
    state.scheduler.is_idle() && state.replies.is_empty() && state.replays.is_empty()
}

#[tokio::test]
async fn dropping_a_job_while_the_scheduler_is_busy_does_not_wait_and_discards_it_later() {
    let (solver, core) = core();
    let job = solver.job(options("a")).unwrap();
    let error = job.build(edge()).await.unwrap_err();
    assert_eq!(error.to_string(), "no op");
    let state = core.state.lock();
    // This thread holds the lock, so waiting for it would deadlock.
    drop(job);
    drop(state);
    assert!(!is_idle(&core), "nobody has taken it in yet");
    while !is_idle(&core) {
        tokio::task::yield_now().await;
    }
    // The name is free at once.
    solver.job(options("a")).unwrap();
}

#[tokio::test]
async fn events_of_destructors_come_before_the_next_event() {
    let (solver, core) = core();
    let job = solver.job(options("a")).unwrap();
    job.build(edge()).await.unwrap_err();
    let state = core.state.lock();
    drop(job);
    drop(state);
    let again = solver.job(options("b")).unwrap();
    assert!(core.with_scheduler(Scheduler::is_idle), "the first is gone");
    drop(again);
}

#[test]
fn a_job_may_be_dropped_on_a_thread_without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (solver, core) = core();
    let job = solver.job(options("a")).unwrap();
    runtime.block_on(job.build(edge())).unwrap_err();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        drop(job);
        sender.send(()).unwrap();
    });
    receiver.recv().unwrap();
    assert!(is_idle(&core));
}
