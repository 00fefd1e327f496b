//! Drives the receiving side: compares with what is there, writes what differs, deletes what is gone.
//!
//! ```text
//!   stream ──► pump (async, batches) ──► coordinator (one blocking thread) ──► writers (a few threads)
//!     ▲                                     │ merges the list with a walk of what is there
//!     └───────────── REQ, FIN ──────────────┘
//! ```
//!
//! Requests never make the coordinator wait: a window of them fits into the queue, so reading goes on whatever the other side
//! does. Links are made and times of folders are set when all contents are there.

use std::collections::HashMap;
use std::fmt;
use std::iter::Peekable;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::{Scope, ScopedJoinHandle};

use bytes::Bytes;
use fstree::hash::{FileHasher, TreeHashes};
use fstree::stat::unix_permissions;
use fstree::walk::{Filter, Walk, WalkError};
use fstree::{Kind, PathError, Root, Stat, Times};
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::diffcopy::compare::Compare;
use crate::diffcopy::metadata::{self, Listing, Wanted};
use crate::diffcopy::order::compare_paths;
use crate::diffcopy::packet::Packet;
use crate::diffcopy::receiver::{Meaning, ProtocolError, Receiver};
use crate::diffcopy::write::{Folder, Incoming, Order, may_set, queue, write_files};
use crate::error::CallError;
use crate::stream::PacketStream;

/// Changes the metadata of a file before it is used; `false` leaves the file out.
pub type MapStat = Arc<dyn Fn(&mut Stat) -> bool + Send + Sync>;

/// Is told how many bytes have come so far.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// How to receive a tree.
#[derive(Clone, Default)]
pub struct ReceiveOptions {
    /// Leave alone what is there and not listed.
    pub merge: bool,
    /// Which files need not be asked for.
    pub compare: Compare,
    /// Changes metadata before it is compared and written. Digests are made of what was listed.
    pub map: Option<MapStat>,
    /// Digests of the tree as it is there; kept up to date on the way. Must know the tree in full or be empty with it.
    pub hashes: Option<Arc<TreeHashes>>,
    /// Told about bytes.
    pub progress: Option<Progress>,
    /// Only list files, but for these.
    pub metadata_only: Option<Wanted>,
}

impl fmt::Debug for ReceiveOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveOptions")
            .field("merge", &self.merge)
            .field("compare", &self.compare)
            .finish_non_exhaustive()
    }
}

/// What receiving did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Files listed.
    pub listed: u64,
    /// Files whose contents were asked for.
    pub requested: u64,
    /// Files made, changed or removed.
    pub changed: u64,
    /// Bytes of contents and metadata that came.
    pub bytes: u64,
}

/// Why a tree did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The sender was not understood, or gave up.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] PathError),
    /// What is there could not be listed.
    #[error("failed to walk: {0}")]
    Walk(#[from] WalkError),
}

type Batch = Vec<Result<Packet, CallError>>;

const BATCH: usize = 64;
const BATCHES: usize = 4;
/// The largest first piece that waits for the next message; with a window of files this bounds what is held.
const SMALL: usize = 32 << 10;

/// Receives a tree into `root`. Dropping the future stops it; what was written stays, and is compared the next time.
pub async fn receive(
    stream: PacketStream,
    root: Root,
    options: ReceiveOptions,
) -> Result<Received, ReceiveError> {
    let PacketStream { incoming, outgoing } = stream;
    let (batches, arriving) = mpsc::channel::<Batch>(BATCHES);
    let mut incoming = incoming.ready_chunks(BATCH);
    let job = task::blocking("diffcopy receive", move || {
        let told = outgoing.clone();
        let done = coordinate(arriving, outgoing, &root, &options);
        if let Err(error) = &done {
            let _closed = told.try_send(Packet::Err(error.to_string()));
        }
        done
    });
    tokio::pin!(job);
    let mut batches = Some(batches);
    let done = loop {
        let Some(sender) = batches.clone() else {
            break job.await;
        };
        tokio::select! {
            done = &mut job => break done,
            room = sender.reserve() => {
                let Ok(room) = room else { break job.await };
                tokio::select! {
                    done = &mut job => break done,
                    batch = incoming.next() => match batch {
                        Some(batch) => room.send(batch),
                        None => { drop(room); batches = None; }
                    }
                }
            }
        }
    };
    let received = done?;
    // The other side closes after its FIN; what it has to say at the end counts.
    while let Some(batch) = incoming.next().await {
        for packet in batch {
            packet?;
        }
    }
    Ok(received)
}

