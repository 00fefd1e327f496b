//! HTTP/1.1 for the debugging listener.
//!
//! Bounded: so many connections, so long for the header of a request and for a connection, no bodies of requests, and answers that
//! are made before they are sent.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::address::Exposure;
use super::pages::{Answer, Pages};
use crate::listen::{Listener, RemoveOnDrop, pause};

/// Connections at a time; further ones are closed at once.
const MAX_CONNECTIONS: usize = 32;
/// How long the header of a request may take, and how long a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may last: a scraper opens another one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of a request that are read ahead; the header of one may be no longer.
const MAX_HEADER: usize = 16 << 10;

/// Serves until dropped.
pub(crate) async fn serve(listener: Listener, exposure: Exposure, pages: Arc<Pages>) {
    let mut connections: Vec<task::Task<()>> = Vec::new();
    match listener {
        Listener::Unix(listener, path) => {
            let _socket = path.map(RemoveOnDrop);
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => admit(&mut connections, stream, exposure, &pages),
                    Err(error) => pause(&error).await,
                }
            }
        }
        Listener::Tcp(listener, _) => loop {
            match listener.accept().await {
                Ok((stream, _)) => admit(&mut connections, stream, exposure, &pages),
                Err(error) => pause(&error).await,
            }
        },
    }
}

fn admit(
    connections: &mut Vec<task::Task<()>>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    exposure: Exposure,
    pages: &Arc<Pages>,
) {
    connections.retain(|connection| !connection.is_finished());
    if connections.len() >= MAX_CONNECTIONS {
        tracing::warn!("too many connections to the debugging listener, one is refused");
        return;
    }
    let pages = Arc::clone(pages);
    let connection = connection(stream, exposure, pages);
    connections.push(task::spawn("debugging connection", connection));
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    exposure: Exposure,
    pages: Arc<Pages>,
) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(response(respond(&request, exposure, &pages).await)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), answer);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        tracing::debug!(%error, "a debugging connection failed");
    }
}

async fn respond<B>(request: &Request<B>, exposure: Exposure, pages: &Pages) -> Answer {
    let path = request.uri().path();
    if let Some(refusal) = refuse(request, exposure) {
        return Answer::text(StatusCode::FORBIDDEN, refusal);
    }
    let query = request.uri().query().unwrap_or_default();
    let wants_json = request
        .headers()
        .get(hyper::header::ACCEPT)
        .is_some_and(|accept| accept == "application/json")
        || query.split('&').any(|pair| pair == "format=json");
    pages
        .answer(request.method(), path, query, wants_json)
        .await
}

/// Why a request is refused; `None` if it is answered.
fn refuse<B>(request: &Request<B>, exposure: Exposure) -> Option<String> {
    if !request.uri().path().starts_with("/debug") {
        return None;
    }
    let headers = request.headers();
    match exposure {
        Exposure::Socket => None,
        Exposure::MetricsOnly(why) => Some(why.to_owned()),
        // A web page in a browser of this machine is not to be trusted as a program of it is.
        Exposure::Loopback if headers.contains_key(ORIGIN) => {
            Some("requests of web pages are not answered".to_owned())
        }
        Exposure::Loopback => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            (!is_local(host.unwrap_or_default()))
                .then(|| "ask for localhost or a loopback address".to_owned())
        }
    }
}

/// Whether a `Host` header names this machine. Another name can be made to lead here by its owner (DNS rebinding).
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn pages_are_for_programs_of_this_machine_and_metrics_for_all() {
        let localhost = [("host", "localhost:6060")];
        let remote = Exposure::MetricsOnly("remote");
        for (exposure, path, headers, is_answered) in [
            (Exposure::Loopback, "/debug/graph", &localhost[..], true),
            (
                Exposure::Loopback,
                "/debug/graph",
                &[("host", "127.0.0.1")],
                true,
            ),
            (
                Exposure::Loopback,
                "/debug/graph",
                &[("host", "[::1]:60")],
                true,
            ),
            (
                Exposure::Loopback,
                "/debug/graph",
                &[("host", "evil.example")],
                false,
            ),
            (Exposure::Loopback, "/debug/graph", &[], false),
            (
                Exposure::Loopback,
                "/debug/gc",
                &[("host", "localhost"), ("origin", "http://evil.example")],
                false,
            ),
            (
                Exposure::Loopback,
                "/metrics",
                &[("host", "node.example")],
                true,
            ),
            (Exposure::Socket, "/debug/graph", &[], true),
            (remote, "/debug/graph", &localhost, false),
            (remote, "/metrics", &[], true),
            (remote, "/healthz", &[], true),
        ] {
            let refused = refuse(&request(path, headers), exposure);
            assert_eq!(
                refused.is_none(),
                is_answered,
                "{exposure:?} {path} {headers:?}"
            );
        }
    }
}
