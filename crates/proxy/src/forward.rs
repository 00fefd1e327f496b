//! One request: decided upon, sent on, told of.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::{Either, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use crate::body::{Subject, Tracked};
use crate::capture::{self, Incomplete};
use crate::egress::{ConnectError, Way};
use crate::headers::{self, MAX_HEADER_BYTES};
use crate::step::Step;
use crate::target::Target;

/// How long a server may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// The body of an answer: a sentence of ours, or what a server sends.
pub(crate) type AnswerBody = Either<Full<Bytes>, Tracked>;
type RequestBody = Either<Incoming, Empty<Bytes>>;

/// A connection to a server, which stays open for the next request of the step.
struct ServerConnection {
    sender: SendRequest<RequestBody>,
    secure: bool,
    host: String,
    port: u16,
    /// See [`crate::egress::Connected::forward`].
    forward: Option<Option<String>>,
    _driver: task::Task<()>,
}

/// One connection of a step, and the connection to a server that it uses.
pub(crate) struct Session {
    step: Arc<Step>,
    connection: Mutex<Option<ServerConnection>>,
}

/// Why a server's answer did not come: a sentence for the step.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "{place} does not answer as HTTP/1.1 servers do: {}",
        oci::error::chain(source)
    )]
    Http { place: String, source: hyper::Error },
    #[error("{place} did not begin its answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut { place: String },
    #[error("the request cannot be sent on: {0}")]
    Request(#[from] http::Error),
}

impl Session {
    pub(crate) fn new(step: Arc<Step>) -> Self {
        Self {
            step,
            connection: Mutex::default(),
        }
    }

    /// An answer of ours without a body.
    pub(crate) fn empty(&self, status: StatusCode) -> Response<AnswerBody> {
        let mut answer = Response::new(Either::Left(Full::default()));
        *answer.status_mut() = status;
        answer
    }

