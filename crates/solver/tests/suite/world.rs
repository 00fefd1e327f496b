//! A solver over ops that record their calls: each has a name, a key and a content, and may fail, wait or panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use oci::Digest;
use parking_lot::Mutex;
use solver::{
    CacheManager, CacheMap, CacheMapDep, Domain, Job, JobOptions, KeyStore, MemoryKeyStore,
    MemoryResults, Observer, Op, OpError, Resolver, SlowKey, Solver, SubBuilder, VertexSink,
};
use tokio::sync::Semaphore;

pub(crate) type Val = Arc<(usize, String)>;
pub(crate) type Edge = solver::Edge<Test>;
pub(crate) type Vertex = solver::Vertex<Test>;
pub(crate) type OpCtx = solver::OpCtx<Test>;
pub(crate) type SolveError = solver::SolveError<Test>;

pub(crate) struct Test;

impl Domain for Test {
    type Result = Val;
    type System = Fake;
    type Op = FakeOp;
    type Job = &'static str;
    type Sink = Sink;
    type Hint = String;
}

/// The behaviour of a test's vertex.
#[derive(Default, Clone)]
pub(crate) struct Fake {
    pub(crate) name: &'static str,
    /// Digest of the cache map; the name if empty. `fails` has none, and that of `one input` has an input too many.
    pub(crate) key: &'static str,
    /// Output; name and inputs if empty.
    pub(crate) content: &'static str,
    pub(crate) slow: bool,
    pub(crate) selector: &'static str,
    pub(crate) fails: Option<Arc<AtomicUsize>>,
    pub(crate) panics: bool,
    pub(crate) gate: Option<Arc<Semaphore>>,
    pub(crate) builds: Option<Edge>,
    pub(crate) needs_hint: bool,
}

#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<String>>);

impl Log {
    pub(crate) fn push(&self, line: String) {
        self.0.lock().push(line);
    }
    pub(crate) fn has(&self, line: &str) -> bool {
        self.0.lock().iter().any(|l| l == line)
    }
    pub(crate) fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock()).join(" | ")
    }
}

pub(crate) struct FakeOp {
    fake: Arc<Fake>,
    inputs: usize,
    log: Arc<Log>,
    ids: Arc<AtomicUsize>,
    builder: Arc<dyn SubBuilder<Test>>,
}

pub(crate) struct Content;

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
        if key == "fails" {
            return Err(std::io::Error::other("no key").into());
        }
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
                deps: (0..self.inputs + usize::from(key == "one input"))
                    .map(|_| dep())
                    .collect(),
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

pub(crate) struct Ops {
    pub(crate) log: Arc<Log>,
    pub(crate) ids: Arc<AtomicUsize>,
}

impl Resolver<Test> for Ops {
    fn resolve(
        &self,
        vertex: &Arc<Vertex>,
        builder: Arc<dyn SubBuilder<Test>>,
    ) -> Result<Arc<FakeOp>, OpError> {
        let fake = Arc::clone(&vertex.sys);
        if fake.name == "unresolvable" {
            return Err(std::io::Error::other("no such op").into());
        }
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

pub(crate) struct Shown {
    pub(crate) log: Arc<Log>,
    /// A vertex by name whose sink blocks when a job is attached.
    pub(crate) held_up: Option<(&'static str, Arc<Mutex<Option<HeldUp>>>)>,
}

/// A sink that is blocked until the test releases it.
pub(crate) struct HeldUp {
    pub(crate) job: &'static str,
    pub(crate) go: std::sync::mpsc::Receiver<()>,
}

pub(crate) struct Sink {
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

pub(crate) struct World {
    pub(crate) solver: Solver<Test>,
    pub(crate) keys: Arc<MemoryKeyStore>,
    pub(crate) results: Arc<MemoryResults<Val>>,
    pub(crate) log: Arc<Log>,
    pub(crate) shown: Arc<Log>,
    pub(crate) ids: Arc<AtomicUsize>,
}

pub(crate) fn world() -> World {
    let keys = Arc::new(MemoryKeyStore::new());
    let results = Arc::new(MemoryResults::new(|v: &Val| v.0.to_string()));
    open(keys, results, Arc::default())
}

pub(crate) fn open(
    keys: Arc<MemoryKeyStore>,
    results: Arc<MemoryResults<Val>>,
    ids: Arc<AtomicUsize>,
) -> World {
    open_with(Arc::clone(&keys) as _, keys, results, ids)
}

/// A world with the key store `store`, whose keys are in `keys`.
pub(crate) fn open_with(
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

/// A solver of the same world with another observer.
pub(crate) fn solver_of(world: &World, observer: Shown) -> Solver<Test> {
    let (keys, results) = (Arc::clone(&world.keys), Arc::clone(&world.results));
    let ops = Arc::new(Ops {
        log: Arc::clone(&world.log),
        ids: Arc::clone(&world.ids),
    });
    let cache = CacheManager::new("local", keys as _, results as _);
    Solver::new(ops, cache, Arc::new(observer))
}

impl World {
    pub(crate) fn job(&self, id: &'static str) -> Job<Test> {
        self.solver
            .job(JobOptions {
                id: id.into(),
                session: Some(format!("s-{id}")),
                value: Arc::new(id),
            })
            .unwrap()
    }

    /// Builds in a job of its own; returns the content and which ops ran.
    pub(crate) async fn run(&self, edge: &Edge) -> (Result<String, SolveError>, String) {
        let job = self.job("one");
        let built = job.build(edge.clone()).await;
        drop(job);
        (built.map(|b| b.result.1.clone()), self.log.take())
    }
}

pub(crate) fn vertex(fake: Fake, inputs: &[&Edge]) -> Edge {
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

pub(crate) fn op(name: &'static str, inputs: &[&Edge]) -> Edge {
    vertex(
        Fake {
            name,
            ..Fake::default()
        },
        inputs,
    )
}

pub(crate) fn ignoring(edge: &Edge) -> Edge {
    let mut vertex = Vertex::clone(&edge.vertex);
    vertex.options.ignore_cache = true;
    Edge {
        vertex: Arc::new(vertex),
        index: edge.index,
    }
}
