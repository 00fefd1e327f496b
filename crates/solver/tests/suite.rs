//! The solver over its public surface: cases are graphs, builds, and what ran.

#![expect(clippy::unwrap_used, reason = "a test may")]

#[path = "suite/key_store.rs"]
mod key_store;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[path = "suite/waiting.rs"]
mod waiting;

use async_trait::async_trait;
use oci::Digest;
use parking_lot::Mutex;
use solver::export::{self, Mode};
use solver::{
    CacheManager, CacheMap, CacheMapDep, Domain, Job, JobOptions, KeyStore, MemoryKeyStore,
    MemoryResults, Observer, Op, OpError, Phase, Resolver, SlowKey, Solver, SubBuilder, VertexSink,
};
use tokio::sync::Semaphore;

type Val = Arc<(usize, String)>;
type Edge = solver::Edge<Test>;
type Vertex = solver::Vertex<Test>;
type OpCtx = solver::OpCtx<Test>;
type SolveError = solver::SolveError<Test>;

struct Test;

impl Domain for Test {
    type Result = Val;
    type System = Fake;
    type Op = FakeOp;
    type Job = &'static str;
    type Sink = Sink;
    type Hint = String;
}

/// What a vertex of a test does.
#[derive(Default, Clone)]
struct Fake {
    name: &'static str,
    /// Digest of the cache map; the name if empty.
    key: &'static str,
    /// Output; name and inputs if empty.
    content: &'static str,
    slow: bool,
    selector: &'static str,
    fails: Option<Arc<AtomicUsize>>,
    panics: bool,
    gate: Option<Arc<Semaphore>>,
    builds: Option<Edge>,
    needs_hint: bool,
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn push(&self, line: String) {
        self.0.lock().push(line);
    }
    fn has(&self, line: &str) -> bool {
        self.0.lock().iter().any(|l| l == line)
    }
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock()).join(" | ")
    }
}

struct FakeOp {
    fake: Arc<Fake>,
    inputs: usize,
    log: Arc<Log>,
    ids: Arc<AtomicUsize>,
    builder: Arc<dyn SubBuilder<Test>>,
}

struct Content;

#[async_trait]
impl SlowKey<Test> for Content {
    async fn digest(&self, _ctx: &OpCtx, input: &Val) -> Result<Digest, OpError> {
        if input.1 == "unreadable" {
            return Err(std::io::Error::other("\"/x\": not found").into());
        }
        Ok(Digest::sha256(&input.1))
    }
}

#[async_trait]
impl Op<Test> for FakeOp {
    async fn cache_map(
        &self,
        _ctx: &OpCtx,
        _index: usize,
    ) -> Result<(CacheMap<Test>, bool), OpError> {
        let key = if self.fake.key.is_empty() {
            self.fake.name
        } else {
            self.fake.key
        };
        let digest = if key.starts_with("random:") {
            Digest::key(key)
        } else {
            Digest::sha256(key)
        };
        let dep = || CacheMapDep {
            selector: (!self.fake.selector.is_empty()).then(|| Digest::sha256(self.fake.selector)),
            slow: self
                .fake
                .slow
                .then(|| Arc::new(Content) as Arc<dyn SlowKey<Test>>),
            preprocess: None,
        };
        Ok((
            CacheMap {
                digest,
                deps: (0..self.inputs).map(|_| dep()).collect(),
                hints: vec![format!("hint of {}", self.fake.name)],
            },
            true,
        ))
    }