    /// An answer of ours with a sentence.
    pub(crate) fn refuse(&self, status: StatusCode, sentence: &str) -> Response<AnswerBody> {
        let text = Bytes::from(format!("{sentence}\n"));
        let mut answer = Response::new(Either::Left(Full::new(text)));
        *answer.status_mut() = status;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, plain);
        answer
    }

    fn record(&self, method: &Method, target: &Target, status: StatusCode, note: &str) {
        let note = note.chars().filter(|c| !c.is_control()).take(1000);
        self.step.rules.capture.request(capture::Request {
            method: method.to_string(),
            url: target.url(),
            redirect: String::new(),
            status: status.as_u16(),
            note: note.collect(),
        });
    }

    /// Sends a request on, if that is allowed.
    pub(crate) async fn forward(
        &self,
        target: Target,
        request: Request<Incoming>,
    ) -> Response<AnswerBody> {
        let method = request.method().clone();
        let target = match self.decide(&method, target.clone()).await {
            Ok(target) => target,
            Err(sentence) => {
                self.record(&method, &target, StatusCode::FORBIDDEN, &sentence);
                return self.refuse(StatusCode::FORBIDDEN, &sentence);
            }
        };
        let has_range = request.headers().contains_key(header::RANGE);
        let answer = match self.exchange(&target, request).await {
            Ok(answer) => answer,
            Err(error) => {
                let sentence = error.to_string();
                self.record(&method, &target, StatusCode::BAD_GATEWAY, &sentence);
                self.step.rules.capture.incomplete(Incomplete {
                    method: method.to_string(),
                    url: target.url(),
                    reason: "upstream_error",
                });
                return self.refuse(StatusCode::BAD_GATEWAY, &sentence);
            }
        };
        let (mut parts, body) = answer.into_parts();
        self.step.rules.capture.request(capture::Request {
            method: method.to_string(),
            url: target.url(),
            redirect: redirect(&target, &parts.headers),
            status: parts.status.as_u16(),
            note: String::new(),
        });
        headers::strip_hop_by_hop(&mut parts.headers);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let reason = if method != Method::GET {
            Some("method_not_materializable")
        } else if has_range || parts.status == StatusCode::PARTIAL_CONTENT {
            Some("partial_response")
        } else {
            None
        };
        let subject = Subject {
            capture: Arc::clone(&self.step.rules.capture),
            method: method.to_string(),
            url: target.url(),
            status: parts.status.as_u16(),
            reason,
        };
        Response::from_parts(parts, Either::Right(Tracked::new(body, subject)))
    }

    /// Where a request may go: its target or another, or a sentence that says why nowhere.
    async fn decide(&self, method: &Method, target: Target) -> Result<Target, String> {
        let allowed = |target: &Target| {
            if self.step.daemon.allow.allows(target) {
                return Ok(());
            }
            Err(format!(
                "{} is not in the allow-list of the proxy network of this daemon",
                target.authority(false)
            ))
        };
        allowed(&target)?;
        let mut target = target;
        for policy in &self.step.rules.policies {
            let url = target.url();
            let decision = policy.check(method.as_str(), &url).await;
            let Some(converted) = decision.map_err(|error| error.to_string())? else {
                continue;
            };
            if method != Method::GET {
                return Err(format!(
                    "source policy converted proxy request {url:?}, but conversion is only supported for GET"
                ));
            }
            target = Target::parse(&converted).map_err(|_| {
                format!(
                    "source policy converted proxy request to unsupported URL {:?}",
                    oci::address::redact(&converted)
                )
            })?;
            allowed(&target)?;
        }
        Ok(target)
    }

    /// Sends a request to its server and waits for the beginning of the answer.
    async fn exchange(
        &self,
        target: &Target,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, ForwardError> {
        let (parts, body) = request.into_parts();
        let repeatable =
            (parts.method == Method::GET || parts.method == Method::HEAD) && body.is_end_stream();
        let mut body = Either::Left(body);
        // The connection of the request before: the server may have closed it meanwhile.
        if let Some(mut connection) = self.take_idle(target).await {
            let request = for_server(&parts, target, connection.forward.as_ref(), body)?;
            match connection.sender.try_send_request(request).await {
                Ok(answer) => {
                    *self.connection.lock() = Some(connection);
                    return Ok(answer);
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => body = unsent.into_body(),
                    None if repeatable => body = Either::Right(Empty::new()),
                    None => {
                        return Err(ForwardError::Http {
                            place: target.authority(true),
                            source: failed.into_error(),
                        });
                    }
                },
            }
        }
        let mut connection = self.connect(target).await?;
        let request = for_server(&parts, target, connection.forward.as_ref(), body)?;
        let sending = connection.sender.send_request(request);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sending)
            .await
            .map_err(|_elapsed| ForwardError::TimedOut {
                place: target.authority(true),
            })?
            .map_err(|source| ForwardError::Http {
                place: target.authority(true),
                source,
            })?;
        *self.connection.lock() = Some(connection);
        Ok(answer)
    }

    /// The connection of the request before, if it leads to the same server and is free.
    async fn take_idle(&self, target: &Target) -> Option<ServerConnection> {
        let mut connection = self.connection.lock().take()?;
        let same = connection.secure == target.is_secure()
            && connection.host == target.host()
            && connection.port == target.port();
        (same && connection.sender.ready().await.is_ok()).then_some(connection)
    }

    async fn connect(&self, target: &Target) -> Result<ServerConnection, ForwardError> {
        let tls = self.step.daemon.tls()?;
        let way = Way {
            egress: &*self.step.egress,
            reach: self.step.rules.reach,
            upstreams: &self.step.upstreams,
            tls: &tls,
        };
        let connected = way.connect(target).await?;
        let handshake = http1::Builder::new()
            .max_buf_size(4 * MAX_HEADER_BYTES)
            .handshake(TokioIo::new(connected.stream));
        let (sender, connection) = handshake.await.map_err(|source| ForwardError::Http {
            place: target.authority(true),
            source,
        })?;
        let driver = task::spawn("proxy connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a server broke");
            }
        });
        Ok(ServerConnection {
            sender,
            secure: target.is_secure(),
            host: target.host().to_owned(),
            port: target.port(),
            forward: connected.forward,
            _driver: driver,
        })
    }
}

/// The request as it is sent to the server, or to the proxy before it.
fn for_server(
    parts: &Parts,
    target: &Target,
    forward: Option<&Option<String>>,
    body: RequestBody,
) -> Result<Request<RequestBody>, ForwardError> {
    const ACCEPT_ENCODING: HeaderName = header::ACCEPT_ENCODING;
    let mut out = Request::new(body);
    *out.method_mut() = parts.method.clone();
    *out.headers_mut() = parts.headers.clone();
    let fields = out.headers_mut();
    headers::strip_hop_by_hop(fields);
    // A material is what the server has, not one of its packings; and whoever waits for a `100` has had it from us.
    fields.remove(ACCEPT_ENCODING);
    fields.remove(header::EXPECT);
    let host = HeaderValue::try_from(target.authority(false)).map_err(http::Error::from)?;
    fields.insert(header::HOST, host);
    *out.uri_mut() = match forward {
        None => target.path().clone().into(),
        Some(login) => {
            if let Some(login) = login {
                let login = HeaderValue::try_from(login).map_err(http::Error::from)?;
                fields.insert(header::PROXY_AUTHORIZATION, login);
            }
            target.absolute_uri()?
        }
    };
    Ok(out)
}

/// Where an answer says to go, absolute and without credentials.
fn redirect(target: &Target, fields: &http::HeaderMap) -> String {
    let location = fields.get(header::LOCATION);
    let Some(location) = location.and_then(|value| value.to_str().ok()) else {
        return String::new();
    };
    let base = url::Url::parse(&target.url());
    let joined = base.and_then(|base| base.join(location));
    joined.map_or_else(|_| String::new(), |url| oci::address::redact(url.as_str()))
}
