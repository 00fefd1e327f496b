//! What one connection and one call may hold.
//!
//! | limit | of | |
//! |---|---|---|
//! | [`MAX_STREAMS`] | calls at the same time on a connection | 2,048 |
//! | [`MAX_HEADER_BYTES`] | headers of one call, unpacked | 64 KiB |
//! | [`METHODS`] | one request, by its method | 4 KiB to 16 MiB |
//! | [`proto::weigh`] | one message in memory | 1 MiB and sixteen times its length, at most 96 MiB |
//! | [`MAX_CONNECTION_BYTES`] | memory of the requests of one connection that are being read or answered | 256 MiB |
//! | [`MAX_DAEMON_BYTES`] | memory of the requests of all connections | 512 MiB |
//!
//! The bytes of a request count from when they arrive until its answer is there, and so does what they become when they are decoded:
//! neither many slow requests nor many that wait are free. The messages of a stream (a session, the processes of a container) come one at a time and are not added up.
//!
//! Calls are watched as well: one that computes on a thread of the runtime is named, see [`task::watch`].

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use services::codec::{Meter, metered};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// Calls at the same time on one connection. A build has two or three that last, and clients with many builds have one connection.
pub(crate) const MAX_STREAMS: u32 = 2048;
/// Headers of one call. Clients send some 3 KiB, most of it the names of what their session offers.
pub(crate) const MAX_HEADER_BYTES: u32 = 64 << 10;
/// Memory of the requests of one connection that are being read or answered.
const MAX_CONNECTION_BYTES: usize = 256 << 20;
/// Memory of the requests of all connections.
const MAX_DAEMON_BYTES: usize = 512 << 20;

/// A request that names something.
const SMALL_REQUEST_BYTES: usize = 64 << 10;
/// A request with lists, or with policies.
const MEDIUM_REQUEST_BYTES: usize = 4 << 20;
/// A request with definitions.
const LARGE_REQUEST_BYTES: usize = proto::MAX_MESSAGE + (64 << 10);

