//! The store's directories with the ids of a user namespace.
//!
//! What lies on disk as 0 shows as the host's id for the namespace's 0, and what is written by that id lies as 0: a step in a user
//! namespace reads and writes the same bytes as one without. One mapped copy of the whole directory of snapshots serves all mounts:
//! a layer costs nothing more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use sys::mount::{AttrChange, DetachedMount};
use sys::userns::{IdMapping, IdRange};

/// The directories in which layers are opened.
#[derive(Debug)]
pub(crate) struct SnapshotDirs {
    pub(crate) snapshots: OwnedFd,
    pub(crate) empty: OwnedFd,
}

/// The mapped copies for the last user namespace; a daemon has only one.
#[derive(Debug, Default)]
pub(crate) struct MappedDirs(Mutex<Option<(IdRange, Arc<SnapshotDirs>)>>);

impl MappedDirs {
    /// Returns the directories as `ids` maps them.
    pub(crate) fn get(
        &self,
        snapshots: &OwnedFd,
        empty: &OwnedFd,
        ids: &IdMapping,
    ) -> io::Result<Arc<SnapshotDirs>> {
        let mut cached = self.0.lock();
        if let Some((range, dirs)) = &*cached
            && *range == ids.range()
        {
            return Ok(Arc::clone(dirs));
        }
        let dirs = Arc::new(SnapshotDirs {
            snapshots: map(snapshots, ids)?.into(),
            empty: map(empty, ids)?.into(),
        });
        *cached = Some((ids.range(), Arc::clone(&dirs)));
        Ok(dirs)
    }
}

/// A copy of the mount that `dir` is in, attached nowhere, with mapped ids.
pub(crate) fn map(dir: impl AsFd, ids: &IdMapping) -> io::Result<DetachedMount> {
    let copy = sys::mount::open_tree_clone(dir, false)?;
    sys::mount::mount_setattr(
        &copy,
        AttrChange {
            private: true,
            ..AttrChange::default()
        },
    )?;
    sys::mount::map_ids(&copy, ids, false)?;
    Ok(copy)
}
