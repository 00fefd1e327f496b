//! A bridge as gRPC over the standard streams of a frontend's program.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use engine::api::frontend::gateway_image::FrontendHost;
use engine::api::frontend::{Bridge, BridgeError, FrontendResult};
use futures::stream::StreamExt;
use llb::pb;
use services::gateway::llb_bridge_server::LlbBridgeServer;
use services::health::health_server::HealthServer;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::oneshot;
use tonic::transport::Server;

use crate::gateway::GatewayService;
use crate::gateway::build::Build;
use crate::health::HealthService;
use crate::io::Connection;
use crate::limits::{self, Limits};

/// Serves the gateway to frontends from images over the standard streams of their processes.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdioHost;

/// A stream that drops a channel's sender together with itself, so that the receiver notices the end of the connection.
struct NotifyOnDrop {
    stream: DuplexStream,
    _drop_notice: oneshot::Sender<Infallible>,
}

impl AsyncRead for NotifyOnDrop {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for NotifyOnDrop {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl FrontendHost for StdioHost {
    async fn serve(
        &self,
        bridge: Arc<dyn Bridge>,
        inputs: BTreeMap<String, Arc<pb::Definition>>,
        stream: DuplexStream,
    ) -> Option<Result<FrontendResult, BridgeError>> {
        let (outcome_sender, mut outcome) = oneshot::channel();
        let build = Arc::new(Build::new(bridge, inputs, Some(outcome_sender)));
        let (drop_notice, dropped) = oneshot::channel::<Infallible>();
        let connection = Connection::new(NotifyOnDrop {
            stream,
            _drop_notice: drop_notice,
        });
        let bridge = LlbBridgeServer::new(GatewayService::of(Arc::clone(&build)))
            .max_decoding_message_size(proto::MAX_MESSAGE);
        let incoming = futures::stream::iter([Ok::<_, std::io::Error>(connection)])
            .chain(futures::stream::pending());
        let served = Server::builder()
            .layer(Limits)
            .http2_max_header_list_size(limits::MAX_HEADER_BYTES)
            .max_concurrent_streams(limits::MAX_STREAMS)
            .add_service(bridge)
            .add_service(HealthServer::new(HealthService::default()))
            .serve_with_incoming_shutdown(incoming, async move {
                // Nothing is ever sent: the receiver resolves when the connection ends.
                drop(dropped.await);
            })
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "the connection to a frontend's program failed");
        }
        build.discard().await;
        let outcome = outcome.try_recv().ok()?;
        Some(outcome.map_err(BridgeError::from))
    }
}
