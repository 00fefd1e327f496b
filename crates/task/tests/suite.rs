//! Tasks, permits, flights and clocks as their users meet them.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use task::{Clock, Flight, Permits, Pool};
use tokio::sync::oneshot;

/// Lets all tasks go as far as they come without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn panic_of(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().unwrap()
}

#[tokio::test]
async fn a_panic_of_any_work_is_raised_in_whoever_awaits_it_and_nowhere_else() {
    let works: Vec<(&str, futures::future::BoxFuture<'static, ()>)> = vec![
        (
            "task",
            task::spawn("panics", async { panic!("task") }).boxed(),
        ),
        (
            "blocking",
            task::blocking("panics", || panic!("blocking")).boxed(),
        ),
        (
            "thread",
            task::thread("panics", || panic!("thread")).unwrap().boxed(),
        ),
        (
            "commit",
            task::uncancellable("panics", async { panic!("commit") }).boxed(),
        ),
        (
            "pool",
            async { Pool::new("panics", 1).run(|| panic!("pool")).await }.boxed(),
        ),
    ];
    for (text, work) in works {
        let panic = AssertUnwindSafe(work).catch_unwind().await.unwrap_err();
        assert_eq!(panic_of(&*panic), text);
    }
}

#[tokio::test]
async fn a_place_in_a_pool_is_given_back_by_work_that_panics() {
    let pool = Pool::new("one at a time", 1);
    let failed = AssertUnwindSafe(pool.run(|| panic!("on purpose")));
    assert!(failed.catch_unwind().await.is_err());
    assert_eq!(pool.run(|| 7).await, 7);
}

#[tokio::test]
async fn a_pool_runs_no_more_than_its_limit_at_a_time() {
    let pool = Pool::new("two at a time", 2);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let works = (0..12).map(|n| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        pool.run(move || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
            n
        })
    });
    let outputs = futures::future::join_all(works).await;
    assert_eq!(outputs, (0..12).collect::<Vec<_>>());
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn permits_are_given_in_the_order_of_asking_and_come_back_on_drop() {
    let permits = Permits::new(2);
    let first = permits.acquire().await;
    let both = permits.acquire_many(2);
    let mut both = Box::pin(both);
    assert!((&mut both).now_or_never().is_none());
    // One is free, but somebody asked for two before.
    assert!(permits.try_acquire().is_none());
    let mut later = Box::pin(permits.acquire());
    assert!((&mut later).now_or_never().is_none());
    drop(first);
    let both = both.now_or_never().unwrap();
    assert!((&mut later).now_or_never().is_none());
    assert_eq!(permits.available(), 0);
    drop(both);
    let later = later.now_or_never().unwrap();
    assert_eq!(permits.available(), 1);
    drop(later);
    assert_eq!(permits.available(), 2);
}

#[tokio::test]
async fn who_stops_waiting_for_a_permit_takes_none() {
    let permits = Permits::new(1);
    let held = permits.acquire().await;
    {
        let mut waiting = Box::pin(permits.acquire());
        assert!((&mut waiting).now_or_never().is_none());
    }
    drop(held);
    assert_eq!(permits.available(), 1);
}

#[tokio::test]
async fn a_bound_of_none_is_a_bound_of_one() {
    let permits = Permits::new(0);
    assert_eq!(permits.available(), 1);
    assert!(Permits::unlimited().available() > 1 << 30);
    assert_eq!(Pool::new("none", 0).run(|| 7).await, 7);
}

#[tokio::test]
async fn an_aborted_task_gives_nothing_and_an_ended_one_says_so() {
    let task = task::spawn("forever", std::future::pending::<()>());
    assert!(!task.is_finished());
    task.abort();
    settle().await;
    assert!(task.is_finished());
    let mut task = task;
    assert!((&mut task).now_or_never().is_none());
    let ended = task::spawn("seven", async { 7 });
    settle().await;
    assert!(ended.is_finished());
    assert_eq!(ended.await, 7);
}

#[tokio::test]
async fn work_that_must_end_does_so_though_its_caller_left_and_panicked_before() {
    let (go, gone) = oneshot::channel::<()>();
    let (done, ended) = oneshot::channel::<u32>();
    {
        let commit = task::uncancellable("commit", async move {
            gone.await.unwrap();
            done.send(7).unwrap();
        });
        let mut commit = Box::pin(commit);
        assert!((&mut commit).now_or_never().is_none());
    }
    go.send(()).unwrap();
    assert_eq!(ended.await.unwrap(), 7);
}

#[tokio::test]
async fn a_flight_starts_anew_after_a_run_has_ended_and_keys_do_not_meet() {
    let flight = Flight::<&str, usize>::default();
    let runs = Arc::new(AtomicUsize::new(0));
    let start = || {
        let runs = Arc::clone(&runs);
        move || async move { runs.fetch_add(1, Ordering::SeqCst) + 1 }
    };
    assert_eq!(flight.run("a", start()).await, 1);
    assert_eq!(flight.run("a", start()).await, 2);
    let (a, b) = tokio::join!(flight.run("a", start()), flight.run("b", start()));
    assert_eq!(a + b, 3 + 4);
}

#[tokio::test]
async fn a_flight_whose_run_panics_tells_all_waiters_and_can_run_again() {
    let flight = Arc::new(Flight::<u8, ()>::new());
    let (go, gone) = oneshot::channel::<()>();
    let first = {
        let flight = Arc::clone(&flight);
        task::spawn("first", async move {
            let run = flight.run(1, || async move {
                gone.await.unwrap();
                panic!("on purpose");
            });
            AssertUnwindSafe(run).catch_unwind().await.is_err()
        })
    };
    settle().await;
    go.send(()).unwrap();
    assert!(first.await, "the waiter is told");
    flight.run(1, || async {}).await;
}

#[tokio::test]
async fn a_paused_clock_moves_only_by_hand_and_wakes_who_is_due() {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let clock = Clock::paused(start);
    let origin = clock.now();
    let woken = Arc::new(AtomicUsize::new(0));
    let sleepers: Vec<_> = [1, 2, 3]
        .map(|seconds| {
            let (clock, woken) = (clock.clone(), Arc::clone(&woken));
            task::spawn("sleeper", async move {
                clock.sleep(Duration::from_secs(seconds)).await;
                woken.fetch_add(1, Ordering::SeqCst);
            })
        })
        .into_iter()
        .collect();
    for (advance, awake) in [(0, 0), (999, 0), (1, 1), (500, 1), (500, 2), (5_000, 3)] {
        settle().await;
        clock.advance(Duration::from_millis(advance));
        settle().await;
        assert_eq!(woken.load(Ordering::SeqCst), awake);
    }
    assert_eq!(clock.system(), start + Duration::from_secs(7));
    assert_eq!(clock.now() - origin, Duration::from_secs(7));
    drop(sleepers);
    // A sleep of no time ends at once.
    assert!(clock.sleep(Duration::ZERO).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_real_clock_sleeps_with_the_runtime_and_cannot_be_moved() {
    let clock = Clock::real();
    let begun = tokio::time::Instant::now();
    clock.advance(Duration::from_secs(60));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
}
