//! Blocking work and permits.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Blocking work under way; as a future it gives the output. Dropped, work that has not started is forgotten and work
/// that has runs to its end unobserved.
#[must_use = "await it, or the output is lost"]
pub struct Blocking<T> {
    handle: JoinHandle<T>,
}

/// Starts blocking work at once on the runtime's blocking threads. A panic is raised again in whoever awaits.
pub fn blocking<T, F>(name: &'static str, work: F) -> Blocking<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let span = crate::spawn::span_of(tracing::debug_span!("blocking", name));
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts blocking work"
    )]
    let handle = tokio::task::spawn_blocking(move || span.in_scope(work));
    Blocking { handle }
}

impl<T> Future for Blocking<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.handle).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(value)) => Poll::Ready(value),
            Poll::Ready(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is going down: nobody will look at an output.
                Err(_) => Poll::Pending,
            },
        }
    }
}

impl<T> Drop for Blocking<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl<T> fmt::Debug for Blocking<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking")
            .field("finished", &self.handle.is_finished())
            .finish()
    }
}

/// Work on a thread of its own; as a future it gives the output. Dropped, the work runs to its end unobserved.
#[must_use = "await it, or the output is lost"]
pub struct Thread<T> {
    output: tokio::sync::oneshot::Receiver<std::thread::Result<T>>,
}

/// Starts work that somebody outside can hold up, such as a client that does not read, on a thread of its own: the
/// runtime's blocking threads are few, and who holds them all stops everything. The caller bounds how many there are,
/// with [`Permits`]. A panic is raised again in whoever awaits.
pub fn thread<T, F>(name: &'static str, work: F) -> std::io::Result<Thread<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let span = tracing::debug_span!("thread", name);
    let (to, output) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let work = std::panic::AssertUnwindSafe(|| span.in_scope(work));
            // A caller that left does not want the output.
            drop(to.send(std::panic::catch_unwind(work)));
        })?;
    Ok(Thread { output })
}

impl<T> Future for Thread<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.output).poll(cx) {
            Poll::Ready(Ok(Ok(value))) => Poll::Ready(value),
            Poll::Ready(Ok(Err(panic))) => std::panic::resume_unwind(panic),
            // The thread always sends before it ends.
            Poll::Pending | Poll::Ready(Err(_)) => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Thread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Thread")
    }
}

/// A named pool: blocking work of one sort, at most so many at a time.
#[derive(Clone, Debug)]
pub struct Pool {
    name: &'static str,
    permits: Permits,
}

impl Pool {
    /// Makes a pool that runs at most `limit` pieces of work at a time.
    pub fn new(name: &'static str, limit: usize) -> Self {
        Self {
            name,
            permits: Permits::new(limit),
        }
    }

    /// Waits for a place and runs `work` there.
    pub async fn run<T, F>(&self, work: F) -> T
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let permit = self.permits.acquire().await;
        blocking(self.name, move || {
            let _permit = permit;
            work()
        })
        .await
    }
}

/// A bound on how many may do something at once. Clones share it.
#[derive(Clone, Debug)]
pub struct Permits {
    semaphore: Arc<Semaphore>,
}

/// Leave to go on, given back on drop.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Permits {
    /// Makes `limit` permits, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    /// Makes permits without a practical bound.
    pub fn unlimited() -> Self {
        Self::new(Semaphore::MAX_PERMITS)
    }

    /// Waits for a permit, first come first served.
    pub async fn acquire(&self) -> Permit {
        self.acquire_many(1).await
    }

    /// Waits for several permits at once.
    pub async fn acquire_many(&self, count: u32) -> Permit {
        let permit = Arc::clone(&self.semaphore)
            .acquire_many_owned(count)
            .await
            .expect("the semaphore is never closed");
        Permit { _permit: permit }
    }

    /// Takes a permit if one is free.
    pub fn try_acquire(&self) -> Option<Permit> {
        Arc::clone(&self.semaphore)
            .try_acquire_owned()
            .ok()
            .map(|permit| Permit { _permit: permit })
    }

    /// Returns how many permits are free now.
    pub fn available(&self) -> usize {
        self.semaphore.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_wait_for_somebody_take_no_blocking_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .expect("a runtime");
        let (go, stay) = std::sync::mpsc::channel::<()>();
        let held = thread("held", move || stay.recv().is_ok()).expect("a thread");
        runtime.block_on(async {
            assert_eq!(blocking("other work", || 7).await, 7);
            drop(go);
            assert!(!held.await);
        });
    }
}
