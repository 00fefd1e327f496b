//! openat2(2): names that cannot leave the directory they start in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self as rx, Mode, OFlags, ResolveFlags};
use rustix::path::Arg;

pub use rustix::fs::{Mode as FileMode, OFlags as OpenFlags};

/// Opens `path` as if `root` were `/`: absolute links and `..` stay inside, magic links are refused. openat2(2), Linux 5.6.
///
/// `O_CLOEXEC` is always added. A concurrent rename that makes the kernel answer `EAGAIN` is retried.
pub fn open_in_root(
    root: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    resolve(
        root,
        path,
        flags,
        mode,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` below `root`, refusing every symbolic link and every way out. openat2(2), Linux 5.6.
pub fn open_no_symlinks(
    root: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    resolve(
        root,
        path,
        flags,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn resolve(
    root: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: u32,
    how: ResolveFlags,
) -> io::Result<OwnedFd> {
    let root = root.as_fd();
    let flags = flags | OFlags::CLOEXEC;
    Ok(path.into_with_c_str(|path| {
        for _ in 0..128 {
            match rx::openat2(root, path, flags, Mode::from_raw_mode(mode), how) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                result => return result,
            }
        }
        Err(rustix::io::Errno::AGAIN)
    })?)
}

/// Opens a place without opening what is there: `O_PATH`, following links inside the root.
pub fn open_path(root: impl AsFd, path: impl Arg) -> io::Result<OwnedFd> {
    open_in_root(root, path, OFlags::PATH, 0)
}

/// As [`open_path`], but a last component that is a symbolic link is that link.
pub fn open_path_nofollow(root: impl AsFd, path: impl Arg) -> io::Result<OwnedFd> {
    open_in_root(root, path, OFlags::PATH | OFlags::NOFOLLOW, 0)
}

/// Opens a directory of the host by its name; only for names from the configuration. open(2).
pub fn open_dir(path: impl Arg) -> io::Result<OwnedFd> {
    Ok(rx::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens a place of the host by its name; only for names from the configuration. open(2) with O_PATH.
pub fn open_host_path(path: impl Arg) -> io::Result<OwnedFd> {
    Ok(rx::open(
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens again, for reading or writing, what an `O_PATH` descriptor points at, through procfs.
pub fn reopen(fd: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rx::open(
        crate::mount::fd_path(fd.as_fd()),
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
