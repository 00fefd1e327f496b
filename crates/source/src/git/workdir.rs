//! The tree of a record mounted at a path, because git takes only paths.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::error::SourceError;

/// A mount at a folder below the scratch folder; unmounted on drop.
#[derive(Debug)]
pub(crate) struct AttachedMount {
    path: PathBuf,
}

impl AttachedMount {
    /// Attaches `mount` to a new folder below `scratch`.
    pub(crate) fn new(mount: impl AsFd, scratch: &Path) -> Result<Self, SourceError> {
        std::fs::create_dir_all(scratch)
            .map_err(|e| SourceError::io("make the git scratch folder", e))?;
        let path = scratch.join(crate::scratch::unique("mount"));
        std::fs::create_dir(&path).map_err(|e| SourceError::io("make a git scratch folder", e))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        if let Err(e) = move_mount(mount.as_fd(), "", CWD, &path, flags) {
            let _gone = std::fs::remove_dir(&path);
            return Err(SourceError::io("attach a git repository", e));
        }
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AttachedMount {
    fn drop(&mut self) {
        let _detached = unmount(&self.path, UnmountFlags::DETACH);
        let _gone = std::fs::remove_dir(&self.path);
    }
}
