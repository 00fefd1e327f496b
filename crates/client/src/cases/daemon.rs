//! A daemon in memory: every call that reaches it is handed to the test, which answers it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a call that a case does not speak of ends it"
)]

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use proto::{control, gateway};
use services::codec::Codec;
use task::Task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::connect::Client;

/// Answers one call.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Status>>;
type StatusStream = BoxStream<'static, Result<control::StatusResponse, Status>>;
type Removed = BoxStream<'static, Result<control::UsageRecord, Status>>;

/// A call that has come.
pub(crate) enum Call {
    /// Its headers, and the bytes of the tunnel. The session ends when these are dropped.
    Session(MetadataMap, DuplexStream),
    Solve(control::SolveRequest, Reply<control::SolveResponse>),
    Status(control::StatusRequest, Reply<StatusStream>),
    DiskUsage(control::DiskUsageRequest, Reply<control::DiskUsageResponse>),
    Prune(control::PruneRequest, Reply<Removed>),
    Workers(
        control::ListWorkersRequest,
        Reply<control::ListWorkersResponse>,
    ),
    Info(Reply<control::InfoResponse>),
    Ask(
        MetadataMap,
        gateway::SolveRequest,
        Reply<gateway::SolveResponse>,
    ),
    Return(
        MetadataMap,
        gateway::ReturnRequest,
        Reply<gateway::ReturnResponse>,
    ),
}

/// The daemon's end of a connection.
pub(crate) struct Daemon {
    calls: mpsc::UnboundedReceiver<Call>,
    _server: Task<()>,
}

impl Daemon {
    /// A daemon, and a client that is connected to it.
    pub(crate) async fn start() -> (Self, Client) {
        let (to, calls) = mpsc::unbounded_channel();
        let (near, far) = tokio::io::duplex(1 << 16);
        let incoming = futures::stream::once(async { Ok::<_, std::io::Error>(far) })
            .chain(futures::stream::pending());
        let server = Server::builder()
            .add_service(Control(to.clone()))
            .add_service(Gateway(to))
            .serve_with_incoming(incoming);
        let server = task::spawn("daemon in memory", async move { server.await.unwrap() });
        let daemon = Self {
            calls,
            _server: server,
        };
        (daemon, Client::over(channel(near).await))
    }

    /// The next call.
    pub(crate) async fn next(&mut self) -> Call {
        self.calls.recv().await.expect("a call")
    }

    /// The three calls of a build, which come in any order after the session.
    pub(crate) async fn build(&mut self) -> Build {
        let Call::Session(headers, tunnel) = self.next().await else {
            panic!("a session comes first");
        };
        let (mut solve, mut status) = (None, None);
        while solve.is_none() || status.is_none() {
            match self.next().await {
                Call::Solve(request, reply) => solve = Some((request, reply)),
                Call::Status(request, reply) => status = Some((request, reply)),
                _ => panic!("neither solve nor status"),
            }
        }
        let ((request, answer), (watched, statuses)) = (solve.unwrap(), status.unwrap());
        assert_eq!(watched.r#ref, request.r#ref);
        Build {
            headers,
            tunnel,
            request,
            answer,
            statuses,
        }
    }
}

/// A build that has begun.
pub(crate) struct Build {
    pub(crate) headers: MetadataMap,
    pub(crate) tunnel: DuplexStream,
    pub(crate) request: control::SolveRequest,
    pub(crate) answer: Reply<control::SolveResponse>,
    pub(crate) statuses: Reply<StatusStream>,
}

/// A connection over a byte stream.
pub(crate) async fn channel(stream: DuplexStream) -> Channel {
    let mut stream = Some(stream);
    Endpoint::from_static("http://memory")
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.take().map(hyper_util::rt::TokioIo::new);
            async move { stream.ok_or_else(|| std::io::Error::other("connected once")) }
        }))
        .await
        .unwrap()
}

/// A stream of these messages that ends after the last.
pub(crate) fn statuses(messages: Vec<Result<control::StatusResponse, Status>>) -> StatusStream {
    futures::stream::iter(messages).boxed()
}

async fn hand_over<T>(
    calls: mpsc::UnboundedSender<Call>,
    call: impl FnOnce(Reply<T>) -> Call,
) -> Result<Response<T>, Status> {
    let (reply, answer) = oneshot::channel();
    let test_has_ended = |_| Status::aborted("the test has ended");
    calls.send(call(reply)).map_err(test_has_ended)?;
    let unanswered = |_| Err(Status::aborted("the test does not answer"));
    answer.await.unwrap_or_else(unanswered).map(Response::new)
}

