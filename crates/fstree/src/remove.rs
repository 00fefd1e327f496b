//! Removing trees that others made, however deep they are.
//!
//! A tree of any depth is removed with a fixed number of descriptors and next to no memory: a directory that lies deep is
//! moved up, beside the tree, and removed from there. What has been removed stays removed when it is begun again.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::descent::Descent;
use crate::dir::{Dir, component};
use crate::stat::Kind;

/// How deep directories are emptied where they lie. Each level holds one descriptor.
const IN_PLACE: usize = 32;
/// How often a directory that is not empty after it was emptied is read again.
const AGAIN: u32 = 16;

impl Dir {
    /// Removes `name` and, when it is a directory, everything below; a missing name is fine.
    pub fn remove_all(&self, name: &OsStr) -> io::Result<()> {
        match self.unlink(name) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::ISDIR | Errno::PERM) => {}
                _ => return Err(e),
            },
        }
        // Depth first: what is left to do in each directory, and its name in the one above.
        let mut descent = Descent::new(self.try_clone()?);
        descent.down(name)?;
        let mut left = vec![(descent.dir().entries()?.into_iter(), name.to_owned())];
        while let Some((entries, _)) = left.last_mut() {
            let Some(entry) = entries.next() else {
                let Some((_, done)) = left.pop() else {
                    break;
                };
                descent.up()?;
                let above = descent.dir();
                match fs::unlinkat(above, component(&done)?, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e.into()),
                }
            };
            if entry.kind == Kind::Dir {
                descent.down(&entry.name)?;
                left.push((descent.dir().entries()?.into_iter(), entry.name));
                continue;
            }
            match descent.dir().unlink(&entry.name) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

struct Level {
    dir: fs::Dir,
    name: OsString,
    again: u32,
}

fn open(dir: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<fs::Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::Dir::new(fs::openat(dir, name, flags, Mode::empty())?)?)
}

/// Removes `name` in the directory `dir` and what is below it. Directories that lie deep are moved up into `dir`, where they
/// get the names that `fresh` gives, and are left to the caller. What can be removed goes, also where something else cannot:
/// the error is the first one. A missing name is fine. When `stop` says so, it ends early with [`io::ErrorKind::Interrupted`].
/// Blocks.
pub fn remove_tree(
    dir: impl std::os::fd::AsFd,
    name: &OsStr,
    fresh: &mut dyn FnMut() -> OsString,
    stop: &dyn Fn() -> bool,
) -> io::Result<()> {
    let top = dir.as_fd();
    match fs::unlinkat(top, component(name)?, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let mut failed: Option<io::Error> = None;
    let mut levels = vec![Level {
        dir: open(top, name)?,
        name: name.to_owned(),
        again: 0,
    }];
    loop {
        let is_deep = levels.len() >= IN_PLACE;
        let Some(level) = levels.last_mut() else {
            break;
        };
        if let Some(entry) = level.dir.read() {
            if stop() {
                return Err(Errno::INTR.into());
            }
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let here = level.dir.fd()?;
            if entry.file_type() != FileType::Directory {
                match fs::unlinkat(here, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) if entry.file_type() == FileType::Unknown => {}
                    Err(e) => {
                        failed.get_or_insert(e.into());
                        continue;
                    }
                }
            }
            match fs::unlinkat(here, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(e) => {
                    failed.get_or_insert(e.into());
                    continue;
                }
            }
            let next = if is_deep {
                fs::renameat(here, name, top, fresh().as_os_str())
                    .map(|()| None)
                    .map_err(Into::into)
            } else {
                open(here, name).map(|dir| {
                    Some(Level {
                        dir,
                        name: name.to_owned(),
                        again: 0,
                    })
                })
            };
            match next {
                Ok(next) => levels.extend(next),
                Err(e) => {
                    failed.get_or_insert(e);
                }
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        let gone = match levels.last() {
            Some(above) => fs::unlinkat(above.dir.fd()?, &done.name, AtFlags::REMOVEDIR),
            None => fs::unlinkat(top, &done.name, AtFlags::REMOVEDIR),
        };
        match gone {
            Ok(()) | Err(Errno::NOENT) => {}
            // Names may be passed over while others are removed, and somebody may still be writing.
            Err(Errno::NOTEMPTY | Errno::EXIST) if failed.is_none() && done.again < AGAIN => {
                let mut dir = done.dir;
                dir.rewind();
                levels.push(Level {
                    dir,
                    name: done.name,
                    again: done.again + 1,
                });
            }
            Err(e) => {
                failed.get_or_insert(e.into());
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes what is at a path of the host and everything below, as [`std::fs::remove_dir_all`] does, but however deep it is.
/// Blocks.
pub fn remove_dir_all(path: &Path) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = fs::openat(CWD, parent, flags, Mode::empty())?;
    let mut left = vec![name.to_owned()];
    let mut failed = None;
    while let Some(name) = left.pop() {
        let mut fresh = || {
            let moved = OsString::from(format!(
                ".removed-{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ));
            left.push(moved.clone());
            moved
        };
        let gone = remove_tree(&dir, &name, &mut fresh, &|| false);
        if let Err(e) = gone {
            failed.get_or_insert(e);
        }
    }
    failed.map_or(Ok(()), Err)
}