    async fn exec(&self, ctx: &OpCtx, inputs: Vec<Val>) -> Result<Vec<Val>, OpError> {
        self.log.push(format!("exec {}", self.fake.name));
        if let Some(gate) = &self.fake.gate {
            struct Dropped<'a>(&'a FakeOp);
            impl Drop for Dropped<'_> {
                fn drop(&mut self) {
                    self.0.log.push(format!("drop {}", self.0.fake.name));
                }
            }
            let dropped = Dropped(self);
            let permit = gate.acquire().await.unwrap();
            permit.forget();
            std::mem::forget(dropped);
            self.log
                .push(format!("sessions {}", ctx.sessions.ids().join(",")));
        }
        if let Some(edge) = &self.fake.builds {
            self.builder.build(edge.clone()).await?;
        }
        if self.fake.needs_hint {
            self.log
                .push(ctx.hint(|hint| hint == "hint of base").unwrap());
        }
        assert!(!self.fake.panics, "the op panicked");
        if let Some(fails) = &self.fake.fails
            && fails
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok()
        {
            return Err(std::io::Error::other("exit code: 1").into());
        }
        let mut content = self.fake.content.to_owned();
        if content.is_empty() {
            content = format!(
                "{}({})",
                self.fake.name,
                inputs
                    .iter()
                    .map(|i| i.1.as_str())
                    .collect::<Vec<_>>()
                    .join(",")
            );
        }
        Ok(vec![Arc::new((
            self.ids.fetch_add(1, Ordering::SeqCst),
            content,
        ))])
    }
}

struct Ops {
    log: Arc<Log>,
    ids: Arc<AtomicUsize>,
}

impl Resolver<Test> for Ops {
    fn resolve(
        &self,
        vertex: &Arc<Vertex>,
        builder: Arc<dyn SubBuilder<Test>>,
    ) -> Result<Arc<FakeOp>, OpError> {
        let fake = Arc::clone(&vertex.sys);
        let op = FakeOp {
            fake,
            inputs: vertex.inputs.len(),
            log: Arc::clone(&self.log),
            ids: Arc::clone(&self.ids),
            builder,
        };
        Ok(Arc::new(op))
    }
}

struct Shown {
    log: Arc<Log>,
    /// A vertex by name, and who waits there.
    held_up: Option<(&'static str, Arc<Mutex<Option<HeldUp>>>)>,
}

/// What is told to a job goes on when a test says so.
struct HeldUp {
    job: &'static str,
    go: std::sync::mpsc::Receiver<()>,
}

struct Sink {
    log: Arc<Log>,
    name: String,
    held_up: Option<Arc<Mutex<Option<HeldUp>>>>,
}

impl Observer<Test> for Shown {
    fn vertex(&self, vertex: &Arc<Vertex>) -> Arc<Sink> {
        let held_up = self.held_up.as_ref();
        Arc::new(Sink {
            log: Arc::clone(&self.log),
            name: vertex.name.clone(),
            held_up: held_up
                .filter(|(name, _)| *name == vertex.name)
                .map(|(_, held_up)| Arc::clone(held_up)),
        })
    }
}

impl VertexSink<&'static str> for Sink {
    fn attach(&self, job: &&'static str) {
        let held_up = self.held_up.as_ref();
        if let Some(held_up) = held_up.and_then(|h| h.lock().take_if(|held| held.job == *job)) {
            self.log
                .push(format!("{job} is being told of {}", self.name));
            held_up.go.recv().unwrap();
        }
        self.log.push(format!("{} to {job}", self.name));
    }
    fn started(&self, cached: bool) {
        self.log.push(format!(
            "{} started{}",
            self.name,
            if cached { " cached" } else { "" }
        ));
    }
    fn completed(&self, error: Option<&str>, cached: bool) {
        self.log.push(format!(
            "{} completed{}{}",
            self.name,
            if cached { " cached" } else { "" },
            error.map(|e| format!(": {e}")).unwrap_or_default()
        ));
    }
    fn log(&self, _stream: i64, _data: &[u8]) {}
}

struct World {
    solver: Solver<Test>,
    keys: Arc<MemoryKeyStore>,
    results: Arc<MemoryResults<Val>>,
    log: Arc<Log>,
    shown: Arc<Log>,
    ids: Arc<AtomicUsize>,
}

