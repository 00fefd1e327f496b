//! Spans of programs in steps: a service of its own on a socket that containers have.
//!
//! ```text
//!   program in a step ──► socket ──► TraceService ──► spans of a running build? ─┬─► its trace
//!                                                                               └─► collector, as they came
//! ```
//!
//! Whoever speaks here is hostile: connections, calls and messages are few and small, none of them counts on what clients may use, and
//! what belongs to no running build goes nowhere. A step learns the trace of its own build only.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use engine::api::{Backend, Span, SpanSubject};
use futures::Stream;
use metrics::Signal;
use proto::otlp;
use proto::otlp::any_value;
use proto::trace::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use services::trace::trace_service_server::{TraceService, TraceServiceServer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Status};

/// Connections at the same time, of all steps.
const MAX_CONNECTIONS: usize = 32;
/// Calls at the same time on one of them.
const MAX_CALLS: u32 = 4;
/// The longest message, in bytes. A batch of OpenTelemetry's default size has a few hundred KiB.
const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// What may be sent on a call, and on a connection, before it is read.
const WINDOW_BYTES: u32 = 256 << 10;
/// The longest header of a call, in bytes.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest name, value or message of a span that a trace keeps, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 10;
/// Attributes of a span that a trace keeps.
const MAX_ATTRIBUTES: usize = 64;
/// The pause after a connection that could not be accepted, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket for steps.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for spans of steps at {} (otel.socketPath): {source}", path.display())]
pub struct StepSpansError {
    path: PathBuf,
    source: io::Error,
}

impl StepSpansError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::of_host(&self.source)
    }
}

/// Takes spans of steps while it is held. Dropped, it removes the socket.
#[derive(Debug)]
pub struct StepSpans {
    path: PathBuf,
    _server: task::Task<()>,
}

impl StepSpans {
    /// Listens at `path`, in the place of a socket that another daemon left. Must be called on a runtime.
    pub fn listen(path: &Path, backend: Arc<dyn Backend>) -> Result<Self, StepSpansError> {
        let listener = bind(path).map_err(|source| StepSpansError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            _server: task::spawn("spans of steps", serve(listener, backend)),
        })
    }
}

impl Drop for StepSpans {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the socket for spans of steps stays");
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // The folder of a socket in the working folder has no name.
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    std::fs::create_dir_all(parent)?;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => {
            std::fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // A socket's address has 108 bytes, unix(7), and the folder of a tenant alone may have more: the folder is named by a descriptor.
    let folder = std::fs::File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
    let listener = UnixListener::bind(short.join(name))?;
    // Steps run as whatever user they name.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn serve(listener: UnixListener, backend: Arc<dyn Backend>) {
    let service = TraceServiceServer::new(StepSpanService { backend })
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let served = Server::builder()
        .timeout(CALL_TIMEOUT)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(MAX_CALLS)
        .add_service(service)
        .serve_with_incoming(incoming(listener));
    if let Err(error) = served.await {
        tracing::warn!(
            error = oci::error::chain(&error),
            "spans of steps are not taken any more"
        );
    }
}

/// Connections, no more of them at a time than [`MAX_CONNECTIONS`].
fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<StepConnection>> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    futures::stream::unfold((listener, places), |(listener, places)| async move {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = StepConnection {
                        stream,
                        _place: place,
                    };
                    return Some((Ok(connection), (listener, places)));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection of a step was not accepted");
                    task::clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

struct StepConnection {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for StepConnection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for StepConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StepConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct StepSpanService {
    backend: Arc<dyn Backend>,
}

#[tonic::async_trait]
impl TraceService for StepSpanService {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for bytes in request.into_inner().resource_spans {
            let message: otlp::ResourceSpans = proto::weigh::decode(&bytes)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let spans = spans_of(message);
            let count = spans.len() as u64;
            if !self.backend.add_step_spans(spans, Bytes::from(bytes)) {
                metrics::TELEMETRY_LOST.add(Signal::Traces, count);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn spans_of(message: otlp::ResourceSpans) -> Vec<Span> {
    let attributes = message.resource.unwrap_or_default().attributes;
    let service = attributes
        .iter()
        .find(|attribute| attribute.key == "service.name")
        .and_then(value_of)
        .unwrap_or_default();
    let scopes = message.scope_spans.into_iter();
    scopes
        .flat_map(|scope| scope.spans)
        .filter_map(|span| span_of(span, &service))
        .collect()
}

/// A span with ids of the right length; others belong nowhere.
fn span_of(span: otlp::Span, service: &str) -> Option<Span> {
    let parent = span.parent_span_id.as_slice();
    let parent = (!parent.is_empty()).then(|| parent.try_into());
    let status = span.status.unwrap_or_default();
    let is_error = status.code == i32::from(otlp::SpanStatusCode::StatusCodeError);
    let error = match (is_error, status.message.is_empty()) {
        (true, true) => "error".to_owned(),
        (true, false) => shortened(status.message),
        (false, _) => String::new(),
    };
    let attributes = span.attributes.iter().take(MAX_ATTRIBUTES);
    let attributes = attributes.filter_map(|attribute| {
        let value = value_of(attribute)?;
        Some((shortened(attribute.key.clone()), value))
    });
    Some(Span {
        trace: span.trace_id.as_slice().try_into().ok()?,
        id: span.span_id.as_slice().try_into().ok()?,
        parent: parent.transpose().ok()?,
        start: time(span.start_time_unix_nano),
        end: time(span.end_time_unix_nano),
        error,
        subject: SpanSubject::Program {
            service: service.to_owned(),
            attributes: attributes.collect(),
        },
        name: shortened(span.name),
    })
}

fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

/// The value of an attribute as text; none of a kind that is not shown.
fn value_of(attribute: &otlp::KeyValue) -> Option<String> {
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(shortened(text.clone())),
        any_value::Value::BoolValue(value) => Some(value.to_string()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        any_value::Value::DoubleValue(number) => Some(number.to_string()),
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    }
    text
}
