//! The scheduler: a value that is told what happened and says what to do.
//!
//! Nothing here waits, reads a clock or asks a key store: look-ups of keys are work like all other.
//!
//! Edges form a graph by *demand*: a build demands that its edge be complete; an edge demands of its inputs what it
//! needs next. Work belongs to vertices (cache maps, content keys, execution: shared by the vertex's outputs) or to one
//! edge (looking up, loading, saving). Work that no demanded edge waits for is cancelled; a look-up is left to its end.
//!
//! Each event is worked off in two queues. First edges *learn*, from inputs upwards, until nobody learns anything new;
//! only then one edge *acts* (demands more of its inputs, or begins work). So a match that is found anywhere is seen by
//! everyone before more work is begun.
//!
//! | level of an edge | what it means                                                            |
//! |------------------|--------------------------------------------------------------------------|
//! | `Initial`        | nothing                                                                  |
//! | `Fast`           | all keys that follow from definitions are known                          |
//! | `Slow`           | all keys are known that can be without computing the edge: content keys too |
//! | `Complete`       | the result is there                                                      |
//!
//! Facts followed: `solver/edge.go`, `solver/scheduler.go`, `solver/jobs.go` (v0.34.2): when content keys are computed,
//! when a miss is certain, how errors and merges work.

mod edge;
mod end;
mod graph;
#[cfg(test)]
mod invariants;
mod join;
mod merge;
mod step;
pub(crate) mod waits;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use oci::Digest;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::built::Built;
use crate::domain::Domain;
use crate::domain::error::{KeyStoreError, OpError, SolveError};
use crate::domain::op::{CacheMap, JobValues, Observer, Preprocess, SlowKey};
use crate::domain::vertex::{Edge, Vertex};
use crate::index::{EdgeId, Index};
use crate::keys::cachekey::{CacheKey, CacheRecord, KeyInfo};
use crate::keys::lookup::{Answer, Lookup};
use crate::keys::manager::{CacheManager, Managers};
use edge::EdgeState;
use join::Join;

pub(crate) type BuildId = u64;
pub(crate) type JobId = u64;
pub(crate) type WorkId = u64;

/// What happened.
pub(crate) enum Event<D: Domain> {
    /// A job began.
    Job {
        job: JobId,
        session: Option<String>,
        value: Arc<D::Job>,
    },
    /// A part of what somebody is about to want.
    Load {
        by: By,
        part: Vec<Arc<Vertex<D>>>,
        sources: Vec<Arc<CacheManager<D>>>,
        loaded: Loaded<D>,
    },
    /// Someone wants an edge.
    Build(BuildRequest<D>),
    /// And does not want it any more.
    Leave(BuildId),
    /// A job ended.
    Discard(JobId),
    /// Work ended.
    Done(WorkId, Outcome<D>),
}

/// What someone wants.
pub(crate) struct BuildRequest<D: Domain> {
    pub(crate) build: BuildId,
    pub(crate) by: By,
    pub(crate) edge: Edge<D>,
    /// Where results are looked for beside this machine.
    pub(crate) sources: Vec<Arc<CacheManager<D>>>,
    /// What was loaded for it before; all that it needs, unless it is empty.
    pub(crate) loaded: Loaded<D>,
}

/// Vertices by the digests they came with, as they are held here.
pub(crate) type Loaded<D> = Arc<Mutex<HashMap<Digest, Arc<Vertex<D>>>>>;

/// Who wants an edge.
#[derive(Debug, Clone)]
pub(crate) enum By {
    Job(JobId),
    /// An op, as a part of its vertex.
    Vertex(Digest),
}

/// How work ended.
pub(crate) enum Outcome<D: Domain> {
    CacheMap(Result<(Arc<CacheMap<D>>, bool), SolveError<D>>),
    Slow(Result<Option<Digest>, SolveError<D>>),
    Exec(Result<Vec<D::Result>, SolveError<D>>),
    Lookup(Result<Box<Answer<D>>, KeyStoreError>),
    Load(Result<D::Result, KeyStoreError>),
    Save(Result<Vec<CacheRecord<D>>, KeyStoreError>),
}

/// What to do.
pub(crate) enum Effect<D: Domain> {
    Start(WorkId, Work<D>),
    Cancel(WorkId),
    /// Has a vertex tell a job what it told before, before any further build of the job gets its reply.
    Attach(Attach<D>),
    Reply(BuildId, Result<Built<D>, SolveError<D>>),
    /// Drops what may be the last to hold a result: that may take as long as a disk does.
    Release(Box<dyn Send>),
}

