//! Writes arriving files below a root, on a thread of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use bytes::Bytes;
use fstree::hash::{FileHasher, TreeHashes};
use fstree::stat::unix_permissions;
use fstree::{Dir, PathError, Root, Stat, Times};

use crate::diffcopy::room::{Room, TakenRoom};

/// Number of messages that may wait for one writer.
const MAX_QUEUED_ORDERS: usize = 64;
/// Size limit of the bytes that wait for all writers of a transfer.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// A message to a writer.
pub(crate) enum Order {
    /// A file and all its contents.
    Whole {
        file: Box<Incoming>,
        bytes: Bytes,
    },
    Begin {
        id: u32,
        file: Box<Incoming>,
    },
    Data {
        id: u32,
        bytes: Bytes,
    },
    End {
        id: u32,
    },
}

/// A file whose contents were requested.
pub(crate) struct Incoming {
    /// Metadata as listed, which is digested.
    pub(crate) listed: Stat,
    /// Metadata as written.
    pub(crate) written: Stat,
}

impl Order {
    fn size(&self) -> usize {
        match self {
            Self::Whole { bytes, .. } | Self::Data { bytes, .. } => bytes.len(),
            Self::Begin { .. } | Self::End { .. } => 0,
        }
    }
}

type Writer<'scope> = (
    SyncSender<(Order, TakenRoom)>,
    ScopedJoinHandle<'scope, Result<(), PathError>>,
);

/// A few writers, started when there is something to write.
pub(crate) struct Writers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    pub(crate) root: &'env Root,
    hashes: Option<&'env Arc<TreeHashes>>,
    failed: &'env AtomicBool,
    running: Vec<Writer<'scope>>,
    room: Arc<Room>,
}

impl<'scope, 'env> Writers<'scope, 'env> {
    // So many neighbours in the list go to one writer, so that it stays in one directory.
    const NEIGHBOURS: u32 = 16;

    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        root: &'env Root,
        hashes: Option<&'env Arc<TreeHashes>>,
        failed: &'env AtomicBool,
    ) -> Self {
        Self {
            scope,
            root,
            hashes,
            failed,
            running: Vec::new(),
            room: Room::new(MAX_WAITING_BYTES),
        }
    }

    /// Whether a writer has failed; [`Writers::join`] returns its error.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn send(&mut self, id: u32, order: Order) {
        if self.running.is_empty() {
            let count = std::thread::available_parallelism()
                .map_or(1, NonZero::get)
                .clamp(1, 4);
            for _ in 0..count {
                let (sender, orders) = sync_channel(MAX_QUEUED_ORDERS);
                let (root, hashes, failed) = (self.root, self.hashes, self.failed);
                let thread = self.scope.spawn(move || {
                    write_files(root, hashes, &orders, || {
                        failed.store(true, Ordering::Relaxed)
                    })
                });
                self.running.push((sender, thread));
            }
        }
        let at =
            usize::try_from(id / Self::NEIGHBOURS).unwrap_or_default() % self.running.len().max(1);
        if let Some((sender, _)) = self.running.get(at) {
            let taken = self.room.take(order.size());
            // A writer that is gone has left its error for `join`.
            let _gone = sender.send((order, taken));
        }
    }

    pub(crate) fn join(&mut self) -> Result<(), PathError> {
        let mut result = Ok(());
        for (sender, thread) in self.running.drain(..) {
            drop(sender);
            match thread.join() {
                Ok(written) => result = result.and(written),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    }
}

/// Writes until the queue is closed. After an error the rest is thrown away, and the error is the result.
fn write_files(
    root: &Root,
    hashes: Option<&Arc<TreeHashes>>,
    orders: &Receiver<(Order, TakenRoom)>,
    failed: impl Fn(),
) -> Result<(), PathError> {
    let mut writer = FileWriter {
        folder: Folder::new(root.clone()),
        hashes,
        open: Vec::new(),
    };
    while let Ok((order, _taken)) = orders.recv() {
        if let Err(error) = writer.carry_out(order) {
            drop(writer);
            failed();
            while orders.recv().is_ok() {}
            return Err(error);
        }
    }
    Ok(())
}

struct FileWriter<'a> {
    folder: Folder,
    hashes: Option<&'a Arc<TreeHashes>>,
    // Few at a time: a sender interleaves a handful of files.
    open: Vec<(u32, OpenFile)>,
}

