//! A byte stream inside the messages of `Control.Session`, and a gRPC connection on top of it.
//!
//! The client serves HTTP/2 in there and we are its client. The tunnel carries bytes only after the handler has returned its
//! response, so nothing here is awaited by the handler.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::control::BytesMessage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Messages that may wait to be sent to the client.
const MAX_QUEUED_MESSAGES: usize = 64;
/// Headers of one answer; errors of clients carry details in them.
const MAX_HEADER_BYTES: u32 = 1 << 20;
/// What a client may send on one call before it is read. The `h2` crate ends a connection on which small frames wait to be read: a
/// frame of fewer than 256 bytes costs what is missing to 256, and half of the connection's window is the budget. A folder
/// of a hundred thousand small files comes as such frames, faster than a slow disk takes them, so the window of a call must be
/// full long before the budget is spent: frames of 20 bytes cost 12 times the window, 24 MiB, and the budget is 128 MiB.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// What a client may send on all calls of a session before it is read. Few calls are open at a time, and each has its own window.
const CONNECTION_WINDOW_BYTES: u32 = 256 << 20;

/// The messages that the handler of `Control.Session` answers with.
pub(crate) type Outgoing = mpsc::Receiver<Result<BytesMessage, Status>>;
/// For telling the client why its session ended.
pub(crate) type Farewell = mpsc::Sender<Result<BytesMessage, Status>>;

/// The byte stream of a session. `open` returns a receiver that notices when it is dropped.
pub(crate) struct Tunnel {
    read: Pin<Box<dyn AsyncRead + Send>>,
    write: Pin<Box<dyn AsyncWrite + Send>>,
    cut: oneshot::Receiver<()>,
    _drop_notice: watch::Sender<()>,
}

/// Cuts the stream off, so that calls which wait for the other side fail. Dropping it does nothing.
pub(crate) type Cut = oneshot::Sender<()>;

/// Makes a byte stream of the messages of a call. Waiting on the receiver of `watch` fails when the stream has been dropped.
pub(crate) fn open(
    incoming: Streaming<BytesMessage>,
) -> (Tunnel, Cut, watch::Receiver<()>, Outgoing, Farewell) {
    let (sender, outgoing) = mpsc::channel(MAX_QUEUED_MESSAGES);
    let farewell = sender.clone();
    let (drop_notice, alive) = watch::channel(());
    let (cut, is_cut) = oneshot::channel();
    let read = StreamReader::new(
        incoming.map(|message| message.map(|m| m.data).map_err(io::Error::other)),
    );
    let sink = PollSender::new(sender)
        // The channel's error carries no reason: the client's call has ended.
        .sink_map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        .with(|data: Bytes| std::future::ready(Ok::<_, io::Error>(Ok(BytesMessage { data }))));
    let write = SinkWriter::new(CopyToBytes::new(sink));
    (
        Tunnel {
            read: Box::pin(read),
            write: Box::pin(write),
            cut: is_cut,
            _drop_notice: drop_notice,
        },
        cut,
        alive,
        outgoing,
        farewell,
    )
}

/// Starts HTTP/2 as a client inside a tunnel. One connection for the life of the session.
pub(crate) async fn connect(tunnel: Tunnel) -> Result<Channel, tonic::transport::Error> {
    let first_tunnel = Arc::new(Mutex::new(Some(tunnel)));
    Endpoint::from_static("http://localhost")
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(tower::service_fn(move |_| {
            let tunnel = first_tunnel.lock().take();
            async move {
                tunnel
                    .map(TokioIo::new)
                    .ok_or_else(|| io::Error::other("only one connection allowed"))
            }
        }))
        .await
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.cut.is_terminated()
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.cut).poll(cx)
        {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        self.read.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.as_mut().poll_shutdown(cx)
    }
}
