//! Mutable records: trees that are being written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fstree::Root;
use fstree::hash::TreeHashes;
use parking_lot::Mutex;
use rusqlite::params;
use sys::userns::{IdMapping, IdRange};

use crate::error::StoreError;
use crate::id::RefId;
use crate::refs::ImmutableRef;
use crate::snapshot::{MountFd, Snapshots};
use crate::store::record::{Body, Record, Shape};

/// The only handle of a record that can be written. Dropped without a commit, it leaves nothing behind unless it is kept.
#[derive(Debug)]
pub struct MutableRef {
    record: Arc<Record>,
    /// The first mount; others are clones of it, because two overlays must not share an upper.
    mount: Mutex<Option<(Option<IdRange>, MountFd)>>,
    /// A temporary layer between the parent and the record's own.
    cover: Mutex<Option<MountFd>>,
    /// Whether the owner updates the cached digests with every change of a file.
    hashed: AtomicBool,
}

impl MutableRef {
    pub(crate) fn new(record: Arc<Record>) -> Self {
        record.mark_used();
        Self {
            record,
            mount: Mutex::new(None),
            cover: Mutex::new(None),
            hashed: AtomicBool::new(false),
        }
    }

    /// Returns the record's name.
    pub fn id(&self) -> &RefId {
        self.record.id()
    }

    /// Returns what made it.
    pub fn description(&self) -> String {
        self.record.body.lock().description.clone()
    }

    /// Returns what it stands on.
    pub fn parent(&self) -> Option<ImmutableRef> {
        match self.record.shape() {
            Shape::Layer { parent } => parent.clone().map(ImmutableRef::quiet),
            Shape::Merge { .. } | Shape::Diff { .. } => None,
        }
    }

    fn snapshot(&self) -> Result<String, StoreError> {
        let snapshot = self.record.body.lock().snapshot.clone();
        snapshot.ok_or(StoreError::Unfit {
            id: self.id().clone(),
            why: "has no files",
        })
    }

    /// Mounts its tree read-write, attached nowhere. Every call is another mount of the same tree.
    pub fn mount(&self) -> Result<MountFd, StoreError> {
        self.mount_for(None)
    }

    /// The same for a container with the user namespace of `ids`.
    pub fn mount_for(&self, ids: Option<&IdMapping>) -> Result<MountFd, StoreError> {
        let range = ids.map(IdMapping::range);
        let mut first = self.mount.lock();
        match &*first {
            None => *first = Some((range, self.mount_fresh(ids)?)),
            Some((other, _)) if *other != range => {
                // What stands on nothing is a plain directory, of which there may be mounts of both kinds.
                if self.parent().is_some() {
                    return Err(StoreError::Unfit {
                        id: self.id().clone(),
                        why: "is in use by a step with another user namespace",
                    });
                }
                return self.mount_fresh(ids);
            }
            Some(_) => {}
        }
        let Some((_, mount)) = first.as_ref() else {
            return self.mount_fresh(ids);
        };
        match Snapshots::again(mount) {
            Ok(clone) => Ok(clone),
            // Kernels before 6.15 do not clone what is attached nowhere: hand out the first one, and mount anew for the next.
            Err(_) => match first.take() {
                Some((_, mount)) => Ok(mount),
                None => self.mount_fresh(ids),
            },
        }
    }

    /// The snapshots that it stands on, base first.
    fn layers(&self) -> Result<Vec<String>, StoreError> {
        match self.record.shape() {
            Shape::Layer {
                parent: Some(parent),
            } => parent.stack(),
            Shape::Layer { parent: None } | Shape::Merge { .. } | Shape::Diff { .. } => {
                Ok(Vec::new())
            }
        }
    }

    /// Ends its mounts, and sees to it that what was written lies in its snapshot.
    fn settle(&self) -> Result<(), StoreError> {
        *self.mount.lock() = None;
        let snapshots = self.record.store().snapshots();
        snapshots.settle(&self.snapshot()?, &self.layers()?)
    }

    fn mount_fresh(&self, ids: Option<&IdMapping>) -> Result<MountFd, StoreError> {
        let layers = self.layers()?;
        self.record.store().snapshots().mount_rw(
            &self.snapshot()?,
            &layers,
            self.cover.lock().as_ref(),
            ids,
        )
    }

    /// Gives a file of the parent other contents in every later mount for the user namespace of `ids`. `path` is the file's, without
    /// links. Writes to the file belong to the mutable as always, and start from these contents.
    pub fn cover(
        &self,
        path: &Path,
        contents: &[u8],
        ids: Option<&IdMapping>,
    ) -> Result<(), StoreError> {
        let Some(parent) = self.parent() else {
            return Err(StoreError::Unfit {
                id: self.id().clone(),
                why: "stands on nothing that could be covered",
            });
        };
        let below = Root::from_fd(parent.mount_for(ids)?.into())
            .map_err(|e| StoreError::layer("open tree of", self.id().as_str(), e))?;
        let layer = crate::cover::make(&below, path, contents)
            .map_err(|e| StoreError::io("cover", path, e))?;
        *self.cover.lock() = Some(layer);
        Ok(())
    }

    /// Returns the directory of its own layer, whiteouts included.
    pub fn upper(&self) -> Result<Root, StoreError> {
        let fd = self.record.store().snapshots().upper(&self.snapshot()?)?;
        Root::from_fd(fd).map_err(|e| StoreError::layer("open files of", self.id().as_str(), e))
    }

