//! Trying again: 1 s, 2 s, 4 s, or what the host asks for, then giving up. A host that was waited for in vain gets one more
//! try only.

use std::time::Duration;

use crate::error::Error;
use crate::waiting::{WaitObserver, waiting};

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(8);
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// The waits of one operation.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    waited_in_vain: bool,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            next: FIRST,
            waited_in_vain: false,
        }
    }

    /// The time to wait after `error`, or `None` when it is final or the tries are used up.
    pub(crate) fn after(&mut self, error: &Error) -> Option<Duration> {
        if !error.is_transient() || self.next >= LAST {
            return None;
        }
        if error.is_silence() && std::mem::replace(&mut self.waited_in_vain, true) {
            return None;
        }
        let wait = self.next;
        self.next = self.next.saturating_mul(2);
        Some(
            error
                .retry_after()
                .map_or(wait, |asked| asked.clamp(wait, LONGEST_ASKED)),
        )
    }

    /// Starts over, after progress was made.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

/// Waits as `backoff` says after `error`, or returns it when it is final.
pub(crate) async fn wait(
    backoff: &mut Backoff,
    error: Error,
    observer: Option<&WaitObserver>,
) -> Result<(), Error> {
    let Some(wait) = backoff.after(&error) else {
        return Err(error);
    };
    tracing::debug!(%error, wait_s = wait.as_secs(), "registry request is tried again");
    // A host may ask for up to a minute, which is told like any other wait for it.
    let host = error.host().unwrap_or_default();
    waiting(observer, &host, tokio::time::sleep(wait)).await;
    Ok(())
}

/// Evaluates a block with `?` in it until it succeeds, fails for good, or the tries are used up.
///
/// A macro, because futures of async closures that borrow are not known to be `Send` by their callers.
macro_rules! with_retries {
    ($observer:expr, $attempt:expr) => {{
        let mut backoff = $crate::retry::Backoff::new();
        loop {
            let result: Result<_, $crate::error::Error> = async { $attempt }.await;
            match result {
                Ok(value) => break Ok(value),
                Err(error) => {
                    if let Err(error) = $crate::retry::wait(&mut backoff, error, $observer).await {
                        break Err(error);
                    }
                }
            }
        }
    }};
}
pub(crate) use with_retries;
