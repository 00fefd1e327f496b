//! A byte stream inside the messages of `Control.Session`, seen from the client.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use proto::control::BytesMessage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;
use tonic::Streaming;
use tonic::transport::server::Connected;

/// How many messages may wait to go to the daemon.
pub(crate) const MAX_WAITING_MESSAGES: usize = 64;

/// The byte stream. It ends when the session is dropped: connections of a server outlive the server's own future.
pub(crate) struct Tunnel {
    alive: oneshot::Receiver<()>,
    is_closed: bool,
    reader: Pin<Box<dyn AsyncRead + Send>>,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
}

impl Tunnel {
    pub(crate) fn new(
        incoming: Streaming<BytesMessage>,
        outgoing: mpsc::Sender<BytesMessage>,
        alive: oneshot::Receiver<()>,
    ) -> Self {
        let reader = StreamReader::new(
            incoming.map(|message| message.map(|m| m.data).map_err(io::Error::other)),
        );
        let sink = PollSender::new(outgoing)
            .sink_map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
            .with(|data: Bytes| std::future::ready(Ok::<_, io::Error>(BytesMessage { data })));
        Self {
            alive,
            is_closed: false,
            reader: Box::pin(reader),
            writer: Box::pin(SinkWriter::new(CopyToBytes::new(sink))),
        }
    }
}

impl Connected for Tunnel {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_closed || Pin::new(&mut self.alive).poll(cx).is_ready() {
            self.is_closed = true;
            return Poll::Ready(Ok(()));
        }
        self.reader.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.writer.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_shutdown(cx)
    }
}
