//! The core of the store: the index, the paths, the table of live records, the blobs that leases hold, and the notes for the keeper.
//!
//! What the store does with them is in the modules above, each of which adds its own methods to [`Store`]. Nothing in here names
//! them: see `lifecycle` for opening and closing.

pub(crate) mod keeper;
mod live;
pub(crate) mod record;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use fstree::Root;
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use sys::userns::IdMapping;

use crate::budget::Budget;
use crate::db::{Db, free_space};
use crate::error::{OpenError, StoreError};
use crate::lease::{HeldBlobs, Lease};
use crate::snapshot::Snapshots;
use crate::tree_hashes::HashMemory;

use keeper::{EMPTY_AFTER, Keeper};
pub(crate) use live::LiveRecords;

/// Free bytes below which the trash is emptied at once.
const SHORT_OF_SPACE_BYTES: u64 = 256 << 20;

/// The state directory, open. One per process and directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    db: Db,
    snapshots: Snapshots,
    live: Mutex<LiveRecords>,
    held: Arc<HeldBlobs>,
    /// Held for writing while blobs are removed, for reading while they are committed.
    pub(crate) blob_gate: RwLock<()>,
    pub(crate) hashes: HashMemory,
    /// One prune at a time.
    pub(crate) pruning: Mutex<()>,
    keeper: Arc<Keeper>,
    /// The keeper, and the thread that empties the trash.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    pub(crate) budget: Budget,
    closed: AtomicBool,
    /// Held until the store is closed.
    lock: Mutex<Option<File>>,
}

impl Store {
    /// Assembles a store for a directory that is claimed with `lock`. Its threads are started by `lifecycle`.
    pub(crate) fn new(root: PathBuf, lock: File, db: Db, snapshots: Snapshots) -> Self {
        Self {
            root,
            db,
            snapshots,
            live: Mutex::default(),
            held: Arc::default(),
            blob_gate: RwLock::new(()),
            hashes: HashMemory::default(),
            pruning: Mutex::new(()),
            keeper: Arc::default(),
            threads: Mutex::default(),
            budget: Budget::default(),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// Starts a thread that ends when the store does.
    pub(crate) fn start(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Keeper, &Weak<Self>) + Send + 'static,
    ) -> Result<(), OpenError> {
        let keeper = self.keeper.clone();
        let weak = Arc::downgrade(self);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .stack_size(512 * 1024)
            .spawn(move || work(&keeper, &weak))
            .map_err(|source| OpenError::Io {
                what: "start a thread for",
                path: self.root.clone(),
                source,
            })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Ends the threads, and waits for them. False if that has been done before.
    pub(crate) fn stop_threads(&self) -> bool {
        if self.closed.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.keeper.state.lock().closing = true;
        self.keeper.wake.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.thread().id() != std::thread::current().id() {
                // A thread that panicked has logged that.
                let _joined = thread.join();
            }
        }
        true
    }

    /// Releases the lock, so that another process can open the directory.
    pub(crate) fn unlock(&self) {
        *self.lock.lock() = None;
    }

    /// Returns how trees of several layers come about, by BuildKit's name: `overlayfs`, or `native` for whole copies.
    pub fn snapshotter(&self) -> &'static str {
        if self.snapshots.native {
            "native"
        } else {
            "overlayfs"
        }
    }

    /// Returns the state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a lease, which holds no blob yet.
    pub fn lease(&self) -> Lease {
        Lease::new(self.held.clone())
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    pub(crate) fn live(&self) -> &Mutex<LiveRecords> {
        &self.live
    }

    pub(crate) fn held(&self) -> &HeldBlobs {
        &self.held
    }

    /// Writes rows and commits them, with everything written before.
    pub(crate) fn write<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let out = self.db.write(f)?;
        self.note_written();
        Ok(out)
    }

    /// Writes rows whose loss in a crash does no harm.
    pub(crate) fn later<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let out = self.db.write_later(f)?;
        if self.db.is_pending() {
            self.note_written();
        }
        Ok(out)
    }

    /// Tells the keeper that there is something to commit, or a long log of what was.
    pub(crate) fn note_written(&self) {
        let mut state = self.keeper.state.lock();
        if state.lazy_since.is_none() {
            state.lazy_since = Some(task::clock::monotonic());
            self.keeper.wake.notify_all();
        }
    }

    /// Tells the keeper that files have been committed which are not on disk yet.
    pub(crate) fn note_unsynced(&self) {
        self.budget.changed.store(true, Ordering::Relaxed);
        let mut state = self.keeper.state.lock();
        if state.unsynced_since.is_none() {
            state.unsynced_since = Some(task::clock::monotonic());
            self.keeper.wake.notify_all();
        }
    }

    /// Tells the keeper that there is trash.
    pub(crate) fn note_trash(&self) {
        let mut state = self.keeper.state.lock();
        if state.trash_since.is_none() {
            // The wait keeps deleting out of the way of the build that made the trash. A disk that is short of space is worse.
            let now = task::clock::monotonic();
            let since = if self.is_short() {
                now.checked_sub(EMPTY_AFTER)
            } else {
                None
            };
            state.trash_since = Some(since.unwrap_or(now));
            self.keeper.wake.notify_all();
        }
    }

    pub(crate) fn is_short(&self) -> bool {
        free_space(&self.root).is_some_and(|free| free < SHORT_OF_SPACE_BYTES)
    }

    /// Deletes what is in the trash, unless the store is being closed. Blocks.
    pub(crate) fn take_out_trash(&self) -> Result<(), StoreError> {
        let keeper = self.keeper.clone();
        self.snapshots
            .trash()
            .empty(&|| keeper.state.lock().closing)
            .map_err(|e| StoreError::io("empty", self.root.join("trash"), e))
    }

    /// Deletes snapshots that no row names any more.
    pub(crate) fn drop_snapshots(&self, ids: &[String]) {
        for id in ids {
            self.hashes.forget(id);
            if let Err(e) = self.snapshots.remove(id) {
                tracing::warn!(snapshot = %id, error = %e, "cannot remove snapshot");
            }
        }
        if !ids.is_empty() {
            self.note_trash();
        }
    }

    /// Checks that trees can be mounted with mapped ids here: Linux 6.15, and a file system that supports it.
    pub fn check_mapping(&self, ids: &IdMapping) -> Result<(), StoreError> {
        self.snapshots
            .probe(Some(ids))
            .map_err(|e| StoreError::io("mount with mapped ids", &self.root, e))
    }

    /// Refuses a snapshot whose own files are nested deeper than a tree may be. Blocks.
    pub(crate) fn check_depth(&self, snapshot: &str) -> Result<(), StoreError> {
        let checked = Root::from_fd(self.snapshots.upper(snapshot)?)
            .and_then(|root| fstree::descent::check(root.dir("/")?));
        checked.map_err(|e| StoreError::Tree {
            source: Arc::new(e),
        })
    }
}
