//! Slow key stores and jobs with much progress to replay hold up no other build.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use solver::{KeyLink, KeyStore, KeyStoreError, MemoryKeyStore, StoredResult};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::world::*;

/// A key store that takes a second of the paused clock for each call of a look-up.
#[derive(Debug)]
struct SlowKeys {
    keys: Arc<MemoryKeyStore>,
    runtime: Handle,
    /// Set after a manager has visited all keys at its start, which is fast.
    is_slow: AtomicBool,
    /// Number of calls in progress, and of finished ones.
    asking: AtomicUsize,
    answered: AtomicUsize,
}

impl SlowKeys {
    fn wait(&self) {
        if !self.is_slow.load(Ordering::SeqCst) {
            return;
        }
        self.asking.fetch_add(1, Ordering::SeqCst);
        self.runtime
            .block_on(task::clock::sleep(Duration::from_secs(1)));
        self.asking.fetch_sub(1, Ordering::SeqCst);
        self.answered.fetch_add(1, Ordering::SeqCst);
    }
}

impl KeyStore for SlowKeys {
    fn exists(&self, key: &str) -> Result<bool, KeyStoreError> {
        self.wait();
        self.keys.exists(key)
    }
    fn keys(&self) -> Result<Vec<String>, KeyStoreError> {
        self.keys.keys()
    }
    fn results(&self, key: &str) -> Result<Vec<StoredResult>, KeyStoreError> {
        self.wait();
        self.keys.results(key)
    }
    fn load(&self, key: &str, result: &str) -> Result<Option<StoredResult>, KeyStoreError> {
        self.keys.load(key, result)
    }
    fn add_result(&self, key: &str, result: &StoredResult) -> Result<(), KeyStoreError> {
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
        self.wait();
        self.keys.links(key, link)
    }
    fn has_link(&self, key: &str, link: &KeyLink, target: &str) -> Result<bool, KeyStoreError> {
        self.keys.has_link(key, link, target)
    }
    fn backlinks(&self, key: &str) -> Result<Vec<(String, KeyLink)>, KeyStoreError> {
        self.keys.backlinks(key)
    }
}

/// A world whose key store has the results that `filled` has built, and is slow.
fn slow_world(filled: &World) -> (World, Arc<SlowKeys>) {
    let slow = Arc::new(SlowKeys {
        keys: Arc::clone(&filled.keys),
        runtime: Handle::current(),
        is_slow: AtomicBool::new(false),
        asking: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
    });
    let world = open_with(
        Arc::clone(&slow) as _,
        Arc::clone(&filled.keys),
        Arc::clone(&filled.results),
        Arc::clone(&filled.ids),
    );
    slow.is_slow.store(true, Ordering::SeqCst);
    (world, slow)
}

/// Lets other tasks run until `is_true`. The clock stands still.
async fn until(is_true: impl Fn() -> bool) {
    while !is_true() {
        tokio::task::yield_now().await;
    }
}

