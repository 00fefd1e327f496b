//! Drives the sending side: lists a tree on one thread while others read what is asked for.
//!
//! The threads are the transfer's own, because a receiver that takes nothing holds them. What waits to be taken is bounded
//! in bytes, and a daemon ends a transfer in which nothing moves for too long.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fstree::walk::{Filter, Walk, WalkError};
use fstree::{PathError, Root, Stat};
use futures::StreamExt;
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use crate::diffcopy::CallSide;
use crate::diffcopy::receive::{MapStat, Progress};
use crate::diffcopy::receiver::ProtocolError;
use crate::diffcopy::room::Room;
use crate::diffcopy::sender::{SendRequest, Sender};
use crate::error::CallError;
use crate::packet::Packet;
use crate::stream::PacketStream;
use crate::transfers::TransferShare;

/// Size limit of a file's bytes in one packet.
const CHUNK_BYTES: usize = 128 << 10;
/// Size limit of contents that wait for the other side.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// A tree that can be listed and read.
pub trait TreeSource: Send + Sync {
    /// Lists the tree: depth first, names of a folder in byte order, folders before what is in them.
    fn walk(
        &self,
    ) -> Result<Box<dyn Iterator<Item = Result<Stat, SendError>> + Send + '_>, SendError>;

    /// Opens a listed file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;
}

/// A part of a tree on disk.
#[derive(Clone)]
pub struct FilteredTree {
    /// Root of the tree.
    pub root: Root,
    /// Selects the part of the tree.
    pub filter: Filter,
    /// Changes the metadata that is sent; `false` leaves a file out.
    pub map: Option<MapStat>,
    /// Sends marks of changes that the metadata does not show; see [`marks`](crate::diffcopy::marks).
    pub change_marks: bool,
}

impl TreeSource for FilteredTree {
    fn walk(
        &self,
    ) -> Result<Box<dyn Iterator<Item = Result<Stat, SendError>> + Send + '_>, SendError> {
        let mut walk = Walk::new(&self.root, &self.filter)?;
        if self.change_marks {
            walk = walk.with_change_marks();
        }
        Ok(Box::new(walk.filter_map(|stat| match stat {
            Ok(mut stat) => match &self.map {
                Some(map) => map(&mut stat).then_some(Ok(stat)),
                None => Some(Ok(stat)),
            },
            Err(error) => Some(Err(error.into())),
        })))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let (dir, name) = self
            .root
            .parent(path)
            .map_err(|e| e.source)?
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Box::new(dir.open_file(&name)?))
    }
}

impl std::fmt::Debug for FilteredTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilteredTree")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// Why a tree was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The receiver broke the protocol or reported an error.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The tree could not be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] PathError),
    /// The receiver has stopped reading.
    #[error("{name}: the client stopped taking files: nothing moved for {seconds} seconds")]
    Stalled {
        /// Name of the tree.
        name: String,
        /// Seconds without progress.
        seconds: u64,
    },
    /// No thread could be started.
    #[error("cannot start a thread for a transfer: {0}")]
    Thread(#[source] io::Error),
}

/// Options of sending a tree.
#[derive(Clone)]
pub struct SendOptions {
    /// Name of the tree in errors.
    pub name: String,
    /// The side of the call that this process is on.
    pub side: CallSide,
    /// Limits of the transfer.
    pub share: Arc<TransferShare>,
    /// Called with the number of bytes sent so far.
    pub progress: Option<Progress>,
}

impl Default for SendOptions {
    /// Options of a client: no limit of time.
    fn default() -> Self {
        Self {
            name: "the tree".to_owned(),
            side: CallSide::default(),
            share: TransferShare::of_client(),
            progress: None,
        }
    }
}

impl std::fmt::Debug for SendOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendOptions")
            .field("name", &self.name)
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

/// Sends a tree. Dropping the future stops it.
pub async fn send(
    stream: PacketStream,
    source: Arc<dyn TreeSource>,
    options: SendOptions,
) -> Result<(), SendError> {
    let PacketStream {
        mut incoming,
        outgoing,
    } = stream;
    let SendOptions {
        name,
        side,
        share,
        progress,
    } = options;
    let shared = Arc::new(SendState {
        sender: Mutex::new(Sender::new()),
        queue: Mutex::new(Queue::default()),
        wake: Condvar::new(),
        room: Room::new(MAX_WAITING_BYTES),
        moved: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        progress,
    });
    let stalled = || SendError::Stalled {
        name: name.clone(),
        seconds: share.idle().map_or(0, |idle| idle.as_secs()),
    };
    let permit = share.permit().await;
    let closer = CloseOnDrop(shared.clone());
    let job = {
        let (shared, outgoing) = (shared.clone(), outgoing.clone());
        task::thread("diffcopy send", move || {
            let _permit = permit;
            run(&shared, source.as_ref(), &outgoing)
        })
        .map_err(SendError::Thread)?
    };
    tokio::pin!(job);
    let mut listed = false;
    loop {
        let before = shared.moved.load(Ordering::Relaxed);
        tokio::select! {
            result = &mut job, if !listed => {
                listed = true;
                if let Err(error) = result {
                    let _closed = share.within(outgoing.send(Packet::Err(error.to_string()))).await;
                    return Err(error);
                }
            }
            packet = share.within(incoming.next()) => {
                let packet = match packet {
                    Some(packet) => packet.ok_or(ProtocolError::Truncated)?,
                    None if shared.moved.load(Ordering::Relaxed) != before => continue,
                    None => return Err(stalled()),
                };
                let request = shared.sender.lock().take(packet?);
                match request {
                    Ok(SendRequest::Contents { id, path, size }) => shared.push(id, path, size),
                    Ok(SendRequest::Finished) => break,
                    Err(error) => {
                        let _closed = share.within(outgoing.send(Packet::Err(error.to_string()))).await;
                        return Err(error.into());
                    }
                }
            }
        }
    }
    drop(closer);
    if !listed {
        // The threads end without a signal: they read nothing any more, and a receiver that does not read the list is not waited for.
        share.within(job).await.ok_or_else(stalled)??;
    }
    let _closed = share
        .within(outgoing.send(Packet::Fin))
        .await
        .ok_or_else(stalled)?;
    drop(outgoing);
    // The side that answers closes when it has our FIN; what it has to say at the end counts.
    if side == CallSide::Callee {
        return Ok(());
    }
    loop {
        match share.within(incoming.next()).await {
            Some(Some(packet)) => drop(packet?),
            Some(None) => return Ok(()),
            None => return Err(stalled()),
        }
    }
}

