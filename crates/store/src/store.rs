//! The store itself: opening, closing, the keeper thread, and the table of live records.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension, params};

use crate::db::Db;
use crate::error::{OpenError, StoreError};
use crate::format;
use crate::hash::HashMemory;
use crate::id::RefId;
use crate::lease::{Held, Lease};
use crate::refs::record::Record;
use crate::snapshot::{DriverKind, Snapshots};
use crate::space::Budget;

/// What the store needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory.
    pub root: PathBuf,
    /// How trees of several layers come about.
    pub driver: DriverKind,
    /// How long after a commit its files are forced to disk, at the latest.
    pub sync_interval: Duration,
}

impl Config {
    /// The usual settings for a directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            driver: DriverKind::Auto,
            sync_interval: Duration::from_secs(10),
        }
    }
}

/// How long lazily written rows stay uncommitted.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// How long nothing is written before the log of the index is cut: while a daemon is at work, the log may grow to its limit.
const TIDY_AFTER: Duration = Duration::from_secs(2);
/// How long trash gathers; deleting competes with steps for the same directories.
const EMPTY_AFTER: Duration = Duration::from_millis(500);
/// With fewer bytes left on the disk, the trash is taken out at once.
const SHORT: u64 = 256 << 20;

#[derive(Debug, Default)]
struct KeeperState {
    closing: bool,
    lazy_since: Option<Instant>,
    unsynced_since: Option<Instant>,
    /// When the log of the index was last left longer than an idle daemon keeps it.
    untidy_since: Option<Instant>,
    trash_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Keeper {
    state: Mutex<KeeperState>,
    wake: Condvar,
}

/// The state directory, open. One per process and directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    db: Db,
    snapshots: Snapshots,
    live: Mutex<Live>,
    held: Arc<Held>,
    /// Blob removal takes it for writing, blob arrival for reading.
    pub(crate) blob_gate: RwLock<()>,
    pub(crate) hashes: HashMemory,
    /// One prune at a time.
    pub(crate) pruning: Mutex<()>,
    keeper: Arc<Keeper>,
    /// The keeper's, and the one that takes out the trash.
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    pub(crate) budget: Budget,
    closed: AtomicBool,
    /// Held until the store is closed.
    lock: Mutex<Option<File>>,
}

/// Records that somebody holds. Dead entries are swept when the table has doubled.
#[derive(Debug, Default)]
pub(crate) struct Live {
    records: HashMap<RefId, Weak<Record>>,
    sweep_at: usize,
}

impl Live {
    /// Returns the record if it is live.
    pub(crate) fn get(&self, id: &RefId) -> Option<Arc<Record>> {
        self.records.get(id).and_then(Weak::upgrade)
    }

    /// Tells whether the record is live.
    pub(crate) fn has(&self, id: &RefId) -> bool {
        self.records.get(id).is_some_and(|w| w.strong_count() > 0)
    }

    /// Enters a record.
    pub(crate) fn put(&mut self, record: &Arc<Record>) {
        self.records
            .insert(record.id().clone(), Arc::downgrade(record));
        if self.records.len() > self.sweep_at {
            self.records.retain(|_, w| w.strong_count() > 0);
            self.sweep_at = (self.records.len() * 2).max(64);
        }
    }

    /// All that is live.
    pub(crate) fn all(&self) -> Vec<Arc<Record>> {
        self.records.values().filter_map(Weak::upgrade).collect()
    }
}