fn world() -> World {
    let keys = Arc::new(MemoryKeyStore::new());
    let results = Arc::new(MemoryResults::new(|v: &Val| v.0.to_string()));
    open(keys, results, Arc::default())
}

fn open(
    keys: Arc<MemoryKeyStore>,
    results: Arc<MemoryResults<Val>>,
    ids: Arc<AtomicUsize>,
) -> World {
    open_with(Arc::clone(&keys) as _, keys, results, ids)
}

/// A world that asks `store`, which keeps its keys in `keys`.
fn open_with(
    store: Arc<dyn KeyStore>,
    keys: Arc<MemoryKeyStore>,
    results: Arc<MemoryResults<Val>>,
    ids: Arc<AtomicUsize>,
) -> World {
    let (log, shown) = (Arc::new(Log::default()), Arc::new(Log::default()));
    let cache = CacheManager::new("local", store, Arc::clone(&results) as _);
    let ops = Arc::new(Ops {
        log: Arc::clone(&log),
        ids: Arc::clone(&ids),
    });
    let observer = Shown {
        log: Arc::clone(&shown),
        held_up: None,
    };
    World {
        solver: Solver::new(ops, cache, Arc::new(observer)),
        keys,
        results,
        log,
        shown,
        ids,
    }
}

/// A solver of the same world that is watched in another way.
fn solver_of(world: &World, observer: Shown) -> Solver<Test> {
    let (keys, results) = (Arc::clone(&world.keys), Arc::clone(&world.results));
    let ops = Arc::new(Ops {
        log: Arc::clone(&world.log),
        ids: Arc::clone(&world.ids),
    });
    let cache = CacheManager::new("local", keys as _, results as _);
    Solver::new(ops, cache, Arc::new(observer))
}

impl World {
    fn job(&self, id: &'static str) -> Job<Test> {
        self.solver
            .job(JobOptions {
                id: id.into(),
                session: Some(format!("s-{id}")),
                value: Arc::new(id),
            })
            .unwrap()
    }

    /// Builds in a job of its own and returns the content and what ran.
    async fn run(&self, edge: &Edge) -> (Result<String, SolveError>, String) {
        let job = self.job("one");
        let built = job.build(edge.clone()).await;
        drop(job);
        (built.map(|b| b.result.1.clone()), self.log.take())
    }
}

fn vertex(fake: Fake, inputs: &[&Edge]) -> Edge {
    let mut text = format!(
        "{} {} {} {} {}",
        fake.name, fake.key, fake.content, fake.slow, fake.selector
    );
    for input in inputs {
        text += &format!(" {input:?}");
    }
    let mut vertex = Vertex::new(Digest::sha256(text), fake.name, Arc::new(fake));
    vertex.inputs = inputs
        .iter()
        .map(|e| Edge {
            vertex: Arc::clone(&e.vertex),
            index: e.index,
        })
        .collect();
    Edge {
        vertex: Arc::new(vertex),
        index: 0,
    }
}

fn op(name: &'static str, inputs: &[&Edge]) -> Edge {
    vertex(
        Fake {
            name,
            ..Fake::default()
        },
        inputs,
    )
}

fn ignoring(edge: &Edge) -> Edge {
    let mut vertex = Vertex::clone(&edge.vertex);
    vertex.options.ignore_cache = true;
    Edge {
        vertex: Arc::new(vertex),
        index: edge.index,
    }
}

