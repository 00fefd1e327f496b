//! Files by descriptor and name: links, renames, nodes, times, ownership, syncing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    self as rx, AtFlags, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid,
};
use rustix::path::Arg;

/// Renames, replacing the target. renameat(2).
pub fn renameat(
    from_dir: impl AsFd,
    from: impl Arg,
    to_dir: impl AsFd,
    to: impl Arg,
) -> io::Result<()> {
    Ok(rx::renameat(from_dir, from, to_dir, to)?)
}

/// Renames and fails with `EEXIST` when the target is there. renameat2(2) with RENAME_NOREPLACE.
pub fn rename_noreplace(
    from_dir: impl AsFd,
    from: impl Arg,
    to_dir: impl AsFd,
    to: impl Arg,
) -> io::Result<()> {
    Ok(rx::renameat_with(
        from_dir,
        from,
        to_dir,
        to,
        RenameFlags::NOREPLACE,
    )?)
}

/// Exchanges two names. renameat2(2) with RENAME_EXCHANGE.
pub fn rename_exchange(
    from_dir: impl AsFd,
    from: impl Arg,
    to_dir: impl AsFd,
    to: impl Arg,
) -> io::Result<()> {
    Ok(rx::renameat_with(
        from_dir,
        from,
        to_dir,
        to,
        RenameFlags::EXCHANGE,
    )?)
}

/// Gives the open file `fd` a name, also one made with O_TMPFILE. linkat(2) with AT_EMPTY_PATH; needs CAP_DAC_READ_SEARCH or ownership,
/// and falls back to the name in procfs.
pub fn link_fd(fd: impl AsFd, dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    let fd = fd.as_fd();
    let dir = dir.as_fd();
    Ok(name.into_with_c_str(
        |name| match rx::linkat(fd, c"", dir, name, AtFlags::EMPTY_PATH) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::PERM) => rx::linkat(
                rx::CWD,
                crate::mount::fd_path(fd),
                dir,
                name,
                AtFlags::SYMLINK_FOLLOW,
            ),
            result => result,
        },
    )?)
}

/// Adds a name for a file without following a link. linkat(2).
pub fn linkat(
    from_dir: impl AsFd,
    from: impl Arg,
    to_dir: impl AsFd,
    to: impl Arg,
) -> io::Result<()> {
    Ok(rx::linkat(from_dir, from, to_dir, to, AtFlags::empty())?)
}

/// Nanoseconds since the epoch as the kernel wants them; also before it.
fn timespec(nanos: i64) -> Timespec {
    Timespec {
        tv_sec: nanos.div_euclid(1_000_000_000),
        tv_nsec: nanos.rem_euclid(1_000_000_000),
    }
}

fn times(atime: Option<i64>, mtime: Option<i64>) -> Timestamps {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: rx::UTIME_OMIT,
    };
    Timestamps {
        last_access: atime.map_or(omit, timespec),
        last_modification: mtime.map_or(omit, timespec),
    }
}