fn coordinate(
    arriving: mpsc::Receiver<Batch>,
    outgoing: mpsc::Sender<Packet>,
    root: &Root,
    options: &ReceiveOptions,
) -> Result<Received, ReceiveError> {
    let there = if options.merge {
        None
    } else {
        // Attributes are not compared.
        let walk = Walk::new(root, &Filter::default())?;
        Some(walk.without_xattrs().peekable())
    };
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers = Writers {
            scope,
            root,
            hashes: options.hashes.as_ref(),
            failed: &failed,
            running: Vec::new(),
        };
        Coordinator {
            receiver: Receiver::new(),
            outgoing,
            options,
            there,
            removed_below: None,
            folder: Folder::new(root.clone()),
            writers,
            wanted: HashMap::new(),
            begun: HashMap::new(),
            links: Vec::new(),
            folders: Vec::new(),
            listing: options.metadata_only.clone().map(Listing::new),
            received: Received::default(),
        }
        .run(arriving)
    })
}

type Writer<'scope> = (
    SyncSender<Order>,
    ScopedJoinHandle<'scope, Result<(), PathError>>,
);

struct Writers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    root: &'env Root,
    hashes: Option<&'env Arc<TreeHashes>>,
    failed: &'env AtomicBool,
    running: Vec<Writer<'scope>>,
}

impl Writers<'_, '_> {
    // Neighbours go to one writer, so that it stays in one directory.
    const RUN: u32 = 16;

    fn send(&mut self, id: u32, order: Order) {
        if self.running.is_empty() {
            let count = std::thread::available_parallelism()
                .map_or(1, NonZero::get)
                .clamp(1, 4);
            for _ in 0..count {
                let (sender, orders) = queue();
                let (root, hashes, failed) = (self.root, self.hashes, self.failed);
                let thread = self.scope.spawn(move || {
                    write_files(root, hashes, &orders, || {
                        failed.store(true, Ordering::Relaxed)
                    })
                });
                self.running.push((sender, thread));
            }
        }
        let at = usize::try_from(id / Self::RUN).unwrap_or_default() % self.running.len().max(1);
        if let Some((sender, _)) = self.running.get(at) {
            // A writer that is gone has left its error for `join`.
            let _gone = sender.send(order);
        }
    }

