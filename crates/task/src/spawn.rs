//! Tasks that stop when nobody holds them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::watch::watched;

/// A running task. As a future it gives the task's output; dropped, it aborts the task.
///
/// A panic of the task is raised again in whoever awaits it.
#[must_use = "dropping a task aborts it; await it, keep it, or detach it"]
pub struct Task<T> {
    handle: Option<JoinHandle<T>>,
}

/// The span of work that begins here: when nobody wants to see the work's own, that of whoever begins it goes on, so that a line
/// of the log names its build at every level.
pub(crate) fn span_of(own: tracing::Span) -> tracing::Span {
    if own.is_disabled() {
        tracing::Span::current()
    } else {
        own
    }
}

/// Starts `future` as a task named `name` in the current runtime.
pub fn spawn<F>(name: &'static str, future: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let span = crate::spawn::span_of(tracing::debug_span!("task", name));
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    let handle = tokio::spawn(watched(name, future).instrument(span));
    Task {
        handle: Some(handle),
    }
}

impl<T> Task<T> {
    /// Lets the task run to its end by itself.
    pub fn detach(mut self) {
        drop(self.handle.take());
    }

    /// Tells whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the task at its next await; what it holds is dropped there.
    pub fn abort(&self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(handle) = self.handle.as_mut() else {
            return Poll::Pending;
        };
        match Pin::new(handle).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(value)) => {
                self.handle = None;
                Poll::Ready(value)
            }
            Poll::Ready(Err(error)) => {
                self.handle = None;
                match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is going down, or the task was aborted by `abort`: nothing will ever come.
                    Err(_) => Poll::Pending,
                }
            }
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// Runs `future` to its end even when the caller is dropped meanwhile: for commits that must not be left half done.
pub async fn uncancellable<F>(name: &'static str, future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (to, from) = tokio::sync::oneshot::channel();
    let task = spawn(name, async move {
        let output = std::panic::AssertUnwindSafe(future);
        let output = futures::FutureExt::catch_unwind(output).await;
        // A caller that left does not want the output.
        drop(to.send(output));
    });
    task.detach();
    match from.await {
        Ok(Ok(output)) => output,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        // Only a runtime that goes down drops the sender.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    struct Flag(Arc<AtomicUsize>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_task_drops_its_future_and_a_detached_one_ends() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let flag = Flag(Arc::clone(&dropped));
        let task = spawn("forever", async move {
            let _flag = flag;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(task);
        crate::clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(dropped.load(Ordering::SeqCst), 1);

        let flag = Flag(Arc::clone(&dropped));
        spawn("short", async move { drop(flag) }).detach();
        crate::clock::sleep(Duration::from_millis(1)).await;
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn uncancellable_work_survives_its_caller() {
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let ended = Arc::new(AtomicUsize::new(0));
        let flag = Flag(Arc::clone(&ended));
        let caller = spawn(
            "caller",
            uncancellable("commit", async move {
                let _flag = flag;
                gone.await.ok();
            }),
        );
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        drop(caller);
        tokio::task::yield_now().await;
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        go.send(()).unwrap();
        while ended.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }
}
