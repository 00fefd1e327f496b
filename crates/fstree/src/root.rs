//! A tree of files that paths cannot leave.
//!
//! A path is always meant from the root of the tree: `..` stops there, absolute links start there, and the kernel
//! enforces it (`openat2` with `RESOLVE_IN_ROOT`), so it holds even while other processes change the tree. Calls
//! that change a name resolve its directory once, hold it, and work on the name in it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::dir::{Dir, Times, fd_path, meta_of};
use crate::error::{Located, PathError};
use crate::stat::{Kind, Meta};

/// The most symbolic links that one path may lead through.
pub(crate) const MAX_LINKS: usize = 255;

/// A directory taken as the root of everything below it. Cloning shares the descriptor.
#[derive(Clone, Debug)]
pub struct Root {
    fd: Arc<OwnedFd>,
}

/// Owner and group for new files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Opens the directory at a path of the host. Links in this path are followed: it is the daemon's, not a tree's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PathError> {
        let path = path.as_ref();
        let fd = fs::openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .at("open", path)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Takes a directory descriptor, or that of a mount attached nowhere, as the root.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, PathError> {
        let meta = meta_of(&fd, OsStr::new(""), AtFlags::EMPTY_PATH).at("open", "/")?;
        if !meta.is_dir() {
            return Err(PathError::new("open", "/", Errno::NOTDIR));
        }
        Ok(Self { fd: Arc::new(fd) })
    }

    /// A tree whose root is the directory at `path` in this one.
    pub fn subroot(&self, path: impl AsRef<Path>) -> Result<Self, PathError> {
        let path = path.as_ref();
        let fd = self
            .openat(path, OFlags::PATH | OFlags::DIRECTORY)
            .at("open", path)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Opens the directory at `path`, following links inside the tree.
    pub fn dir(&self, path: impl AsRef<Path>) -> Result<Dir, PathError> {
        let path = path.as_ref();
        Ok(Dir::from_fd(
            self.openat(path, OFlags::RDONLY | OFlags::DIRECTORY)
                .at("open", path)?,
        ))
    }

    /// Opens the directory that holds the last name of `path`, and returns that name with it.
    ///
    /// A path that ends in `..` or names the root has no such name: `None`.
    pub fn parent(&self, path: impl AsRef<Path>) -> Result<Option<(Dir, OsString)>, PathError> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let dir = self.dir(path.parent().unwrap_or_else(|| Path::new("")))?;
        Ok(Some((dir, name.to_owned())))
    }

    /// Opens a regular file for reading, following links inside the tree; anything else is refused.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File, PathError> {
        let path = path.as_ref();
        // Held first, looked at, and only then opened: opening a device or a pipe has effects.
        let inode = self.openat(path, OFlags::PATH).at("open", path)?;
        match meta_of(&inode, OsStr::new(""), AtFlags::EMPTY_PATH)
            .at("open", path)?
            .kind()
        {
            Kind::File => {}
            Kind::Dir => return Err(PathError::new("open", path, Errno::ISDIR)),
            Kind::Symlink | Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket => {
                return Err(PathError::new("open", path, Errno::INVAL));
            }
        }
        let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(
            fs::openat(CWD, fd_path(&inode), flags, Mode::empty()).at("open", path)?,
        ))
    }

    /// Reads a whole regular file, refusing one that is longer than `limit`.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, PathError> {
        let path = path.as_ref();
        let mut out = Vec::new();
        self.open_file(path)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut out)
            .at("read", path)?;
        if out.len() as u64 > limit {
            return Err(PathError::new("read", path, Errno::FBIG));
        }
        Ok(out)
    }

    /// Metadata of what `path` leads to.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Meta, PathError> {
        let path = path.as_ref();
        let inode = self.openat(path, OFlags::PATH).at("stat", path)?;
        meta_of(&inode, OsStr::new(""), AtFlags::EMPTY_PATH).at("stat", path)
    }

    /// Metadata of `path` itself; a link in its last name is not followed.
    pub fn lstat(&self, path: impl AsRef<Path>) -> Result<Meta, PathError> {
        let path = path.as_ref();
        let inode = self
            .openat(path, OFlags::PATH | OFlags::NOFOLLOW)
            .at("lstat", path)?;
        meta_of(&inode, OsStr::new(""), AtFlags::EMPTY_PATH).at("lstat", path)
    }

    /// Metadata of `path` itself, or `None` when it or a directory towards it does not exist.
    pub fn lstat_opt(&self, path: impl AsRef<Path>) -> Result<Option<Meta>, PathError> {
        absent(self.lstat(path))
    }

    /// Metadata of what `path` leads to, or `None` when that does not exist.
    pub fn stat_opt(&self, path: impl AsRef<Path>) -> Result<Option<Meta>, PathError> {
        absent(self.stat(path))
    }

    /// Reads the target of the symbolic link at `path`.
    pub fn readlink(&self, path: impl AsRef<Path>) -> Result<PathBuf, PathError> {
        let path = path.as_ref();
        let inode = self
            .openat(path, OFlags::PATH | OFlags::NOFOLLOW)
            .at("readlink", path)?;
        let target = fs::readlinkat(&inode, "", Vec::new()).at("readlink", path)?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// Resolves `path` to the same place as a path from the root without links, `.` and `..`.
    ///
    /// Names that do not exist are taken as they are, so the result can be created. With `follow_last` false a link
    /// in the last name stays.
    pub fn resolve(&self, path: impl AsRef<Path>, follow_last: bool) -> Result<PathBuf, PathError> {
        let path = path.as_ref();
        let mut todo: Vec<OsString> = components(path);
        todo.reverse();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let link = match self.lstat_opt(&next)? {
                Some(meta) if meta.is_symlink() && (follow_last || !todo.is_empty()) => {
                    self.readlink(&next)?
                }
                _ => {
                    at = next;
                    continue;
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(PathError::new("readlink", path, Errno::LOOP));
            }
            if link.has_root() {
                at = PathBuf::from("/");
            }
            todo.extend(components(&link).into_iter().rev());
        }
        Ok(at)
    }

    /// Creates a directory and those missing towards it; returns the created ones, topmost first.
    ///
    /// Existing directories are left as they are. Links on the way are followed inside the tree.
    pub fn mkdir_all(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        owner: Option<Owner>,
        time: Option<i64>,
    ) -> Result<Vec<PathBuf>, PathError> {
        let path = self.resolve(path, true)?;
        let mut created = Vec::new();
        if let Some(meta) = self.stat_opt(&path)? {
            if meta.is_dir() {
                return Ok(created);
            }
            return Err(PathError::new("mkdir", path, Errno::NOTDIR));
        }
        let mut at = PathBuf::from("/");
        let mut dir = self.dir("/")?;
        for name in components(&path) {
            at.push(&name);
            dir = match dir.open_dir(&name) {
                Ok(next) => next,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let next = dir.create_dir(&name, mode).at("mkdir", &at)?;
                    if let Some(owner) = owner {
                        next.set_own_owner(owner.uid, owner.gid).at("lchown", &at)?;
                    }
                    if let Some(time) = time {
                        next.set_own_times(Times::both(time)).at("utime", &at)?;
                    }
                    created.push(at.clone());
                    next
                }
                Err(e) => return Err(PathError::new("mkdir", at, e)),
            };
        }
        Ok(created)
    }

    /// Removes `path` and everything below; what does not exist is fine. The root itself is not removed.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> Result<(), PathError> {
        let path = path.as_ref();
        let parent = match self.parent(path) {
            Err(e) if e.is_not_found() => return Ok(()),
            other => other?,
        };
        let Some((dir, name)) = parent else {
            return Err(PathError::new("unlinkat", path, Errno::INVAL));
        };
        dir.remove_all(&name).at("unlinkat", path)
    }

    /// Renames within the tree.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), PathError> {
        let (from_dir, from_name) = self.named("rename", from.as_ref())?;
        let (to_dir, to_name) = self.named("rename", to.as_ref())?;
        from_dir
            .rename(&from_name, &to_dir, &to_name)
            .at("rename", to)
    }

    /// Creates a regular file that must not exist, with exactly these permission bits.
    pub fn create(&self, path: impl AsRef<Path>, mode: u32) -> Result<File, PathError> {
        let (dir, name) = self.named("open", path.as_ref())?;
        dir.create_file(&name, mode).at("open", path)
    }

    /// Creates a symbolic link.
    pub fn symlink(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<(), PathError> {
        let (dir, name) = self.named("symlink", path.as_ref())?;
        dir.symlink(target.as_ref(), &name).at("symlink", path)
    }

    /// Gives a file a second name; a link is linked itself.
    pub fn link(&self, from: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<(), PathError> {
        let (from_dir, from_name) = self.named("link", from.as_ref())?;
        let (dir, name) = self.named("link", path.as_ref())?;
        dir.link(&from_dir, &from_name, &name).at("link", path)
    }

    /// Opens the directory that holds the last name of `path`; the root has no name and is refused.
    pub fn named(&self, op: &'static str, path: &Path) -> Result<(Dir, OsString), PathError> {
        self.parent(path)?
            .ok_or_else(|| PathError::new(op, path, Errno::INVAL))
    }

    fn openat(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match fs::openat2(
                &*self.fd,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                resolve,
            ) {
                // The kernel could not prove that a `..` stayed inside while something was renamed: try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// The names of a path, `..` among them, without empty ones and dots.
pub(crate) fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn absent(result: Result<Meta, PathError>) -> Result<Option<Meta>, PathError> {
    match result {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if e.is_not_found() || e.source.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(e) => Err(e),
    }
}
