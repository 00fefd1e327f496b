//! Signals, received on a thread of their own whatever the other threads do.
//!
//! SIGHUP has the configuration read again, of which the level of the log takes effect. The first SIGTERM or SIGINT asks the daemon to stop, which it does in order. A second one ends the process at once, and so does
//! stopping for longer than builds have to end and [`STOP_TIMEOUT`] together: what was committed is not lost by that. The same thread
//! reports a task that holds a thread of the runtime.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

// DIFFERS: BuildKit's daemon takes a second signal like the first.
/// How long stopping in order may take, beside the time that builds have to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the threads of the runtime are checked for one that is held.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A thread that is held for longer is reported in the log.
const MAX_HELD: Duration = Duration::from_secs(2);

/// Receives signals from now on. The returned future resolves at the first one that asks to stop. `reread` is called at every SIGHUP until then.
/// Builds have `drain` to end when the daemon stops.
pub fn listen(
    drain: Duration,
    reread: impl Fn() + Send + 'static,
) -> io::Result<impl Future<Output = ()> + Send> {
    let (stop, stop_requested) = oneshot::channel();
    let (set_up, is_set_up) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(set_up.send(Err(error))),
            };
            runtime.block_on(async move {
                let signals = (|| {
                    Ok((
                        signal(SignalKind::terminate())?,
                        signal(SignalKind::interrupt())?,
                        signal(SignalKind::hangup())?,
                    ))
                })();
                let (mut term, mut int, mut hangup) = match signals {
                    Ok(signals) => signals,
                    Err(error) => return drop(set_up.send(Err(error))),
                };
                drop(set_up.send(Ok(())));
                tokio::select! {
                    () = stop_signal(&mut term, &mut int) => {}
                    () = watch_threads() => {}
                    () = reread_at_hangups(&mut hangup, &reread) => {}
                }
                if stop.send(()).is_err() {
                    // The daemon has ended already.
                    return;
                }
                tokio::select! {
                    () = stop_signal(&mut term, &mut int) => {
                        tracing::warn!("asked to stop a second time");
                    }
                    () = task::clock::sleep(STOP_TIMEOUT.saturating_add(drain)) => {
                        tracing::error!("stopping takes too long");
                    }
                }
                warn_of_held_threads(Duration::ZERO);
                sys::process::exit_now(1);
            });
        })?;
    let failed = |_| io::Error::other("the thread for signals is gone");
    is_set_up.recv().map_err(failed)??;
    Ok(async move {
        // The thread of signals has ended without a signal, so none will come.
        if stop_requested.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

async fn stop_signal(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

// DIFFERS: BuildKit's daemon ends at SIGHUP.
/// Calls `reread` at every SIGHUP, for ever.
async fn reread_at_hangups(hangup: &mut Signal, reread: &impl Fn()) {
    while hangup.recv().await.is_some() {
        reread();
    }
    std::future::pending().await
}

/// Looks once a second whether a thread of the runtime is held, for ever.
async fn watch_threads() {
    loop {
        task::clock::sleep(CHECK_INTERVAL).await;
        warn_of_held_threads(MAX_HELD);
    }
}

fn warn_of_held_threads(limit: Duration) {
    for thread in task::watch::holding(limit) {
        let ms = u64::try_from(thread.took.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(task = thread.name, ms, "a thread of the runtime is held");
    }
}

/// Waits for work, but not for longer than `limit` by a clock that does not depend on the threads of the runtime; false if it did not
/// end in time.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let until = task::clock::monotonic() + limit;
    let clock = task::thread("deadline", move || {
        task::clock::sleep_thread(until.saturating_duration_since(task::clock::monotonic()));
    });
    let clock = async {
        match clock {
            Ok(clock) => clock.await,
            // If no thread can be started, the runtime's clock is used.
            Err(_) => task::clock::sleep(limit).await,
        }
    };
    tokio::select! {
        output = work => Some(output),
        () = clock => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_signal_is_heard_and_a_deadline_is_kept_while_all_threads_of_the_runtime_are_held() {
        let (again, is_read_again) = std::sync::mpsc::channel();
        let stop = listen(Duration::ZERO, move || again.send(()).unwrap()).unwrap();
        let send = |signal| {
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        };
        send(rustix::process::Signal::HUP);
        is_read_again.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let wedged = Arc::new(AtomicBool::new(true));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let holds = Arc::clone(&wedged);
        runtime.block_on(async {
            let wedge = task::spawn("wedge", async move {
                begun.send(()).unwrap();
                while holds.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            has_begun.recv().unwrap();
            send(rustix::process::Signal::TERM);
            stop.await;
            let never = std::future::pending::<()>();
            assert!(within(Duration::from_millis(1), never).await.is_none());
            let names: Vec<_> = task::watch::holding(Duration::ZERO)
                .iter()
                .map(|wedge| wedge.name)
                .collect();
            assert!(names.contains(&"wedge"), "{names:?}");
            wedged.store(false, Ordering::Relaxed);
            wedge.await;
        });
    }
}
