//! Opens and closes the store, and runs its threads: the keeper, which commits and syncs, and the one that empties the trash.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::db::Db;
use crate::error::{OpenError, StoreError};
use crate::format;
use crate::snapshot::{DriverKind, Snapshots};
use crate::store::Store;
use crate::store::keeper::{EMPTY_AFTER, Keeper};
use crate::tar_layer::LayerForm;

/// The settings of a store.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory.
    pub root: PathBuf,
    /// How trees of several layers are mounted.
    pub driver: DriverKind,
    /// How layers that come from elsewhere are kept.
    pub layers: LayerForm,
    /// The longest time between a commit and the sync of its files.
    pub sync_interval: Duration,
}

impl Config {
    /// The default settings for a directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            driver: DriverKind::Auto,
            layers: LayerForm::Auto,
            sync_interval: Duration::from_secs(10),
        }
    }
}

/// How long lazily written rows stay uncommitted.
const FLUSH_AFTER: Duration = Duration::from_millis(20);
/// Idle time after which the log of the index is cut; until then it may grow to its limit.
const TIDY_AFTER: Duration = Duration::from_secs(2);

impl Store {
    /// Opens or creates the state directory, and repairs what an earlier process left behind.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let lock = format::claim(&config.root)?;
        let db = Db::open(&config.root.join("index.db"))?;
        let snapshots = Snapshots::open(&config.root, config.driver, config.layers)?;
        let store = Arc::new(Self::new(config.root, lock, db, snapshots));
        store.recover().map_err(|e| OpenError::Recover {
            root: store.root().to_owned(),
            source: Box::new(e),
        })?;
        store.snapshots().trash().log_given_up();
        let interval = config.sync_interval;
        store.start("store-keeper", move |keeper, store| {
            keep(keeper, store, interval);
        })?;
        // Apart from the keeper: deleting takes as long as steps made it, and rows must be committed meanwhile.
        store.start("store-trash", empty_trash)?;
        Ok(store)
    }

    /// Closes the store: everything is committed and synced afterwards. Handles that are still held stay readable.
    pub fn close(&self) -> Result<(), StoreError> {
        if !self.stop_threads() {
            return Ok(());
        }
        self.save_all_hashes()?;
        self.sync()?;
        self.db().write(|c| {
            c.execute(
                "INSERT INTO info VALUES('clean', '1') ON CONFLICT DO UPDATE SET value = '1'",
                [],
            )?;
            Ok(())
        })?;
        self.db().checkpoint()?;
        self.unlock();
        Ok(())
    }

    /// Forces everything committed so far to disk.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.db().flush()?;
        let max: i64 = self.db().read(|c| {
            let n = c.prepare_cached("SELECT (SELECT count(*) FROM refs WHERE synced = 0) + (SELECT count(*) FROM blobs WHERE synced = 0)")?.query_row([], |r| r.get(0))?;
            Ok(n)
        })?;
        if max == 0 {
            return Ok(());
        }
        // What is committed from here on stays unsynced until the next round.
        let names = |sql: &str| {
            self.db().read(|c| {
                Ok(c.prepare_cached(sql)?
                    .query_map([], |r| r.get::<_, String>(0))?
                    .collect::<Result<Vec<_>, _>>()?)
            })
        };
        let refs = names("SELECT id FROM refs WHERE synced = 0 AND mutable = 0")?;
        let blobs = names("SELECT digest FROM blobs WHERE synced = 0")?;
        let dir = sys::path::open_dir(self.root()).and_then(|fd| {
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
        dir.map_err(|e| StoreError::io("sync", self.root(), e))?;
        self.db().write(|c| {
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
                let now = task::clock::monotonic();
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
        let mut upkeep_result = Ok(());
        if flush {
            upkeep_result = store.db().flush();
            if upkeep_result.is_ok()
                && (store.db().log_is_long() || store.db().is_mostly_free().unwrap_or(false))
            {
                upkeep_result = store.db().checkpoint();
            }
        }
        if sync {
            upkeep_result = upkeep_result
                .and_then(|()| store.save_all_hashes())
                .and_then(|()| store.sync())
                .and_then(|()| store.db().checkpoint());
        } else if tidy && upkeep_result.is_ok() {
            upkeep_result = store.db().checkpoint();
        }
        if let Err(e) = upkeep_result {
            tracing::warn!(error = %e, "store upkeep failed; will try again");
            if sync {
                store.note_unsynced();
            }
        } else if store.db().log_is_untidy() {
            // A reader kept this checkpoint from cutting the log, or there was none: a daemon that is idle gets to it.
            keeper.state.lock().untidy_since = Some(task::clock::monotonic());
        }
    }
}

/// Empties the trash a little after something was moved into it.
fn empty_trash(keeper: &Keeper, store: &Weak<Store>) {
    loop {
        {
            let mut state = keeper.state.lock();
            loop {
                if state.closing {
                    return;
                }
                match state.trash_since.map(|since| since + EMPTY_AFTER) {
                    Some(due) if due <= task::clock::monotonic() => {
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