struct SendState {
    sender: Mutex<Sender>,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Arc<Room>,
    // Packets that the other side has made room for.
    moved: AtomicU64,
    sent: AtomicU64,
    progress: Option<Progress>,
}

#[derive(Default)]
struct Queue {
    // At most one entry for each file: a file can be asked for once.
    files: VecDeque<(u32, PathBuf, u64)>,
    closed: bool,
}

impl SendState {
    fn push(&self, id: u32, path: PathBuf, size: u64) {
        self.queue.lock().files.push_back((id, path, size));
        self.wake.notify_one();
    }

    fn pop(&self) -> Option<(u32, PathBuf, u64)> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(file) = queue.files.pop_front() {
                return Some(file);
            }
            if queue.closed {
                return None;
            }
            self.wake.wait(&mut queue);
        }
    }

    /// Sends a packet. Returns `false` if the other side is gone.
    fn put(&self, outgoing: &mpsc::Sender<Packet>, packet: Packet) -> bool {
        let is_taken = outgoing.blocking_send(packet).is_ok();
        self.moved.fetch_add(1, Ordering::Relaxed);
        is_taken
    }

    fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_all();
    }

    fn count(&self, bytes: usize) {
        let sent = self.sent.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if let Some(progress) = &self.progress {
            progress(sent);
        }
    }
}

struct CloseOnDrop(Arc<SendState>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

// Lists on this thread, reads on others. Ends when the queue is closed, or when the other side is gone.
fn run(
    shared: &SendState,
    source: &dyn TreeSource,
    outgoing: &mpsc::Sender<Packet>,
) -> Result<(), SendError> {
    let readers = std::thread::available_parallelism()
        .map_or(1, NonZero::get)
        .clamp(2, 4);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|_| scope.spawn(|| read_files(shared, source, outgoing)))
            .collect();
        let listed = list(shared, source, outgoing);
        if listed.is_err() {
            shared.close();
        }
        let mut result = listed;
        for thread in threads {
            match thread.join() {
                Ok(sent) => result = result.and(sent),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}

fn list(
    shared: &SendState,
    source: &dyn TreeSource,
    outgoing: &mpsc::Sender<Packet>,
) -> Result<(), SendError> {
    for stat in source.walk()? {
        let stat = stat?;
        let size = 32 + stat.path.as_os_str().len();
        let packet = shared.sender.lock().list(stat);
        if !shared.put(outgoing, packet) {
            // The reason shows where the stream is read.
            return Ok(());
        }
        shared.count(size);
    }
    let _taken = shared.put(outgoing, Packet::Stat(None));
    Ok(())
}

fn read_files(
    shared: &SendState,
    source: &dyn TreeSource,
    outgoing: &mpsc::Sender<Packet>,
) -> Result<(), SendError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Some((id, path, size)) = shared.pop() {
        // A file that cannot be opened any more is sent empty, as the reference does. One that has grown is sent as far as
        // it was listed: it may grow as fast as it is sent.
        if let Ok(file) = source.open(&path) {
            let mut file = file.take(size);
            loop {
                let length = match file.read(&mut buffer) {
                    Ok(length) => length,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => {
                        shared.close();
                        return Err(PathError::new("read", &path, e).into());
                    }
                };
                if length == 0 {
                    break;
                }
                // One copy, so that a small file does not hold a large buffer.
                let bytes = shared.room.copy(buffer.get(..length).unwrap_or_default());
                shared.count(length);
                if !shared.put(outgoing, Packet::Data { id, bytes }) {
                    return Ok(());
                }
            }
        }
        let bytes = Bytes::new();
        if !shared.put(outgoing, Packet::Data { id, bytes }) {
            return Ok(());
        }
    }
    Ok(())
}

impl SendError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Call(error) => error.kind(),
            Self::Protocol(error) => error.kind(),
            Self::Walk(error) => ErrorKind::of_causes(error),
            Self::Read(error) => error.kind(),
            Self::Stalled { .. } => ErrorKind::TimedOut,
            Self::Thread(error) => ErrorKind::of_io(error),
        }
    }
}
