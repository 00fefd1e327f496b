//! The scheduler against a naive evaluator: random graphs, random orders of events, cancellations, errors and pruning.
//!
//! An op kind decides the digest of the cache map, how inputs take part in the key, and, with the inputs' contents, the
//! outputs' contents. A vertex is a kind, inputs, and a salt that only its own digest knows.

mod hot;
mod leaving;
mod model;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use oci::Digest;

use super::*;
use crate::domain::NoOp;
use crate::domain::error::{OpError, Phase};
use crate::domain::op::{CacheMapDep, NullSink, OpCtx};
use crate::keys::memory::{MemoryKeyStore, MemoryResults};
use model::*;

/// Seeds that once revealed a bug.
const REGRESSIONS: &[u64] = &[45, 288];

/// Work whose outcome the scheduler has not got yet.
enum Pending {
    Started(Work<Model>),
    /// Work that was answered long before the outcome is delivered.
    Answered(WorkOutcome<Model>),
}

struct World {
    rng: Rng,
    scheduler: Scheduler<Model>,
    manager: Arc<CacheManager<Model>>,
    results: Arc<MemoryResults<Val>>,
    store: Arc<MemoryKeyStore>,
    runtime: tokio::runtime::Runtime,
    pending: Vec<(WorkId, Pending)>,
    cancelled: BTreeSet<WorkId>,
    cancelled_runs: usize,
    replies: BTreeMap<BuildId, Result<Val, SolveError<Model>>>,
    ran: Vec<(Edge<Model>, bool)>,
    clock: SystemTime,
    uid: u64,
    load_fails: usize,
    saved: BTreeSet<String>,
    saves: Vec<(Digest, usize)>,
    /// Attached vertices with their jobs. The handle is kept, so that its address is not used again.
    attached: Vec<(Arc<Handle<Model>>, BTreeSet<JobId>)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Arc::new(MemoryKeyStore::new());
        let results = Arc::new(MemoryResults::new(|v: &Val| v.uid.to_string()));
        let manager =
            CacheManager::new("local", Arc::clone(&store) as _, Arc::clone(&results) as _);
        Self {
            rng: Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            scheduler: Scheduler::new(Arc::clone(&manager), Arc::new(NullSink)),
            manager,
            results,
            store,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            pending: Vec::new(),
            cancelled: BTreeSet::new(),
            cancelled_runs: 0,
            replies: BTreeMap::new(),
            ran: Vec::new(),
            clock: SystemTime::UNIX_EPOCH,
            uid: 0,
            load_fails: 0,
            saved: BTreeSet::new(),
            saves: Vec::new(),
            attached: Vec::new(),
        }
    }

    /// Checks that a job is attached to a vertex once, and that only later jobs get a history.
    fn attach(&mut self, attach: Attach<Model>) {
        let same = |entry: &&mut (Arc<Handle<Model>>, _)| Arc::ptr_eq(&entry.0, &attach.handle);
        match self.attached.iter_mut().find(same) {
            Some((_, jobs)) => assert!(jobs.insert(attach.job), "a job is attached once"),
            None => {
                assert!(!attach.has_history, "nothing has happened at a new vertex");
                let jobs = BTreeSet::from([attach.job]);
                self.attached.push((attach.handle, jobs));
            }
        }
    }

    fn apply(&mut self, event: Event<Model>) {
        self.clock += Duration::from_secs(1);
        let mut out = Vec::new();
        self.scheduler.apply(self.clock, event, &mut out);
        for effect in out {
            match effect {
                Effect::Start(id, work @ Work::Lookup(_)) if self.rng.chance(50) => {
                    let answer = self.perform(work);
                    self.pending.push((id, Pending::Answered(answer)));
                }
                Effect::Start(id, work) => self.pending.push((id, Pending::Started(work))),
                Effect::Cancel(id) => {
                    let before = self.pending.len();
                    self.cancelled_runs += self
                        .pending
                        .iter()
                        .filter(|(p, work)| {
                            *p == id && matches!(work, Pending::Started(Work::Exec { .. }))
                        })
                        .count();
                    self.pending.retain(|(p, _)| *p != id);
                    assert_eq!(
                        before,
                        self.pending.len() + 1,
                        "only running work is cancelled"
                    );
                    self.cancelled.insert(id);
                }
                Effect::Attach(attach) => self.attach(attach),
                Effect::Release(_) => {}
                Effect::Reply(build, result) => {
                    let old = self.replies.insert(build, result.map(|b| b.result));
                    assert!(old.is_none(), "a build is told once");
                }
            }
        }
    }

    /// Finishes one piece of work, chosen at random. False if there is none.
    fn step(&mut self) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let at = self.rng.below(self.pending.len());
        let (id, work) = self.pending.swap_remove(at);
        let outcome = match work {
            Pending::Started(work) => self.perform(work),
            Pending::Answered(outcome) => outcome,
        };
        self.apply(Event::Done(id, outcome));
        true
    }

    fn perform(&mut self, work: Work<Model>) -> WorkOutcome<Model> {
        match work {
            Work::CacheMap { of, index } => {
                let kind = kind_of(&of.vertex);
                let digest = Digest::sha256(format!("kind {} map {index}", kind.name));
                let deps = (0..)
                    .zip(&kind.deps)
                    .map(|(i, (selector, slow))| CacheMapDep {
                        selector: selector
                            .then(|| Digest::sha256(format!("selector {} {i}", kind.name))),
                        slow: slow.then(|| Arc::new(NoKey) as Arc<dyn SlowKey<Model>>),
                        preprocess: None,
                    })
                    .collect();
                WorkOutcome::CacheMap(Ok((
                    Arc::new(CacheMap {
                        digest,
                        deps,
                        hints: Vec::new(),
                    }),
                    index + 1 == kind.maps,
                )))
            }
            Work::Slow { slow, result, .. } => {
                WorkOutcome::Slow(Ok(slow.map(|_| {
                    Digest::sha256(format!("content {}", slow_digest(result.content)))
                })))
            }
            Work::Exec { of, inputs } => {
                let kind = kind_of(&of.vertex);
                assert_eq!(inputs.len(), of.vertex.inputs.len());
                let edge = |index| Edge {
                    vertex: Arc::clone(&of.vertex),
                    index,
                };
                self.ran.push((edge(0), kind.fails));
                if kind.fails {
                    let error = OpError::from(std::io::Error::other("boom"));
                    return WorkOutcome::Exec(Err(SolveError::op(
                        &of.vertex,
                        &of.client_digest,
                        Phase::Exec,
                        error,
                    )));
                }
                let inputs: Vec<u64> = inputs.iter().map(|v| v.content).collect();
                WorkOutcome::Exec(Ok((0..kind.outputs)
                    .map(|index| {
                        self.uid += 1;
                        Val {
                            content: output(&kind, index, &inputs),
                            uid: self.uid,
                        }
                    })
                    .collect()))
            }
            Work::Lookup(lookup) => WorkOutcome::Lookup(lookup.run().map(Box::new)),
            Work::Load { of, record, .. } => {
                if self.rng.chance(self.load_fails) {
                    return WorkOutcome::Load(Err(KeyStoreError::new("gone")));
                }
                let ctx = OpCtx::detached(Arc::clone(&of.vertex), Arc::new(NullSink), Vec::new());
                WorkOutcome::Load(
                    self.runtime
                        .block_on(record.manager.load(&record, &ctx))
                        .map(|mut all| all.remove(0).2),
                )
            }
            Work::Save {
                main,
                keys,
                result,
                created_at,
            } => {
                for key in &keys {
                    self.saves.push((
                        key.vertex.clone().unwrap(),
                        usize::try_from(key.output).unwrap(),
                    ));
                }
                WorkOutcome::Save(
                    keys.iter()
                        .map(|key| main.save(key, &result, created_at))
                        .collect(),
                )
            }
        }
    }

    fn kinds(&mut self, failing: bool) -> Vec<Kind> {
        (0..14)
            .map(|n| {
                let arity = if n < 3 {
                    0
                } else {
                    self.rng.below(3) + usize::from(n > 6)
                };
                Kind {
                    name: n,
                    outputs: 1 + self.rng.below(2),
                    deps: (0..arity)
                        .map(|_| (self.rng.chance(30), self.rng.chance(40)))
                        .collect(),
                    collapse: if self.rng.chance(60) { 6 } else { 0 },
                    maps: if arity == 0 && self.rng.chance(30) {
                        2
                    } else {
                        1
                    },
                    fails: failing && self.rng.chance(8),
                }
            })
            .collect()
    }

    fn graph(&mut self, kinds: &[Kind], salts: usize, ignoring: usize) -> Vec<Edge<Model>> {
        let size = 3 + self.rng.below(12);
        let mut vertices: Vec<Arc<Vertex<Model>>> = Vec::new();
        while vertices.len() < size {
            let kind = &kinds[self.rng.below(kinds.len())];
            if !kind.deps.is_empty() && vertices.is_empty() {
                continue;
            }
            let inputs: Vec<Edge<Model>> = (0..kind.deps.len())
                .map(|_| {
                    let recent = vertices.len().min(4);
                    let vertex = if self.rng.chance(70) {
                        &vertices[vertices.len() - 1 - self.rng.below(recent)]
                    } else {
                        &vertices[self.rng.below(vertices.len())]
                    };
                    Edge {
                        vertex: Arc::clone(vertex),
                        index: self.rng.below(kind_of(vertex).outputs),
                    }
                })
                .collect();
            let ignore = self.rng.chance(ignoring);
            let text = format!(
                "{} {} {:?} {}",
                kind.name,
                self.rng.below(salts),
                inputs,
                kind.fails
            );
            let digest = Digest::sha256(text);
            if let Some(same) = vertices.iter().find(|v| v.digest == digest) {
                vertices.push(Arc::clone(same));
                continue;
            }
            let mut vertex = Vertex::new(digest, format!("k{}", kind.name), Arc::new(kind.clone()));
            vertex.inputs = inputs;
            vertex.options.ignore_cache = ignore;
            vertices.push(Arc::new(vertex));
        }
        vertices
            .iter()
            .rev()
            .map(|v| Edge {
                vertex: Arc::clone(v),
                index: self.rng.below(kind_of(v).outputs),
            })
            .collect()
    }

    fn start(&mut self, job: JobId, build: BuildId, edge: &Edge<Model>) {
        // Every second graph is loaded in parts before its build.
        let loaded = super::Loaded::<Model>::default();
        if build.is_multiple_of(2) {
            for part in edge.vertex.closure().chunks(2) {
                self.apply(Event::Load {
                    by: Requester::Job(job),
                    part: part.to_vec(),
                    sources: Vec::new(),
                    loaded: Arc::clone(&loaded),
                });
            }
        }
        self.apply(Event::Build(BuildRequest {
            build,
            by: Requester::Job(job),
            edge: edge.clone(),
            sources: Vec::new(),
            loaded,
        }));
    }

    fn restart(&mut self) {
        self.manager = CacheManager::new(
            "local",
            Arc::clone(&self.store) as _,
            Arc::clone(&self.results) as _,
        );
        self.scheduler = Scheduler::new(Arc::clone(&self.manager), Arc::new(NullSink));
    }
}

