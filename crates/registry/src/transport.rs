//! Reads bodies within limits, and turns HTTP failures into errors with BuildKit's texts.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::RETRY_AFTER;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::address::{host_of, without_query};
use crate::error::{ApiError, Error};
use crate::waiting::{
    BodyPace, CONNECT_TIMEOUT, DOCUMENT_TIMEOUT, ERROR_BODY_TIMEOUT, WaitObserver, waiting,
};

/// Bytes of an error's body that are read.
const MAX_ERROR_BODY_BYTES: usize = 64_000;

/// The error of a host that does not answer.
pub(crate) fn silent(method: &Method, url: &reqwest::Url, waited: Duration) -> Error {
    Error::Silent {
        host: host_of(url),
        method: go_method(method),
        url: without_query(url),
        waited,
    }
}

/// Reads a body of at most `limit` bytes; fails if it comes too slowly.
pub(crate) async fn body_within(
    mut response: reqwest::Response,
    limit: usize,
    method: &Method,
    url: &str,
    observer: Option<&WaitObserver>,
) -> Result<Bytes, Error> {
    let host = host_of(response.url());
    let reading = async {
        let mut pace = BodyPace::default();
        let mut out = BytesMut::new();
        loop {
            let chunk = pace
                .next(response.chunk())
                .await
                .map_err(|source| Error::Slow {
                    host: host.clone(),
                    url: url.to_owned(),
                    source,
                })?;
            let Some(chunk) = chunk.map_err(|e| transport_error(method, url, e))? else {
                return Ok(out.freeze());
            };
            if out.len().saturating_add(chunk.len()) > limit {
                return Err(Error::SizeMismatch {
                    url: url.to_owned(),
                    expected: limit as u64,
                    actual: limit as u64 + 1,
                });
            }
            out.extend_from_slice(&chunk);
        }
    };
    let reading = tokio::time::timeout(DOCUMENT_TIMEOUT, reading);
    waiting(observer, &host, reading).await.unwrap_or_else(|_| {
        Err(Error::Silent {
            host: host.clone(),
            method: go_method(method),
            url: url.to_owned(),
            waited: DOCUMENT_TIMEOUT,
        })
    })
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Makes the error of a response whose status is no success.
pub(crate) async fn status_error(
    method: Method,
    url: String,
    mut response: reqwest::Response,
) -> Error {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().parse::<u64>().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    let deadline = Instant::now() + ERROR_BODY_TIMEOUT;
    while let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await {
        let room = MAX_ERROR_BODY_BYTES.saturating_sub(body.len());
        body.extend(chunk.iter().take(room));
        if chunk.len() >= room {
            break;
        }
    }
    let errors = gostd::json::from_slice::<ErrorBody>(&body)
        .map(|b| {
            b.errors
                .into_iter()
                .take(16)
                .map(|e| ApiError {
                    code: e.code,
                    message: e.message,
                })
                .collect()
        })
        .unwrap_or_default();
    let reason = status.canonical_reason().unwrap_or_default();
    Error::Status {
        method,
        url,
        status: status.as_u16(),
        reason,
        errors,
        retry_after,
    }
}

/// A method as Go's errors write it: `Get`.
fn go_method(method: &Method) -> String {
    let lower = method.as_str().to_ascii_lowercase();
    let mut out = String::with_capacity(lower.len());
    let mut chars = lower.chars();
    out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
    out.extend(chars);
    out
}

pub(crate) fn transport_error(method: &Method, url: &str, error: reqwest::Error) -> Error {
    if let Some(address) = error.url().filter(|_| error.is_timeout()) {
        return silent(method, address, CONNECT_TIMEOUT);
    }
    Error::Transport {
        method: go_method(method),
        url: url.to_owned(),
        source: error.into(),
    }
}