#[tokio::test]
async fn what_ran_before_does_not_run_again() {
    let base = op("base", &[]);
    let app = op("app", &[&op("dep", &[&base])]);
    let copy = |content| {
        let context = vertex(
            Fake {
                name: "context",
                key: content,
                content: if content == "B" { "files" } else { content },
                ..Fake::default()
            },
            &[],
        );
        vertex(
            Fake {
                name: "copy",
                slow: true,
                ..Fake::default()
            },
            &[&context],
        )
    };
    let select = |from: &'static str, selector| {
        vertex(
            Fake {
                name: "select",
                selector,
                ..Fake::default()
            },
            &[&op(from, &[])],
        )
    };
    let cases: Vec<(&str, Vec<(Edge, &str)>)> = vec![
        (
            "same definition",
            vec![
                (app.clone(), "exec base | exec dep | exec app"),
                (app.clone(), ""),
            ],
        ),
        (
            "a longer one",
            vec![
                (op("dep", &[&base]), "exec base | exec dep"),
                (app.clone(), "exec app"),
                (op("base", &[]), ""),
            ],
        ),
        (
            "other definition, equal content",
            vec![
                (copy("files"), "exec context | exec copy"),
                (copy("B"), "exec context"),
                (copy("B"), ""),
            ],
        ),
        (
            "other content",
            vec![
                (copy("files"), "exec context | exec copy"),
                (copy("C"), "exec context | exec copy"),
                (copy("files"), ""),
            ],
        ),
        (
            "selectors tell parts of one input apart",
            vec![
                (select("a", "x"), "exec a | exec select"),
                (select("a", "y"), "exec select"),
                (select("a", "x"), ""),
            ],
        ),
        (
            "a vertex that ignores the cache runs, and what follows from it",
            vec![
                (app.clone(), "exec base | exec dep | exec app"),
                (ignoring(&app), "exec app"),
                (
                    op("app", &[&ignoring(&op("dep", &[&base]))]),
                    "exec dep | exec app",
                ),
                (app.clone(), ""),
            ],
        ),
        (
            "random keys never match",
            vec![
                (
                    vertex(
                        Fake {
                            name: "r",
                            key: "random:1",
                            ..Fake::default()
                        },
                        &[],
                    ),
                    "exec r",
                ),
                (
                    vertex(
                        Fake {
                            name: "r",
                            key: "random:2",
                            ..Fake::default()
                        },
                        &[],
                    ),
                    "exec r",
                ),
            ],
        ),
    ];
    for (name, builds) in cases {
        let world = world();
        for (edge, want) in builds {
            let (built, ran) = world.run(&edge).await;
            built.unwrap();
            assert_eq!(ran, want, "{name}");
        }
    }
}

#[tokio::test]
async fn a_load_that_fails_and_a_result_that_is_gone_are_computed_again() {
    let world = world();
    let app = op("app", &[&op("base", &[])]);
    assert_eq!(world.run(&app).await.1, "exec base | exec app");
    for id in world.results.ids() {
        world.results.remove(&id);
    }
    assert_eq!(world.run(&app).await.1, "exec base | exec app");
    assert_eq!(world.run(&app).await.1, "");
}