/// A vertex, and a job that is to hear of it.
pub(crate) struct Attach<D: Domain> {
    pub(crate) handle: Arc<Handle<D>>,
    pub(crate) job: JobId,
    pub(crate) value: Arc<D::Job>,
    /// Whether another job heard of the vertex before: then it may have much to tell.
    pub(crate) has_history: bool,
}

/// Work to begin.
pub(crate) enum Work<D: Domain> {
    CacheMap {
        of: Arc<Handle<D>>,
        index: usize,
    },
    Slow {
        of: Arc<Handle<D>>,
        input: usize,
        slow: Option<Arc<dyn SlowKey<D>>>,
        preprocess: Option<Arc<dyn Preprocess<D>>>,
        result: D::Result,
        made_by: Arc<Handle<D>>,
    },
    Exec {
        of: Arc<Handle<D>>,
        inputs: Vec<D::Result>,
    },
    Lookup(Box<Lookup<D>>),
    Load {
        of: Arc<Handle<D>>,
        record: CacheRecord<D>,
        main: Arc<CacheManager<D>>,
    },
    Save {
        main: Arc<CacheManager<D>>,
        keys: Vec<Arc<CacheKey<D>>>,
        result: D::Result,
        created_at: SystemTime,
    },
}

/// What stays with a vertex while any job has it loaded.
pub(crate) struct Handle<D: Domain> {
    pub(crate) vertex: Arc<Vertex<D>>,
    /// The digest the client knows; the vertex's own differs for a second, cache-ignoring load.
    pub(crate) client_digest: Digest,
    pub(crate) sink: Arc<D::Sink>,
    pub(crate) sessions: watch::Sender<Vec<String>>,
    pub(crate) values: JobValues<D>,
    pub(crate) op: OnceLock<Result<Arc<D::Op>, OpError>>,
    /// Keys of what the op built itself.
    pub(crate) sub_keys: Mutex<Vec<KeyInfo<D>>>,
    /// Below the span of the build that brought the vertex first: what its work logs carries both.
    pub(crate) span: tracing::Span,
}

/// How far an edge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Initial,
    Fast,
    Slow,
    Complete,
}

/// Work of a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Task {
    CacheMap,
    Slow(usize),
    Exec,
}

enum Target {
    Vertex(Digest, Task),
    Edge(EdgeId),
}

struct Running {
    work: WorkId,
    waiters: BTreeSet<EdgeId>,
}

struct JobState<D: Domain> {
    session: Option<String>,
    value: Arc<D::Job>,
}

struct VertexState<D: Domain> {
    handle: Arc<Handle<D>>,
    inputs: Vec<(Digest, usize)>,
    /// In order of joining.
    jobs: Vec<JobId>,
    parents: BTreeSet<Digest>,
    children: BTreeSet<Digest>,
    attached: BTreeSet<JobId>,
    /// A job was attached, now or before.
    is_watched: bool,
    edges: BTreeMap<usize, EdgeId>,
    sources: Vec<Arc<CacheManager<D>>>,
    maps: Vec<Arc<CacheMap<D>>>,
    maps_done: bool,
    maps_error: Option<SolveError<D>>,
    slow: BTreeMap<usize, Result<Option<Digest>, SolveError<D>>>,
    exec: Option<Result<Vec<D::Result>, SolveError<D>>>,
    running: BTreeMap<Task, Running>,
}

struct BuildState<D: Domain> {
    by: By,
    edge: EdgeId,
    /// What was asked for; `edge` may be what it was merged into.
    vertex: Arc<Vertex<D>>,
    index: usize,
}

/// Everything that is being built.
pub(crate) struct Scheduler<D: Domain> {
    main: Arc<CacheManager<D>>,
    observer: Arc<dyn Observer<D>>,
    now: SystemTime,
    jobs: BTreeMap<JobId, JobState<D>>,
    builds: BTreeMap<BuildId, BuildState<D>>,
    vertices: HashMap<Digest, VertexState<D>>,
    edges: HashMap<EdgeId, EdgeState<D>>,
    works: HashMap<WorkId, Target>,
    index: Index,
    to_learn: Queue,
    to_act: Queue,
    /// Jobs that are to hold more vertices.
    to_join: VecDeque<Join>,
    /// Vertices that a job let go of.
    to_forget: VecDeque<Digest>,
    /// Edges that were merged into an edge.
    merged: HashMap<EdgeId, Vec<EdgeId>>,
    /// Vertices that are active a second time, without cache.
    without_cache: usize,
    next: u64,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<EdgeId>,
    members: BTreeSet<EdgeId>,
}

