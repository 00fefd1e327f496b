//! One open directory and the names in it.
//!
//! Every call takes a single name, never a path, and never follows a symbolic link in that name. Code that goes
//! down a tree holds a `Dir` for each level, so nothing another process renames or links can lead it elsewhere.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::Errno;

use crate::stat::{Kind, Meta};

const XATTR_LIMIT: usize = 64 << 10;

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, any bytes but `/` and NUL.
    pub name: OsString,
    /// The type of the file.
    pub kind: Kind,
}

/// When a file was read and written last, in nanoseconds since 1970; `None` leaves a time as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Access time.
    pub atime: Option<i64>,
    /// Modification time.
    pub mtime: Option<i64>,
}

impl Times {
    /// Both times the same.
    #[must_use]
    pub fn both(ns: i64) -> Self {
        Self {
            atime: Some(ns),
            mtime: Some(ns),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// A second handle of the same directory.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
        })
    }

    /// The names in the directory in byte order, without `.` and `..`.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut out = Vec::new();
        for entry in fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Directory => Kind::Dir,
                FileType::RegularFile => Kind::File,
                FileType::Symlink => Kind::Symlink,
                FileType::BlockDevice => Kind::Block,
                FileType::CharacterDevice => Kind::Char,
                FileType::Fifo => Kind::Fifo,
                FileType::Socket => Kind::Socket,
                FileType::Unknown => match self.stat(name) {
                    Ok(meta) => meta.kind(),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                },
            };
            out.push(Entry {
                name: name.to_owned(),
                kind,
            });
        }
        out.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        Ok(out)
    }

    /// Metadata of the directory itself.
    pub fn meta(&self) -> io::Result<Meta> {
        meta_of(&self.fd, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    /// Metadata of `name`, not following it.
    pub fn stat(&self, name: &OsStr) -> io::Result<Meta> {
        meta_of(&self.fd, component(name)?, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Metadata of `name`, or `None` when there is no such name.
    pub fn stat_opt(&self, name: &OsStr) -> io::Result<Option<Meta>> {
        match self.stat(name) {
            Ok(meta) => Ok(Some(meta)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens the directory `name`; a symbolic link is refused.
    pub fn open_dir(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self {
            fd: fs::openat(&self.fd, component(name)?, flags, Mode::empty())?,
        })
    }

    /// Opens the regular file `name` for reading; anything else is refused without being opened for use.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // A device or a pipe must not be opened at all: opening may have effects. Look before, and again after.
        match self.stat(name)?.kind() {
            Kind::File => {}
            Kind::Dir => return Err(Errno::ISDIR.into()),
            Kind::Symlink => return Err(Errno::LOOP.into()),
            Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket => return Err(Errno::INVAL.into()),
        }
        let file = File::from(fs::openat(
            &self.fd,
            component(name)?,
            flags,
            Mode::empty(),
        )?);
        if !meta_of(&file, OsStr::new(""), AtFlags::EMPTY_PATH)?.is_file() {
            return Err(Errno::INVAL.into());
        }
        Ok(file)
    }

    /// Opens for reading what was seen to be a regular file just now, and is looked at again. Where others could put a
    /// device in its place meanwhile, use [`open_file`](Self::open_file).
    pub(crate) fn open_seen_file(&self, name: &OsStr) -> io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(fs::openat(
            &self.fd,
            component(name)?,
            flags,
            Mode::empty(),
        )?);
        if !file_meta(&file)?.is_file() {
            return Err(Errno::INVAL.into());
        }
        Ok(file)
    }

    /// Creates the regular file `name`, which must not exist, with exactly these permission bits.
    pub fn create_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(fs::openat(
            &self.fd,
            component(name)?,
            flags,
            Mode::from_raw_mode(0o600),
        )?);
        if mode != 0o600 {
            fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        }
        Ok(file)
    }

    /// Creates the regular file `name`, which must not exist, for an owner and mode that [`set_file_access`] gives it when
    /// its contents are there. Until then it may have fewer rights, never more.
    pub fn create_file_for(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(
            &self.fd,
            component(name)?,
            flags,
            Mode::from_raw_mode(mode & 0o777),
        )?))
    }

    /// Creates the directory `name` with exactly these permission bits and opens it.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> io::Result<Self> {
        fs::mkdirat(
            &self.fd,
            component(name)?,
            Mode::from_raw_mode(mode & 0o777),
        )?;
        let dir = self.open_dir(name)?;
        fs::fchmod(&dir.fd, Mode::from_raw_mode(mode & 0o7777))?;
        Ok(dir)
    }

    /// Creates the symbolic link `name`.
    pub fn symlink(&self, target: &Path, name: &OsStr) -> io::Result<()> {
        Ok(fs::symlinkat(target, &self.fd, component(name)?)?)
    }

    /// Gives `name` in `from` a second name here; a symbolic link is linked itself, not its target.
    pub fn link(&self, from: &Self, from_name: &OsStr, name: &OsStr) -> io::Result<()> {
        Ok(fs::linkat(
            &from.fd,
            component(from_name)?,
            &self.fd,
            component(name)?,
            AtFlags::empty(),
        )?)
    }

    /// Creates a device, pipe or socket node with exactly these permission bits.
    pub fn mknod(&self, name: &OsStr, kind: Kind, mode: u32, rdev: (u32, u32)) -> io::Result<()> {
        let kind = match kind {
            Kind::Block => FileType::BlockDevice,
            Kind::Char => FileType::CharacterDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::File => FileType::RegularFile,
            Kind::Dir | Kind::Symlink => return Err(Errno::INVAL.into()),
        };
        let mode = Mode::from_raw_mode(mode & 0o7777);
        fs::mknodat(
            &self.fd,
            component(name)?,
            kind,
            mode,
            fs::makedev(rdev.0, rdev.1),
        )?;
        if !mode.is_empty() {
            self.chmod(name, mode.as_raw_mode())?;
        }
        Ok(())
    }

    /// Creates the mark by which overlayfs hides `name` of lower layers: a character device 0/0.
    pub fn whiteout(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::mknodat(
            &self.fd,
            component(name)?,
            FileType::CharacterDevice,
            Mode::empty(),
            fs::makedev(0, 0),
        )?)
    }

    /// Reads the target of the symbolic link `name`.
    pub fn readlink(&self, name: &OsStr) -> io::Result<PathBuf> {
        let target = fs::readlinkat(&self.fd, component(name)?, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// Renames `name` to `to_name` in `to`, replacing what may be replaced.
    pub fn rename(&self, name: &OsStr, to: &Self, to_name: &OsStr) -> io::Result<()> {
        Ok(fs::renameat(
            &self.fd,
            component(name)?,
            &to.fd,
            component(to_name)?,
        )?)
    }

    /// Removes `name`, which is no directory.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.fd, component(name)?, AtFlags::empty())?)
    }

    /// Sets owner and group of `name` itself.
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (owner(uid), group(gid));
        Ok(fs::chownat(
            &self.fd,
            component(name)?,
            uid,
            gid,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Sets the permission bits of `name`, which must be no symbolic link.
    pub fn chmod(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        // fchmodat has no way not to follow on older kernels: hold the inode first, then change what is held.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inode = fs::openat(&self.fd, component(name)?, flags, Mode::empty())?;
        if meta_of(&inode, OsStr::new(""), AtFlags::EMPTY_PATH)?.is_symlink() {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(fs::chmodat(
            CWD,
            fd_path(&inode),
            Mode::from_raw_mode(mode & 0o7777),
            AtFlags::empty(),
        )?)
    }

    /// Sets the times of `name` itself.
    pub fn set_times(&self, name: &OsStr, times: Times) -> io::Result<()> {
        Ok(fs::utimensat(
            &self.fd,
            component(name)?,
            &timestamps(times),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// The extended attributes of `name` itself; a filesystem without them has none.
    pub fn xattrs(&self, name: &OsStr) -> io::Result<BTreeMap<String, Vec<u8>>> {
        xattrs_at(&self.name_path(name)?)
    }

    /// The extended attributes of the directory itself.
    pub fn own_xattrs(&self) -> io::Result<BTreeMap<String, Vec<u8>>> {
        xattrs_at(&fd_path(&self.fd).join("."))
    }

    /// One extended attribute of `name` itself, or `None`.
    pub fn xattr(&self, name: &OsStr, key: &str) -> io::Result<Option<Vec<u8>>> {
        xattr_at(&self.name_path(name)?, key)
    }

    /// One extended attribute of the directory itself, or `None`.
    pub fn own_xattr(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        xattr_at(&fd_path(&self.fd).join("."), key)
    }

    /// Sets an extended attribute of `name` itself.
    pub fn set_xattr(&self, name: &OsStr, key: &str, value: &[u8]) -> io::Result<()> {
        Ok(fs::lsetxattr(
            self.name_path(name)?,
            key,
            value,
            XattrFlags::empty(),
        )?)
    }

    /// Sets an extended attribute of the directory itself.
    pub fn set_own_xattr(&self, key: &str, value: &[u8]) -> io::Result<()> {
        Ok(fs::lsetxattr(
            fd_path(&self.fd).join("."),
            key,
            value,
            XattrFlags::empty(),
        )?)
    }

    /// Sets the permission bits of the directory itself.
    pub fn set_own_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fs::fchmod(&self.fd, Mode::from_raw_mode(mode & 0o7777))?)
    }

    /// Sets owner and group of the directory itself.
    pub fn set_own_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        Ok(fs::fchown(&self.fd, owner(uid), group(gid))?)
    }

    /// Sets the times of the directory itself.
    pub fn set_own_times(&self, times: Times) -> io::Result<()> {
        Ok(fs::futimens(&self.fd, &timestamps(times))?)
    }

    // The descriptor is followed by the kernel as a magic link of ours, and the last name is not followed.
    fn name_path(&self, name: &OsStr) -> io::Result<PathBuf> {
        Ok(fd_path(&self.fd).join(component(name)?))
    }
}

/// Owner, mode and times by an open file.
pub fn set_file_times(file: &File, times: Times) -> io::Result<()> {
    Ok(fs::futimens(file, &timestamps(times))?)
}

/// Sets owner and group of an open file.
pub fn set_file_owner(file: &File, uid: u32, gid: u32) -> io::Result<()> {
    Ok(fs::fchown(file, owner(uid), group(gid))?)
}

/// The number that stands for "as it is" in chown(2), and for nobody's id: others may write it anywhere.
fn owner(uid: u32) -> Option<fs::Uid> {
    (uid != u32::MAX).then(|| fs::Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<fs::Gid> {
    (gid != u32::MAX).then(|| fs::Gid::from_raw(gid))
}

/// Sets the permission bits of an open file.
pub fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

/// Sets owner, group and permission bits of an open file, without touching what is so already.
pub fn set_file_access(file: &File, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let (meta, mode) = (file_meta(file)?, mode & 0o7777);
    let is_owned = meta.uid == uid && meta.gid == gid;
    if !is_owned {
        set_file_owner(file, uid, gid)?;
    }
    // A change of owner takes bits away.
    if !is_owned || meta.mode & 0o7777 != mode {
        set_file_mode(file, mode)?;
    }
    Ok(())
}

/// Metadata of an open file.
pub fn file_meta(file: &File) -> io::Result<Meta> {
    meta_of(file, OsStr::new(""), AtFlags::EMPTY_PATH)
}

/// The extended attributes of an open file; a filesystem without them has none.
pub fn file_xattrs(file: &File) -> io::Result<BTreeMap<String, Vec<u8>>> {
    xattrs_by(
        |names| fs::flistxattr(file, names),
        |key, value| fs::fgetxattr(file, key, value),
    )
}

/// Sets an extended attribute of an open file.
pub fn set_file_xattr(file: &File, key: &str, value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(file, key, value, XattrFlags::empty())?)
}

pub(crate) fn component(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty()
        || bytes == b"."
        || bytes == b".."
        || bytes.contains(&b'/')
        || bytes.contains(&0)
    {
        return Err(Errno::INVAL.into());
    }
    Ok(name)
}

pub(crate) fn fd_path(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

pub(crate) fn meta_of(fd: impl AsFd, name: &OsStr, flags: AtFlags) -> io::Result<Meta> {
    let x = fs::statx(fd, name, flags, StatxFlags::BASIC_STATS)?;
    Ok(Meta {
        dev: (x.stx_dev_major, x.stx_dev_minor),
        ino: x.stx_ino,
        mode: u32::from(x.stx_mode),
        nlink: x.stx_nlink,
        uid: x.stx_uid,
        gid: x.stx_gid,
        size: x.stx_size,
        blocks: x.stx_blocks,
        rdev: (x.stx_rdev_major, x.stx_rdev_minor),
        atime: nanoseconds(x.stx_atime),
        mtime: nanoseconds(x.stx_mtime),
        ctime: nanoseconds(x.stx_ctime),
    })
}

fn nanoseconds(t: StatxTimestamp) -> i64 {
    t.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(t.tv_nsec))
}

fn timestamps(times: Times) -> Timestamps {
    Timestamps {
        last_access: timespec(times.atime),
        last_modification: timespec(times.mtime),
    }
}

fn timespec(ns: Option<i64>) -> Timespec {
    match ns {
        Some(ns) => Timespec {
            tv_sec: ns.div_euclid(1_000_000_000),
            tv_nsec: ns.rem_euclid(1_000_000_000),
        },
        None => Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_OMIT,
        },
    }
}

fn xattrs_at(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    xattrs_by(
        |names| fs::llistxattr(path, names),
        |key, value| fs::lgetxattr(path, key, value),
    )
}

fn xattrs_by(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&str, &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut out = BTreeMap::new();
    // Most files have few or none.
    let mut few = [0_u8; 512];
    let mut many = Vec::new();
    let names = match list(&mut few) {
        Ok(len) => few.get(..len).unwrap_or_default(),
        Err(Errno::RANGE) => {
            many.resize(XATTR_LIMIT, 0_u8);
            let len = list(&mut many)?;
            many.get(..len).unwrap_or_default()
        }
        Err(Errno::OPNOTSUPP) => return Ok(out),
        Err(e) => return Err(e.into()),
    };
    for name in names.split(|b| *b == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        if let Ok(Some(value)) = xattr_by(|value| get(name, value)) {
            out.insert(name.to_owned(), value);
        }
    }
    Ok(out)
}

fn xattr_at(path: &Path, key: &str) -> io::Result<Option<Vec<u8>>> {
    xattr_by(|value| fs::lgetxattr(path, key, value))
}

fn xattr_by(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 256];
    loop {
        match get(&mut value) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < XATTR_LIMIT => value.resize(XATTR_LIMIT, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}
