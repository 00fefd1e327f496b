//! Streams of a session. All are bounded, and dropping one ends the call.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;

use crate::error::CallError;
use crate::packet::Packet;

/// Number of packets that may wait to be sent.
pub const PACKETS_IN_FLIGHT: usize = 1024;

/// A two-way stream of file-sync packets.
pub struct PacketStream {
    /// Packets of the other side, up to its end. The call starts when this is first polled.
    pub incoming: BoxStream<'static, Result<Packet, CallError>>,
    /// Packets to the other side; dropping the sender half-closes the stream.
    pub outgoing: mpsc::Sender<Packet>,
}

impl PacketStream {
    /// Two ends of a stream inside this process.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (left, from_left) = mpsc::channel(PACKETS_IN_FLIGHT);
        let (right, from_right) = mpsc::channel(PACKETS_IN_FLIGHT);
        (
            Self {
                incoming: packets(from_right),
                outgoing: left,
            },
            Self {
                incoming: packets(from_left),
                outgoing: right,
            },
        )
    }
}

fn packets(receiver: mpsc::Receiver<Packet>) -> BoxStream<'static, Result<Packet, CallError>> {
    futures::stream::unfold(receiver, |mut r| async move {
        r.recv().await.map(|p| (Ok(p), r))
    })
    .boxed()
}

impl fmt::Debug for PacketStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketStream").finish_non_exhaustive()
    }
}

/// Bytes from the client.
pub type ByteStream = BoxStream<'static, Result<Bytes, CallError>>;

/// A two-way stream of bytes.
pub struct Duplex {
    /// Bytes of the client, up to its end.
    pub incoming: ByteStream,
    /// Bytes to the client; dropping the sender half-closes the stream.
    pub outgoing: mpsc::Sender<Bytes>,
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").finish_non_exhaustive()
    }
}

/// Bytes on their way to the client. Dropped before [`ByteSink::finish`], the transfer is aborted.
pub struct ByteSink {
    outgoing: mpsc::Sender<Bytes>,
    taken: BoxFuture<'static, Result<(), CallError>>,
}

impl ByteSink {
    /// Size limit of a message in bytes; larger ones are split.
    pub const MAX_CHUNK: usize = 1 << 20;

    /// Combines a bounded queue with a future that resolves when the client has received everything.
    #[must_use]
    pub fn new(
        outgoing: mpsc::Sender<Bytes>,
        taken: BoxFuture<'static, Result<(), CallError>>,
    ) -> Self {
        Self { outgoing, taken }
    }

    /// Sends bytes; waits while the client is slower. The error is the client's.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), CallError> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(Self::MAX_CHUNK));
            if self.outgoing.send(chunk).await.is_err() {
                (&mut self.taken).await?;
                return Err(CallError::protocol(
                    "DiffCopy",
                    "the stream ended before it was finished",
                ));
            }
        }
        Ok(())
    }

    /// Closes the stream and waits until the client has received everything.
    pub async fn finish(self) -> Result<(), CallError> {
        drop(self.outgoing);
        self.taken.await
    }
}

impl fmt::Debug for ByteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteSink").finish_non_exhaustive()
    }
}
