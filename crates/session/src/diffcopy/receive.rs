//! Drives the receiving side: compares with what is there, writes what differs, deletes what is gone.
//!
//! ```text
//!   stream ──► pump (async, batches) ──► coordinator (a thread of its own) ──► writers (a few threads)
//!     ▲                                     │ merges the list with a walk of what is there
//!     └───────────── REQ, FIN ──────────────┘
//! ```
//!
//! Requests never make the coordinator wait: a window of them fits into the queue, so reading goes on whatever the other side
//! does. Links are made and times of folders are set when all contents are there. The pump ends the transfer when nothing
//! comes for too long, and with it the threads.

use std::fmt;
use std::sync::Arc;

use fstree::hash::TreeHashes;
use fstree::walk::WalkError;
use fstree::{PathError, Root, Stat};
use futures::stream::{BoxStream, Fuse};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;

use crate::diffcopy::CallSide;
use crate::diffcopy::compare::Compare;
use crate::diffcopy::coordinate::coordinate;
use crate::diffcopy::marks::Marks;
use crate::diffcopy::metadata::WantsContents;
use crate::diffcopy::receiver::ProtocolError;
use crate::error::CallError;
use crate::error::LimitError;
use crate::packet::Packet;
use crate::stream::PacketStream;
use crate::transfers::TransferShare;

/// Changes the metadata of a file before it is used; `false` leaves the file out.
pub type MapStat = Arc<dyn Fn(&mut Stat) -> bool + Send + Sync>;

/// Called with the number of bytes received so far.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// Options of receiving a tree.
#[derive(Clone)]
pub struct ReceiveOptions {
    /// Name of the sender's tree in errors.
    pub name: String,
    /// The side of the call that this process is on.
    pub side: CallSide,
    /// Limits of the transfer.
    pub share: Arc<TransferShare>,
    /// Whether existing files that are not listed stay.
    pub merge: bool,
    /// Which existing files count as the listed ones.
    pub compare: Compare,
    /// Changes metadata before it is compared and written. Digests are made of the metadata as listed.
    pub map: Option<MapStat>,
    /// Digests of the existing tree; updated by the transfer. They must cover the whole tree, or both must be empty.
    pub hashes: Option<Arc<TreeHashes>>,
    /// Called with the number of bytes received.
    pub progress: Option<Progress>,
    /// Files whose contents are transferred while all others are only listed; none transfers all.
    pub metadata_only: Option<WantsContents>,
    /// Marks of the last transfer from a sender that reports changes; updated by this one.
    pub marks: Option<Arc<Marks>>,
}

impl Default for ReceiveOptions {
    /// Options of a client: no limits of time and space.
    fn default() -> Self {
        Self {
            name: "the tree".to_owned(),
            side: CallSide::default(),
            share: TransferShare::of_client(),
            merge: false,
            compare: Compare::default(),
            map: None,
            hashes: None,
            progress: None,
            metadata_only: None,
            marks: None,
        }
    }
}

impl fmt::Debug for ReceiveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveOptions")
            .field("merge", &self.merge)
            .field("compare", &self.compare)
            .finish_non_exhaustive()
    }
}

/// Counts of a finished transfer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveCounts {
    /// Files in the list.
    pub listed: u64,
    /// Files whose contents were requested.
    pub requested: u64,
    /// Files created, changed or removed.
    pub changed: u64,
    /// Bytes of contents and metadata that were received.
    pub bytes: u64,
}

/// Why a tree was not received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The sender broke the protocol or reported an error.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] PathError),
    /// The existing tree could not be listed.
    #[error("failed to walk: {0}")]
    Walk(#[from] WalkError),
    /// The transfer exceeds a limit of its session.
    #[error("{name}: {source}")]
    Limit {
        /// Name of the tree.
        name: String,
        /// The exceeded limit.
        source: LimitError,
    },
    /// The sender has stopped sending.
    #[error(
        "{name}: the client stopped sending: nothing came for {seconds} seconds, after {listed} files and {bytes} bytes"
    )]
    Stalled {
        /// Name of the tree.
        name: String,
        /// Seconds without a packet.
        seconds: u64,
        /// Number of files listed so far.
        listed: u64,
        /// Bytes of contents received so far.
        bytes: u64,
    },
    /// No thread could be started.
    #[error("cannot start a thread for a transfer: {0}")]
    Thread(#[source] std::io::Error),
}