fn tunnel(
    calls: &mpsc::UnboundedSender<Call>,
    request: Request<Streaming<control::BytesMessage>>,
) -> Response<BoxStream<'static, Result<control::BytesMessage, Status>>> {
    let headers = request.metadata().clone();
    let mut incoming = request.into_inner();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut read, mut write) = tokio::io::split(far);
    let (to, outgoing) = mpsc::channel(4);
    task::spawn("from the client", async move {
        while let Ok(Some(message)) = incoming.message().await {
            if write.write_all(&message.data).await.is_err() {
                return;
            }
        }
        let _closed = write.shutdown().await;
    })
    .detach();
    task::spawn("to the client", async move {
        let mut bytes = vec![0; 4096];
        while let Ok(size @ 1..) = read.read(&mut bytes).await {
            let data = bytes[..size].to_vec().into();
            if to.send(Ok(control::BytesMessage { data })).await.is_err() {
                return;
            }
        }
    })
    .detach();
    let _ended = calls.send(Call::Session(headers, near));
    Response::new(ReceiverStream::new(outgoing).boxed())
}

macro_rules! service {
    ($name:ident, $path:literal, |$calls:ident, $request:ident, $method:ident| $answer:expr) => {
        #[derive(Clone)]
        struct $name(mpsc::UnboundedSender<Call>);

        impl NamedService for $name {
            const NAME: &'static str = $path;
        }

        impl tower::Service<http::Request<Body>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, $request: http::Request<Body>) -> Self::Future {
                let $calls = self.0.clone();
                Box::pin(async move {
                    let path = $request.uri().path().to_owned();
                    let $method = path.rsplit('/').next().unwrap_or_default();
                    Ok($answer)
                })
            }
        }
    };
}

/// Answers with one message.
macro_rules! unary {
    ($calls:ident, $request:ident, $message:ty, $answer:ty, |$incoming:ident, $reply:ident| $call:expr) => {
        Grpc::new(Codec::<$answer, $message>::default())
            .unary(
                tower::service_fn(move |$incoming: Request<$message>| {
                    hand_over($calls.clone(), move |$reply| $call)
                }),
                $request,
            )
            .await
    };
}

/// Answers with many messages.
macro_rules! streaming {
    ($calls:ident, $request:ident, $message:ty, $answer:ty, |$incoming:ident, $reply:ident| $call:expr) => {
        Grpc::new(Codec::<$answer, $message>::default())
            .server_streaming(
                tower::service_fn(move |$incoming: Request<$message>| {
                    hand_over($calls.clone(), move |$reply| $call)
                }),
                $request,
            )
            .await
    };
}

service!(
    Control,
    "moby.buildkit.v1.Control",
    |calls, request, method| match method {
        "Session" => {
            Grpc::new(Codec::<control::BytesMessage, control::BytesMessage>::default())
                .streaming(
                    tower::service_fn(move |request| {
                        let answer = tunnel(&calls, request);
                        async move { Ok(answer) }
                    }),
                    request,
                )
                .await
        }
        "Solve" => unary!(
            calls,
            request,
            control::SolveRequest,
            control::SolveResponse,
            |incoming, reply| { Call::Solve(incoming.into_inner(), reply) }
        ),
        "Status" => {
            streaming!(
                calls,
                request,
                control::StatusRequest,
                control::StatusResponse,
                |incoming, reply| { Call::Status(incoming.into_inner(), reply) }
            )
        }
        "Prune" => {
            streaming!(
                calls,
                request,
                control::PruneRequest,
                control::UsageRecord,
                |incoming, reply| { Call::Prune(incoming.into_inner(), reply) }
            )
        }
        "DiskUsage" => {
            unary!(
                calls,
                request,
                control::DiskUsageRequest,
                control::DiskUsageResponse,
                |incoming, reply| { Call::DiskUsage(incoming.into_inner(), reply) }
            )
        }
        "ListWorkers" => {
            unary!(
                calls,
                request,
                control::ListWorkersRequest,
                control::ListWorkersResponse,
                |incoming, reply| { Call::Workers(incoming.into_inner(), reply) }
            )
        }
        "Info" => unary!(
            calls,
            request,
            control::InfoRequest,
            control::InfoResponse,
            |_asked, reply| { Call::Info(reply) }
        ),
        other => Status::unimplemented(other.to_owned()).into_http(),
    }
);

service!(
    Gateway,
    "moby.buildkit.v1.frontend.LLBBridge",
    |calls, request, method| match method {
        "Solve" => unary!(
            calls,
            request,
            gateway::SolveRequest,
            gateway::SolveResponse,
            |incoming, reply| {
                Call::Ask(incoming.metadata().clone(), incoming.into_inner(), reply)
            }
        ),
        "Return" => unary!(
            calls,
            request,
            gateway::ReturnRequest,
            gateway::ReturnResponse,
            |incoming, reply| {
                Call::Return(incoming.metadata().clone(), incoming.into_inner(), reply)
            }
        ),
        other => Status::unimplemented(other.to_owned()).into_http(),
    }
);