fn job(id: JobId) -> Event<Model> {
    Event::Job {
        job: id,
        session: Some(format!("session {id}")),
        value: Arc::new(id),
    }
}

/// Sequential builds: what runs is exactly what a perfect cache would not have.
fn sequential(seed: u64) {
    let mut world = World::new(seed);
    let kinds = world.kinds(false);
    let mut id = 1000;
    for round in 0..6 {
        let tops = world.graph(&kinds, 3, 0);
        let edge = tops[0].clone();
        let mut memo = HashMap::new();
        for again in 0..2 {
            id += 1;
            world.ran.clear();
            world.apply(job(id));
            world.start(id, id, &edge);
            while world.step() {}
            let outcome = world
                .replies
                .remove(&id)
                .unwrap_or_else(|| panic!("seed {seed} round {round}: no reply"))
                .unwrap();
            assert_eq!(
                Ok(outcome.content),
                content(&edge, &mut memo),
                "seed {seed} round {round}: content"
            );
            let mut executed = BTreeSet::new();
            for (ran, _) in &world.ran {
                assert!(
                    executed.insert(ran.vertex.digest.clone()),
                    "seed {seed} round {round}: {} ran twice",
                    ran.vertex.name
                );
                let outputs = kind_of(&ran.vertex).outputs;
                let is_known = (0..outputs).all(|i| {
                    world.saved.contains(&meaning(
                        &Edge {
                            vertex: Arc::clone(&ran.vertex),
                            index: i,
                        },
                        &mut memo,
                    ))
                });
                assert!(
                    !is_known,
                    "seed {seed} round {round}: {} ran though its results are known",
                    ran.vertex.name
                );
            }
            assert!(
                again == 0 || world.ran.is_empty(),
                "seed {seed} round {round}: a second build runs nothing"
            );
            let vertices: HashMap<Digest, Arc<Vertex<Model>>> = edge
                .vertex
                .closure()
                .into_iter()
                .map(|v| (v.digest.clone(), v))
                .collect();
            for (digest, index) in std::mem::take(&mut world.saves) {
                let saved = meaning(
                    &Edge {
                        vertex: Arc::clone(&vertices[&digest]),
                        index,
                    },
                    &mut memo,
                );
                world.saved.insert(saved);
            }
            assert!(
                world.saved.contains(&meaning(&edge, &mut memo)),
                "seed {seed} round {round}: nothing comes from nothing"
            );
            world.apply(Event::Discard(id));
            assert!(
                world.scheduler.vertices.is_empty() && world.pending.is_empty(),
                "seed {seed}: nothing is left"
            );
            if world.rng.chance(30) {
                world.restart();
            }
        }
    }
}

