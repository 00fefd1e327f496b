//! The scheduler: a value that takes events and returns effects.
//!
//! Nothing here waits, reads a clock or calls a key store: look-ups of keys are work like all other.
//!
//! Edges form a graph by *demand*: a build demands that its edge be complete; an edge demands of its inputs what it
//! needs next. Work belongs to vertices (cache maps, content keys, execution: shared by the vertex's outputs) or to one
//! edge (looking up, loading, saving). Work that no demanded edge waits for is cancelled; a look-up is left to its end.
//!
//! Each event is worked off in two queues. First edges *learn*, from inputs upwards, until no edge learns anything new;
//! only then one edge *acts* (demands more of its inputs, or starts work). So all edges see a match before more
//! work starts.
//!
//! | level of an edge | meaning                                                                  |
//! |------------------|--------------------------------------------------------------------------|
//! | `Initial`        | no keys are known                                                        |
//! | `Fast`           | all keys that follow from definitions are known                          |
//! | `Slow`           | all keys that need no computation of the edge are known: content keys too |
//! | `Complete`       | the result is known                                                      |
//!
//! Facts from `solver/edge.go`, `solver/scheduler.go`, `solver/jobs.go` (v0.34.2): when content keys are computed,
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

/// Events that the driver reports to the scheduler.
pub(crate) enum Event<D: Domain> {
    /// A job started.
    Job {
        job: JobId,
        session: Option<String>,
        value: Arc<D::Job>,
    },
    /// A part of the graph that a build is about to need is loaded.
    Load {
        by: Requester,
        part: Vec<Arc<Vertex<D>>>,
        sources: Vec<Arc<CacheManager<D>>>,
        loaded: Loaded<D>,
    },
    /// A build of an edge starts.
    Build(BuildRequest<D>),
    /// The build is no longer wanted.
    Leave(BuildId),
    /// A job ended.
    Discard(JobId),
    /// Work ended.
    Done(WorkId, WorkOutcome<D>),
}

/// A request to build an edge.
pub(crate) struct BuildRequest<D: Domain> {
    pub(crate) build: BuildId,
    pub(crate) by: Requester,
    pub(crate) edge: Edge<D>,
    /// Managers of remote caches in which results are looked up.
    pub(crate) sources: Vec<Arc<CacheManager<D>>>,
    /// The vertices loaded for it before. Unless empty, these are all that it needs.
    pub(crate) loaded: Loaded<D>,
}

/// Active vertices by the digests under which clients sent them.
pub(crate) type Loaded<D> = Arc<Mutex<HashMap<Digest, Arc<Vertex<D>>>>>;

/// The origin of a build.
#[derive(Debug, Clone)]
pub(crate) enum Requester {
    Job(JobId),
    /// An op, as a part of its vertex.
    Vertex(Digest),
}

/// The result of work.
pub(crate) enum WorkOutcome<D: Domain> {
    CacheMap(Result<(Arc<CacheMap<D>>, bool), SolveError<D>>),
    Slow(Result<Option<Digest>, SolveError<D>>),
    Exec(Result<Vec<D::Result>, SolveError<D>>),
    Lookup(Result<Box<Answer<D>>, KeyStoreError>),
    Load(Result<D::Result, KeyStoreError>),
    Save(Result<Vec<CacheRecord<D>>, KeyStoreError>),
}

/// Effects that the driver carries out.
pub(crate) enum Effect<D: Domain> {
    Start(WorkId, Work<D>),
    Cancel(WorkId),
    /// Replays the past progress of a vertex to a job, before any further build of the job gets its reply.
    Attach(Attach<D>),
    Reply(BuildId, Result<Built<D>, SolveError<D>>),
    /// Drops values that may be the last owners of a result, which may take as long as a disk does.
    Release(Box<dyn Send>),
}

/// A vertex whose progress a job is to get.
pub(crate) struct Attach<D: Domain> {
    pub(crate) handle: Arc<Handle<D>>,
    pub(crate) job: JobId,
    pub(crate) value: Arc<D::Job>,
    /// Whether the vertex was attached to another job before, so that it may have much progress to replay.
    pub(crate) has_history: bool,
}

/// Work that the driver starts.
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

/// The data of a vertex that stays while any job has it loaded.
pub(crate) struct Handle<D: Domain> {
    pub(crate) vertex: Arc<Vertex<D>>,
    /// The client's digest; the vertex's own one differs for a second load that ignores the cache.
    pub(crate) client_digest: Digest,
    pub(crate) sink: Arc<D::Sink>,
    pub(crate) sessions: watch::Sender<Vec<String>>,
    pub(crate) values: JobValues<D>,
    pub(crate) op: OnceLock<Result<Arc<D::Op>, OpError>>,
    /// Keys of the builds that the op ran itself.
    pub(crate) sub_keys: Mutex<Vec<KeyInfo<D>>>,
    /// A child of the span of the first build with the vertex, so that log lines of its work carry both.
    pub(crate) span: tracing::Span,
}

/// How much is known of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EdgeLevel {
    Initial,
    Fast,
    Slow,
    Complete,
}

/// Work of a vertex that its edges share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum VertexTask {
    CacheMap,
    Slow(usize),
    Exec,
}

enum WorkOwner {
    Vertex(Digest, VertexTask),
    Edge(EdgeId),
}