/// Waits for `build` while the clock advances: it stands still by itself while a thread waits for it.
async fn while_time_passes<T>(build: impl Future<Output = T>) -> T {
    let mut build = Box::pin(build);
    loop {
        tokio::select! {
            biased;
            built = &mut build => return built,
            () = tokio::time::advance(Duration::from_millis(100)) => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_store_that_takes_a_second_for_each_look_up_holds_up_no_other_build() {
    let filled = world();
    let (chain, other) = (op("app", &[&op("base", &[])]), op("other", &[]));
    filled.run(&chain).await.0.unwrap();
    filled.run(&other).await.0.unwrap();
    let (world, slow) = slow_world(&filled);
    let (first, second, third) = (world.job("first"), world.job("second"), world.job("third"));
    let start = Instant::now();
    {
        let mut cached = Box::pin(first.build(chain.clone()));
        let mut second = Box::pin(second.build(other));
        // Both are in the key store at the same time: a look-up does not wait for that of another build.
        tokio::select! {
            biased;
            _ = &mut cached => panic!("its look-ups take seconds"),
            _ = &mut second => panic!("its look-up takes a second"),
            () = until(|| slow.asking.load(Ordering::SeqCst) == 2) => {}
        }
        // A build without look-ups runs to its end in the meantime.
        let built = third.build(ignoring(&op("unrelated", &[]))).await.unwrap();
        assert_eq!(built.result.1, "unrelated()");
        assert_eq!(slow.asking.load(Ordering::SeqCst), 2);
        assert_eq!(start.elapsed(), Duration::ZERO);
        // Leaving does not wait for the look-up either.
        drop(second);
        assert_eq!(start.elapsed(), Duration::ZERO);
        let built = while_time_passes(cached).await.unwrap();
        assert_eq!(built.result.1, "app(base())");
    }
    assert_eq!(world.log.take(), "exec unrelated");
    assert!(start.elapsed() >= Duration::from_secs(4), "it did look up");
    drop((first, second, third));
    // Nothing remains of the build that left during its look-up.
    let again = while_time_passes(world.run(&chain)).await;
    assert_eq!(again.1, "", "all of it is known");
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_known_steps_asks_the_key_store_as_often_as_it_has_questions() {
    let filled = world();
    let mut chain = op("base", &[]);
    for _ in 0..5 {
        chain = op("step", &[&chain]);
    }
    filled.run(&chain).await.0.unwrap();
    let (world, slow) = slow_world(&filled);
    let (built, ran) = while_time_passes(world.run(&chain)).await;
    built.unwrap();
    assert_eq!(ran, "");
    // For each vertex: one call for the key and one for its results.
    assert_eq!(slow.answered.load(Ordering::SeqCst), 6 * 2);
}

/// A sink that blocks when it is attached to a job with a name.
fn held_up(job: &'static str) -> (Arc<Mutex<Option<HeldUp>>>, mpsc::Sender<()>) {
    let (sender, receiver) = mpsc::channel();
    let held = HeldUp { job, go: receiver };
    (Arc::new(Mutex::new(Some(held))), sender)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_long_replay_holds_up_no_other_job_and_comes_before_the_job_s_replies() {
    let (held_up, go) = held_up("late");
    let mut world = world();
    let shown = Shown {
        log: Arc::clone(&world.shown),
        held_up: Some(("told", held_up)),
    };
    world.solver = solver_of(&world, shown);
    let gate = Arc::new(Semaphore::new(0));
    let gated = vertex(
        Fake {
            name: "gated",
            gate: Some(Arc::clone(&gate)),
            ..Fake::default()
        },
        &[],
    );
    let told = op("told", &[]);
    let late = Arc::new(world.job("late"));
    let shown = Arc::clone(&world.shown);
    let first = {
        let (late, gated, shown) = (Arc::clone(&late), gated.clone(), Arc::clone(&shown));
        task::spawn("a build of the late job", async move {
            late.build(gated).await.unwrap();
            shown.push("late has its reply".into());
        })
    };
    until(|| world.log.has("exec gated")).await;
    let second = {
        let (late, told) = (Arc::clone(&late), told.clone());
        task::spawn(
            "another one",
            async move { late.build(told).await.unwrap() },
        )
    };
    until(|| world.shown.has("late is being told of told")).await;
    // Other jobs start, build and end during the replay.
    for id in ["other", "another"] {
        let job = world.job(id);
        job.build(op("quick", &[])).await.unwrap();
    }
    // The late job's own build ends; its reply waits.
    let witness = world.job("witness");
    gate.add_permits(1);
    witness.build(gated).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!world.shown.has("late has its reply"));
    go.send(()).unwrap();
    first.await;
    second.await;
    let shown = world.shown.take();
    let (told, replied) = (shown.find("told to late"), shown.find("late has its reply"));
    assert!(told.is_some() && told < replied, "{shown}");
}

#[tokio::test]
async fn a_replay_to_a_late_job_runs_on_a_thread_that_may_block() {
    let (held_up, go) = held_up("late");
    let mut world = world();
    let shown = Shown {
        log: Arc::clone(&world.shown),
        held_up: Some(("told", held_up)),
    };
    world.solver = solver_of(&world, shown);
    let told = op("told", &[]);
    let early = world.job("early");
    early.build(told.clone()).await.unwrap();
    let (late, shown) = (world.job("late"), Arc::clone(&world.shown));
    let build = {
        let (told, shown) = (told.clone(), Arc::clone(&shown));
        task::spawn("the late build", async move {
            let built = late.build(told).await.unwrap();
            shown.push("late has its reply".into());
            drop(late);
            built.result.1.clone()
        })
    };
    // This runtime has one thread, and the replay does not block it.
    until(|| world.shown.has("late is being told of told")).await;
    let other = world.job("other");
    let built = other.build(op("other", &[&told])).await.unwrap();
    assert_eq!(built.result.1, "other(told())");
    assert!(!shown.has("late has its reply"));
    go.send(()).unwrap();
    assert_eq!(build.await, "told()");
    let shown = shown.take();
    let (heard, replied) = (shown.find("told to late"), shown.find("late has its reply"));
    assert!(heard.is_some() && heard < replied, "{shown}");
}
