//! The driver carries out, asynchronously, the effects that the scheduler decides synchronously. No other module does.
//!
//! The scheduler is behind a lock. The lock is held while an event is applied and its effects are started, so that effects start in
//! the order in which they were decided. Nothing waits under the lock: work runs in tasks, look-ups of keys run on threads of their
//! own (`lookups`), and replaying progress and dropping results, which may read a disk, happen after the lock is released.
//! Cancelling work drops its task. When work ends, the driver applies an event.
//!
//! A new vertex has no progress yet. A vertex that other jobs have used may have megabytes of logs, partly on disk, and they are
//! replayed to a joining job on a thread that may wait (`replays`). A job gets a reply only after the progress that was decided
//! before the reply has been replayed to it.

mod lookups;
mod replays;
mod sub;
mod work;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use task::{Clock, Task};
use tokio::runtime::{EnterGuard, Handle as Runtime};
use tokio::sync::oneshot;

use crate::built::Built;
use crate::domain::Domain;
use crate::domain::error::SolveError;
use crate::domain::op::{FindHint, Observer, OpCtx, Resolver, SessionGroup, VertexSink as _};
use crate::domain::vertex::Edge;
use crate::keys::manager::CacheManager;
use crate::scheduler::waits::{WaitGraph, WaitNode, WaitNodeWithIds, Waits};
use crate::scheduler::{
    Attach, BuildId, BuildRequest, Effect, Event, Handle, JobId, Loaded, Requester, Scheduler,
    Work, WorkId, WorkOutcome,
};
use lookups::Lookups;
use replays::{AttachAction, Replay};

pub(crate) struct Core<D: Domain> {
    state: Mutex<CoreState<D>>,
    /// Events from destructors, which must not wait for the lock: one per dropped job or build.
    drop_events: mpsc::Sender<Event<D>>,
    /// Whether a task has been started that will run the scheduler.
    is_awake: AtomicBool,
    /// Names of jobs in use. Locked for one operation only.
    names: Mutex<HashMap<String, JobId>>,
    next: AtomicU64,
    /// The runtime of the builds. Destructors may be called on threads outside of it and start work for other builds.
    runtime: OnceLock<Runtime>,
    resolver: Arc<dyn Resolver<D>>,
    observer: Arc<dyn Observer<D>>,
    clock: Clock,
}

struct CoreState<D: Domain> {
    scheduler: Scheduler<D>,
    tasks: HashMap<WorkId, Task<()>>,
    lookups: Lookups<D>,
    replies: HashMap<BuildId, WaitingBuild<D>>,
    /// Jobs to which progress is being replayed outside of the lock.
    replays: HashMap<JobId, Replay<D>>,
    drop_events: mpsc::Receiver<Event<D>>,
}

type BuildResult<D> = Result<Built<D>, SolveError<D>>;

/// A build that waits for its reply.
struct WaitingBuild<D: Domain> {
    /// The job that started the build; none if an op did, because the jobs of its vertex get replies of their own.
    job: Option<JobId>,
    reply: oneshot::Sender<BuildResult<D>>,
}

struct Reply<D: Domain> {
    to: oneshot::Sender<BuildResult<D>>,
    result: BuildResult<D>,
}

impl<D: Domain> Reply<D> {
    fn send(self) {
        // Sending fails only if the build has been dropped.
        drop(self.to.send(self.result));
    }
}

/// Work that is done after the lock is released.
struct Afterwards<D: Domain> {
    /// Vertices without progress, which are attached at once.
    attaches: Vec<Attach<D>>,
    /// Jobs for which a thread has to replay progress.
    replays_to_start: Vec<JobId>,
    replies: Vec<Reply<D>>,
    /// Cancelled tasks, results and other values whose destructors may take long.
    dropped: Vec<Box<dyn Send>>,
    wants_lookup_worker: bool,
    has_more: bool,
}

impl<D: Domain> Afterwards<D> {
    fn new() -> Self {
        Self {
            attaches: Vec::new(),
            replays_to_start: Vec::new(),
            replies: Vec::new(),
            dropped: Vec::new(),
            wants_lookup_worker: false,
            has_more: false,
        }
    }
}

