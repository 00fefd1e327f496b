//! The coordinator of the receiving side: decides for every listed file, on a thread that may block.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use fstree::hash::FileHasher;
use fstree::stat::unix_permissions;
use fstree::walk::{Filter, Walk};
use fstree::{Kind, PathError, Root, Stat, Times};
use tokio::sync::mpsc;

use crate::diffcopy::marks::{self, Change};
use crate::diffcopy::metadata::{self, Listing};
use crate::diffcopy::order::compare_paths;
use crate::diffcopy::receive::{Batch, ReceiveCounts, ReceiveError, ReceiveOptions};
use crate::diffcopy::receiver::{ProtocolError, ReceiveEvent, Receiver};
use crate::diffcopy::write::{Folder, Incoming, Order, Writers, may_set};
use crate::error::LimitError;
use crate::packet::Packet;
use crate::transfers::HeldMemory;

/// Number of files larger than a piece that may be open at the same time, each with a descriptor. Senders use four.
const MAX_OPEN_FILES: usize = 64;
/// Memory for a listed file, and for a file whose contents are requested.
const LISTED_FILE_BYTES: u64 = 128;
const REQUESTED_FILE_BYTES: u64 = 256;
/// Size limit of a first piece that is held until the next message; with the window of files this bounds the held memory.
const MAX_HELD_PIECE_BYTES: usize = 32 << 10;
/// Handles batches of packets until the other side has received our `FIN`.
pub(super) fn coordinate(
    arriving: mpsc::Receiver<Batch>,
    outgoing: mpsc::Sender<Packet>,
    root: &Root,
    options: &ReceiveOptions,
) -> Result<ReceiveCounts, ReceiveError> {
    let existing = if options.merge {
        None
    } else {
        // Attributes are not compared.
        let walk = Walk::new(root, &Filter::default())?;
        Some(walk.without_xattrs().peekable())
    };
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers = Writers::new(scope, root, options.hashes.as_ref(), &failed);
        Coordinator {
            receiver: Receiver::new(),
            outgoing,
            options,
            existing,
            removed_below: None,
            folder: Folder::new(root.clone()),
            writers,
            requested: HashMap::new(),
            first_pieces: HashMap::new(),
            links: Vec::new(),
            folders: Vec::new(),
            left_out: HashSet::new(),
            open: HashSet::new(),
            memory: options.share.hold_memory(),
            announced: 0,
            listing: options.metadata_only.clone().map(Listing::new),
            received: ReceiveCounts::default(),
        }
        .run(arriving)
    })
}

struct Coordinator<'scope, 'env> {
    receiver: Receiver,
    outgoing: mpsc::Sender<Packet>,
    options: &'env ReceiveOptions,
    // A walk of the existing tree; none where unlisted files stay.
    existing: Option<Peekable<Walk>>,
    // A folder that was removed with everything below.
    removed_below: Option<PathBuf>,
    folder: Folder,
    writers: Writers<'scope, 'env>,
    // Requested files without any contents so far.
    requested: HashMap<u32, Box<Incoming>>,
    // Files of which one piece has come. Most are complete with it, and go to a writer in one message.
    first_pieces: HashMap<u32, (Box<Incoming>, Bytes)>,
    links: Vec<Stat>,
    folders: Vec<(PathBuf, i64)>,
    // Files that are not created; their later names are not created either.
    left_out: HashSet<PathBuf>,
    // Files that a writer has open.
    open: HashSet<u32>,
    // Memory of the list, as far as it is needed.
    memory: HeldMemory,
    // Requested bytes that have not arrived.
    announced: u64,
    listing: Option<Listing>,
    received: ReceiveCounts,
}

