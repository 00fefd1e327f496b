//! Retries with pauses of 1 s, 2 s and 4 s, or what the host asks for. A host that did not answer in time
//! gets one more try only. Before that, `Repository::send` of `request.rs` has repeated what may be repeated without a long pause.

use std::time::Duration;

use crate::error::Error;
use crate::waiting::{WaitObserver, waiting};

/// The pause before the second try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The tries end when the next pause would be this long.
const MAX_PAUSE: Duration = Duration::from_secs(8);
/// The longest pause that a host may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The pauses between the tries of one operation.
#[derive(Debug)]
pub(crate) struct Backoff {
    next_pause: Duration,
    has_timed_out: bool,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            next_pause: FIRST_PAUSE,
            has_timed_out: false,
        }
    }

    /// The time to wait after `error`, or `None` when it is final or the tries are used up.
    pub(crate) fn after(&mut self, error: &Error) -> Option<Duration> {
        if !error.is_transient() || self.next_pause >= MAX_PAUSE {
            return None;
        }
        if error.is_silence() && std::mem::replace(&mut self.has_timed_out, true) {
            return None;
        }
        let wait = self.next_pause;
        self.next_pause = self.next_pause.saturating_mul(2);
        Some(
            error
                .retry_after()
                .map_or(wait, |requested| requested.clamp(wait, MAX_RETRY_AFTER)),
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
    // A host may ask for up to a minute: the observer shows it like any other wait.
    let host = error.host().unwrap_or_default();
    waiting(observer, &host, task::clock::sleep(wait)).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16, retry_after: Option<u64>) -> Error {
        Error::Status {
            method: http::Method::GET,
            url: "http://r.example:5000/v2/".into(),
            status,
            reason: "",
            errors: Vec::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    fn silent() -> Error {
        Error::Silent {
            host: "r.example".into(),
            method: "Get".into(),
            url: "http://r.example/v2/".into(),
            waited: Duration::from_secs(30),
        }
    }

    /// The seconds that are waited after each of the errors, until one is final.
    fn waits(errors: Vec<Error>) -> Vec<u64> {
        let mut backoff = Backoff::new();
        let wait = |error: Error| backoff.after(&error).map(|wait| wait.as_secs());
        errors.into_iter().map_while(wait).collect()
    }

    #[test]
    fn pauses_double_until_the_tries_are_used_up() {
        let many = |error: fn() -> Error| (0..9).map(|_| error()).collect();
        assert_eq!(waits(many(|| status(503, None))), [1, 2, 4]);
        assert_eq!(waits(many(|| status(429, Some(3)))), [3, 3, 4]);
        assert_eq!(waits(many(|| status(429, Some(999)))), [60, 60, 60]);
        assert!(waits(many(|| status(403, None))).is_empty());
        assert_eq!(
            waits(many(silent)),
            [1],
            "a host that says nothing gets one more try"
        );
        let mixed = vec![silent(), status(500, None), silent(), status(500, None)];
        assert_eq!(waits(mixed), [1, 2]);
    }

    #[test]
    fn what_a_token_server_asks_for_counts_like_what_the_registry_asks_for() {
        let wrapped = Error::Authorize {
            source: Box::new(Error::Token {
                kind: "anonymous",
                source: Box::new(status(429, Some(9))),
            }),
        };
        assert_eq!(wrapped.host().as_deref(), Some("r.example:5000"));
        assert_eq!(waits(vec![wrapped]), [9]);
    }

    #[test]
    fn progress_gives_all_tries_back() {
        let mut backoff = Backoff::new();
        for _ in 0..3 {
            assert!(backoff.after(&status(500, None)).is_some());
        }
        assert!(backoff.after(&status(500, None)).is_none());
        backoff.reset();
        assert_eq!(backoff.after(&status(500, None)), Some(FIRST_PAUSE));
    }
}
