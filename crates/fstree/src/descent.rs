//! Descends into a tree and returns, without recursion, with few descriptors and a limit on the depth.
//!
//! Steps, archives and clients decide how deep a tree is. So no function here recurses by level, and none holds a descriptor for
//! each level. The innermost directories of a [`Descent`] are open; those further up are
//! closed, and opened again through `..` on the way back, where device and inode say whether it is the same directory. (The
//! numbers cannot change meanwhile: the open directory below keeps all that it lies in.)
//!
//! Trees that a build keeps are limited as well: [`check`] refuses a tree with a path of more than [`MAX_DEPTH`] names or
//! [`MAX_PATH`] bytes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use crate::depth::{MAX_DEPTH, MAX_PATH, TooDeep};
use crate::dir::{Dir, Entry};
use crate::error::{Located, PathError};
use crate::stat::{Kind, Meta};

/// The most bytes of a name.
const MAX_NAME: usize = 255;
/// Directories of one descent that are open, beside its top.
const MAX_OPEN_DIRS: usize = 32;
#[derive(Debug)]
enum Level {
    Open(Dir),
    // Device and inode of a directory that was closed.
    Closed((u32, u32), u64),
}

/// The directories from the top of a tree to the one that is being looked at.
#[derive(Debug)]
pub struct Descent {
    levels: Vec<Level>,
    limit: usize,
}

impl Descent {
    /// Starts at a directory, with the limit on the depth of trees.
    #[must_use]
    pub fn new(top: Dir) -> Self {
        Self {
            levels: vec![Level::Open(top)],
            limit: MAX_DEPTH,
        }
    }

    /// Starts at a directory, without a limit, for trees that were never checked. Takes 32 bytes for each level.
    fn without_limit(top: Dir) -> Self {
        Self {
            limit: usize::MAX,
            ..Self::new(top)
        }
    }

    /// The innermost directory.
    pub fn dir(&self) -> &Dir {
        match self.levels.last() {
            Some(Level::Open(dir)) => dir,
            Some(Level::Closed(..)) | None => {
                unreachable!("the innermost level is open, and the top is never left")
            }
        }
    }

    /// How many levels below the top the innermost directory is.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.levels.len() - 1
    }

    /// Goes into the directory `name`; a symbolic link is refused.
    pub fn down(&mut self, name: &OsStr) -> io::Result<()> {
        let dir = self.dir().open_dir(name)?;
        self.enter(dir)
    }

    /// Goes into a directory in the innermost one, which the caller has opened or made.
    pub fn enter(&mut self, dir: Dir) -> io::Result<()> {
        if self.depth() >= self.limit {
            return Err(io::Error::other(TooDeep));
        }
        self.levels.push(Level::Open(dir));
        if let Some(at) = self.depth().checked_sub(MAX_OPEN_DIRS).filter(|at| *at > 0)
            && let Some(level) = self.levels.get_mut(at)
            && let Level::Open(dir) = level
        {
            let meta = dir.meta()?;
            *level = Level::Closed(meta.dev, meta.ino);
        }
        Ok(())
    }

    /// Goes back to the directory above. At the top, nothing happens.
    pub fn up(&mut self) -> io::Result<()> {
        if self.levels.len() < 2 {
            return Ok(());
        }
        let Some(Level::Open(left)) = self.levels.pop() else {
            return Ok(());
        };
        if let Some(level) = self.levels.last_mut()
            && let Level::Closed(dev, ino) = *level
        {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = Dir::from_fd(fs::openat(&left, "..", flags, Mode::empty())?);
            let meta = dir.meta()?;
            if (meta.dev, meta.ino) != (dev, ino) {
                // Somebody moved it: what is above now may be outside of the tree.
                return Err(Errno::STALE.into());
            }
            *level = Level::Open(dir);
        }
        Ok(())
    }
}

/// Visits a tree, parents first and the names of each directory in byte order; `look` gets the directory, the name in it and
/// its metadata, and returns whether to descend into it. Names that vanish meanwhile are skipped. The tree may have any depth.
pub fn each<E: From<io::Error>>(
    top: Dir,
    mut look: impl FnMut(&Dir, &Entry, &Meta) -> Result<bool, E>,
) -> Result<(), E> {
    let mut left = vec![top.entries()?.into_iter()];
    let mut descent = Descent::without_limit(top);
    while let Some(entries) = left.last_mut() {
        let Some(entry) = entries.next() else {
            left.pop();
            descent.up()?;
            continue;
        };
        let Some(meta) = descent.dir().stat_opt(&entry.name)? else {
            continue;
        };
        if !look(descent.dir(), &entry, &meta)? || !meta.is_dir() {
            continue;
        }
        match descent.down(&entry.name) {
            Ok(()) => left.push(descent.dir().entries()?.into_iter()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Refuses a tree below `top` with a path that is deeper or longer than a tree may be. Reads directories only. Blocks.
pub fn check(top: Dir) -> Result<(), PathError> {
    let mut levels = vec![CheckedDir::read(&top, PathBuf::new(), 1)?];
    let mut descent = Descent::new(top);
    loop {
        let names = levels.len();
        let Some(level) = levels.last_mut() else {
            return Ok(());
        };
        let Some(name) = level.dirs.next() else {
            levels.pop();
            descent.up().at("open", "..")?;
            continue;
        };
        let path = level.path.join(&name);
        // With two links, its own name and its own dot, it has no directories in it. Filesystems that do not count have one.
        let is_leaf = descent.dir().stat(&name).at("lstat", &path)?.nlink == 2;
        if is_leaf && names < MAX_DEPTH && path.as_os_str().len() < MAX_PATH - MAX_NAME {
            continue;
        }
        descent.down(&name).at("open", &path)?;
        levels.push(CheckedDir::read(descent.dir(), path, names + 1)?);
    }
}

/// A directory that was read, and its subdirectories that are still to be checked.
struct CheckedDir {
    path: PathBuf,
    dirs: std::vec::IntoIter<OsString>,
}

impl CheckedDir {
    /// Reads a directory; paths in it have `names` names.
    fn read(dir: &Dir, path: PathBuf, names: usize) -> Result<Self, PathError> {
        let length = path.as_os_str().len() + 1;
        let mut dirs = Vec::new();
        for Entry { name, kind } in dir.entries().at("open", &path)? {
            if names > MAX_DEPTH || length + name.len() > MAX_PATH {
                let (path, source) = (path.join(name), io::Error::other(TooDeep));
                return Err(PathError::new("commit", path, source));
            }
            if kind == Kind::Dir {
                dirs.push(name);
            }
        }
        Ok(Self {
            path,
            dirs: dirs.into_iter(),
        })
    }
}