    /// Returns its tree, writable.
    pub fn root(&self) -> Result<Root, StoreError> {
        let mount = self.mount()?;
        Root::from_fd(mount.into())
            .map_err(|e| StoreError::layer("open tree of", self.id().as_str(), e))
    }

    /// Returns the value kept under `key`.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.record.store().meta(self.id(), key)
    }

    /// Keeps a value under `key`; see [`crate::Store::find_meta`].
    pub fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.record.store().set_meta(self.id(), key, value)
    }

    /// Decides whether the record survives its handle.
    pub fn set_retain(&self, retain: bool) -> Result<(), StoreError> {
        let record = &self.record;
        let body = {
            let mut body = record.body.lock();
            body.retain = retain;
            body.clone()
        };
        record.store().write(|c| {
            if body.stored {
                c.prepare_cached("UPDATE refs SET retain = ?2 WHERE id = ?1")?
                    .execute(params![record.id().as_str(), retain])?;
                Ok(())
            } else if retain {
                record.insert(c, &body)
            } else {
                Ok(())
            }
        })?;
        if retain {
            record.body.lock().stored = true;
        }
        Ok(())
    }

    /// Returns the cached digests of its tree. The caller has to update them with every change of a file until the commit. If this
    /// was never called, they are dropped at the commit.
    pub fn hashes(&self) -> Result<Arc<TreeHashes>, StoreError> {
        let hashes = self.record.hashes()?;
        self.hashed.store(true, Ordering::Relaxed);
        Ok(hashes)
    }

    fn settle_hashes(&self) {
        // A record that was never stored has nothing remembered.
        if !self.hashed.load(Ordering::Relaxed) && self.record.body.lock().stored {
            self.record.forget_hashes();
        }
    }

    /// Makes the record immutable; its files stay where they are. One transaction. Reads the directories that were written, and
    /// blocks meanwhile: a tree with a path that is too deep or too long is refused and deleted.
    pub fn commit(self) -> Result<ImmutableRef, StoreError> {
        self.settle()?;
        self.record.store().check_depth(&self.snapshot()?)?;
        self.settle_hashes();
        let record = self.record.clone();
        let store = record.store().clone();
        let mut body = record.body.lock().clone();
        body.mutable = false;
        body.size = -1;
        store.write(|c| {
            if body.stored {
                c.prepare_cached(
                    "UPDATE refs SET mutable = 0, size = -1, synced = 0 WHERE id = ?1",
                )?
                .execute([record.id().as_str()])?;
                Ok(())
            } else {
                record.insert(c, &body)
            }
        })?;
        body.stored = true;
        if let Some(snapshot) = &body.snapshot {
            store.snapshots().drop_work(snapshot);
        }
        *record.body.lock() = body;
        store.note_unsynced();
        store.note_trash();
        Ok(ImmutableRef::new(record))
    }

    /// Makes a temporary immutable record, such as for the files of a failed step: it is not in the index, and its files are
    /// deleted with the last handle, or at the next start.
    pub fn commit_passing(self) -> Result<ImmutableRef, StoreError> {
        if self.record.body.lock().stored {
            return self.commit();
        }
        self.settle()?;
        let record = self.record.clone();
        let snapshot = {
            let mut body = record.body.lock();
            body.mutable = false;
            body.size = -1;
            body.snapshot.clone()
        };
        if let Some(snapshot) = snapshot {
            record.store().snapshots().drop_work(&snapshot);
        }
        Ok(ImmutableRef::new(record))
    }

    /// Makes an immutable twin of a record that is kept: it shows the same files, and this record can be opened again later
    /// (see the module's documentation). Ends this handle.
    pub fn commit_shared(self) -> Result<ImmutableRef, StoreError> {
        self.set_retain(true)?;
        self.settle()?;
        self.settle_hashes();
        let mutable = &self.record;
        let store = mutable.store().clone();
        let body = Body {
            mutable: false,
            retain: true,
            twin: Some(mutable.id().clone()),
            size: -1,
            chain_id: None,
            diff_id: None,
            ..mutable.body.lock().clone()
        };
        let parent = match mutable.shape() {
            Shape::Layer { parent } => parent.clone(),
            Shape::Merge { .. } | Shape::Diff { .. } => None,
        };
        let twin = Record::new(
            store.clone(),
            RefId::random(),
            Shape::Layer { parent },
            body.clone(),
        );
        let inserted = store.write(|c| twin.insert(c, &body));
        if inserted.is_err() {
            // The snapshot is the mutable's.
            twin.body.lock().snapshot = None;
        }
        inserted?;
        store.live().lock().put(&twin);
        store.note_unsynced();
        Ok(ImmutableRef::new(twin))
    }

    /// Drops the handle: a record with `retain` stays, any other is deleted.
    pub fn release(self) {}
}

impl Drop for MutableRef {
    fn drop(&mut self) {
        let (discard, snapshot) = {
            let body = self.record.body.lock();
            (
                body.mutable && body.stored && !body.retain,
                body.snapshot.clone(),
            )
        };
        if !discard {
            return;
        }
        let store = self.record.store();
        store.db().make_room();
        match store
            .db()
            .write(|c| super::open::delete_rows(c, self.record.id().as_str()))
        {
            Ok(gone) => store.drop_snapshots(&gone),
            Err(e) => {
                tracing::warn!(id = %self.record.id(), error = %e, ?snapshot, "mutable record not removed")
            }
        }
        self.record.body.lock().stored = false;
        self.record.body.lock().snapshot = None;
    }
}
