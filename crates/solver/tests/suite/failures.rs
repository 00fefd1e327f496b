//! Failing key stores and result storages, malformed cache maps, and names of jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::Mutex;
use solver::{
    CacheManager, JobOptions, KeyLink, KeyStore, KeyStoreError, MemoryKeyStore, Phase,
    ResultStorage, Solver, StoredResult,
};
use tokio::sync::Semaphore;

use crate::world::*;

/// A key store in which one kind of call fails or panics.
#[derive(Debug, Default)]
struct BadKeys {
    keys: MemoryKeyStore,
    fails: Mutex<Option<(&'static str, bool)>>,
}

impl BadKeys {
    fn check(&self, question: &str) -> Result<(), KeyStoreError> {
        match *self.fails.lock() {
            Some((fails, panics)) if fails == question => {
                assert!(!panics, "the key store panicked");
                Err(KeyStoreError::new("database disk image is malformed"))
            }
            _ => Ok(()),
        }
    }
}

impl KeyStore for BadKeys {
    fn exists(&self, key: &str) -> Result<bool, KeyStoreError> {
        self.check("exists")?;
        self.keys.exists(key)
    }
    fn keys(&self) -> Result<Vec<String>, KeyStoreError> {
        self.keys.keys()
    }
    fn results(&self, key: &str) -> Result<Vec<StoredResult>, KeyStoreError> {
        self.check("results")?;
        self.keys.results(key)
    }
    fn load(&self, key: &str, result: &str) -> Result<Option<StoredResult>, KeyStoreError> {
        self.check("load")?;
        self.keys.load(key, result)
    }
    fn add_result(&self, key: &str, result: &StoredResult) -> Result<(), KeyStoreError> {
        self.check("add_result")?;
        self.keys.add_result(key, result)
    }
    fn release(&self, result: &str) -> Result<(), KeyStoreError> {
        self.keys.release(result)
    }
    fn keys_of_result(&self, result: &str) -> Result<Vec<String>, KeyStoreError> {
        self.keys.keys_of_result(result)
    }
    fn add_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<(), KeyStoreError> {
        self.keys.add_link(key, link, target)
    }
    fn links(&self, key: &str, link: &KeyLink) -> Result<Vec<String>, KeyStoreError> {
        self.check("links")?;
        self.keys.links(key, link)
    }
    fn has_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<bool, KeyStoreError> {
        self.keys.has_link(key, link, target)
    }
    fn backlinks(&self, key: &str) -> Result<Vec<(String, KeyLink)>, KeyStoreError> {
        self.keys.backlinks(key)
    }
}

fn app() -> Edge {
    op("app", &[&op("base", &[])])
}

#[tokio::test]
async fn a_failing_key_store_fails_the_build_and_the_next_build_succeeds() {
    let query = "error on cache query: ";
    let malformed = "database disk image is malformed";
    let panicked = "the key store panicked";
    // The failing call, whether the result is stored before, and the outcome of the build: an error, or that the op runs again.
    for (question, panics, is_known, error) in [
        ("exists", false, false, Some(malformed)),
        ("exists", true, false, Some(panicked)),
        ("links", false, false, Some(malformed)),
        ("links", true, true, Some(panicked)),
        ("results", false, true, Some(malformed)),
        ("results", true, true, Some(panicked)),
        ("add_result", false, false, Some(malformed)),
        // A result that cannot be loaded is computed.
        ("load", false, true, None),
    ] {
        let keys = Arc::new(BadKeys::default());
        let plain = world();
        let (results, ids) = (Arc::clone(&plain.results), Arc::clone(&plain.ids));
        let world = open_with(Arc::clone(&keys) as _, plain.keys, results, ids);
        if is_known {
            world.run(&app()).await.0.unwrap();
        }
        *keys.fails.lock() = Some((question, panics));
        let (built, ran) = world.run(&app()).await;
        match error {
            Some(reason) => {
                let error = built.unwrap_err();
                assert_eq!(error.to_string(), format!("{query}{reason}"), "{question}");
                assert!(error.vertex().is_none(), "{question}");
            }
            None => {
                built.unwrap();
                assert!(ran.contains("exec app"), "{question}: {ran}");
            }
        }
        *keys.fails.lock() = None;
        let (built, _) = world.run(&app()).await;
        assert_eq!(built.unwrap(), "app(base())", "{question}");
    }
}

/// Results of which some cannot be loaded although they exist, and whose loads can be blocked.
struct BadResults {
    inner: Arc<solver::MemoryResults<Val>>,
    bad: Mutex<Vec<String>>,
    loads: Mutex<Vec<String>>,
    gate: Option<Arc<Semaphore>>,
}

#[async_trait]
impl ResultStorage<Test> for BadResults {
    fn exists(&self, id: &str) -> bool {
        ResultStorage::<Test>::exists(&*self.inner, id)
    }
    fn save(&self, result: &Val, created_at: SystemTime) -> Result<StoredResult, KeyStoreError> {
        ResultStorage::<Test>::save(&*self.inner, result, created_at)
    }
    async fn load(&self, result: &StoredResult, ctx: &OpCtx) -> Result<Val, KeyStoreError> {
        self.loads.lock().push(result.id.clone());
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.bad.lock().contains(&result.id) {
            return Err(KeyStoreError::new("the layer is gone"));
        }
        self.inner.load(result, ctx).await
    }
}

/// A solver over the keys of `world` and these results.
fn solver_over(world: &World, results: &Arc<BadResults>) -> Solver<Test> {
    let cache = CacheManager::new(
        "local",
        Arc::clone(&world.keys) as _,
        Arc::clone(results) as _,
    );
    let (log, ids) = (Arc::clone(&world.log), Arc::clone(&world.ids));
    let shown = Shown {
        log: Arc::clone(&world.shown),
        held_up: None,
    };
    Solver::new(Arc::new(Ops { log, ids }), cache, Arc::new(shown))
}

fn options(id: &'static str) -> JobOptions<Test> {
    JobOptions {
        id: id.into(),
        session: None,
        value: Arc::new(id),
    }
}

#[tokio::test]
async fn records_are_tried_from_the_newest_on_until_one_can_be_loaded() {
    let world = world();
    // Three results of one step: it runs again each time.
    for _ in 0..3 {
        world.run(&ignoring(&op("step", &[]))).await.0.unwrap();
    }
    for (bad, tried, ran) in [
        (&[][..], 1, ""),
        (&["2"], 2, ""),
        (&["2", "1"], 3, ""),
        (&["2", "1", "0"], 3, "exec step"),
    ] {
        let results = Arc::new(BadResults {
            inner: Arc::clone(&world.results),
            bad: Mutex::new(bad.iter().map(|id| (*id).to_owned()).collect()),
            loads: Mutex::default(),
            gate: None,
        });
        let solver = solver_over(&world, &results);
        let job = solver.job(options("a")).unwrap();
        job.build(op("step", &[])).await.unwrap();
        let loads = results.loads.lock().clone();
        assert_eq!(loads.len(), tried, "{bad:?}: {loads:?}");
        assert_eq!(loads[..bad.len().min(3)], bad[..], "{loads:?}");
        assert_eq!(world.log.take(), ran, "{bad:?}");
    }
}

#[tokio::test]
async fn a_load_without_waiting_builds_is_dropped_and_shown_as_canceled() {
    let world = world();
    world.run(&app()).await.0.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let results = Arc::new(BadResults {
        inner: Arc::clone(&world.results),
        bad: Mutex::default(),
        loads: Mutex::default(),
        gate: Some(Arc::clone(&gate)),
    });
    let solver = solver_over(&world, &results);
    let job = solver.job(options("a")).unwrap();
    {
        let mut build = Box::pin(job.build(app()));
        tokio::select! {
            biased;
            _ = &mut build => panic!("the load waits"),
            () = async {
                while results.loads.lock().is_empty() {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
    }
    while !world.shown.has("app completed: context canceled") {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    assert_eq!(job.build(app()).await.unwrap().result.1, "app(base())");
    assert_eq!(results.loads.lock().len(), 2);
}

#[tokio::test]
async fn an_output_that_the_op_does_not_have_is_an_error_that_names_the_vertex() {
    let world = world();
    let mut edge = op("one", &[]);
    edge.index = 5;
    let error = world.run(&edge).await.0.unwrap_err();
    let sentence = "invalid response from exec need 5 index but 1 results received";
    assert_eq!(error.to_string(), sentence);
    assert_eq!(error.vertex(), Some(&edge.vertex.digest));
}

#[tokio::test]
async fn an_error_before_an_op_runs_has_its_phase() {
    let world = world();
    for (name, key, phase, sentence) in [
        ("unresolvable", "", Phase::Resolve, "no such op"),
        (
            "named",
            "fails",
            Phase::CacheMap,
            "failed to load cache key: no key",
        ),
    ] {
        let fake = Fake {
            name,
            key,
            ..Fake::default()
        };
        let bad = vertex(fake, &[]);
        let top = op("top", &[&bad]);
        let error = world.run(&top).await.0.unwrap_err();
        assert_eq!(error.to_string(), sentence);
        let SolveError::Op {
            vertex,
            phase: actual_phase,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((vertex, *actual_phase), (&bad.vertex.digest, phase));
    }
    let fake = Fake {
        name: "named",
        key: "one input",
        ..Fake::default()
    };
    let error = world.run(&vertex(fake, &[])).await.0.unwrap_err();
    let sentence = "invalid cache map: expected dependency count 0, got 1";
    assert_eq!(error.to_string(), sentence);
}

#[tokio::test]
async fn a_failing_input_ends_the_build_and_drops_what_runs_beside_it() {
    let world = world();
    let gate = Arc::new(Semaphore::new(0));
    // The failing op fails while the other runs: threads decide which of the two starts first.
    let may_fail = Arc::new(Semaphore::new(0));
    let slow = vertex(
        Fake {
            name: "slow",
            gate: Some(gate),
            ..Fake::default()
        },
        &[],
    );
    let bad = vertex(
        Fake {
            name: "bad",
            fails: Some(Arc::new(AtomicUsize::new(1))),
            gate: Some(Arc::clone(&may_fail)),
            ..Fake::default()
        },
        &[],
    );
    let job = world.job("j");
    let mut build = Box::pin(job.build(op("top", &[&slow, &bad])));
    while !world.log.has("exec slow") {
        assert!(futures::poll!(&mut build).is_pending());
        tokio::task::yield_now().await;
    }
    may_fail.add_permits(1);
    let built = build.await;
    assert_eq!(built.unwrap_err().to_string(), "exit code: 1");
    while !world.shown.has("slow completed: context canceled") {
        tokio::task::yield_now().await;
    }
    assert!(!world.shown.has("top started"));
}

#[tokio::test]
async fn a_name_belongs_to_one_job_at_a_time() {
    let world = world();
    let job = world.solver.job(options("name")).unwrap();
    let again = world.solver.job(options("name"));
    assert_eq!(again.unwrap_err().to_string(), "job ID name exists");
    let second_job = world.solver.clone().job(options("second_job"));
    assert!(second_job.is_ok(), "and a clone is the same solver");
    drop(job);
    assert!(world.solver.job(options("name")).is_ok());
}

#[tokio::test]
async fn a_vertex_joins_one_that_ignores_the_cache_but_not_the_other_way() {
    let world = world();
    let app = app();
    world.run(&app).await.0.unwrap();
    let (first, second) = (world.job("first"), world.job("second"));
    let fresh = first.build(ignoring(&app)).await.unwrap();
    assert_eq!(world.log.take(), "exec app");
    let joined = second.build(app.clone()).await.unwrap();
    assert_eq!(world.log.take(), "");
    assert_eq!(joined.result.0, fresh.result.0, "it has what was made anew");
    drop((first, second));
    let (first, second) = (world.job("first"), world.job("second"));
    first.build(app.clone()).await.unwrap();
    assert_eq!(world.log.take(), "");
    second.build(ignoring(&app)).await.unwrap();
    assert_eq!(world.log.take(), "exec app");
    // A third vertex that ignores the cache joins it too.
    let third = world.job("third");
    third.build(ignoring(&app)).await.unwrap();
    assert_eq!(world.log.take(), "");
}

#[tokio::test]
async fn a_job_that_builds_an_edge_twice_runs_it_once_and_is_attached_once() {
    let world = world();
    let job = world.job("a");
    let random = vertex(
        Fake {
            name: "random",
            key: "random:1",
            ..Fake::default()
        },
        &[],
    );
    let (first, second) = tokio::join!(job.build(random.clone()), job.build(random.clone()));
    let three = job.build(random).await.unwrap();
    assert_eq!(first.unwrap().result.0, three.result.0);
    assert_eq!(second.unwrap().result.0, three.result.0);
    assert_eq!(world.log.take(), "exec random");
    assert_eq!(world.shown.take().matches("random to a").count(), 1);
    assert_eq!(world.ids.load(Ordering::SeqCst), 1);
    assert!(job.ctx(&three.vertex).is_some());
    let stranger = op("stranger", &[]);
    assert!(job.ctx(&stranger.vertex).is_none() && job.ops(&stranger.vertex).is_empty());
}
