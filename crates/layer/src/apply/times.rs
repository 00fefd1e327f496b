//! Times of directories, which every entry in them changes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fstree::{PathError, Root, Times};

use super::ApplyError;

// How much may be kept: more directories than an image has, as a rule.
const MAX_KEPT_BYTES: usize = 8 << 20;
const ENTRY_BYTES: usize = 96;

/// The times that directories get at the very end.
///
/// Of more than fit, all are set at once; whoever opens one of them again to put something in says so, and its time is
/// kept once more. So memory does not grow with the number of entries.
#[derive(Debug, Default)]
pub(super) struct DirTimes {
    times_of: BTreeMap<PathBuf, Times>,
    bytes: usize,
    some_are_set: bool,
}

impl DirTimes {
    /// Keeps what an entry says; the last one of a directory counts. Returns whether those before were set, so that open
    /// directories must be opened again before anything else is put into them.
    pub(super) fn note(
        &mut self,
        root: &Root,
        path: &Path,
        times: Times,
    ) -> Result<bool, ApplyError> {
        let is_full = self.bytes > MAX_KEPT_BYTES;
        if is_full {
            self.set(root)?;
            self.some_are_set = true;
        }
        if self.times_of.insert(path.to_path_buf(), times).is_none() {
            self.bytes += path.as_os_str().len() + ENTRY_BYTES;
        }
        Ok(is_full)
    }

    /// Keeps the time of a directory that is about to get another entry. Returns as [`note`](Self::note) does.
    pub(super) fn disturb(&mut self, root: &Root, path: &Path) -> Result<bool, ApplyError> {
        // The root has its own times, whatever the archive says about it.
        if !self.some_are_set || path.as_os_str().is_empty() || self.times_of.contains_key(path) {
            return Ok(false);
        }
        let meta = root.stat(path)?;
        let times = Times {
            atime: Some(meta.atime),
            mtime: Some(meta.mtime),
        };
        self.note(root, path, times)
    }

    /// Forgets what was removed.
    pub(super) fn forget(&mut self, path: &Path) {
        let gone: Vec<PathBuf> = self
            .times_of
            .range(path.to_path_buf()..)
            .map(|(dir, _)| dir)
            .take_while(|dir| dir.starts_with(path))
            .cloned()
            .collect();
        for path in gone {
            self.times_of.remove(&path);
            self.bytes -= path.as_os_str().len() + ENTRY_BYTES;
        }
    }

    /// Sets all times that are kept.
    pub(super) fn set(&mut self, root: &Root) -> Result<(), ApplyError> {
        self.bytes = 0;
        for (path, times) in std::mem::take(&mut self.times_of) {
            match root.dir(&path) {
                Ok(dir) => dir
                    .set_own_times(times)
                    .map_err(|e| PathError::new("utime", &path, e))?,
                // A later entry has replaced the directory.
                Err(e)
                    if matches!(
                        e.source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