/// The longest time for which the scheduler holds the lock in one piece.
const MAX_HOLD: Duration = Duration::from_millis(10);
/// Vertices that are loaded before others get the lock.
const MAX_LOADED_AT_ONCE: usize = 200;
/// Steps of the scheduler between two readings of the clock.
const STEPS_PER_CHECK: usize = 16;

impl<D: Domain> Core<D> {
    pub(crate) fn new(
        resolver: Arc<dyn Resolver<D>>,
        cache: Arc<CacheManager<D>>,
        observer: Arc<dyn Observer<D>>,
        clock: Clock,
    ) -> Arc<Self> {
        let (sender, receiver) = mpsc::channel();
        let state = CoreState {
            scheduler: Scheduler::new(cache, Arc::clone(&observer)),
            tasks: HashMap::new(),
            lookups: Lookups::new(),
            replies: HashMap::new(),
            replays: HashMap::new(),
            drop_events: receiver,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            drop_events: sender,
            is_awake: AtomicBool::new(false),
            names: Mutex::default(),
            next: AtomicU64::new(0),
            runtime: OnceLock::new(),
            resolver,
            observer,
            clock,
        })
    }

    /// Returns a number that no other call returns.
    pub(crate) fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Reserves a name for a job; false if it is in use.
    pub(crate) fn reserve(&self, name: &str, job: JobId) -> bool {
        match self.names.lock().entry(name.to_owned()) {
            Entry::Occupied(_) => false,
            Entry::Vacant(free) => {
                free.insert(job);
                true
            }
        }
    }

    /// The vertices that are being built and those that wait; see [`Scheduler::waits`].
    pub(crate) fn waits(&self, limit: usize) -> WaitGraph {
        let Waits { nodes, has_more } = self.with_scheduler(|scheduler| scheduler.waits(limit));
        let names: HashMap<JobId, String> = {
            let names = self.names.lock();
            names.iter().map(|(name, id)| (*id, name.clone())).collect()
        };
        let wait_nodes = nodes.into_iter().map(|WaitNodeWithIds { mut node, jobs }| {
            node.jobs = jobs
                .iter()
                .filter_map(|id| names.get(id).cloned())
                .collect();
            node
        });
        let mut nodes: Vec<WaitNode> = wait_nodes.collect();
        nodes.sort_by(|a, b| (&a.name, a.digest.as_str()).cmp(&(&b.name, b.digest.as_str())));
        WaitGraph { nodes, has_more }
    }

    pub(crate) fn unreserve(&self, name: &str) {
        self.names.lock().remove(name);
    }

    /// Makes the runtime of builds the current one if there is none.
    fn enter(&self) -> Option<EnterGuard<'_>> {
        let is_inside = Runtime::try_current().is_ok();
        self.runtime
            .get()
            .filter(|_| !is_inside)
            .map(Runtime::enter)
    }

    /// Applies an event and starts its effects. A task continues if the scheduler runs longer than [`MAX_HOLD`].
    pub(crate) fn apply(self: &Arc<Self>, event: Event<D>) {
        let _runtime = self.enter();
        let mut state = self.state.lock();
        let mut afterwards = Afterwards::new();
        self.take(&mut state, Some(event), &mut afterwards);
        self.finish(state, afterwards);
    }

    /// Applies an event for a destructor, which must not wait for the lock: if the lock is held, a task applies the event later.
    pub(crate) fn apply_or_leave(self: &Arc<Self>, event: Event<D>) {
        let _runtime = self.enter();
        // The receiver lives as long as the sender.
        drop(self.drop_events.send(event));
        match self.state.try_lock() {
            Some(mut state) => {
                let mut afterwards = Afterwards::new();
                self.take(&mut state, None, &mut afterwards);
                self.finish(state, afterwards);
            }
            None => self.wake(),
        }
    }

    /// Starts a task that runs the scheduler, unless one is about to run. Does nothing outside of a runtime, where no build exists yet.
    fn wake(self: &Arc<Self>) {
        if Runtime::try_current().is_ok() && !self.is_awake.swap(true, Ordering::AcqRel) {
            let core = Arc::clone(self);
            task::spawn("schedule", async move { core.schedule().await }).detach();
        }
    }

    /// Runs the scheduler on a large graph piece by piece, so that other builds get the thread and the lock in between.
    async fn schedule(self: Arc<Self>) {
        tokio::task::yield_now().await;
        // Events that arrive from here on may be missed below, so they must wake another task.
        self.is_awake.swap(false, Ordering::AcqRel);
        let mut afterwards = Afterwards::new();
        let mut state = self.state.lock();
        self.take(&mut state, None, &mut afterwards);
        self.finish(state, afterwards);
    }

    /// Applies the events of destructors and `event`, and runs the scheduler for one piece.
    fn take(
        self: &Arc<Self>,
        state: &mut CoreState<D>,
        event: Option<Event<D>>,
        afterwards: &mut Afterwards<D>,
    ) {
        let now = self.clock.system();
        let mut effects = Vec::new();
        while let Ok(event) = state.drop_events.try_recv() {
            if let Event::Leave(build) = &event {
                state.replies.remove(build);
            }
            state.scheduler.take(now, event, &mut effects);
        }
        if let Some(event) = event {
            if let Event::Done(work, outcome) = &event {
                if let WorkOutcome::Lookup(_) = outcome {
                    state.lookups.answered();
                }
                if let Some(task) = state.tasks.remove(work) {
                    afterwards.dropped.push(Box::new(task));
                }
            }
            state.scheduler.take(now, event, &mut effects);
        }
        self.run_scheduler(state, effects, afterwards);
    }

    /// Runs the scheduler for one piece and starts the effects.
    fn run_scheduler(
        self: &Arc<Self>,
        state: &mut CoreState<D>,
        mut effects: Vec<Effect<D>>,
        afterwards: &mut Afterwards<D>,
    ) {
        let start = task::clock::monotonic();
        let mut has_more = true;
        while has_more && start.elapsed() < MAX_HOLD {
            has_more = state.scheduler.go_on(STEPS_PER_CHECK, &mut effects);
        }
        afterwards.has_more = has_more;
        for effect in effects {
            match effect {
                Effect::Start(id, Work::Lookup(lookup)) => state.lookups.push(id, lookup),
                Effect::Start(id, work) => {
                    let core = Arc::clone(self);
                    let run = task::spawn("solve", async move {
                        let outcome = core.work(work).await;
                        core.apply(Event::Done(id, outcome));
                    });
                    state.tasks.insert(id, run);
                }
                Effect::Cancel(id) => {
                    if let Some(task) = state.tasks.remove(&id) {
                        afterwards.dropped.push(Box::new(task));
                    } else if let Some(lookup) = state.lookups.cancel(id) {
                        afterwards.dropped.push(lookup);
                    }
                }
                Effect::Attach(attach) => {
                    let replays = state.replays.entry(attach.job).or_insert_with(Replay::new);
                    match replays.add(attach) {
                        AttachAction::AtOnce(attach) => afterwards.attaches.push(attach),
                        AttachAction::Begin(job) => afterwards.replays_to_start.push(job),
                        AttachAction::Wait => {}
                    }
                }
                Effect::Reply(build, result) => {
                    let Some(WaitingBuild { job, reply: to }) = state.replies.remove(&build) else {
                        afterwards.dropped.push(Box::new(result));
                        continue;
                    };
                    let reply = Reply { to, result };
                    match job.and_then(|job| state.replays.get_mut(&job)) {
                        Some(replays) => replays.replies.push(reply),
                        None => afterwards.replies.push(reply),
                    }
                }
                Effect::Release(value) => afterwards.dropped.push(value),
            }
        }
        afterwards.wants_lookup_worker |= state.lookups.wants_worker();
    }

    /// Releases the lock, then does the work that must not be done under it.
    fn finish(self: &Arc<Self>, state: MutexGuard<'_, CoreState<D>>, afterwards: Afterwards<D>) {
        drop(state);
        if afterwards.wants_lookup_worker {
            self.start_lookup_worker();
        }
        for Attach {
            handle, value, job, ..
        } in afterwards.attaches
        {
            handle.sink.attach(&value);
            self.replayed(job);
        }
        for job in afterwards.replays_to_start {
            self.start_replay(job);
        }
        for reply in afterwards.replies {
            reply.send();
        }
        drop(afterwards.dropped);
        if afterwards.has_more {
            if Runtime::try_current().is_ok() {
                self.wake();
            } else {
                // The runtime has ended, so this thread may block.
                self.apply_rest();
            }
        }
    }

    /// Runs the scheduler until no work is left.
    fn apply_rest(self: &Arc<Self>) {
        let mut has_more = true;
        while has_more {
            let mut afterwards = Afterwards::new();
            let mut state = self.state.lock();
            self.take(&mut state, None, &mut afterwards);
            has_more = std::mem::take(&mut afterwards.has_more);
            self.finish(state, afterwards);
        }
    }

    fn start_lookup_worker(self: &Arc<Self>) {
        if Runtime::try_current().is_err() {
            // The runtime has ended, and with it every build that waits.
            return;
        }
        let core = Arc::clone(self);
        let worker = task::blocking("look keys up", move || core.look_keys_up());
        task::spawn("look keys up", worker).detach();
    }

    /// Carries out look-ups until the queue is empty.
    fn look_keys_up(self: Arc<Self>) {
        loop {
            let (next, wants_worker) = {
                let mut state = self.state.lock();
                (state.lookups.take(), state.lookups.wants_worker())
            };
            if wants_worker {
                self.start_lookup_worker();
            }
            let Some((work, lookup)) = next else { return };
            let answer = lookups::run(*lookup);
            self.apply(Event::Done(work, WorkOutcome::Lookup(answer)));
        }
    }

    /// Loads everything that an edge needs, a part at a time, so that other builds get the lock in between.
    pub(crate) async fn load_graph(
        self: &Arc<Self>,
        by: &Requester,
        edge: &Edge<D>,
        sources: &[Arc<CacheManager<D>>],
    ) -> Loaded<D> {
        let loaded = Loaded::<D>::default();
        let top = Arc::clone(&edge.vertex);
        let all = task::blocking("order vertices", move || top.closure()).await;
        // A small graph is loaded with its build.
        if all.len() > MAX_LOADED_AT_ONCE {
            for part in all.chunks(MAX_LOADED_AT_ONCE) {
                self.apply(Event::Load {
                    by: by.clone(),
                    part: part.to_vec(),
                    sources: sources.to_vec(),
                    loaded: Arc::clone(&loaded),
                });
                tokio::task::yield_now().await;
            }
        }
        loaded
    }

    /// Waits for a build; dropping the future cancels it.
    pub(crate) async fn build(
        self: &Arc<Self>,
        make: impl FnOnce(BuildId) -> BuildRequest<D>,
    ) -> Result<Built<D>, SolveError<D>> {
        self.runtime.get_or_init(Runtime::current);
        let id = self.id();
        let request = make(id);
        let job = match &request.by {
            Requester::Job(job) => Some(*job),
            Requester::Vertex(_) => None,
        };
        let (reply, receiver) = oneshot::channel();
        let waiting = WaitingBuild { job, reply };
        self.state.lock().replies.insert(id, waiting);
        let leave = LeaveOnDrop {
            core: self,
            id: Some(id),
        };
        self.apply(Event::Build(request));
        let result = receiver.await.unwrap_or(Err(SolveError::Canceled));
        leave.ended();
        result
    }

    pub(crate) fn with_scheduler<T>(&self, look: impl FnOnce(&Scheduler<D>) -> T) -> T {
        look(&self.state.lock().scheduler)
    }

    pub(crate) fn ctx(self: &Arc<Self>, handle: &Handle<D>) -> OpCtx<D> {
        let (core, digest) = (Arc::downgrade(self), handle.vertex.digest.clone());
        let hints: FindHint<D> = Arc::new(move |is_wanted| {
            core.upgrade()?
                .with_scheduler(|s| s.find_hint(&digest, is_wanted))
        });
        OpCtx {
            vertex: Arc::clone(&handle.vertex),
            sink: Arc::clone(&handle.sink),
            sessions: SessionGroup::live(handle.sessions.subscribe()),
            values: Arc::clone(&handle.values),
            hints: Some(hints),
        }
    }
}

struct LeaveOnDrop<'a, D: Domain> {
    core: &'a Arc<Core<D>>,
    id: Option<BuildId>,
}

impl<D: Domain> LeaveOnDrop<'_, D> {
    fn ended(mut self) {
        self.id = None;
    }
}

impl<D: Domain> Drop for LeaveOnDrop<'_, D> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.core.apply_or_leave(Event::Leave(id));
        }
    }
}

impl<D: Domain> fmt::Debug for Core<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Core")
    }
}

#[cfg(test)]
mod tests;