impl Coordinator<'_, '_> {
    fn run(mut self, mut arriving: mpsc::Receiver<Batch>) -> Result<ReceiveCounts, ReceiveError> {
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
            if self.writers.has_failed() {
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

    fn limit(&self) -> impl Fn(LimitError) -> ReceiveError + use<> {
        let name = self.options.name.clone();
        move |source| ReceiveError::Limit {
            name: name.clone(),
            source,
        }
    }

    fn take(&mut self, packet: Packet) -> Result<bool, ReceiveError> {
        if let Packet::Data { bytes, .. } = &packet {
            // All received bytes count, also those beyond a file's listed size.
            let size = bytes.len() as u64;
            self.received.bytes += size;
            self.announced = self.announced.saturating_sub(size);
            self.options.share.write(size).map_err(self.limit())?;
        }
        match self.receiver.take(packet)? {
            ReceiveEvent::File { id, mut stat } => {
                let change = marks::take(&mut stat, self.options.marks.as_deref());
                self.received.listed += 1;
                let length = stat.path.as_os_str().len() as u64;
                self.received.bytes += 32 + length;
                self.memory
                    .add(LISTED_FILE_BYTES + length)
                    .map_err(self.limit())?;
                match &mut self.listing {
                    None => self.file(id, *stat, change)?,
                    Some(listing) => {
                        let files = listing.take(id, *stat)?;
                        // The list itself.
                        self.memory.add(2 * length).map_err(self.limit())?;
                        for (id, stat) in files {
                            self.file(id, stat, Change::Unknown)?;
                        }
                    }
                }
            }
            ReceiveEvent::ListEnd => {
                while let Some(old) = self.existing.as_mut().and_then(Iterator::next) {
                    self.remove(old?)?;
                }
            }
            ReceiveEvent::Data { bytes, .. } if bytes.is_empty() => {}
            ReceiveEvent::Data { id, bytes } => match self.requested.remove(&id) {
                Some(file) if bytes.len() <= MAX_HELD_PIECE_BYTES => {
                    self.first_pieces.insert(id, (file, bytes));
                }
                Some(file) => {
                    self.begin(id, file)?;
                    self.writers.send(id, Order::Data { id, bytes });
                }
                None => {
                    if let Some((file, first)) = self.first_pieces.remove(&id) {
                        self.begin(id, file)?;
                        self.writers.send(id, Order::Data { id, bytes: first });
                    }
                    self.writers.send(id, Order::Data { id, bytes });
                }
            },
            ReceiveEvent::DataEnd { id } => {
                let complete = match self.requested.remove(&id) {
                    Some(file) => Some((file, Bytes::new())),
                    None => self.first_pieces.remove(&id),
                };
                let order = match complete {
                    Some((file, bytes)) => {
                        self.memory.give_back(cost(&file.listed));
                        Order::Whole { file, bytes }
                    }
                    None => {
                        self.open.remove(&id);
                        Order::End { id }
                    }
                };
                self.writers.send(id, order);
            }
            ReceiveEvent::Done => return Ok(true),
        }
        Ok(false)
    }

    /// Lets a writer open a file that arrives in several pieces.
    fn begin(&mut self, id: u32, file: Box<Incoming>) -> Result<(), ReceiveError> {
        if self.open.len() >= MAX_OPEN_FILES {
            return Err(ProtocolError::Interleaved {
                limit: MAX_OPEN_FILES,
            }
            .into());
        }
        self.open.insert(id);
        self.memory.give_back(cost(&file.listed));
        self.writers.send(id, Order::Begin { id, file });
        Ok(())
    }

    fn file(&mut self, id: u32, listed: Stat, change: Change) -> Result<(), ReceiveError> {
        let mut written = listed.clone();
        let left_out = self
            .options
            .map
            .as_ref()
            .is_some_and(|map| !map(&mut written));
        written.path.clone_from(&listed.path);
        let old = self.catch_up(&listed)?;
        let compare = self.options.compare;
        let is_same = |old: &Stat| compare.is_same(old, &written, change);
        if left_out || written.is_hard_link() && self.left_out.contains(&written.linkname) {
            self.left_out.insert(listed.path);
            return Ok(());
        }
        if old.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        self.received.changed += 1;
        self.options.share.write_file().map_err(self.limit())?;
        let merging = self.existing.is_none();
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
                let folder = if keep_folder {
                    dir.open_dir(name)
                } else {
                    dir.create_dir(name, 0o700)
                }
                .map_err(at("mkdir"))?;
                folder
                    .set_own_owner(written.uid, written.gid)
                    .map_err(at("chown"))?;
                folder
                    .set_own_mode(unix_permissions(written.mode))
                    .map_err(at("chmod"))?;
                for (key, value) in written.xattrs.iter().filter(|(key, _)| may_set(key)) {
                    let _kept = folder.set_own_xattr(key, value);
                }
                if !keep_folder {
                    self.folder.forget();
                }
                self.folders.push((written.path.clone(), written.mod_time));
            }
            Kind::File | Kind::Socket if written.is_hard_link() => {
                self.memory.add(cost(&written)).map_err(self.limit())?;
                self.links.push(written);
            }
            Kind::File => {
                self.received.requested += 1;
                let size = u64::try_from(listed.size).unwrap_or_default();
                self.announced = self.announced.saturating_add(size);
                let may_write = self.options.share.may_write(self.announced);
                may_write.map_err(self.limit())?;
                self.memory.add(cost(&listed)).map_err(self.limit())?;
                self.requested
                    .insert(id, Box::new(Incoming { listed, written }));
                self.receiver.request(id, size);
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
            let Some(existing) = &mut self.existing else {
                return Ok(None);
            };
            match existing.peek() {
                None => return Ok(None),
                Some(Ok(old)) => match compare_paths(&old.path, &listed.path) {
                    std::cmp::Ordering::Greater => return Ok(None),
                    order @ (std::cmp::Ordering::Less | std::cmp::Ordering::Equal) => {
                        let Some(old) = existing.next() else {
                            return Ok(None);
                        };
                        let old = old?;
                        if order.is_eq() {
                            let is_removed = self.removed_below.as_ref().is_some_and(|above| {
                                old.path != *above && old.path.starts_with(above)
                            });
                            return Ok((!is_removed).then_some(old));
                        }
                        self.remove(old)?;
                    }
                },
                Some(Err(_)) => {
                    if let Some(Err(error)) = existing.next() {
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
            let mut name_only = Stat {
                path: old.path.clone(),
                ..Stat::default()
            };
            if !map(&mut name_only) {
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

    /// Writes the list. The list of the last transfer was removed with everything that is not listed now.
    fn write_listing(&mut self) -> Result<(), ReceiveError> {
        let Some(listing) = &self.listing else {
            return Ok(());
        };
        let bytes = listing.contents();
        let mut file = self.writers.root.create(metadata::LISTING_FILE, 0o644)?;
        std::io::Write::write_all(&mut file, bytes)
            .map_err(|e| PathError::new("write", metadata::LISTING_FILE, e))?;
        if let Some(hashes) = &self.options.hashes {
            let stat = Stat {
                path: metadata::LISTING_FILE.into(),
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

/// Memory that a file takes while its contents are awaited.
fn cost(stat: &Stat) -> u64 {
    let attributes = stat.xattrs.iter().map(|(k, v)| k.len() + v.len() + 64);
    let names = stat.path.as_os_str().len() + stat.linkname.as_os_str().len();
    // Twice: as it was listed and as it is to be written.
    REQUESTED_FILE_BYTES + 2 * (names + attributes.sum::<usize>()) as u64
}
