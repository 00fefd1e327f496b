//! The index: one SQLite database, one writing connection, a few reading ones.
//!
//! [`Db::write`] commits before it returns. [`Db::write_later`] leaves the transaction open: the next `write`, the next
//! [`Db::flush`] or the keeper's timer commits it. Reads made while a transaction is open go through the writing connection,
//! so a read always sees what was written. The writer is locked for microseconds: nothing in here calls `fsync`
//! (`synchronous=NORMAL`, and checkpoints run on a connection of the keeper's).
//!
//! A full disk must not keep the index from recording what is freed. So it holds a few megabytes in a file beside it,
//! gives them up to whoever opens or prunes on a disk that has nothing left, and takes them again when there is room.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::StoreError;

const MAX_IDLE_READERS: usize = 4;
/// Bytes of the log (`-wal`) at which it is moved into the index and cut.
const MAX_LOG_BYTES: u64 = 8 << 20;
/// Bytes of the log that an idle daemon keeps.
const IDLE_LOG_BYTES: u64 = 1 << 20;
/// Pages of 4,096 bytes that the index may have free: it grows into them again.
const MAX_FREE_PAGES: i64 = 256;
/// SQLite's number for `auto_vacuum=INCREMENTAL`.
const AUTO_VACUUM_INCREMENTAL: i64 = 2;
/// Pages that are given back at a time, while writers wait.
const PAGES_AT_ONCE: i64 = 256;
/// How long cutting the log may wait for readers, while writers wait for it.
const LOG_CUT_TIMEOUT: Duration = Duration::from_millis(100);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS info(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refs(
  id TEXT PRIMARY KEY,
  kind INTEGER NOT NULL,
  mutable INTEGER NOT NULL,
  retain INTEGER NOT NULL,
  snapshot TEXT,
  twin TEXT,
  record_type TEXT NOT NULL,
  description TEXT NOT NULL,
  created INTEGER NOT NULL,
  used INTEGER,
  uses INTEGER NOT NULL,
  size INTEGER NOT NULL,
  chain_id TEXT,
  diff_id TEXT,
  lazy INTEGER NOT NULL,
  synced INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refs_chain ON refs(chain_id) WHERE chain_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS refs_snapshot ON refs(snapshot) WHERE snapshot IS NOT NULL;
CREATE INDEX IF NOT EXISTS refs_twin ON refs(twin) WHERE twin IS NOT NULL;
CREATE INDEX IF NOT EXISTS refs_unsynced ON refs(synced) WHERE synced = 0;
CREATE TABLE IF NOT EXISTS parents(
  child TEXT NOT NULL, position INTEGER NOT NULL, parent TEXT NOT NULL, PRIMARY KEY(child, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parents_parent ON parents(parent);
CREATE TABLE IF NOT EXISTS blobs(
  digest TEXT PRIMARY KEY, size INTEGER NOT NULL, created INTEGER NOT NULL, synced INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blobs_unsynced ON blobs(synced) WHERE synced = 0;
CREATE TABLE IF NOT EXISTS layer_blobs(
  ref TEXT NOT NULL, digest TEXT NOT NULL, rank INTEGER NOT NULL, variant TEXT NOT NULL,
  descriptor TEXT NOT NULL, diff_id TEXT NOT NULL, PRIMARY KEY(ref, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS layer_blobs_digest ON layer_blobs(digest);
CREATE TABLE IF NOT EXISTS pins(owner TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY(owner, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pins_digest ON pins(digest);
CREATE TABLE IF NOT EXISTS meta(
  ref TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(ref, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS meta_value ON meta(key, value) WHERE length(value) <= 512;
CREATE TABLE IF NOT EXISTS content_hashes(key TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS key_results(
  key TEXT NOT NULL, result TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY(key, result)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS key_results_result ON key_results(result);
CREATE TABLE IF NOT EXISTS key_links(
  key TEXT NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, digest TEXT NOT NULL, selector TEXT NOT NULL,
  target TEXT NOT NULL, PRIMARY KEY(key, input, output, digest, selector, target)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS key_links_target ON key_links(target);
CREATE TABLE IF NOT EXISTS history(
  id TEXT PRIMARY KEY, created INTEGER NOT NULL, completed INTEGER, pinned INTEGER NOT NULL, record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS history_created ON history(created);
";

/// Bytes that are reserved for the index on the disk.
const RESERVE_BYTES: u64 = 4 << 20;
/// Free bytes above which the reserve is taken; below, it is given up before something frees space.
const AMPLE_BYTES: u64 = 16 << 20;
/// Free bytes below which half of the reserve is given up for ordinary writes: a step that filled the disk is still being removed.
const LOW_BYTES: u64 = 1 << 20;

/// The writing connection.
struct IndexWriter {
    conn: Connection,
    /// Whether a transaction is open.
    in_transaction: bool,
    reserve: Reserve,
}

/// A file that takes space until the index needs it.
struct Reserve {
    path: PathBuf,
    size: u64,
}

impl Reserve {
    fn beside(index: &Path) -> Self {
        let path = index.with_extension("reserve");
        let size = path.metadata().map_or(0, |meta| meta.len());
        Self { path, size }
    }

    /// Gives up the space if the disk is short of it. Only called before something frees more: a step would only fill it.
    fn give_up(&mut self) {
        if self.size > 0 && self.free().is_some_and(|free| free < AMPLE_BYTES) {
            drop(std::fs::remove_file(&self.path));
            self.size = 0;
        }
    }

    /// Takes the space if there is enough, and gives up half if nothing is left. Errors are ignored: the store works without
    /// a reserve.
    fn adjust(&mut self) {
        let Some(free) = self.free() else { return };
        if self.size < RESERVE_BYTES && free > AMPLE_BYTES {
            let zeros = vec![0_u8; usize::try_from(RESERVE_BYTES).unwrap_or(0)];
            let result = crate::format::private_file()
                .create(true)
                .truncate(true)
                .open(&self.path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, &zeros));
            if result.is_ok() {
                self.size = RESERVE_BYTES;
            }
        } else if self.size > RESERVE_BYTES / 2 && free < LOW_BYTES {
            let result = std::fs::OpenOptions::new()
                .write(true)
                .open(&self.path)
                .and_then(|file| file.set_len(RESERVE_BYTES / 2));
            self.size = if result.is_ok() { RESERVE_BYTES / 2 } else { 0 };
        }
    }

    fn free(&self) -> Option<u64> {
        self.path.parent().and_then(free_space)
    }
}

/// Bytes that ordinary users can still write on the disk of a folder.
pub(crate) fn free_space(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The index.
pub(crate) struct Db {
    path: PathBuf,
    writer: Mutex<IndexWriter>,
    readers: Mutex<Vec<Connection>>,
    pending: AtomicBool,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_prepared_statement_cache_capacity(64);
    // Plans do not depend on bound values. Otherwise many a kept statement is compiled again each time it gets new ones.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch(
        "PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-1024; PRAGMA busy_timeout=10000;
         PRAGMA wal_autocheckpoint=0;",
    )?;
    Ok(conn)
}

fn mostly_free(conn: &Connection) -> Result<bool, StoreError> {
    let mode: i64 = conn.query_row("PRAGMA auto_vacuum", [], |r| r.get(0))?;
    if mode != AUTO_VACUUM_INCREMENTAL {
        // An index of an older daemon.
        return Ok(false);
    }
    let free: i64 = conn.query_row("PRAGMA freelist_count", [], |r| r.get(0))?;
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |r| r.get(0))?;
    Ok(free > MAX_FREE_PAGES && free > pages / 2)
}

impl Db {
    /// Opens or creates the index.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut reserve = Reserve::beside(path);
        reserve.give_up();
        // SQLite would make it for everybody to read; the files beside it get the mode of this one. What keeps it from being
        // made keeps SQLite too, which says so better.
        drop(
            crate::format::private_file()
                .create(true)
                .truncate(false)
                .open(path),
        );
        let conn = connect(path, flags)?;
        // Counts only for an index that is made now; one of an older daemon keeps its free pages.
        conn.execute_batch("PRAGMA auto_vacuum=INCREMENTAL")?;
        let _mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |r| r.get(0))?;
        conn.execute_batch(SCHEMA)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(IndexWriter {
                conn,
                in_transaction: false,
                reserve,
            }),
            readers: Mutex::new(Vec::new()),
            pending: AtomicBool::new(false),
        })
    }

    /// Opens an existing index to read only, for offline checks.
    pub(crate) fn inspect(path: &Path) -> rusqlite::Result<Connection> {
        // Reading a WAL database needs its shared memory file, hence a writable handle.
        Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
    }

    /// Runs `f` in a transaction and commits it, with everything written before.
    pub(crate) fn write<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock();
        let out = self.run(&mut writer, f)?;
        self.commit(&mut writer)?;
        Ok(out)
    }

    /// Runs `f` in a transaction that may be committed later. A crash before that loses it.
    pub(crate) fn write_later<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut writer = self.writer.lock();
        self.run(&mut writer, f)
    }

    /// Commits what `write_later` left open.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        if !self.pending.load(Ordering::Acquire) {
            return Ok(());
        }
        self.commit(&mut self.writer.lock())
    }

    /// Returns whether a transaction is open.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Runs `f` on a connection that sees all that was written.
    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.pending.load(Ordering::Acquire) {
            return f(&self.writer.lock().conn);
        }
        let conn = self.readers.lock().pop();
        let conn = match conn {
            Some(conn) => conn,
            None => connect(
                &self.path,
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            )?,
        };
        let out = f(&conn);
        let mut readers = self.readers.lock();
        if readers.len() < MAX_IDLE_READERS {
            readers.push(conn);
        }
        out
    }

    /// Whether the log is longer than [`MAX_LOG_BYTES`]. SQLite writes it from its beginning again once all of it is in the database file, but
    /// leaves it as long as it ever was: a burst of writes would stay on the disk for good.
    pub(crate) fn log_is_long(&self) -> bool {
        self.log_len() > MAX_LOG_BYTES
    }

    /// Whether the log is longer than [`IDLE_LOG_BYTES`].
    pub(crate) fn log_is_untidy(&self) -> bool {
        self.log_len() > IDLE_LOG_BYTES
    }

    fn log_len(&self) -> u64 {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        std::fs::metadata(log).map_or(0, |log| log.len())
    }

    /// Gives free pages back to the disk when they are many, moves the log into the database file, and cuts it. Called from the keeper, on a
    /// connection that blocks no writer but for the moments of giving back and of the cut.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        self.flush()?;
        self.give_back_pages()?;
        let conn = connect(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        let _busy: i64 = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| r.get(0))?;
        if self.log_is_untidy() {
            conn.busy_timeout(LOG_CUT_TIMEOUT)?;
            // Readers that stay too long leave it for the next time.
            let _busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
        }
        Ok(())
    }

    /// Whether more of the index is free than in use: then so much was deleted that the pages are given back.
    pub(crate) fn is_mostly_free(&self) -> Result<bool, StoreError> {
        self.read(mostly_free)
    }

    /// Shrinks an index of which most is free, in steps between which others write.
    fn give_back_pages(&self) -> Result<(), StoreError> {
        loop {
            let mut writer = self.writer.lock();
            self.commit(&mut writer)?;
            if !mostly_free(&writer.conn)? {
                return Ok(());
            }
            // Each row that is asked for is a page that is given back.
            let mut giving = writer
                .conn
                .prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
            let mut pages = giving.query([])?;
            while pages.next()?.is_some() {}
        }
    }

    /// Gives up the reserve if the disk is full: for what is about to free space.
    pub(crate) fn make_room(&self) {
        self.writer.lock().reserve.give_up();
    }

    fn run<T>(
        &self,
        writer: &mut IndexWriter,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !writer.in_transaction {
            writer.reserve.adjust();
            writer.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            writer.in_transaction = true;
            self.pending.store(true, Ordering::Release);
        }
        writer.conn.prepare_cached("SAVEPOINT step")?.execute([])?;
        match f(&writer.conn) {
            Ok(out) => {
                writer.conn.prepare_cached("RELEASE step")?.execute([])?;
                Ok(out)
            }
            Err(e) => {
                if writer.conn.is_autocommit() {
                    // The database itself rolled everything back (disk full, I/O error).
                    writer.in_transaction = false;
                    self.pending.store(false, Ordering::Release);
                } else {
                    writer
                        .conn
                        .execute_batch("ROLLBACK TO step; RELEASE step")?;
                }
                Err(e)
            }
        }
    }

    fn commit(&self, writer: &mut IndexWriter) -> Result<(), StoreError> {
        if !writer.in_transaction {
            return Ok(());
        }
        let committed = writer
            .conn
            .prepare_cached("COMMIT")
            .and_then(|mut s| s.execute([]));
        if committed.is_err() && !writer.conn.is_autocommit() {
            writer.conn.execute_batch("ROLLBACK")?;
        }
        writer.in_transaction = false;
        self.pending.store(false, Ordering::Release);
        committed.map(drop).map_err(StoreError::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_takes_back_only_itself_and_reads_see_open_transactions() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("index.db")).unwrap();
        let put = |key: &'static str| {
            move |c: &Connection| {
                c.execute("INSERT INTO info VALUES(?1, 'x')", [key])?;
                Ok(())
            }
        };
        let count = || {
            db.read(|c| Ok(c.query_row("SELECT count(*) FROM info", [], |r| r.get::<_, i64>(0))?))
                .unwrap()
        };
        db.write_later(put("a")).unwrap();
        assert!(db.is_pending());
        assert_eq!(count(), 1);
        assert!(db.write_later(put("a")).is_err());
        db.write(put("b")).unwrap();
        assert!(!db.is_pending());
        assert_eq!(count(), 2);
    }

    #[test]
    fn a_burst_of_writes_does_not_stay_on_the_disk_as_log() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("index.db")).unwrap();
        let text = "x".repeat(200_000);
        for number in 0..100 {
            let put = |c: &Connection| {
                c.execute("INSERT INTO info VALUES(?1, ?2)", (number, &text))?;
                c.execute("DELETE FROM info", [])?;
                Ok(())
            };
            db.write(put).unwrap();
        }
        assert!(db.log_is_long());
        db.checkpoint().unwrap();
        assert!(!db.log_is_long());
    }

    #[test]
    fn an_index_of_which_most_was_deleted_gives_the_disk_its_pages_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        let db = Db::open(&path).unwrap();
        let text = "x".repeat(20_000);
        db.write(|c| {
            for number in 0..1_000 {
                c.execute("INSERT INTO info VALUES(?1, ?2)", (number, &text))?;
            }
            Ok(())
        })
        .unwrap();
        db.checkpoint().unwrap();
        let full = path.metadata().unwrap().len();
        assert!(full > 20_000_000);
        db.write(|c| Ok(c.execute("DELETE FROM info WHERE key % 10 != 0", [])?))
            .unwrap();
        assert!(db.is_mostly_free().unwrap());
        db.checkpoint().unwrap();
        let remaining = path.metadata().unwrap().len();
        assert!(remaining < full / 4, "{remaining} of {full} bytes are left");
        assert!(!db.is_mostly_free().unwrap());
        let bytes: i64 = db
            .read(|c| Ok(c.query_row("SELECT sum(length(value)) FROM info", [], |r| r.get(0))?))
            .unwrap();
        assert_eq!(bytes, 100 * 20_000);
    }
}
