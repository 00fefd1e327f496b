//! Copying regular files, one or many at a time.

use std::ffi::{OsStr, OsString};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{ActionError, Copy, ModeChange};
use crate::dir::{Dir, Times, file_xattrs, set_file_access, set_file_times, set_file_xattr};
use crate::error::Located;
use crate::root::Owner;
use crate::stat::Meta;

/// Fewer files than this are not worth a thread.
const MIN_FILES_FOR_THREADS: usize = 16;
/// Fewer bytes than this are not worth one either.
const MIN_BYTES_FOR_THREADS: u64 = 8 << 20;
/// The most threads that copy.
const MAX_THREADS: usize = 8;

/// A file that waits to be copied.
pub(super) struct File {
    pub(super) name: OsString,
    pub(super) meta: Meta,
    pub(super) target: PathBuf,
}

/// Owner, mode and times of copies, where they differ from the source.
pub(super) struct Attributes<'a> {
    pub(super) action: &'a Copy,
    pub(super) mode: Option<ModeChange>,
}

/// Removes what a file is to replace, which must be no directory.
pub(super) fn make_way(dir: &Dir, name: &OsStr, target: &Path) -> Result<(), ActionError> {
    match dir.stat_opt(name).at("lstat", target)? {
        Some(existing) if existing.is_dir() => Err(ActionError::IsADirectory(
            target.to_string_lossy().into_owned(),
        )),
        Some(_) => Ok(dir.unlink(name).at("remove", target)?),
        None => Ok(()),
    }
}

impl Attributes<'_> {
    /// Copies files from one directory to another, each with one name only. The error is that of the first in order.
    pub(super) fn copy_files(
        &self,
        src: &Dir,
        dest: &Dir,
        files: &[File],
    ) -> Result<(), ActionError> {
        let copy = |file: &File| {
            self.copy_file(src, &file.name, &file.meta, dest, &file.name, &file.target)
        };
        let bytes: u64 = files.iter().map(|file| file.meta.size).sum();
        let threads = threads().min(files.len());
        if threads < 2 || (files.len() < MIN_FILES_FOR_THREADS && bytes < MIN_BYTES_FOR_THREADS) {
            return files.iter().try_for_each(copy);
        }
        let next = AtomicUsize::new(0);
        // A file is taken in order and finished whatever the others do, so the first error in order is among those found.
        let work = || loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let file = files.get(at)?;
            if let Err(error) = copy(file) {
                next.store(files.len(), Ordering::Relaxed);
                return Some((at, error));
            }
        };
        let errors = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut errors: Vec<_> = work().into_iter().collect();
            for worker in workers {
                match worker.join() {
                    Ok(error) => errors.extend(error),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            errors
        });
        match errors.into_iter().min_by_key(|(at, _)| *at) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Copies one file.
    pub(super) fn copy_file(
        &self,
        src: &Dir,
        src_name: &OsStr,
        meta: &Meta,
        dir: &Dir,
        name: &OsStr,
        target: &Path,
    ) -> Result<(), ActionError> {
        let from = src.open_seen_file(src_name).at("open", target)?;
        let (owner, mode) = (self.owner(meta), self.mode(meta));
        let to = match dir.create_file_for(name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                make_way(dir, name, target)?;
                dir.create_file_for(name, mode)
            }
            file => file,
        }
        .at("open", target)?;
        if meta.size > 0 {
            sys::reflink::copy_contents(&from, &to).at("copy_file_range", target)?;
        }
        set_file_access(&to, owner.uid, owner.gid, mode).at("chmod", target)?;
        self.copy_xattrs(&file_xattrs(&from).unwrap_or_default(), |k, v| {
            set_file_xattr(&to, k, v)
        });
        set_file_times(&to, self.times(meta)).at("utime", target)?;
        Ok(())
    }

    // Attributes are copied as far as the destination takes them; BuildKit logs and goes on as well.
    pub(super) fn copy_xattrs(
        &self,
        all: &std::collections::BTreeMap<String, Vec<u8>>,
        set: impl Fn(&str, &[u8]) -> std::io::Result<()>,
    ) {
        for (key, value) in all
            .iter()
            .filter(|(key, _)| !key.starts_with(sys::userns::overlay_xattrs()))
        {
            if let Err(error) = set(key, value) {
                tracing::debug!(%key, %error, "extended attribute not copied");
            }
        }
    }

    pub(super) fn owner(&self, meta: &Meta) -> Owner {
        self.action.owner.unwrap_or(Owner {
            uid: meta.uid,
            gid: meta.gid,
        })
    }

    pub(super) fn mode(&self, meta: &Meta) -> u32 {
        match (&self.mode, self.action.mode) {
            (Some(change), _) => change.apply(meta.mode, meta.is_dir()),
            (None, Some(mode)) => mode & 0o7777,
            (None, None) => meta.mode & 0o7777,
        }
    }

    pub(super) fn times(&self, meta: &Meta) -> Times {
        match self.action.timestamp {
            Some(time) => Times::both(time),
            None => Times {
                atime: Some(meta.atime),
                mtime: Some(meta.mtime),
            },
        }
    }
}

fn threads() -> usize {
    static THREADS_HERE: OnceLock<usize> = OnceLock::new();
    *THREADS_HERE.get_or_init(|| {
        std::thread::available_parallelism()
            .map_or(1, NonZero::get)
            .min(MAX_THREADS)
    })
}
