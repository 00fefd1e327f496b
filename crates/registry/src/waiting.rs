//! Limits on how long a host may keep a request waiting.
//!
//! | what                                        | limit                                                             |
//! |---------------------------------------------|-------------------------------------------------------------------|
//! | the head of an answer, redirects included   | 30 s, looking up the name and connecting included                 |
//! | a body                                      | 16 KiB for each 30 s of pure waiting      |
//! | a document                                  | 60 s for all of it                                                |
//! | an upload                                   | 64 KiB taken by the host for each 60 s                            |
//! | the answer to an upload that was sent whole | 300 s: registries copy and verify what they were sent             |
//! | tries of one request                        | no further one once 60 s were spent waiting for answers           |
//!
//! An observer is told of a wait that lasts longer than 5 s.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use task::clock::sleep;
use tokio::time::{Instant, timeout_at};

/// How long a connection may take to be made, TLS included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the head of an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time spent waiting for a body, after which its pace is judged.
const BODY_WINDOW: Duration = Duration::from_secs(30);
/// Bytes that must come in a `BODY_WINDOW`.
const BODY_WINDOW_BYTES: u64 = 16 << 10;
/// How long a document may take: manifests, configs, lists, tokens.
pub(crate) const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after which the pace of an upload is judged.
const UPLOAD_WINDOW: Duration = Duration::from_secs(60);
/// Bytes that the host must take in an `UPLOAD_WINDOW`.
const UPLOAD_WINDOW_BYTES: u64 = 64 << 10;
/// How long the response may take after the last byte of an upload.
const UPLOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// A request is not tried again once this much time was spent waiting for responses.
pub(crate) const TRIES_BUDGET: Duration = Duration::from_secs(60);
/// How long the body of an error may take; what came until then is used.
pub(crate) const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// A shorter wait is not shown.
const SHOWN_AFTER: Duration = Duration::from_secs(5);

/// Held while a wait is shown.
pub type ShownWait = Box<dyn Any + Send>;

/// Called with the host that keeps a request waiting for some seconds; its result is dropped when the wait is over.
#[derive(Clone)]
pub struct WaitObserver(Arc<dyn Fn(&str) -> ShownWait + Send + Sync>);

impl WaitObserver {
    /// Makes an observer of a function.
    pub fn new(show: impl Fn(&str) -> ShownWait + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }
}

impl fmt::Debug for WaitObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitObserver")
    }
}

/// Waits for `work`, and calls `observer` if that takes long.
pub async fn waiting<T>(
    observer: Option<&WaitObserver>,
    host: &str,
    work: impl Future<Output = T>,
) -> T {
    let Some(observer) = observer else {
        return work.await;
    };
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        result = &mut work => return result,
        () = sleep(SHOWN_AFTER) => {}
    }
    let _shown = (observer.0)(host);
    work.await
}

/// A host sent, or took, too few bytes for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{received} bytes in {}s", waited.as_secs())]
pub struct Stalled {
    /// The time that was spent waiting.
    pub waited: Duration,
    /// Bytes that came, or were taken, in that time.
    pub received: u64,
}

/// The pace of one body. Only time spent waiting counts: a slow reader in the daemon is not the host's fault.
#[derive(Debug, Default)]
pub struct BodyPace {
    waited: Duration,
    received: u64,
}

impl BodyPace {
    /// Waits for the next bytes as `read` gives them, for as long as the pace allows.
    pub async fn next<E>(
        &mut self,
        read: impl Future<Output = Result<Option<Bytes>, E>>,
    ) -> Result<Result<Option<Bytes>, E>, Stalled> {
        let start = Instant::now();
        let stalled = |received| Stalled {
            waited: BODY_WINDOW,
            received,
        };
        let deadline = start + BODY_WINDOW.saturating_sub(self.waited);
        let Ok(read) = timeout_at(deadline, read).await else {
            return Err(stalled(self.received));
        };
        self.waited += start.elapsed();
        if let Ok(Some(chunk)) = &read {
            self.received = self.received.saturating_add(chunk.len() as u64);
        }
        if self.received >= BODY_WINDOW_BYTES {
            *self = Self::default();
        } else if self.waited >= BODY_WINDOW && matches!(read, Ok(Some(_))) {
            return Err(stalled(self.received));
        }
        Ok(read)
    }
}

/// The bytes of an upload that were sent, and how many there are.
#[derive(Debug)]
pub(crate) struct UploadProgress {
    sent: AtomicU64,
    size: u64,
}

impl UploadProgress {
    pub(crate) fn new(size: u64) -> Arc<Self> {
        Arc::new(Self {
            sent: AtomicU64::new(0),
            size,
        })
    }

    /// Sets the count back to zero, for the next try of the body.
    pub(crate) fn restart(&self) {
        self.sent.store(0, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits for the answer for as long as the host takes bytes.
    pub(crate) async fn watch<T>(&self, answer: impl Future<Output = T>) -> Result<T, Stalled> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let sent_before = self.sent.load(Ordering::Relaxed);
            let is_sent = sent_before >= self.size;
            let window = if is_sent {
                UPLOAD_ANSWER_TIMEOUT
            } else {
                UPLOAD_WINDOW
            };
            tokio::select! {
                biased;
                result = &mut answer => return Ok(result),
                () = sleep(window) => {}
            }
            let sent_now = self.sent.load(Ordering::Relaxed);
            let received = sent_now.saturating_sub(sent_before);
            if is_sent || (received < UPLOAD_WINDOW_BYTES && sent_now < self.size) {
                return Err(Stalled {
                    waited: window,
                    received,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pace(every: Duration, bytes: usize, chunks: usize) -> Result<(), Stalled> {
        let mut pace = BodyPace::default();
        for _ in 0..chunks {
            let read = async {
                sleep(every).await;
                Ok::<_, ()>(Some(Bytes::from(vec![0; bytes])))
            };
            drop(pace.next(read).await?);
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up_and_a_slow_one_is_not() {
        for (every, bytes, chunks, held) in [
            (Duration::from_secs(1), 1, 40, true),
            (Duration::from_secs(29), 1, 4, true),
            (Duration::from_secs(31), 1 << 20, 1, true),
            (Duration::from_secs(1), 1 << 10, 1000, false),
            (Duration::from_secs(20), 32 << 10, 100, false),
        ] {
            let start = Instant::now();
            let ended = pace(every, bytes, chunks).await;
            assert_eq!(ended.is_err(), held, "{every:?} {bytes}");
            assert!(!held || start.elapsed() <= Duration::from_secs(60));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_may_take_long_but_not_stand_still() {
        let upload = UploadProgress::new(10 << 20);
        let sending = async {
            for _ in 0..100 {
                sleep(Duration::from_secs(30)).await;
                upload.add(64 << 10);
            }
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        assert_eq!(upload.watch(sending).await.unwrap_err().received, 0);
        assert!(start.elapsed() > Duration::from_secs(3000));
        let sent = UploadProgress::new(0);
        let answer = sleep(Duration::from_secs(200));
        assert_eq!(sent.watch(answer).await, Ok(()));
    }
}