impl Queue {
    fn push(&mut self, edge: EdgeId) {
        if self.members.insert(edge) {
            self.order.push_back(edge);
        }
    }

    fn pop(&mut self) -> Option<EdgeId> {
        let edge = self.order.pop_front()?;
        self.members.remove(&edge);
        Some(edge)
    }
}

impl<D: Domain> Scheduler<D> {
    pub(crate) fn new(main: Arc<CacheManager<D>>, observer: Arc<dyn Observer<D>>) -> Self {
        Self {
            main,
            observer,
            now: SystemTime::UNIX_EPOCH,
            jobs: BTreeMap::new(),
            builds: BTreeMap::new(),
            vertices: HashMap::new(),
            edges: HashMap::new(),
            works: HashMap::new(),
            index: Index::default(),
            to_learn: Queue::default(),
            to_act: Queue::default(),
            to_join: VecDeque::new(),
            to_forget: VecDeque::new(),
            merged: HashMap::new(),
            without_cache: 0,
            next: 0,
        }
    }

    /// Takes in one event and says what to do about it, all of it.
    #[cfg(test)]
    pub(crate) fn apply(&mut self, now: SystemTime, event: Event<D>, out: &mut Vec<Effect<D>>) {
        self.take(now, event, out);
        let more = self.go_on(usize::MAX, out);
        assert!(!more);
        self.assert_invariants();
    }

    /// Takes in one event; [`Scheduler::go_on`] works off what follows from it.
    pub(crate) fn take(&mut self, now: SystemTime, event: Event<D>, out: &mut Vec<Effect<D>>) {
        self.now = now;
        match event {
            Event::Job {
                job,
                session,
                value,
            } => {
                self.jobs.insert(job, JobState { session, value });
            }
            Event::Load {
                by,
                part,
                sources,
                loaded,
            } => {
                if self.knows(&by) {
                    self.load_part(&part, &by, &sources, &mut loaded.lock(), out);
                }
            }
            Event::Build(request) => self.build(request, out),
            Event::Leave(build) => self.leave(build),
            Event::Discard(job) => self.discard(job, out),
            Event::Done(work, outcome) => self.done(work, outcome, out),
        }
    }

