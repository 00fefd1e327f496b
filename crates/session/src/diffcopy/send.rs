//! Drives the sending side: lists a tree on one thread while others read what is asked for.

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

use crate::diffcopy::packet::Packet;
use crate::diffcopy::receive::{MapStat, Progress};
use crate::diffcopy::receiver::ProtocolError;
use crate::diffcopy::sender::{Sender, Wish};
use crate::error::CallError;
use crate::stream::PacketStream;

/// Bytes of a file in one packet.
const CHUNK: usize = 128 << 10;

/// A tree that can be listed and read.
pub trait TreeSource: Send + Sync {
    /// Lists the tree: depth first, names of a folder in byte order, folders before what is in them.
    fn walk(
        &self,
    ) -> Result<Box<dyn Iterator<Item = Result<Stat, SendError>> + Send + '_>, SendError>;

    /// Opens a file that was listed.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;
}

/// A part of a tree on disk.
#[derive(Clone)]
pub struct FilteredTree {
    /// The tree.
    pub root: Root,
    /// Which part.
    pub filter: Filter,
    /// Changes the metadata that is sent; `false` leaves a file out.
    pub map: Option<MapStat>,
}

impl TreeSource for FilteredTree {
    fn walk(
        &self,
    ) -> Result<Box<dyn Iterator<Item = Result<Stat, SendError>> + Send + '_>, SendError> {
        let walk = Walk::new(&self.root, &self.filter)?;
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
    /// The receiver was not understood, or gave up.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The tree could not be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] PathError),
}

/// Sends a tree. Dropping the future stops it. `progress` is told how many bytes have gone so far.
pub async fn send(
    stream: PacketStream,
    source: Arc<dyn TreeSource>,
    progress: Option<Progress>,
) -> Result<(), SendError> {
    let PacketStream {
        mut incoming,
        outgoing,
    } = stream;
    let shared = Arc::new(Shared {
        sender: Mutex::new(Sender::new()),
        queue: Mutex::new(Queue::default()),
        wake: Condvar::new(),
        sent: AtomicU64::new(0),
        progress,
    });
    let closer = CloseOnDrop(shared.clone());
    let job = {
        let (shared, outgoing) = (shared.clone(), outgoing.clone());
        task::blocking("diffcopy send", move || {
            run(&shared, source.as_ref(), &outgoing)
        })
    };
    tokio::pin!(job);
    let mut listed = false;
    loop {
        tokio::select! {
            done = &mut job, if !listed => {
                listed = true;
                if let Err(error) = done {
                    let _closed = outgoing.send(Packet::Err(error.to_string())).await;
                    return Err(error);
                }
            }
            packet = incoming.next() => {
                let Some(packet) = packet else { return Err(ProtocolError::Truncated.into()) };
                let wish = shared.sender.lock().take(packet?);
                match wish {
                    Ok(Wish::Contents { id, path }) => shared.push(id, path),
                    Ok(Wish::Finished) => break,
                    Err(error) => {
                        let _closed = outgoing.send(Packet::Err(error.to_string())).await;
                        return Err(error.into());
                    }
                }
            }
        }
    }
    drop(closer);
    if !listed {
        job.await?;
    }
    let _closed = outgoing.send(Packet::Fin).await;
    drop(outgoing);
    // The other side closes when it has our FIN; what it has to say at the end counts.
    while let Some(packet) = incoming.next().await {
        packet?;
    }
    Ok(())
}

struct Shared {
    sender: Mutex<Sender>,
    queue: Mutex<Queue>,
    wake: Condvar,
    sent: AtomicU64,
    progress: Option<Progress>,
}

#[derive(Default)]
struct Queue {
    // At most one entry for each file: a file can be asked for once.
    files: VecDeque<(u32, PathBuf)>,
    closed: bool,
}

impl Shared {
    fn push(&self, id: u32, path: PathBuf) {
        self.queue.lock().files.push_back((id, path));
        self.wake.notify_one();
    }

    fn pop(&self) -> Option<(u32, PathBuf)> {
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

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

// Lists on this thread, reads on others. Ends when the queue is closed, or when the other side is gone.
fn run(
    shared: &Shared,
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
                Ok(done) => result = result.and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}

fn list(
    shared: &Shared,
    source: &dyn TreeSource,
    outgoing: &mpsc::Sender<Packet>,
) -> Result<(), SendError> {
    for stat in source.walk()? {
        let stat = stat?;
        let size = 32 + stat.path.as_os_str().len();
        let packet = shared.sender.lock().list(stat);
        if outgoing.blocking_send(packet).is_err() {
            // The reason shows where the stream is read.
            return Ok(());
        }
        shared.count(size);
    }
    let _closed = outgoing.blocking_send(Packet::Stat(None));
    Ok(())
}

fn read_files(
    shared: &Shared,
    source: &dyn TreeSource,
    outgoing: &mpsc::Sender<Packet>,
) -> Result<(), SendError> {
    let mut buffer = vec![0; CHUNK];
    while let Some((id, path)) = shared.pop() {
        // A file that cannot be opened any more is sent empty, as the reference does.
        if let Ok(mut file) = source.open(&path) {
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
                let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                shared.count(length);
                if outgoing.blocking_send(Packet::Data { id, bytes }).is_err() {
                    return Ok(());
                }
            }
        }
        if outgoing
            .blocking_send(Packet::Data {
                id,
                bytes: Bytes::new(),
            })
            .is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}
