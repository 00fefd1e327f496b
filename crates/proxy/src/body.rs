//! The body of an answer on its way to a step: passed on as it comes, hashed, and told of when it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};

use crate::capture::{Capture, Incomplete, Material};

/// How long a server may send nothing within a body.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// What an answer is to be a material of.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) capture: Arc<Capture>,
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) status: u16,
    /// Why it cannot be one, whatever its body is.
    pub(crate) reason: Option<&'static str>,
}

impl Subject {
    /// Takes note of a body that has ended, or broke off.
    fn record(self, hash: Sha256, complete: bool) {
        let reason = match self.reason {
            Some(reason) => Some(reason),
            None if !complete => Some("body_read_failed"),
            None if self.status >= 400 => Some("unsuccessful_response"),
            None => None,
        };
        if let Some(reason) = reason {
            self.capture.incomplete(Incomplete {
                method: self.method,
                url: self.url,
                reason,
            });
        } else if (200..300).contains(&self.status) {
            let digest = hash.finalize();
            self.capture.material(Material {
                url: self.url,
                sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            });
        }
    }
}

/// A body that is told of when it ends or is dropped.
#[derive(Debug)]
pub(crate) struct Tracked {
    inner: Incoming,
    hash: Sha256,
    subject: Option<Subject>,
    idle: Pin<Box<tokio::time::Sleep>>,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenBody {
    #[error(transparent)]
    Read(#[from] hyper::Error),
    #[error("the server has sent nothing for {} s", IDLE_TIMEOUT.as_secs())]
    Idle,
}

impl Tracked {
    pub(crate) fn new(inner: Incoming, subject: Subject) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            subject: Some(subject),
            idle: Box::pin(task::clock::sleep(IDLE_TIMEOUT)),
        }
    }

    fn end(&mut self, complete: bool) {
        if let Some(subject) = self.subject.take() {
            subject.record(std::mem::take(&mut self.hash), complete);
        }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.hash.update(data);
                }
                let now = tokio::time::Instant::now();
                this.idle.as_mut().reset(now + IDLE_TIMEOUT);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.end(false);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.end(true);
                Poll::Ready(None)
            }
            Poll::Pending => match this.idle.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    this.end(false);
                    Poll::Ready(Some(Err(BrokenBody::Idle)))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // Of a body with a length nobody asks for more than that.
        let complete = self.inner.is_end_stream();
        self.end(complete);
    }
}
