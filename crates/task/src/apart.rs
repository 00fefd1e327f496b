//! Futures that compute a lot between their awaits.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::Notify;

use crate::pool::blocking;

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Runs a future whose polls may take long: each of them is blocking work, and between them no thread is held. Dropped, a poll that
/// has begun is finished, and the future with it.
pub async fn apart<F>(name: &'static str, future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let woken = Arc::new(Woken(Notify::new()));
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = Box::pin(future);
    loop {
        let waker = waker.clone();
        let poll = move || {
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            (future, polled)
        };
        let (back, polled) = blocking(name, poll).await;
        match polled {
            Poll::Ready(output) => return output,
            Poll::Pending => future = back,
        }
        woken.0.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_future_that_computes_and_waits_does_both_and_holds_no_thread_of_the_runtime() {
        let here = std::thread::current().id();
        let (to, from) = tokio::sync::oneshot::channel();
        let (told, hear) = tokio::sync::oneshot::channel();
        let work = crate::spawn("work", async move {
            apart("computes", async move {
                let mut threads = vec![std::thread::current().id()];
                told.send(()).unwrap();
                let number: u32 = from.await.unwrap();
                threads.push(std::thread::current().id());
                crate::clock::sleep(Duration::from_secs(5)).await;
                threads.push(std::thread::current().id());
                (number, threads)
            })
            .await
        });
        hear.await.unwrap();
        to.send(7).unwrap();
        let (number, threads) = work.await;
        assert_eq!(number, 7);
        assert!(!threads.contains(&here));
    }

    #[tokio::test]
    async fn a_panic_is_raised_in_whoever_waits() {
        let work = crate::spawn("work", apart("panics", async { panic!("on purpose") }));
        let caught = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(work)).await;
        assert!(caught.is_err());
    }
}
