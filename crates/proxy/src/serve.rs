//! The connections of one step.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::forward::{AnswerBody, Session};
use crate::headers::{MAX_HEADER_BYTES, MAX_HEADERS};
use crate::step::Step;
use crate::target::Target;
use crate::{capture, headers};

/// Connections that a step may have at a time. Further ones wait in the listener's queue.
pub const MAX_CONNECTIONS: usize = 256;
/// How long a request's headers may take to arrive, and how long a connection may be silent between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a step may take to shake hands within a tunnel.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers connections until `stopped` closes. All of them are in this future, so that nothing is left when it ends.
pub(crate) async fn serve(
    step: Arc<Step>,
    listener: TcpListener,
    mut stopped: watch::Receiver<()>,
) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            // Nothing is ever sent; an error says that the sender is gone.
            _ = stopped.changed() => return,
            Some(()) = connections.next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => connections.push(connection(Arc::clone(&step), stream)),
                Err(error) => {
                    tracing::debug!(%error, "no connection of a step");
                    // The process may be out of descriptors for a moment.
                    task::clock::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}

fn server() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        // busybox's wget shuts down its side when it has asked.
        .half_close(true)
        .keep_alive(true);
    builder
}

/// A tunnel that was asked for, and its stream once the answer is written.
type Tunnel = Mutex<Option<(Target, OnUpgrade)>>;

async fn connection(step: Arc<Step>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection waits for full packets");
    }
    let tunnel = Tunnel::default();
    let session = Session::new(Arc::clone(&step));
    let service = service_fn(|request| {
        let answer = plain(&session, &tunnel, request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let serving = server()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection of a step broke");
    }
    drop(session);
    let requested = tunnel.lock().take();
    if let Some((target, upgrade)) = requested
        && let Ok(upgraded) = upgrade.await
    {
        inside(step, &target, upgraded).await;
    }
}

/// Speaks TLS in the place of a tunnel's target.
async fn inside(step: Arc<Step>, target: &Target, stream: hyper::upgrade::Upgraded) {
    let config = match step
        .daemon
        .authority()
        .and_then(|authority| authority.server(target.host()))
    {
        Ok(config) => config,
        Err(error) => {
            tracing::debug!(%error, host = target.host(), "no certificate for a host");
            return;
        }
    };
    let handshake = TlsAcceptor::from(config).accept(TokioIo::new(stream));
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            step.rules.capture.request(handshake_failed(target, &error));
            return;
        }
        Err(_elapsed) => return,
    };
    let session = Session::new(step);
    let service = service_fn(|request| {
        let answer = tunnelled(&session, target, request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let serving = server().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a tunnel of a step broke");
    }
}

/// What the log says where a program does not trust us, or speaks something else: nothing else would say why it failed.
fn handshake_failed(target: &Target, error: &std::io::Error) -> capture::Request {
    let reason: String = error
        .to_string()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    capture::Request {
        method: Method::CONNECT.to_string(),
        url: target.authority(true),
        redirect: String::new(),
        status: 0,
        note: format!("no TLS with the proxy: {reason}"),
    }
}

/// A request to the proxy itself.
async fn plain(
    session: &Session,
    tunnel: &Tunnel,
    mut request: Request<Incoming>,
) -> Response<AnswerBody> {
    if let Err(error) = headers::check(request.headers()) {
        return session.refuse(StatusCode::BAD_REQUEST, &error.to_string());
    }
    if request.method() == Method::CONNECT {
        return match Target::connect(request.uri()) {
            Ok(target) => {
                let upgrade = hyper::upgrade::on(&mut request);
                *tunnel.lock() = Some((target, upgrade));
                session.empty(StatusCode::OK)
            }
            Err(error) => session.refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        };
    }
    let target = match request.uri().scheme() {
        // The address counts, whatever `Host` says (RFC 9112, 3.2.2).
        Some(_) => Target::absolute(request.uri()),
        None => named_by_host(&request),
    };
    match target {
        Ok(target) => session.forward(target, request).await,
        Err(error) => session.refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn named_by_host(request: &Request<Incoming>) -> Result<Target, crate::target::InvalidTarget> {
    use crate::target::InvalidTarget;
    let host = request.headers().get(http::header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let authority = host
        .ok_or(InvalidTarget::NoHost)?
        .parse()
        .map_err(|_| InvalidTarget::Host)?;
    Target::new(false, &authority, request.uri().path_and_query().cloned())
}

/// A request within a tunnel.
async fn tunnelled(
    session: &Session,
    tunnel: &Target,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    if let Err(error) = headers::check(request.headers()) {
        return session.refuse(StatusCode::BAD_REQUEST, &error.to_string());
    }
    if request.method() == Method::CONNECT {
        let sentence = "a tunnel within a tunnel is not supported by the proxy network";
        return session.refuse(StatusCode::METHOD_NOT_ALLOWED, sentence);
    }
    let host = request.headers().get(http::header::HOST);
    let is_own_name = match (host, request.uri().scheme()) {
        (_, Some(_)) => Target::absolute(request.uri()).is_ok_and(|own| {
            tunnel.is_secure() == own.is_secure() && tunnel.is_named_by(&own.authority(true))
        }),
        (Some(host), None) => host.to_str().is_ok_and(|host| tunnel.is_named_by(host)),
        // HTTP/1.0 has no `Host`.
        (None, None) => true,
    };
    if !is_own_name {
        let sentence = format!(
            "the request names another host than its tunnel to {}",
            tunnel.authority(false)
        );
        return session.refuse(StatusCode::MISDIRECTED_REQUEST, &sentence);
    }
    let path = request.uri().path_and_query().cloned();
    match tunnel.with_path(path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"))) {
        Ok(target) => session.forward(target, request).await,
        Err(error) => session.refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}
