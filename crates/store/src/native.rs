//! Trees on machines whose kernel mounts no overlay: whole copies.
//!
//! ```text
//! snapshots/<id>/fs          what one layer adds, with overlay's marks, as ever
//! snapshots/<id>/tree        the whole tree while the layer is mutable: a copy of what it stands on, which is written to
//! snapshots/<id>/view-<key>  the whole tree of a stack with this layer on top, to read; `key` names the stack
//! ```
//!
//! What lies in `fs` is the truth, so a state directory may be opened with overlay today and without it tomorrow. A commit compares the
//! tree with what it was copied from and writes the difference to `fs`; the tree is the layer's view from then on. Views are copies that
//! are made again when they are needed: a start drops them, and they go with the layer.
//!
//! Files are copied, by references to the same blocks where the file system has such (btrfs, xfs), and never linked into what a step
//! writes: a step that appends to a file would change it for all. `fs` has second names of files in the tree that was committed, which
//! nobody writes any more.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use fstree::Root;
use fstree::diff::{overlay_changes, tree_changes};
use rustix::fs::{AtFlags, Mode};

use crate::error::StoreError;
use crate::patch::{apply_changes, write_changes};
use crate::snapshot::{Snapshots, open_dir_at};

const TREE: &str = "tree";
const VIEW_PREFIX: &str = "view-";
/// Something that is being made, until it has its name.
const UNFINISHED: &str = "unfinished";
/// Beside the snapshots: there are trees among them that a start drops.
const MARK: &str = "native-trees";

fn view_name(layers: &[String]) -> String {
    let key = oci::Digest::sha256(layers.join("/").as_bytes());
    format!("{VIEW_PREFIX}{}", key.hex())
}

fn root_of(dir: OwnedFd, id: &str) -> Result<Root, StoreError> {
    Root::from_fd(dir).map_err(|e| StoreError::layer("open the tree of", id, e))
}

/// Copies a whole tree into an empty one.
fn copy(from: &Root, to: &Root, id: &str) -> Result<(), StoreError> {
    let all = tree_changes(None, from).map_err(|e| StoreError::layer("read", id, e))?;
    write_changes(from, &all, to, false).map_err(|e| StoreError::layer("copy", id, e))
}

impl Snapshots {
    /// Does to a whole tree what a layer says.
    fn overlay(&self, layer: &Root, on: &Root, id: &str) -> Result<(), StoreError> {
        let changes =
            overlay_changes(layer, Some(on)).map_err(|e| StoreError::layer("read", id, e))?;
        apply_changes(layer, &changes, on, &self.trash)
            .map_err(|e| StoreError::layer("copy", id, e))
    }

    fn dir_of(&self, id: &str) -> Result<OwnedFd, StoreError> {
        open_dir_at(&self.dir, id)
            .map_err(|e| StoreError::io("open snapshot", self.root.join(id), e))
    }