    /// Works off what follows from the events, up to so many steps, and says what to do about it; true if there is more.
    ///
    /// What is learned between two calls comes first, like all that is learned.
    pub(crate) fn go_on(&mut self, steps: usize, out: &mut Vec<Effect<D>>) -> bool {
        for _ in 0..steps {
            if let Some(join) = self.to_join.front_mut() {
                match join.next() {
                    Some(digest) => self.join(&digest, out),
                    None => drop(self.to_join.pop_front()),
                }
            } else if let Some(digest) = self.to_forget.pop_front() {
                self.forget(&digest, out);
            } else if let Some(edge) = self.to_learn.pop() {
                self.learn(edge, out);
            } else if let Some(edge) = self.to_act.pop() {
                self.act(edge, out);
            } else {
                return false;
            }
        }
        true
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn leave(&mut self, build: BuildId) {
        if let Some(state) = self.builds.remove(&build)
            && let Some(edge) = self.edges.get_mut(&state.edge)
        {
            edge.consumers.remove(&Consumer::Build(build));
            self.to_act.push(state.edge);
        }
    }

    fn done(&mut self, work: WorkId, outcome: Outcome<D>, out: &mut Vec<Effect<D>>) {
        match self.works.remove(&work) {
            // It was cancelled while its end was on the way.
            None => out.push(Effect::Release(Box::new(outcome))),
            Some(Target::Vertex(digest, task)) => {
                let Some(vertex) = self.vertices.get_mut(&digest) else {
                    out.push(Effect::Release(Box::new(outcome)));
                    return;
                };
                let waiters = vertex
                    .running
                    .remove(&task)
                    .map(|r| r.waiters)
                    .unwrap_or_default();
                match (task, outcome) {
                    (Task::CacheMap, Outcome::CacheMap(Ok((map, done)))) => {
                        vertex.maps.push(map);
                        vertex.maps_done = done;
                    }
                    (Task::CacheMap, Outcome::CacheMap(Err(error))) => {
                        vertex.maps_error = Some(error)
                    }
                    (Task::Slow(input), Outcome::Slow(result)) => {
                        vertex.slow.insert(input, result);
                    }
                    (Task::Exec, Outcome::Exec(result)) => vertex.exec = Some(result),
                    _ => unreachable!("work ends as what it began as"),
                }
                for edge in waiters {
                    self.to_learn.push(edge);
                }
            }
            Some(Target::Edge(edge)) => {
                self.edge_done(edge, outcome, out);
            }
        }
    }

    /// Begins work of a vertex, or joins it. What has ended is not begun again.
    fn need(
        &mut self,
        edge: EdgeId,
        digest: &Digest,
        task: Task,
        make: impl FnOnce(&VertexState<D>) -> Work<D>,
        out: &mut Vec<Effect<D>>,
    ) {
        let work = self.id();
        let Some(vertex) = self.vertices.get_mut(digest) else {
            return;
        };
        if let Some(running) = vertex.running.get_mut(&task) {
            running.waiters.insert(edge);
            return;
        }
        out.push(Effect::Start(work, make(vertex)));
        vertex.running.insert(
            task,
            Running {
                work,
                waiters: BTreeSet::from([edge]),
            },
        );
        self.works
            .insert(work, Target::Vertex(digest.clone(), task));
    }

    /// Stops waiting for all work; cancels what nobody waits for.
    fn stop_waiting(&mut self, edge: EdgeId, out: &mut Vec<Effect<D>>) {
        let Some(state) = self.edges.get_mut(&edge) else {
            return;
        };
        if let Some(work) = state.state.give_up() {
            self.works.remove(&work);
            out.push(Effect::Cancel(work));
        }
        let digest = state.vertex.clone();
        let Some(vertex) = self.vertices.get_mut(&digest) else {
            return;
        };
        let works = &mut self.works;
        vertex.running.retain(|_, running| {
            let waited = running.waiters.remove(&edge);
            if waited && running.waiters.is_empty() {
                works.remove(&running.work);
                out.push(Effect::Cancel(running.work));
                return false;
            }
            true
        });
    }

    /// Stops looking keys up for an edge that has no use for them any more.
    fn stop_lookup(&mut self, edge: EdgeId, out: &mut Vec<Effect<D>>) {
        if let Some(lookup) = self.edges.get_mut(&edge).and_then(|e| e.lookup.take()) {
            self.works.remove(&lookup.work);
            out.push(Effect::Cancel(lookup.work));
        }
    }

    fn managers(&self, vertex: &VertexState<D>) -> Managers<D> {
        Managers {
            main: Arc::clone(&self.main),
            others: vertex.sources.clone(),
        }
    }

    /// Finds a hint of a vertex's cache maps, or of the nearest vertex below it that left one.
    pub(crate) fn find_hint(
        &self,
        digest: &Digest,
        is_wanted: &mut dyn FnMut(&D::Hint) -> bool,
    ) -> Option<D::Hint> {
        let mut seen = BTreeSet::from([digest.clone()]);
        let mut work = VecDeque::from([digest.clone()]);
        while let Some(digest) = work.pop_front() {
            let Some(vertex) = self.vertices.get(&digest) else {
                continue;
            };
            let mut hints = vertex.maps.iter().flat_map(|map| &map.hints);
            if let Some(hint) = hints.find(|hint| is_wanted(hint)) {
                return Some(hint.clone());
            }
            for (input, index) in &vertex.inputs {
                // An input that was merged into another edge has its options there.
                let merged = self
                    .vertices
                    .get(input)
                    .and_then(|v| v.edges.get(index))
                    .map(|e| self.resolve(*e));
                let merged = merged
                    .and_then(|e| self.edges.get(&e))
                    .map(|e| e.vertex.clone());
                for digest in std::iter::once(input.clone()).chain(merged) {
                    if seen.insert(digest.clone()) {
                        work.push_back(digest);
                    }
                }
            }
        }
        None
    }

    /// Returns the handles of a vertex and everything below it.
    pub(crate) fn handles(&self, digest: &Digest) -> Vec<Arc<Handle<D>>> {
        let mut seen = BTreeSet::from([digest.clone()]);
        let mut work = vec![digest.clone()];
        let mut out = Vec::new();
        while let Some(digest) = work.pop() {
            if let Some(vertex) = self.vertices.get(&digest) {
                out.push(Arc::clone(&vertex.handle));
                work.extend(
                    vertex
                        .inputs
                        .iter()
                        .map(|i| &i.0)
                        .filter(|d| seen.insert((*d).clone()))
                        .cloned(),
                );
            }
        }
        out
    }

    pub(crate) fn handle(&self, digest: &Digest) -> Option<Arc<Handle<D>>> {
        self.vertices.get(digest).map(|v| Arc::clone(&v.handle))
    }
}

/// Who demands something of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Consumer {
    /// An edge, of its input with this index.
    Edge(EdgeId, usize),
    Build(BuildId),
}

impl<D: Domain> fmt::Debug for Handle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.vertex.digest).finish()
    }
}

#[cfg(test)]
mod tests;
