//! Puts the services together and serves them.

use std::future::Future;
use std::sync::Arc;

use engine::api::Backend;
use futures::Stream;
use services::content::content_server::ContentServer;
use services::control::control_server::ControlServer;
use services::gateway::llb_bridge_server::LlbBridgeServer;
use services::health::health_server::HealthServer;
use services::trace::trace_service_server::TraceServiceServer;
use session::SessionManager;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::Routes;
use tonic::transport::server::{Connected, Server};

use crate::content::ContentService;
use crate::gateway::{Builds, GatewayService};
use crate::health::HealthService;
use crate::limits::{self, Limits};
use crate::service::ControlService;
use crate::trace::SpanService;

/// What a client may send on one call before it is read. As in the tunnel of a session, a full window of small frames must cost
/// less than half of the connection's window.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// What a client may send on all calls of a connection before it is read.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// All services of the daemon, to be served on any number of listeners.
#[must_use]
pub fn routes(backend: Arc<dyn Backend>, sessions: Arc<SessionManager>) -> Routes {
    let builds = Builds::new();
    let control = ControlService::new(backend.clone(), sessions, builds.clone());
    let gateway = GatewayService::new(builds);
    // Answers have no limit here: their sizes are bounded where the messages are built.
    Routes::new(ControlServer::new(control).max_decoding_message_size(proto::MAX_MESSAGE))
        .add_service(LlbBridgeServer::new(gateway).max_decoding_message_size(proto::MAX_MESSAGE))
        .add_service(HealthServer::new(HealthService::new(backend.draining())))
        .add_service(
            TraceServiceServer::new(SpanService::new(backend.clone()))
                .max_decoding_message_size(proto::MAX_MESSAGE),
        )
        .add_service(ContentServer::new(ContentService::new(backend)))
}

/// Serves on one listener until `stop` resolves; calls that run then are finished first.
///
/// A connection that fails to be accepted is no reason to stop: `incoming` should not yield errors for it.
pub async fn serve<I, IO, E>(
    routes: Routes,
    incoming: I,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Server::builder()
        .layer(Limits)
        .http2_max_header_list_size(limits::MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::MAX_STREAMS)
        .tcp_nodelay(true)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
        .map_err(|source| ServeError { source })
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve: {}", oci::error::chain(source))]
pub struct ServeError {
    source: tonic::transport::Error,
}

impl ServeError {
    /// What kind of error it is: that of the system call that failed, where there is one among the causes.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        let causes = std::iter::successors(
            Some(&self.source as &(dyn std::error::Error + 'static)),
            |error| error.source(),
        );
        causes
            .filter_map(|error| error.downcast_ref::<std::io::Error>())
            .map(oci::ErrorKind::of_io)
            .next()
            .unwrap_or(oci::ErrorKind::System)
    }
}
