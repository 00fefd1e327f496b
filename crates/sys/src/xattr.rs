//! Extended attributes of open files, and of anything an `O_PATH` descriptor points at, links included.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self as rx, XattrFlags};
use rustix::io::Errno;

/// The largest value the kernel takes, `XATTR_SIZE_MAX`.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// Reads attribute `name` of `fd`, `None` when it has none or its filesystem knows none. getxattr(2).
///
/// `fd` may be `O_PATH`; for a link opened with `O_NOFOLLOW` use [`lget`].
pub fn get(fd: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let fd = fd.as_fd();
    absent(read(|buffer| match rx::fgetxattr(fd, name, &mut *buffer) {
        Err(Errno::BADF) => rx::getxattr(fd_path(fd), name, buffer),
        result => result,
    }))
}

/// Sets attribute `name` of `fd`, which may be `O_PATH`. setxattr(2).
pub fn set(fd: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd();
    match rx::fsetxattr(fd, name, value, XattrFlags::empty()) {
        Err(Errno::BADF) => Ok(rx::setxattr(fd_path(fd), name, value, XattrFlags::empty())?),
        result => Ok(result?),
    }
}

/// Removes attribute `name` of `fd`; it need not be there. removexattr(2).
pub fn remove(fd: impl AsFd, name: &str) -> io::Result<()> {
    let fd = fd.as_fd();
    let result = match rx::fremovexattr(fd, name) {
        Err(Errno::BADF) => rx::removexattr(fd_path(fd), name),
        result => result,
    };
    match result {
        Err(Errno::NODATA) => Ok(()),
        result => Ok(result?),
    }
}

/// The names of all attributes of `fd`, which may be `O_PATH`; empty when its filesystem knows none. listxattr(2).
pub fn list(fd: impl AsFd) -> io::Result<Vec<CString>> {
    let fd = fd.as_fd();
    names(read(|buffer| match rx::flistxattr(fd, &mut *buffer) {
        Err(Errno::BADF) => rx::listxattr(fd_path(fd), buffer),
        result => result,
    }))
}

/// As [`get`], for `name` in the directory `dir`, of a link itself. lgetxattr(2) through procfs; `name` is one component.
pub fn lget(dir: impl AsFd, file: &[u8], name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = entry_path(dir.as_fd(), file)?;
    absent(read(|buffer| rx::lgetxattr(&path, name, buffer)))
}

/// As [`set`], for `file` in the directory `dir`, of a link itself. lsetxattr(2) through procfs; `file` is one component.
pub fn lset(dir: impl AsFd, file: &[u8], name: &str, value: &[u8]) -> io::Result<()> {
    Ok(rx::lsetxattr(
        &entry_path(dir.as_fd(), file)?,
        name,
        value,
        XattrFlags::empty(),
    )?)
}

/// As [`list`], for `file` in the directory `dir`, of a link itself. llistxattr(2) through procfs; `file` is one component.
pub fn llist(dir: impl AsFd, file: &[u8]) -> io::Result<Vec<CString>> {
    let path = entry_path(dir.as_fd(), file)?;
    names(read(|buffer| rx::llistxattr(&path, buffer)))
}

/// Removes `name` from `file` in the directory `dir`, of a link itself. lremovexattr(2) through procfs; `file` is one component.
pub fn lremove(dir: impl AsFd, file: &[u8], name: &str) -> io::Result<()> {
    match rx::lremovexattr(&entry_path(dir.as_fd(), file)?, name) {
        Err(Errno::NODATA) => Ok(()),
        result => Ok(result?),
    }
}

fn fd_path(fd: BorrowedFd<'_>) -> String {
    crate::mount::fd_path(fd)
}

/// The name of an entry through procfs. Only one component is taken: the kernel must have nothing to resolve on the way.
fn entry_path(dir: BorrowedFd<'_>, file: &[u8]) -> io::Result<CString> {
    if file.is_empty() || file == b"." || file == b".." || file.contains(&b'/') {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut path = fd_path(dir).into_bytes();
    path.push(b'/');
    path.extend_from_slice(file);
    CString::new(path).map_err(io::Error::other)
}

/// Calls `fill` with a larger buffer while the value does not fit.
fn read(mut fill: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match fill(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < MAX_VALUE_BYTES => {
                let larger = (buffer.len() * 8).min(MAX_VALUE_BYTES);
                buffer.resize(larger, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

fn absent(result: Result<Vec<u8>, Errno>) -> io::Result<Option<Vec<u8>>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn names(result: Result<Vec<u8>, Errno>) -> io::Result<Vec<CString>> {
    let list = match result {
        Ok(list) => list,
        Err(Errno::OPNOTSUPP) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}