struct OpenFile {
    incoming: Box<Incoming>,
    file: File,
    hasher: Option<FileHasher>,
}

impl OpenFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PathError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.file
            .write_all(bytes)
            .map_err(|e| PathError::new("write", &self.incoming.written.path, e))
    }
}

impl FileWriter<'_> {
    fn carry_out(&mut self, order: Order) -> Result<(), PathError> {
        match order {
            Order::Whole { file, bytes } => {
                let mut open = self.open(file)?;
                open.write(&bytes)?;
                self.finish(open)
            }
            Order::Begin { id, file } => {
                let open = self.open(file)?;
                self.open.push((id, open));
                Ok(())
            }
            Order::Data { id, bytes } => {
                let Some((_, open)) = self.open.iter_mut().find(|(i, _)| *i == id) else {
                    return Ok(());
                };
                open.write(&bytes)
            }
            Order::End { id } => {
                let Some(at) = self.open.iter().position(|(i, _)| *i == id) else {
                    return Ok(());
                };
                let (_, open) = self.open.swap_remove(at);
                self.finish(open)
            }
        }
    }

    fn open(&mut self, incoming: Box<Incoming>) -> Result<OpenFile, PathError> {
        let path = &incoming.written.path;
        let (dir, name) = self.folder.of(path)?;
        let file = dir
            .create_file_for(name, unix_permissions(incoming.written.mode))
            .map_err(|e| PathError::new("open", path, e))?;
        let hasher = self.hashes.map(|_| FileHasher::new(&incoming.listed));
        Ok(OpenFile {
            incoming,
            file,
            hasher,
        })
    }

    fn finish(&mut self, open: OpenFile) -> Result<(), PathError> {
        let OpenFile {
            incoming,
            file,
            hasher,
        } = open;
        let stat = &incoming.written;
        fstree::dir::set_file_access(&file, stat.uid, stat.gid, unix_permissions(stat.mode))
            .map_err(|e| PathError::new("chmod", &stat.path, e))?;
        for (key, value) in stat.xattrs.iter().filter(|(key, _)| may_set(key)) {
            // As the reference does: a filesystem that cannot keep an attribute is no reason to fail.
            let _kept = fstree::dir::set_file_xattr(&file, key, value);
        }
        // Last: a file with the listed time is a complete file, which is what the next comparison relies on.
        fstree::dir::set_file_times(&file, Times::both(stat.mod_time))
            .map_err(|e| PathError::new("chtimes", &stat.path, e))?;
        if let (Some(hashes), Some(hasher)) = (self.hashes, hasher) {
            hashes.insert(&incoming.listed, &hasher.finish());
        }
        Ok(())
    }
}

/// Attributes by which overlayfs would take the sender's words for its own are never written.
// DIFFERS: the reference leaves this to the kernel, which answers differently depending on how the folder is mounted.
pub(crate) fn may_set(key: &str) -> bool {
    !key.starts_with("trusted.overlay.") && !key.starts_with("user.overlay.")
}

/// The directory that was used last, kept open: a listing stays in one directory for a while.
pub(crate) struct Folder {
    root: Root,
    last: Option<(PathBuf, Dir)>,
}

impl Folder {
    pub(crate) fn new(root: Root) -> Self {
        Self { root, last: None }
    }

    /// The directory that holds `path`, and the name in it. `path` has passed the order check.
    pub(crate) fn of<'p>(&mut self, path: &'p Path) -> Result<(&Dir, &'p OsStr), PathError> {
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        let name = path
            .file_name()
            .ok_or_else(|| PathError::new("open", path, std::io::ErrorKind::InvalidInput))?;
        if self.last.as_ref().is_none_or(|(p, _)| p != parent) {
            self.last = None;
            let dir = self.root.dir(parent)?;
            self.last = Some((parent.to_owned(), dir));
        }
        match &self.last {
            Some((_, dir)) => Ok((dir, name)),
            None => Err(PathError::new("open", path, std::io::ErrorKind::NotFound)),
        }
    }

    /// Closes the kept directory: it was replaced or removed.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}