    fn join(&mut self) -> Result<(), PathError> {
        let mut result = Ok(());
        for (sender, thread) in self.running.drain(..) {
            drop(sender);
            match thread.join() {
                Ok(done) => result = result.and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    }
}

struct Coordinator<'scope, 'env> {
    receiver: Receiver,
    outgoing: mpsc::Sender<Packet>,
    options: &'env ReceiveOptions,
    there: Option<Peekable<Walk>>,
    // A folder that was removed with everything below.
    removed_below: Option<PathBuf>,
    folder: Folder,
    writers: Writers<'scope, 'env>,
    wanted: HashMap<u32, Box<Incoming>>,
    // Files of which one piece has come. Most are complete with it, and go to a writer in one message.
    begun: HashMap<u32, (Box<Incoming>, Bytes)>,
    links: Vec<Stat>,
    folders: Vec<(PathBuf, i64)>,
    listing: Option<Listing>,
    received: Received,
}

impl Coordinator<'_, '_> {
    fn run(mut self, mut arriving: mpsc::Receiver<Batch>) -> Result<Received, ReceiveError> {
        let mut finished = false;
        while let Some(batch) = arriving.blocking_recv() {
            for packet in batch {
                if self.take(packet?)? {
                    return Ok(self.received);
                }
            }
            if let Some(progress) = &self.options.progress {
                progress(self.received.bytes);
            }
            if self.writers.failed.load(Ordering::Relaxed) {
                self.writers.join()?;
            }
            while let Some(request) = self.receiver.next_request() {
                // A closed stream shows when it is read, with its reason.
                let _closed = self.outgoing.try_send(request);
            }
            if !finished && self.receiver.is_complete() {
                self.finish()?;
                finished = true;
                let fin = self.receiver.finish();
                let _closed = self.outgoing.try_send(fin);
            }
        }
        Err(ProtocolError::Truncated.into())
    }

    fn take(&mut self, packet: Packet) -> Result<bool, ReceiveError> {
        match self.receiver.take(packet)? {
            Meaning::File { id, stat } => {
                self.received.listed += 1;
                self.received.bytes += 32 + stat.path.as_os_str().len() as u64;
                match &mut self.listing {
                    None => self.file(id, *stat)?,
                    Some(listing) => {
                        for (id, stat) in listing.take(id, *stat)? {
                            self.file(id, stat)?;
                        }
                    }
                }
            }
            Meaning::ListEnd => {
                while let Some(old) = self.there.as_mut().and_then(Iterator::next) {
                    self.remove(old?)?;
                }
            }
            Meaning::Data { id, bytes } => {
                self.received.bytes += bytes.len() as u64;
                match self.wanted.remove(&id) {
                    Some(file) if bytes.len() <= SMALL => {
                        self.begun.insert(id, (file, bytes));
                    }
                    Some(file) => {
                        self.writers.send(id, Order::Begin { id, file });
                        self.writers.send(id, Order::Data { id, bytes });
                    }
                    None => {
                        if let Some((file, first)) = self.begun.remove(&id) {
                            self.writers.send(id, Order::Begin { id, file });
                            self.writers.send(id, Order::Data { id, bytes: first });
                        }
                        self.writers.send(id, Order::Data { id, bytes });
                    }
                }
            }
            Meaning::DataEnd { id } => {
                let whole = match self.wanted.remove(&id) {
                    Some(file) => Some((file, Bytes::new())),
                    None => self.begun.remove(&id),
                };
                let order = match whole {
                    Some((file, bytes)) => Order::Whole { file, bytes },
                    None => Order::End { id },
                };
                self.writers.send(id, order);
            }
            Meaning::Done => return Ok(true),
        }
        Ok(false)
    }

    fn file(&mut self, id: u32, listed: Stat) -> Result<(), ReceiveError> {
        let mut written = listed.clone();
        let left_out = self
            .options
            .map
            .as_ref()
            .is_some_and(|map| !map(&mut written));
        written.path.clone_from(&listed.path);
        let old = self.catch_up(&listed)?;
        if left_out
            || old
                .as_ref()
                .is_some_and(|old| self.options.compare.is_same(old, &written))
        {
            return Ok(());
        }
        self.received.changed += 1;
        let merging = self.there.is_none();
        let (dir, name) = self.folder.of(&written.path)?;
        let path = &written.path;
        let at = |op: &'static str| move |e: std::io::Error| PathError::new(op, path, e);
        let mut keep_folder = false;
        if old.is_some() || merging {
            keep_folder = written.is_dir()
                && match &old {
                    Some(old) => old.is_dir(),
                    None => dir
                        .stat_opt(name)
                        .map_err(at("lstat"))?
                        .is_some_and(|m| m.is_dir()),
                };
            if !keep_folder {
                dir.remove_all(name).map_err(at("remove"))?;
                if old.as_ref().is_some_and(Stat::is_dir) {
                    self.removed_below = Some(path.clone());
                }
                if let Some(hashes) = &self.options.hashes {
                    hashes.remove(path);
                }
            }
        }
        match written.kind() {
            Kind::Dir => {
                let made = if keep_folder {
                    dir.open_dir(name)
                } else {
                    dir.create_dir(name, 0o700)
                }
                .map_err(at("mkdir"))?;
                made.set_own_owner(written.uid, written.gid)
                    .map_err(at("chown"))?;
                made.set_own_mode(unix_permissions(written.mode))
                    .map_err(at("chmod"))?;
                for (key, value) in written.xattrs.iter().filter(|(key, _)| may_set(key)) {
                    let _kept = made.set_own_xattr(key, value);
                }
                if !keep_folder {
                    self.folder.forget();
                }
                self.folders.push((written.path.clone(), written.mod_time));
            }
            Kind::File | Kind::Socket if written.is_hard_link() => {
                self.links.push(written);
            }
            Kind::File => {
                self.received.requested += 1;
                self.wanted
                    .insert(id, Box::new(Incoming { listed, written }));
                self.receiver.request(id);
                return Ok(());
            }
            Kind::Symlink => {
                dir.symlink(&written.linkname, name)
                    .map_err(at("symlink"))?;
                dir.chown(name, written.uid, written.gid)
                    .map_err(at("chown"))?;
                dir.set_times(name, Times::both(written.mod_time))
                    .map_err(at("chtimes"))?;
            }
            kind @ (Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket) => {
                let rdev = (
                    u32::try_from(written.devmajor).unwrap_or_default(),
                    u32::try_from(written.devminor).unwrap_or_default(),
                );
                dir.mknod(name, kind, unix_permissions(written.mode), rdev)
                    .map_err(at("mknod"))?;
                dir.chown(name, written.uid, written.gid)
                    .map_err(at("chown"))?;
                dir.set_times(name, Times::both(written.mod_time))
                    .map_err(at("chtimes"))?;
            }
        }
        if let Some(hashes) = &self.options.hashes {
            hashes.insert(&listed, &FileHasher::new(&listed).finish());
        }
        Ok(())
    }

    // Removes what is there and comes before the listed file; returns what is there under the same name.
    fn catch_up(&mut self, listed: &Stat) -> Result<Option<Stat>, ReceiveError> {
        loop {
            let Some(there) = &mut self.there else {
                return Ok(None);
            };
            match there.peek() {
                None => return Ok(None),
                Some(Ok(old)) => match compare_paths(&old.path, &listed.path) {
                    std::cmp::Ordering::Greater => return Ok(None),
                    order @ (std::cmp::Ordering::Less | std::cmp::Ordering::Equal) => {
                        let Some(old) = there.next() else {
                            return Ok(None);
                        };
                        let old = old?;
                        if order.is_eq() {
                            let gone = self.removed_below.as_ref().is_some_and(|above| {
                                old.path != *above && old.path.starts_with(above)
                            });
                            return Ok((!gone).then_some(old));
                        }
                        self.remove(old)?;
                    }
                },
                Some(Err(_)) => {
                    if let Some(Err(error)) = there.next() {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    fn remove(&mut self, old: Stat) -> Result<(), ReceiveError> {
        if self
            .removed_below
            .as_ref()
            .is_some_and(|above| old.path != *above && old.path.starts_with(above))
        {
            return Ok(());
        }
        if let Some(map) = &self.options.map {
            let mut bare = Stat {
                path: old.path.clone(),
                ..Stat::default()
            };
            if !map(&mut bare) {
                return Ok(());
            }
        }
        self.received.changed += 1;
        let (dir, name) = self.folder.of(&old.path)?;
        dir.remove_all(name)
            .map_err(|e| PathError::new("remove", &old.path, e))?;
        if let Some(hashes) = &self.options.hashes {
            hashes.remove(&old.path);
        }
        if old.is_dir() {
            self.folder.forget();
            self.removed_below = Some(old.path);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ReceiveError> {
        self.writers.join()?;
        let mut target = Folder::new(self.writers.root.clone());
        for link in std::mem::take(&mut self.links) {
            let (from, from_name) = target.of(&link.linkname)?;
            let (dir, name) = self.folder.of(&link.path)?;
            dir.link(from, from_name, name)
                .map_err(|e| PathError::new("link", &link.path, e))?;
        }
        // Deepest first, so that nothing below changes a time again.
        for (path, time) in self.folders.drain(..).rev() {
            let dir = self.writers.root.dir(&path)?;
            dir.set_own_times(Times::both(time))
                .map_err(|e| PathError::new("chtimes", &path, e))?;
        }
        self.write_listing()
    }

    /// The list takes the place of the one of the time before, which went with what is not listed.
    fn write_listing(&mut self) -> Result<(), ReceiveError> {
        let Some(listing) = &self.listing else {
            return Ok(());
        };
        let bytes = listing.contents();
        let mut file = self.writers.root.create(metadata::FILE, 0o644)?;
        std::io::Write::write_all(&mut file, bytes)
            .map_err(|e| PathError::new("write", metadata::FILE, e))?;
        if let Some(hashes) = &self.options.hashes {
            let stat = Stat {
                path: metadata::FILE.into(),
                mode: 0o644,
                size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
                ..Stat::default()
            };
            let mut hasher = FileHasher::new(&stat);
            hasher.update(bytes);
            hashes.insert(&stat, &hasher.finish());
        }
        self.received.changed += 1;
        Ok(())
    }
}