/// A method by its path, and the longest request that it takes in bytes; none for a stream.
struct Method(&'static str, Option<usize>);

/// The methods of all services with their limits.
static METHODS: &[Method] = &[
    Method("/moby.buildkit.v1.Control/Solve", Some(LARGE_REQUEST_BYTES)),
    Method("/moby.buildkit.v1.Control/Session", None),
    Method(
        "/moby.buildkit.v1.Control/Status",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.Control/DiskUsage",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method("/moby.buildkit.v1.Control/Prune", Some(SMALL_REQUEST_BYTES)),
    Method(
        "/moby.buildkit.v1.Control/ListWorkers",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.Control/ListenBuildHistory",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.Control/UpdateBuildHistory",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/Solve",
        Some(LARGE_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/Return",
        Some(LARGE_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/Warn",
        Some(MEDIUM_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/Inputs",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/ReadFile",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/ReadDir",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/StatFile",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/Evaluate",
        Some(SMALL_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/NewContainer",
        Some(MEDIUM_REQUEST_BYTES),
    ),
    Method("/moby.buildkit.v1.frontend.LLBBridge/ExecProcess", None),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig",
        Some(MEDIUM_REQUEST_BYTES),
    ),
    Method(
        "/moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta",
        Some(MEDIUM_REQUEST_BYTES),
    ),
    Method(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Some(MEDIUM_REQUEST_BYTES),
    ),
    Method("/containerd.services.content.v1.Content/Write", None),
    Method("/grpc.health.v1.Health/Check", Some(4 << 10)),
    Method("/grpc.health.v1.Health/Watch", Some(4 << 10)),
];
/// Stands for a method that is not in the list.
static OTHER_METHOD: Method = Method("a call", Some(SMALL_REQUEST_BYTES));

impl Method {
    fn of(path: &str) -> &'static Self {
        METHODS
            .iter()
            .find(|m| m.0 == path)
            .unwrap_or(&OTHER_METHOD)
    }
}

/// The memory that requests of one connection, or of all, hold and may hold.
#[derive(Debug)]
pub struct MemoryShare {
    held: AtomicUsize,
    max: usize,
}

static DAEMON_SHARE: MemoryShare = MemoryShare::of(MAX_DAEMON_BYTES);

impl MemoryShare {
    const fn of(max: usize) -> Self {
        let held = AtomicUsize::new(0);
        Self { held, max }
    }

    /// The share of one connection.
    pub(crate) fn of_connection() -> Arc<Self> {
        Arc::new(Self::of(MAX_CONNECTION_BYTES))
    }

    fn take(&self, bytes: usize) -> bool {
        let add = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.max);
        let update = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        update.is_ok()
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The memory that one request holds until it is answered; dropping it gives the memory back.
#[derive(Debug)]
struct RequestMemory {
    connection: Option<Arc<MemoryShare>>,
    bytes: AtomicUsize,
}

impl Meter for RequestMemory {
    fn take(&self, bytes: usize) -> Result<(), Status> {
        if let Some(connection) = &self.connection
            && !connection.take(bytes)
        {
            return Err(Status::resource_exhausted(format!(
                "the requests of this connection hold more than {MAX_CONNECTION_BYTES} bytes; wait for answers before sending more"
            )));
        }
        if !DAEMON_SHARE.take(bytes) {
            if let Some(connection) = &self.connection {
                connection.give(bytes);
            }
            return Err(Status::resource_exhausted(format!(
                "the requests of all clients hold more than {MAX_DAEMON_BYTES} bytes; try again later"
            )));
        }
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        DAEMON_SHARE.give(bytes);
        if let Some(connection) = &self.connection {
            connection.give(bytes);
        }
    }
}

// DIFFERS: BuildKit limits messages and headers to 16 MiB each, and nothing else.
/// Puts the limits on all calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits;

impl<S> Layer<S> for Limits {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner }
    }
}

/// Services whose calls are limited and watched.
#[derive(Debug, Clone)]
pub(crate) struct Limited<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let memory = Arc::new(RequestMemory {
            connection: request.extensions().get::<Arc<MemoryShare>>().cloned(),
            bytes: AtomicUsize::new(0),
        });
        let start = task::clock::monotonic();
        let counted = metrics::RpcMethod::of_path(request.uri().path());
        let limit = method.1;
        let request = match limit {
            None => request,
            Some(bytes_left) => {
                let memory = Arc::clone(&memory);
                request.map(|body| {
                    Body::new(Counted {
                        body,
                        memory,
                        bytes_left,
                    })
                })
            }
        };
        let mut answer = Box::pin(self.inner.call(request));
        Box::pin(async move {
            let answer = std::future::poll_fn(|cx| {
                let meter = Arc::clone(&memory) as Arc<dyn Meter>;
                metered(meter, || answer.as_mut().poll(cx))
            });
            let answer = task::watch::watched(method.0, answer).await?;
            metrics::RPC_DURATION.observe(counted, start.elapsed());
            drop(memory);
            let name = method.0;
            Ok(answer.map(|body| Body::new(Watched { body, name })))
        })
    }
}

/// The body of a request, counted as it arrives.
struct Counted {
    body: Body,
    memory: Arc<RequestMemory>,
    bytes_left: usize,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(Ok(data)) = frame.as_ref().map(|f| f.as_ref().map(Frame::data_ref)) else {
            return Poll::Ready(frame);
        };
        let bytes = data.map_or(0, Bytes::len);
        let counted = match self.bytes_left.checked_sub(bytes) {
            Some(bytes_left) => {
                self.bytes_left = bytes_left;
                self.memory.take(bytes)
            }
            None => Err(Status::resource_exhausted(
                "the request is longer than this method takes",
            )),
        };
        match counted {
            Ok(()) => Poll::Ready(frame),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. The time that computing it takes is measured.
struct Watched {
    body: Body,
    name: &'static str,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let name = self.name;
        task::watch::measured(name, || Pin::new(&mut self.body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(connection: &Arc<MemoryShare>) -> RequestMemory {
        RequestMemory {
            connection: Some(Arc::clone(connection)),
            bytes: AtomicUsize::new(0),
        }
    }

    #[test]
    fn requests_of_a_connection_share_its_memory_and_give_it_back() {
        let connection = MemoryShare::of_connection();
        let (a, b) = (held(&connection), held(&connection));
        a.take(MAX_CONNECTION_BYTES / 2).unwrap();
        b.take(MAX_CONNECTION_BYTES / 2).unwrap();
        let refused = a.take(1).unwrap_err();
        assert!(refused.message().contains("this connection"), "{refused}");
        // Another connection has its own, up to what all have.
        let other = MemoryShare::of_connection();
        let (c, d) = (held(&other), held(&MemoryShare::of_connection()));
        c.take(MAX_DAEMON_BYTES - MAX_CONNECTION_BYTES).unwrap();
        let refused = d.take(1).unwrap_err();
        assert!(refused.message().contains("all clients"), "{refused}");
        drop((a, c));
        b.take(MAX_CONNECTION_BYTES / 2).unwrap();
        drop(b);
        assert_eq!(connection.held.load(Ordering::Acquire), 0);
        assert_eq!(other.held.load(Ordering::Acquire), 0);
    }
}