/// Concurrent builds, some cancelled, some failing, with results vanishing: every answer is right and nothing hangs.
fn concurrent(seed: u64) {
    let mut world = World::new(seed);
    let kinds = world.kinds(true);
    world.load_fails = if seed.is_multiple_of(2) { 20 } else { 0 };
    let graphs: Vec<Vec<Edge<Model>>> = (0..3).map(|_| world.graph(&kinds, 2, 10)).collect();
    let mut open: Vec<(JobId, BuildId, Edge<Model>)> = Vec::new();
    let mut jobs: Vec<JobId> = Vec::new();
    let mut id = 1000;
    for _ in 0..120 {
        match world.rng.below(12) {
            0 | 1 if jobs.len() < 5 => {
                id += 1;
                world.apply(job(id));
                jobs.push(id);
            }
            2..=4 if !jobs.is_empty() => {
                let job = jobs[world.rng.below(jobs.len())];
                let graph = &graphs[world.rng.below(graphs.len())];
                let edge = graph[world.rng.below(graph.len().min(5))].clone();
                id += 1;
                world.start(job, id, &edge);
                open.push((job, id, edge));
            }
            5 if !open.is_empty() => {
                let at = world.rng.below(open.len());
                let (_, build, _) = open.swap_remove(at);
                world.apply(Event::Leave(build));
                world.replies.remove(&build);
            }
            6 if !jobs.is_empty() => {
                let at = world.rng.below(jobs.len());
                let job = jobs.swap_remove(at);
                world.apply(Event::Discard(job));
                for (_, build, _) in open.iter().filter(|(j, _, _)| *j == job) {
                    assert!(
                        world.replies.remove(build).is_some(),
                        "a discarded job's builds are told"
                    );
                }
                open.retain(|(j, _, _)| *j != job);
            }
            7 => {
                let ids = world.results.ids();
                if !ids.is_empty() {
                    let at = world.rng.below(ids.len());
                    world.results.remove(&ids[at]);
                }
            }
            _ => {
                world.step();
            }
        }
        settle(seed, &mut world, &mut open);
    }
    while world.step() {
        settle(seed, &mut world, &mut open);
    }
    assert!(open.is_empty(), "seed {seed}: builds hang: {open:?}");
    for job in jobs {
        world.apply(Event::Discard(job));
    }
    assert!(
        world.scheduler.vertices.is_empty() && world.pending.is_empty(),
        "seed {seed}: nothing is left"
    );
}