#[tokio::test]
async fn keys_and_results_outlive_the_solver_and_keys_without_results_go() {
    let first = world();
    let app = op("app", &[&op("base", &[])]);
    assert_eq!(first.run(&app).await.1, "exec base | exec app");
    let second = open(
        Arc::clone(&first.keys),
        Arc::clone(&first.results),
        Arc::clone(&first.ids),
    );
    assert_eq!(second.run(&app).await.1, "");
    for id in first.results.ids() {
        first.results.remove(&id);
    }
    assert!(!first.keys.keys().unwrap().is_empty());
    open(
        Arc::clone(&first.keys),
        Arc::clone(&first.results),
        Arc::clone(&first.ids),
    );
    assert_eq!(first.keys.keys().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn two_jobs_share_a_run_and_the_last_one_leaving_drops_it() {
    let world = world();
    let gate = Arc::new(Semaphore::new(0));
    let slow = vertex(
        Fake {
            name: "slow",
            gate: Some(Arc::clone(&gate)),
            ..Fake::default()
        },
        &[],
    );
    let (a, b) = (world.job("a"), world.job("b"));
    {
        let (mut first, mut second) = (
            Box::pin(a.build(slow.clone())),
            Box::pin(b.build(slow.clone())),
        );
        for _ in 0..3 {
            assert!(
                tokio::time::timeout(Duration::from_millis(5), async {
                    tokio::select! { biased; _ = &mut first => (), _ = &mut second => () }
                })
                .await
                .is_err()
            );
        }
        drop(first);
        gate.add_permits(1);
        assert_eq!(second.await.unwrap().result.1, "slow()");
        assert_eq!(world.log.take(), "exec slow | sessions s-a,s-b");
    }
    drop((a, b));

    let other = vertex(
        Fake {
            name: "other",
            gate: Some(Arc::clone(&gate)),
            ..Fake::default()
        },
        &[],
    );
    let job = world.job("a");
    assert!(
        tokio::time::timeout(Duration::from_millis(20), job.build(other.clone()))
            .await
            .is_err()
    );
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(world.log.take(), "exec other | drop other");
    gate.add_permits(1);
    assert_eq!(job.build(other).await.unwrap().result.1, "other()");
}

#[tokio::test]
async fn equal_keys_of_different_vertices_are_one_run() {
    let world = world();
    let gate = Arc::new(Semaphore::new(1));
    let context = |name| {
        vertex(
            Fake {
                name,
                key: "same context",
                content: "files",
                gate: Some(Arc::clone(&gate)),
                ..Fake::default()
            },
            &[],
        )
    };
    let (a, b) = (
        op("app", &[&context("session one")]),
        op("app", &[&context("session two")]),
    );
    let (one, two) = (world.job("a"), world.job("b"));
    let (x, y) = tokio::join!(one.build(a), two.build(b));
    assert_eq!(
        (x.unwrap().result.0, y.unwrap().result.1.as_str()),
        (1, "app(files)")
    );
    let ran = world.log.take();
    assert_eq!(ran.matches("exec").count(), 2, "{ran}");
}

#[tokio::test]
async fn an_error_names_its_vertex_and_is_forgotten_with_the_job() {
    let world = world();
    let fails = Arc::new(AtomicUsize::new(1));
    let bad = vertex(
        Fake {
            name: "bad",
            fails: Some(fails),
            ..Fake::default()
        },
        &[&op("base", &[])],
    );
    let top = op("top", &[&bad]);
    let (built, ran) = world.run(&top).await;
    let error = built.unwrap_err();
    assert_eq!(error.to_string(), "exit code: 1");
    assert!(
        matches!(&error, SolveError::Op { vertex, phase: Phase::Exec, .. } if *vertex == bad.vertex.digest)
    );
    assert_eq!(ran, "exec base | exec bad");
    assert!(
        world
            .shown
            .take()
            .contains("bad started | bad completed: exit code: 1")
    );
    let (built, ran) = world.run(&top).await;
    assert_eq!(
        (built.unwrap().as_str(), ran.as_str()),
        ("top(bad(base()))", "exec bad | exec top")
    );
}

#[tokio::test]
async fn errors_of_content_keys_and_panics_are_errors_of_the_build() {
    let world = world();
    let context = vertex(
        Fake {
            name: "context",
            content: "unreadable",
            ..Fake::default()
        },
        &[],
    );
    let copy = vertex(
        Fake {
            name: "copy",
            slow: true,
            ..Fake::default()
        },
        &[&context],
    );
    assert_eq!(
        world.run(&copy).await.0.unwrap_err().to_string(),
        "failed to compute cache key: \"/x\": not found"
    );
    let panics = vertex(
        Fake {
            name: "panics",
            panics: true,
            ..Fake::default()
        },
        &[],
    );
    assert_eq!(
        world.run(&panics).await.0.unwrap_err().to_string(),
        "panic in `panics`: the op panicked"
    );
}

#[tokio::test]
async fn vertices_are_shown_as_they_are_worked_on() {
    let world = world();
    let app = op("app", &[&op("base", &[])]);
    world.run(&app).await.0.unwrap();
    assert_eq!(
        world.shown.take(),
        "base to one | app to one | base started | base completed | base started | base completed | app started | app completed"
    );
    world.run(&app).await.0.unwrap();
    assert_eq!(
        world.shown.take(),
        "base to one | app to one | base started | base completed | app started cached | app completed cached"
    );
}

#[tokio::test]
async fn an_op_builds_as_a_part_of_its_vertex() {
    let world = world();
    let inner = op("inner", &[&op("base", &[])]);
    let outer = vertex(
        Fake {
            name: "outer",
            builds: Some(inner),
            ..Fake::default()
        },
        &[],
    );
    let (built, ran) = world.run(&outer).await;
    assert_eq!(
        (built.unwrap().as_str(), ran.as_str()),
        ("outer()", "exec outer | exec base | exec inner")
    );
    assert!(world.shown.take().contains("inner to one"));
}

#[tokio::test]
async fn hints_of_cache_maps_are_found_from_above() {
    let world = world();
    let top = vertex(
        Fake {
            name: "top",
            needs_hint: true,
            ..Fake::default()
        },
        &[&op("mid", &[&op("base", &[])])],
    );
    assert_eq!(
        world.run(&top).await.1,
        "exec base | exec mid | exec top | hint of base"
    );
}

#[tokio::test]
async fn a_remote_cache_is_loaded_and_kept() {
    let (remote, local) = (world(), world());
    local.ids.store(1000, Ordering::SeqCst);
    let app = op("app", &[&op("base", &[])]);
    remote.run(&app).await.0.unwrap();
    let source = CacheManager::new(
        "remote",
        Arc::clone(&remote.keys) as _,
        Arc::clone(&remote.results) as _,
    );
    let job = local.job("a");
    let built = job.build_from(app.clone(), &[source]).await.unwrap();
    assert_eq!(
        (built.result.1.as_str(), local.log.take().as_str()),
        ("app(base())", "")
    );
    drop(job);
    assert_eq!(local.run(&app).await.1, "");
}

#[tokio::test]
async fn the_chain_of_a_result_can_be_exported() {
    let world = world();
    let job = world.job("a");
    let built = job
        .build(op("app", &[&op("dep", &[&op("base", &[])])]))
        .await
        .unwrap();
    let chains = export::export(
        &built.keys,
        export::Options {
            mode: Mode::Max,
            roots: false,
            ignore_backlinks: true,
        },
    )
    .unwrap();
    let shape: Vec<_> = chains
        .records
        .iter()
        .map(|r| {
            (
                r.inputs
                    .clone()
                    .concat()
                    .iter()
                    .map(|l| l.record)
                    .collect::<BTreeSet<_>>(),
                r.results.len(),
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            (BTreeSet::new(), 0),
            (BTreeSet::from([0]), 1),
            (BTreeSet::from([1]), 1)
        ]
    );
    assert_eq!(
        chains.records[2].digest,
        solver::root_key(&Digest::sha256("app"), 0)
    );
    assert_eq!(chains.tops, [2]);
    assert_eq!(job.ops(&built.vertex).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_chains_cost_little_and_overflow_nothing() {
    let world = world();
    let mut edge = op("base", &[]);
    for _ in 0..2000 {
        edge = op("step", &[&edge]);
    }
    let started = Instant::now();
    let (built, _) = world.run(&edge).await;
    built.unwrap();
    let cold = started.elapsed();
    let started = Instant::now();
    assert_eq!(world.run(&edge).await.1, "");
    let warm = started.elapsed();
    let job = world.job("export");
    let built = job.build(edge).await.unwrap();
    let chains = export::export(
        &built.keys,
        export::Options {
            mode: Mode::Max,
            roots: true,
            ignore_backlinks: false,
        },
    );
    assert!(chains.unwrap().records.len() > 2000);

    assert!(
        cold < Duration::from_secs(10) && warm < Duration::from_secs(10),
        "cold {cold:?}, all known {warm:?}"
    );
}