    /// Makes a directory with what `fill` writes into it, under this name or not at all. Its own attributes are those of the
    /// snapshot's `fs`.
    fn make(
        &self,
        id: &str,
        name: &str,
        fill: impl FnOnce(&Root) -> Result<(), StoreError>,
    ) -> Result<OwnedFd, StoreError> {
        let dir = self.dir_of(id)?;
        let failed = |e: io::Error| StoreError::io("make a tree in", self.root.join(id), e);
        self.trash.take(&dir, UNFINISHED).map_err(failed)?;
        let made = rustix::fs::mkdirat(&dir, UNFINISHED, Mode::from_raw_mode(0o700));
        made.map_err(|errno| failed(errno.into()))?;
        fill(&root_of(
            open_dir_at(&dir, UNFINISHED).map_err(failed)?,
            id,
        )?)?;
        let finish = || -> io::Result<OwnedFd> {
            let like = rustix::fs::statat(&dir, "fs", AtFlags::SYMLINK_NOFOLLOW)?;
            let (uid, gid) = (like.st_uid, like.st_gid);
            let (uid, gid) = (
                rustix::fs::Uid::from_raw(uid),
                rustix::fs::Gid::from_raw(gid),
            );
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&dir, UNFINISHED, Some(uid), Some(gid), flags)?;
            let mode = Mode::from_raw_mode(like.st_mode);
            rustix::fs::chmodat(&dir, UNFINISHED, mode, AtFlags::empty())?;
            self.trash.take(&dir, name)?;
            rustix::fs::renameat(&dir, UNFINISHED, &dir, name)?;
            open_dir_at(&dir, name)
        };
        finish().map_err(failed)
    }

    /// The whole tree of a stack, base first, which nobody writes to. Blocks while it is copied.
    pub(crate) fn whole(&self, layers: &[String]) -> Result<OwnedFd, StoreError> {
        let Some(top) = layers.last() else {
            return self
                .empty
                .try_clone()
                .map_err(|e| StoreError::io("open", &self.root, e));
        };
        let _one_at_a_time = self.copying.lock();
        let view = |layers: &[String]| {
            let dir = self.dir_of(layers.last()?).ok()?;
            open_dir_at(dir, &view_name(layers)).ok()
        };
        if let Some(there) = view(layers) {
            return Ok(there);
        }
        // The most of it that is there already.
        let part = (1..layers.len()).rev().find_map(|count| {
            let (below, above) = layers.split_at_checked(count)?;
            Some((view(below)?, above))
        });
        self.make(top, &view_name(layers), |tree| {
            let above = match part {
                Some((below, above)) => {
                    copy(&root_of(below, top)?, tree, top)?;
                    above
                }
                None => layers,
            };
            for id in above {
                self.overlay(&root_of(self.upper(id)?, id)?, tree, id)?;
            }
            Ok(())
        })
    }

    /// The tree of a mutable on top of `layers`, which is written to. Blocks while it is copied.
    pub(crate) fn writable(&self, id: &str, layers: &[String]) -> Result<OwnedFd, StoreError> {
        if let Ok(tree) = open_dir_at(self.dir_of(id)?, TREE) {
            return Ok(tree);
        }
        let below = root_of(self.whole(layers)?, id)?;
        let own = root_of(self.upper(id)?, id)?;
        self.make(id, TREE, |tree| {
            copy(&below, tree, id)?;
            self.overlay(&own, tree, id)
        })
    }

    /// Brings what was written to the tree of a mutable on top of `layers` to where layers lie. Nothing is done for one that has no such
    /// tree. Nobody writes to it any more. Blocks.
    pub(crate) fn settle(&self, id: &str, layers: &[String]) -> Result<(), StoreError> {
        let dir = self.dir_of(id)?;
        let Ok(tree) = open_dir_at(&dir, TREE) else {
            return Ok(());
        };
        let tree = root_of(tree, id)?;
        let below = root_of(self.whole(layers)?, id)?;
        let changes =
            tree_changes(Some(&below), &tree).map_err(|e| StoreError::layer("compare", id, e))?;
        let own = self.make(id, "settled", |own| {
            write_changes(&tree, &changes, own, true)
                .map_err(|e| StoreError::layer("write the changes of", id, e))
        })?;
        drop(own);
        let mut stack = layers.to_vec();
        stack.push(id.to_owned());
        let exchange = || -> io::Result<()> {
            let like = rustix::fs::statat(&dir, TREE, AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(
                &dir,
                "settled",
                Mode::from_raw_mode(like.st_mode),
                AtFlags::empty(),
            )?;
            self.trash.take(&dir, "fs")?;
            rustix::fs::renameat(&dir, "settled", &dir, "fs")?;
            let view = view_name(&stack);
            self.trash.take(&dir, &view)?;
            Ok(rustix::fs::renameat(&dir, TREE, &dir, &view)?)
        };
        exchange().map_err(|e| StoreError::io("settle", self.root.join(id), e))
    }

    /// Drops the views that an earlier process left: it may have been stopped while it made one, or before it reached the disk.
    pub(crate) fn drop_views(&self, state: &Path) -> io::Result<()> {
        let mark = state.join(MARK);
        if mark.exists() {
            for id in self.list()? {
                let Ok(dir) = open_dir_at(&self.dir, &id) else {
                    continue;
                };
                for entry in std::fs::read_dir(self.root.join(&id))? {
                    let name = entry?.file_name();
                    let name = name.to_string_lossy();
                    if name.starts_with(VIEW_PREFIX) || name == UNFINISHED || name == "settled" {
                        self.trash.take(dir.as_fd(), &*name)?;
                    }
                }
            }
        }
        if self.native {
            std::fs::write(&mark, "")
        } else if mark.exists() {
            std::fs::remove_file(&mark)
        } else {
            Ok(())
        }
    }
}