impl Store {
    /// Opens or creates the state directory, and brings order to what an earlier owner left behind.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let lock = format::claim(&config.root)?;
        let db = Db::open(&config.root.join("index.db"))?;
        let snapshots = Snapshots::open(&config.root, config.driver)?;
        let store = Arc::new(Self {
            root: config.root,
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
        });
        store.recover().map_err(|e| OpenError::Recover {
            root: store.root.clone(),
            source: Box::new(e),
        })?;
        store.snapshots.trash().tell_given_up();
        let interval = config.sync_interval;
        store.start("store-keeper", move |keeper, store| {
            keep(keeper, store, interval);
        })?;
        // Apart from the keeper: deleting takes as long as steps made it, and rows must be committed meanwhile.
        store.start("store-trash", empty_trash)?;
        Ok(store)
    }

    fn start(
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

    /// Ends the store in order: everything is committed and on disk afterwards. Handles that are still held stay readable.
    pub fn close(&self) -> Result<(), StoreError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.keeper.state.lock().closing = true;
        self.keeper.wake.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.thread().id() != std::thread::current().id() {
                // A keeper that panicked has said so already.
                let _joined = thread.join();
            }
        }
        self.save_all_hashes()?;
        self.sync()?;
        self.db.write(|c| {
            c.execute(
                "INSERT INTO info VALUES('clean', '1') ON CONFLICT DO UPDATE SET value = '1'",
                [],
            )?;
            Ok(())
        })?;
        self.db.checkpoint()?;
        *self.lock.lock() = None;
        Ok(())
    }

    /// Forces everything committed so far to disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        let max: i64 = self.db.read(|c| {
            let n = c.prepare_cached("SELECT (SELECT count(*) FROM refs WHERE synced = 0) + (SELECT count(*) FROM blobs WHERE synced = 0)")?.query_row([], |r| r.get(0))?;
            Ok(n)
        })?;
        if max == 0 {
            return Ok(());
        }
        // What is committed from here on stays unsynced until the next round.
        let names = |sql: &str| {
            self.db.read(|c| {
                Ok(c.prepare_cached(sql)?
                    .query_map([], |r| r.get::<_, String>(0))?
                    .collect::<Result<Vec<_>, _>>()?)
            })
        };
        let refs = names("SELECT id FROM refs WHERE synced = 0 AND mutable = 0")?;
        let blobs = names("SELECT digest FROM blobs WHERE synced = 0")?;
        let dir = sys::path::open_dir(self.root.as_path()).and_then(|fd| {
            let dir = rustix::fs::openat(
                &fd,
                c".",
                rustix::fs::OFlags::RDONLY
                    | rustix::fs::OFlags::DIRECTORY
                    | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?;
            sys::file::syncfs(&dir)
        });
        dir.map_err(|e| StoreError::io("sync", &self.root, e))?;
        self.db.write(|c| {
            let mut s = c.prepare_cached("UPDATE refs SET synced = 1 WHERE id = ?1")?;
            for id in &refs {
                s.execute([id])?;
            }
            let mut s = c.prepare_cached("UPDATE blobs SET synced = 1 WHERE digest = ?1")?;
            for digest in &blobs {
                s.execute([digest])?;
            }
            Ok(())
        })
    }

    /// Returns the state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a hold on blobs.
    pub fn lease(&self) -> Lease {
        Lease::new(self.held.clone())
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    pub(crate) fn live(&self) -> &Mutex<Live> {
        &self.live
    }

    pub(crate) fn held(&self) -> &Held {
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
            state.lazy_since = Some(Instant::now());
            self.keeper.wake.notify_all();
        }
    }

    /// Tells the keeper that files have been committed which are not on disk yet.
    pub(crate) fn note_unsynced(&self) {
        self.budget.changed.store(true, Ordering::Relaxed);
        let mut state = self.keeper.state.lock();
        if state.unsynced_since.is_none() {
            state.unsynced_since = Some(Instant::now());
            self.keeper.wake.notify_all();
        }
    }

    /// Tells the keeper that there is trash.
    pub(crate) fn note_trash(&self) {
        let mut state = self.keeper.state.lock();
        if state.trash_since.is_none() {
            // The wait keeps deleting out of the way of the build that made the trash. A disk that is short of space is worse.
            let now = Instant::now();
            let since = if self.is_short() {
                now.checked_sub(EMPTY_AFTER)
            } else {
                None
            };
            state.trash_since = Some(since.unwrap_or(now));
            self.keeper.wake.notify_all();
        }
    }

    fn is_short(&self) -> bool {
        crate::db::free_space(&self.root).is_some_and(|free| free < SHORT)
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

    /// Rows that must not be trusted or have nobody to go on with them are dropped, then files that no row names.
    fn recover(&self) -> Result<(), StoreError> {
        let boot = format::boot_id();
        let dirs: std::collections::HashSet<String> = self
            .snapshots
            .list()
            .map_err(|e| StoreError::io("list", self.root.join("snapshots"), e))?
            .into_iter()
            .collect();
        let named = self.write(|c| {
            let info = |key: &str| -> Result<Option<String>, StoreError> {
                Ok(c.query_row("SELECT value FROM info WHERE key = ?1", [key], |r| r.get(0)).optional()?)
            };
            let same_boot = !boot.is_empty() && info("boot")?.as_deref() == Some(boot.as_str());
            let clean = info("clean")?.as_deref() == Some("1");
            if !same_boot && !clean {
                // Files that a kept mutable shares may have been written to since any sync; of those only cache mounts and
                // the like, whose owners expect any contents, are kept.
                let lost = c.execute(
                    "UPDATE refs SET lazy = 2 WHERE (synced = 0 AND mutable = 0) OR twin IS NOT NULL
                       OR (mutable = 1 AND record_type = 'source.local')", [])?;
                if lost > 0 {
                    tracing::warn!(records = lost, "the machine went down before these reached the disk; dropped");
                }
                c.execute("UPDATE blobs SET size = -1 WHERE synced = 0", [])?;
            }
            c.execute("INSERT INTO info VALUES('boot', ?1) ON CONFLICT DO UPDATE SET value = ?1", [&boot])?;
            c.execute("INSERT INTO info VALUES('clean', '0') ON CONFLICT DO UPDATE SET value = '0'", [])?;
            // A mutable that nobody wanted kept died with its step.
            c.execute("DELETE FROM refs WHERE mutable = 1 AND retain = 0", [])?;
            // A record whose files are gone is worth nothing, nor what stands on it.
            let mut snapshots = c.prepare("SELECT id, snapshot FROM refs WHERE snapshot IS NOT NULL")?;
            let rows = snapshots.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
            let mut gone = Vec::new();
            for row in rows {
                let (id, snapshot) = row?;
                if !dirs.contains(&snapshot) {
                    gone.push(id);
                }
            }
            for id in gone {
                c.execute("UPDATE refs SET lazy = 2 WHERE id = ?1", [id])?;
            }
            c.execute_batch(
                "CREATE TEMP TABLE doomed AS
                   WITH RECURSIVE d(id) AS (
                     SELECT id FROM refs WHERE lazy = 2
                     UNION SELECT child FROM parents WHERE parent NOT IN (SELECT id FROM refs)
                     UNION SELECT child FROM parents JOIN d ON parents.parent = d.id)
                   SELECT id FROM d;
                 DELETE FROM refs WHERE id IN (SELECT id FROM doomed);
                 DROP TABLE doomed;
                 DELETE FROM parents WHERE child NOT IN (SELECT id FROM refs);
                 DELETE FROM meta WHERE ref NOT IN (SELECT id FROM refs);
                 DELETE FROM layer_blobs WHERE ref NOT IN (SELECT id FROM refs);
                 DELETE FROM content_hashes WHERE key NOT IN (SELECT id FROM refs)
                   AND key NOT IN (SELECT snapshot FROM refs WHERE snapshot IS NOT NULL);
                 DELETE FROM key_results WHERE result <> '' AND result NOT IN (SELECT id FROM refs);
                 DELETE FROM blobs WHERE size < 0
                   OR (digest NOT IN (SELECT digest FROM layer_blobs) AND digest NOT IN (SELECT digest FROM pins));",
            )?;
            let mut named: std::collections::HashSet<String> = c
                .prepare("SELECT snapshot FROM refs WHERE snapshot IS NOT NULL")?
                .query_map([], |r| r.get(0))?
                .collect::<Result<_, _>>()?;
            let patches = c
                .prepare("SELECT CAST(value AS TEXT) FROM meta WHERE key = ?1")?
                .query_map(params![crate::refs::PATCH_KEY], |r| r.get::<_, String>(0))?
                .collect::<Result<Vec<_>, _>>()?;
            named.extend(patches);
            Ok(named)
        })?;
        let orphans: Vec<String> = dirs.into_iter().filter(|d| !named.contains(d)).collect();
        self.drop_snapshots(&orphans);
        self.sweep_files()?;
        if self.is_short() {
            self.take_out_trash()?;
        } else {
            self.note_trash();
        }
        if self.db.read(|c| {
            Ok(c.query_row(
                "SELECT EXISTS(SELECT 1 FROM refs WHERE synced = 0)",
                [],
                |r| r.get::<_, bool>(0),
            )?)
        })? {
            self.note_unsynced();
        }
        Ok(())
    }

    /// Half-written blobs go, blobs without a row go, rows without a blob go.
    fn sweep_files(&self) -> Result<(), StoreError> {
        let each = |dir: &str, f: &mut dyn FnMut(String, PathBuf)| {
            let dir = self.root.join(dir);
            let list = std::fs::read_dir(&dir).map_err(|e| StoreError::io("list", dir, e))?;
            for entry in list.flatten() {
                f(
                    entry.file_name().to_string_lossy().into_owned(),
                    entry.path(),
                );
            }
            Ok::<_, StoreError>(())
        };
        each("ingest", &mut |_, path| {
            let _gone = std::fs::remove_file(path);
        })?;
        let mut rows: std::collections::HashSet<String> = self.db.read(|c| {
            Ok(c.prepare("SELECT digest FROM blobs")?
                .query_map([], |r| r.get(0))?
                .collect::<Result<_, _>>()?)
        })?;
        each("blobs/sha256", &mut |name, path| {
            if !rows.remove(&format!("sha256:{name}")) {
                let _gone = std::fs::remove_file(path);
            }
        })?;
        self.db.write(|c| {
            for digest in &rows {
                c.execute("DELETE FROM blobs WHERE digest = ?1", [digest])?;
            }
            Ok(())
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            tracing::warn!(error = %e, "store not closed in order");
        }
    }
}

/// The keeper: commits what was left open, forces files to disk.
fn keep(keeper: &Keeper, store: &Weak<Store>, interval: Duration) {
    loop {
        let (flush, sync, tidy) = {
            let mut state = keeper.state.lock();
            loop {
                if state.closing {
                    return;
                }
                let now = Instant::now();
                let due = |since: Option<Instant>, after| since.map(|t| t + after);
                let (flush, sync, tidy) = (
                    due(state.lazy_since, FLUSH_AFTER),
                    due(state.unsynced_since, interval),
                    due(state.untidy_since, interval.min(TIDY_AFTER)),
                );
                let flush_now = flush.is_some_and(|t| t <= now);
                let sync_now = sync.is_some_and(|t| t <= now);
                let tidy_now = tidy.is_some_and(|t| t <= now);
                if flush_now || sync_now || tidy_now {
                    if flush_now {
                        state.lazy_since = None;
                    }
                    if sync_now {
                        state.unsynced_since = None;
                    }
                    state.untidy_since = None;
                    break (flush_now, sync_now, tidy_now);
                }
                match [flush, sync, tidy].into_iter().flatten().min() {
                    Some(at) => {
                        let _timeout = keeper.wake.wait_until(&mut state, at);
                    }
                    None => keeper.wake.wait(&mut state),
                }
            }
        };
        let Some(store) = store.upgrade() else { return };
        let mut done = Ok(());
        if flush {
            done = store.db.flush();
            if done.is_ok()
                && (store.db.log_is_long() || store.db.is_mostly_free().unwrap_or(false))
            {
                done = store.db.checkpoint();
            }
        }
        if sync {
            done = done
                .and_then(|()| store.save_all_hashes())
                .and_then(|()| store.sync())
                .and_then(|()| store.db.checkpoint());
        } else if tidy && done.is_ok() {
            done = store.db.checkpoint();
        }
        if let Err(e) = done {
            tracing::warn!(error = %e, "store upkeep failed; will try again");
            if sync {
                store.note_unsynced();
            }
        } else if store.db.log_is_untidy() {
            // A reader kept this checkpoint from cutting the log, or there was none: a daemon that is idle gets to it.
            keeper.state.lock().untidy_since = Some(Instant::now());
        }
    }
}

/// Takes out the trash a little after something came into it.
fn empty_trash(keeper: &Keeper, store: &Weak<Store>) {
    loop {
        {
            let mut state = keeper.state.lock();
            loop {
                if state.closing {
                    return;
                }
                match state.trash_since.map(|since| since + EMPTY_AFTER) {
                    Some(due) if due <= Instant::now() => {
                        state.trash_since = None;
                        break;
                    }
                    Some(due) => {
                        let _timeout = keeper.wake.wait_until(&mut state, due);
                    }
                    None => keeper.wake.wait(&mut state),
                }
            }
        }
        let Some(store) = store.upgrade() else { return };
        if let Err(e) = store.take_out_trash() {
            tracing::warn!(error = %e, "the trash was not taken out");
        }
    }
}
