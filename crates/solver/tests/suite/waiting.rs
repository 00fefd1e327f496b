//! Who waits for a key store or for a job that is told much: nobody else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use solver::{KeyStore, KeyStoreError, Link, MemoryKeyStore, StoredResult};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::world::*;

/// A key store that takes a second of the paused clock for each question of a look-up.
#[derive(Debug)]
struct SlowKeys {
    keys: Arc<MemoryKeyStore>,
    runtime: Handle,
    /// From when on; it is quick while a manager looks through all of it at its start.
    is_slow: AtomicBool,
    /// How many questions are being answered now, and how many were.
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
    fn add_link(&self, key: &str, link: &Link, target: &str) -> Result<(), KeyStoreError> {
        self.keys.add_link(key, link, target)
    }
    fn links(&self, key: &str, link: &Link) -> Result<Vec<String>, KeyStoreError> {
        self.wait();
        self.keys.links(key, link)
    }
    fn has_link(&self, key: &str, link: &Link, target: &str) -> Result<bool, KeyStoreError> {
        self.keys.has_link(key, link, target)
    }
    fn backlinks(&self, key: &str) -> Result<Vec<(String, Link)>, KeyStoreError> {
        self.keys.backlinks(key)
    }
}

/// A world whose key store knows what `known` has built, and is slow.
fn slow_world(known: &World) -> (World, Arc<SlowKeys>) {
    let slow = Arc::new(SlowKeys {
        keys: Arc::clone(&known.keys),
        runtime: Handle::current(),
        is_slow: AtomicBool::new(false),
        asking: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
    });
    let world = open_with(
        Arc::clone(&slow) as _,
        Arc::clone(&known.keys),
        Arc::clone(&known.results),
        Arc::clone(&known.ids),
    );
    slow.is_slow.store(true, Ordering::SeqCst);
    (world, slow)
}

/// Lets others work until `is_true`. The clock stands still.
async fn until(is_true: impl Fn() -> bool) {
    while !is_true() {
        tokio::task::yield_now().await;
    }
}

/// Waits for `build` while the clock goes on: it stands still by itself while a thread waits for it.
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
    let known = world();
    let (chain, other) = (op("app", &[&op("base", &[])]), op("other", &[]));
    known.run(&chain).await.0.unwrap();
    known.run(&other).await.0.unwrap();
    let (world, slow) = slow_world(&known);
    let (first, second, third) = (world.job("first"), world.job("second"), world.job("third"));
    let start = Instant::now();
    {
        let mut cached = Box::pin(first.build(chain.clone()));
        let mut second = Box::pin(second.build(other));
        // Both are in the key store at once: a look-up does not wait for that of another build.
        tokio::select! {
            biased;
            _ = &mut cached => panic!("its look-ups take seconds"),
            _ = &mut second => panic!("its look-up takes a second"),
            () = until(|| slow.asking.load(Ordering::SeqCst) == 2) => {}
        }
        // One that has nothing to look up runs meanwhile, to its end.
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
    // Nothing is left of the build that left while it looked something up.
    let again = while_time_passes(world.run(&chain)).await;
    assert_eq!(again.1, "", "all of it is known");
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_known_steps_asks_the_key_store_as_often_as_it_has_questions() {
    let known = world();
    let mut chain = op("base", &[]);
    for _ in 0..5 {
        chain = op("step", &[&chain]);
    }
    known.run(&chain).await.0.unwrap();
    let (world, slow) = slow_world(&known);
    let (built, ran) = while_time_passes(world.run(&chain)).await;
    built.unwrap();
    assert_eq!(ran, "");
    // For each vertex: which key, and which results it has.
    assert_eq!(slow.answered.load(Ordering::SeqCst), 6 * 2);
}

/// A sink that waits when a job with a name is told what happened.
fn held_up(job: &'static str) -> (Arc<Mutex<Option<HeldUp>>>, mpsc::Sender<()>) {
    let (sender, receiver) = mpsc::channel();
    let held = HeldUp { job, go: receiver };
    (Arc::new(Mutex::new(Some(held))), sender)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_is_told_much_holds_up_no_other_and_gets_its_replies_after_that() {
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
    // Other jobs come, build and go while it is being told.
    for id in ["other", "another"] {
        let job = world.job(id);
        job.build(op("quick", &[])).await.unwrap();
    }
    // Its own build ends; the reply waits.
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
async fn a_late_job_is_told_what_happened_on_a_thread_that_may_wait() {
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
    // This runtime has one thread: it is not the one that waits.
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