/// Packets that go to the coordinator together.
pub(super) type Batch = Vec<Result<Packet, CallError>>;
type Packets = Fuse<BoxStream<'static, Result<Packet, CallError>>>;

const MAX_BATCH_PACKETS: usize = 64;
/// A batch ends with the packet that makes it this large.
const MAX_BATCH_BYTES: usize = 1 << 20;
const MAX_WAITING_BATCHES: usize = 4;

/// The packets that have arrived, at least one.
async fn next_batch(incoming: &mut Packets) -> Option<Batch> {
    let mut batch = vec![incoming.next().await?];
    let size = |packet: Option<&Result<Packet, CallError>>| match packet {
        Some(Ok(Packet::Data { bytes, .. })) => bytes.len(),
        Some(Ok(Packet::Stat(Some(stat)))) => stat.xattrs.values().map(Vec::len).sum(),
        _ => 0,
    };
    let mut bytes = size(batch.last());
    while batch.len() < MAX_BATCH_PACKETS && bytes < MAX_BATCH_BYTES {
        let Some(Some(packet)) = incoming.next().now_or_never() else {
            break;
        };
        batch.push(packet);
        bytes += size(batch.last());
    }
    Some(batch)
}

/// Receives a tree into `root`. Dropping the future stops it; what was written stays, and is compared the next time.
pub async fn receive(
    stream: PacketStream,
    root: Root,
    options: ReceiveOptions,
) -> Result<ReceiveCounts, ReceiveError> {
    let PacketStream { incoming, outgoing } = stream;
    let mut incoming = incoming.fuse();
    let share = Arc::clone(&options.share);
    let (name, side) = (options.name.clone(), options.side);
    let permit = share.permit().await;
    let (batches, arriving) = mpsc::channel::<Batch>(MAX_WAITING_BATCHES);
    let job = task::thread("diffcopy receive", move || {
        let _permit = permit;
        let to_sender = outgoing.clone();
        let result = coordinate(arriving, outgoing, &root, &options);
        if let Err(error) = &result {
            let _closed = to_sender.try_send(Packet::Err(error.to_string()));
        }
        result
    })
    .map_err(ReceiveError::Thread)?;
    tokio::pin!(job);
    let (mut packets, mut bytes) = (0, 0);
    let mut batches = Some(batches);
    let result = loop {
        let Some(sender) = batches.clone() else {
            break job.await;
        };
        tokio::select! {
            result = &mut job => break result,
            // No time counts while we are the slow ones.
            room = sender.reserve() => {
                let Ok(room) = room else { break job.await };
                tokio::select! {
                    result = &mut job => break result,
                    batch = share.within(next_batch(&mut incoming)) => match batch {
                        Some(Some(batch)) => {
                            for packet in batch.iter().flatten() {
                                packets += 1;
                                if let Packet::Data { bytes: piece, .. } = packet {
                                    bytes += piece.len() as u64;
                                }
                            }
                            room.send(batch);
                        }
                        Some(None) => { drop(room); batches = None; }
                        None => return Err(stalled(name, &share, packets, bytes)),
                    }
                }
            }
        }
    };
    let received = result?;
    // The side that answers closes after its FIN; what it has to say at the end counts.
    if side == CallSide::Callee {
        return Ok(received);
    }
    loop {
        match share.within(incoming.next()).await {
            Some(Some(packet)) => drop(packet?),
            Some(None) => return Ok(received),
            None => return Err(stalled(name, &share, packets, bytes)),
        }
    }
}

fn stalled(name: String, share: &TransferShare, listed: u64, bytes: u64) -> ReceiveError {
    ReceiveError::Stalled {
        name,
        seconds: share.idle().map_or(0, |idle| idle.as_secs()),
        listed,
        bytes,
    }
}

impl ReceiveError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Call(error) => error.kind(),
            Self::Protocol(error) => error.kind(),
            Self::Write(error) => error.kind(),
            Self::Walk(error) => ErrorKind::of_causes(error),
            Self::Limit { .. } => ErrorKind::Denied,
            Self::Stalled { .. } => ErrorKind::TimedOut,
            Self::Thread(error) => ErrorKind::of_io(error),
        }
    }
}