fn settle(seed: u64, world: &mut World, open: &mut Vec<(JobId, BuildId, Edge<Model>)>) {
    open.retain(|(_, build, edge)| {
        let Some(reply) = world.replies.remove(build) else {
            return true;
        };
        let naive = content(edge, &mut HashMap::new());
        match reply {
            Ok(val) => {
                // A hit may skip a failing op; the result is that of the same graph without the failure.
                if let Ok(naive) = naive {
                    assert_eq!(val.content, naive, "seed {seed}: content");
                }
            }
            Err(error) => {
                assert!(
                    matches!(error, SolveError::Op { .. }),
                    "seed {seed}: {error}"
                );
                assert!(
                    edge.vertex.closure().iter().any(|v| kind_of(v).fails),
                    "seed {seed}: failed without a failing op"
                );
            }
        }
        false
    });
}

/// Stages that run side by side, and one stage that copies from all of them.
fn joined_stages(seed: u64) {
    let mut world = World::new(seed);
    let kind = |name, deps: &[(bool, bool)]| Kind {
        name,
        outputs: 1,
        deps: deps.to_vec(),
        collapse: 0,
        maps: 1,
        fails: false,
    };
    let vertex = |kind: Kind, inputs: &[&Arc<Vertex<Model>>]| {
        let digest = Digest::sha256(format!("joined {}", kind.name));
        let mut vertex = Vertex::new(digest, format!("k{}", kind.name), Arc::new(kind));
        let edge = |v: &&Arc<Vertex<Model>>| Edge {
            vertex: Arc::clone(v),
            index: 0,
        };
        vertex.inputs = inputs.iter().map(edge).collect();
        Arc::new(vertex)
    };
    let base = vertex(kind(0, &[]), &[]);
    let stage = |n| vertex(kind(100 + n, &[(false, false)]), &[&base]);
    let mut top = vertex(kind(200, &[(true, true)]), &[&stage(0)]);
    for n in 1..8 {
        top = vertex(
            kind(200 + n, &[(false, false), (true, true)]),
            &[&top, &stage(n)],
        );
    }
    let edge = Edge {
        vertex: top,
        index: 0,
    };
    world.apply(job(1));
    world.start(1, 1, &edge);
    while world.step() {}
    assert!(matches!(world.replies.remove(&1), Some(Ok(_))));
    assert_eq!(world.cancelled_runs, 0, "seed {seed}");
    assert_eq!(world.ran.len(), 17, "seed {seed}");
    world.apply(Event::Discard(1));
}

/// Runs a case for each seed, and names the seed if it panics.
fn each(seeds: impl Iterator<Item = u64>, case: fn(u64)) {
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn sequential_builds_run_what_a_perfect_cache_does_not_know() {
    each(REGRESSIONS.iter().copied().chain(1..400), sequential);
}

#[test]
fn concurrent_builds_get_right_answers_in_any_order() {
    each(REGRESSIONS.iter().copied().chain(1..1200), concurrent);
}

#[test]
fn a_step_that_runs_is_not_cancelled_because_another_ended() {
    each(1..100, joined_stages);
}