/// Sets access and modification time in nanoseconds since the epoch, of a link itself; `None` leaves one alone. utimensat(2).
pub fn utimensat_nofollow(
    dir: impl AsFd,
    name: impl Arg,
    atime: Option<i64>,
    mtime: Option<i64>,
) -> io::Result<()> {
    Ok(rx::utimensat(
        dir,
        name,
        &times(atime, mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Sets the times of an open file or directory (not `O_PATH`). futimens(3).
pub fn futimens(fd: impl AsFd, atime: Option<i64>, mtime: Option<i64>) -> io::Result<()> {
    Ok(rx::futimens(fd, &times(atime, mtime))?)
}

/// Sets the times of what any descriptor points at, also `O_PATH`. utimensat(2) with AT_EMPTY_PATH, Linux 5.8.
pub fn utimens_fd(fd: impl AsFd, atime: Option<i64>, mtime: Option<i64>) -> io::Result<()> {
    Ok(rx::utimensat(
        fd,
        c"",
        &times(atime, mtime),
        AtFlags::EMPTY_PATH,
    )?)
}

/// The bytes that this process may still write to the filesystem of `path`. statvfs(3).
pub fn free_space(path: &std::path::Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Makes a node: `mode` carries the type bits as in `st_mode`. mknodat(2).
pub fn mknodat(
    dir: impl AsFd,
    name: impl Arg,
    mode: u32,
    major: u32,
    minor: u32,
) -> io::Result<()> {
    Ok(rx::mknodat(
        dir,
        name,
        FileType::from_raw_mode(mode),
        Mode::from_raw_mode(mode),
        rx::makedev(major, minor),
    )?)
}

/// Sets the mask of modes for what this process makes, and returns the old one. umask(2). Of the whole process: all threads have it.
pub fn umask(mask: u32) -> u32 {
    rustix::process::umask(Mode::from_raw_mode(mask & 0o777)).as_raw_mode()
}

/// Makes a directory. mkdirat(2).
pub fn mkdirat(dir: impl AsFd, name: impl Arg, mode: u32) -> io::Result<()> {
    Ok(rx::mkdirat(dir, name, Mode::from_raw_mode(mode))?)
}

/// Makes a symbolic link. symlinkat(2).
pub fn symlinkat(target: impl Arg, dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    Ok(rx::symlinkat(target, dir, name)?)
}

/// Changes the owner of a name, of a link itself. fchownat(2).
pub fn chownat_nofollow(dir: impl AsFd, name: impl Arg, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rx::chownat(
        dir,
        name,
        owner(uid),
        group(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Changes the owner of what any descriptor points at, also `O_PATH`. fchownat(2) with AT_EMPTY_PATH.
pub fn chown_fd(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    Ok(rx::chownat(
        fd,
        c"",
        owner(uid),
        group(gid),
        AtFlags::EMPTY_PATH,
    )?)
}

fn owner(uid: u32) -> Option<Uid> {
    (uid != u32::MAX).then(|| Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    (gid != u32::MAX).then(|| Gid::from_raw(gid))
}

/// Changes the permissions of an open file; an `O_PATH` descriptor goes through procfs. fchmod(2).
pub fn chmod_fd(fd: impl AsFd, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match rx::fchmod(&fd, mode) {
        Err(rustix::io::Errno::BADF) => Ok(rx::chmod(crate::mount::fd_path(fd.as_fd()), mode)?),
        result => Ok(result?),
    }
}

/// Removes a name that is not a directory. unlinkat(2).
pub fn unlinkat(dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    Ok(rx::unlinkat(dir, name, AtFlags::empty())?)
}

/// Removes an empty directory. unlinkat(2) with AT_REMOVEDIR.
pub fn rmdirat(dir: impl AsFd, name: impl Arg) -> io::Result<()> {
    Ok(rx::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Writes the file's data and what is needed to read it back to the disk. fdatasync(2).
pub fn fdatasync(fd: impl AsFd) -> io::Result<()> {
    Ok(rx::fdatasync(fd)?)
}

/// Writes everything of the filesystem that holds `fd`. syncfs(2).
pub fn syncfs(fd: impl AsFd) -> io::Result<()> {
    Ok(rx::syncfs(fd)?)
}

/// Makes an anonymous file in memory. memfd_create(2).
pub fn memfd(name: &str) -> io::Result<OwnedFd> {
    Ok(rx::memfd_create(
        name,
        rx::MemfdFlags::CLOEXEC | rx::MemfdFlags::ALLOW_SEALING,
    )?)
}

/// Seals a file made by [`memfd`] against every change.
pub fn seal(fd: impl AsFd) -> io::Result<()> {
    Ok(rx::fcntl_add_seals(
        fd,
        rx::SealFlags::WRITE | rx::SealFlags::SHRINK | rx::SealFlags::GROW | rx::SealFlags::SEAL,
    )?)
}