struct RunningWork {
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
    /// In the order in which they joined.
    jobs: Vec<JobId>,
    parents: BTreeSet<Digest>,
    children: BTreeSet<Digest>,
    attached: BTreeSet<JobId>,
    /// Whether a job was ever attached.
    is_watched: bool,
    edges: BTreeMap<usize, EdgeId>,
    sources: Vec<Arc<CacheManager<D>>>,
    maps: Vec<Arc<CacheMap<D>>>,
    maps_done: bool,
    maps_error: Option<SolveError<D>>,
    slow: BTreeMap<usize, Result<Option<Digest>, SolveError<D>>>,
    exec: Option<Result<Vec<D::Result>, SolveError<D>>>,
    running: BTreeMap<VertexTask, RunningWork>,
}

struct BuildState<D: Domain> {
    by: Requester,
    edge: EdgeId,
    /// The edge of the request; `edge` differs if it was merged into another.
    vertex: Arc<Vertex<D>>,
    index: usize,
}

/// All jobs, builds, vertices and edges.
pub(crate) struct Scheduler<D: Domain> {
    main: Arc<CacheManager<D>>,
    observer: Arc<dyn Observer<D>>,
    now: SystemTime,
    jobs: BTreeMap<JobId, JobState<D>>,
    builds: BTreeMap<BuildId, BuildState<D>>,
    vertices: HashMap<Digest, VertexState<D>>,
    edges: HashMap<EdgeId, EdgeState<D>>,
    works: HashMap<WorkId, WorkOwner>,
    index: Index,
    to_learn: Queue,
    to_act: Queue,
    /// Walks that make jobs hold further vertices.
    to_join: VecDeque<Join>,
    /// Vertices that a job released.
    to_forget: VecDeque<Digest>,
    /// Edges that were merged into an edge.
    merged: HashMap<EdgeId, Vec<EdgeId>>,
    /// Number of vertices that are active a second time, without cache.
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

    /// Takes one event and returns all effects that follow from it.
    #[cfg(test)]
    pub(crate) fn apply(&mut self, now: SystemTime, event: Event<D>, out: &mut Vec<Effect<D>>) {
        self.take(now, event, out);
        let more = self.go_on(usize::MAX, out);
        assert!(!more);
        self.assert_invariants();
    }

    /// Takes one event; [`Scheduler::go_on`] works off what follows from it.
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

    /// Works off what follows from the events, up to `steps` steps, and returns the effects; true if more work is left.
    ///
    /// What is learned between two calls is worked off first.
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

    fn done(&mut self, work: WorkId, outcome: WorkOutcome<D>, out: &mut Vec<Effect<D>>) {
        match self.works.remove(&work) {
            // The work was cancelled while its result was on the way.
            None => out.push(Effect::Release(Box::new(outcome))),
            Some(WorkOwner::Vertex(digest, task)) => {
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
                    (VertexTask::CacheMap, WorkOutcome::CacheMap(Ok((map, done)))) => {
                        vertex.maps.push(map);
                        vertex.maps_done = done;
                    }
                    (VertexTask::CacheMap, WorkOutcome::CacheMap(Err(error))) => {
                        vertex.maps_error = Some(error)
                    }
                    (VertexTask::Slow(input), WorkOutcome::Slow(result)) => {
                        vertex.slow.insert(input, result);
                    }
                    (VertexTask::Exec, WorkOutcome::Exec(result)) => vertex.exec = Some(result),
                    _ => unreachable!("the outcome has the type of its work"),
                }
                for edge in waiters {
                    self.to_learn.push(edge);
                }
            }
            Some(WorkOwner::Edge(edge)) => {
                self.edge_done(edge, outcome, out);
            }
        }
    }

    /// Starts work of a vertex, or joins it if it is running. Finished work is not repeated.
    fn need(
        &mut self,
        edge: EdgeId,
        digest: &Digest,
        task: VertexTask,
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
            RunningWork {
                work,
                waiters: BTreeSet::from([edge]),
            },
        );
        self.works
            .insert(work, WorkOwner::Vertex(digest.clone(), task));
    }

    /// Stops waiting for all work of an edge; cancels work that no edge waits for.
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

    /// Stops the look-up of an edge that no longer needs it.
    fn stop_lookup(&mut self, edge: EdgeId, out: &mut Vec<Effect<D>>) {
        if let Some(lookup) = self.edges.get_mut(&edge).and_then(|e| e.lookup.take()) {
            self.works.remove(&lookup.work);
            out.push(Effect::Cancel(lookup.work));
        }
    }

    fn managers(&self, vertex: &VertexState<D>) -> Managers<D> {
        Managers {
            main: Arc::clone(&self.main),
            imported: vertex.sources.clone(),
        }
    }

    /// Finds a hint in a vertex's cache maps, or in those of the nearest vertex below it that has one.
    pub(crate) fn find_hint(
        &self,
        digest: &Digest,
        is_wanted: &mut dyn FnMut(&D::Hint) -> bool,
    ) -> Option<D::Hint> {
        let mut visited = BTreeSet::from([digest.clone()]);
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
                // If an input was merged into another edge, its hints are there.
                let merged = self
                    .vertices
                    .get(input)
                    .and_then(|v| v.edges.get(index))
                    .map(|e| self.resolve(*e));
                let merged = merged
                    .and_then(|e| self.edges.get(&e))
                    .map(|e| e.vertex.clone());
                for digest in std::iter::once(input.clone()).chain(merged) {
                    if visited.insert(digest.clone()) {
                        work.push_back(digest);
                    }
                }
            }
        }
        None
    }

    /// Returns the handles of a vertex and of everything below it.
    pub(crate) fn handles(&self, digest: &Digest) -> Vec<Arc<Handle<D>>> {
        let mut visited = BTreeSet::from([digest.clone()]);
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
                        .filter(|d| visited.insert((*d).clone()))
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

/// The origin of a demand on an edge.
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
