//! Copies of file contents that share or skip what they can: clones, in-kernel copies, holes.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self as rx, SeekFrom};
use rustix::io::Errno;

/// Makes `to` share all of `from`'s data. ioctl_ficlone(2); fails with `EOPNOTSUPP` or `EXDEV` where that cannot be.
pub fn ficlone(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    Ok(rx::ioctl_ficlone(to, from)?)
}

/// Copies the contents of `from` to the empty file `to`: a clone where the filesystem has them, else the data between the holes with
/// copy_file_range(2), else through memory. Both offsets are left anywhere. Returns the file's size.
pub fn copy_contents(from: impl AsFd, to: impl AsFd) -> io::Result<u64> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let stat = rx::fstat(from)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size == 0 {
        return Ok(0);
    }
    if rx::ioctl_ficlone(to, from).is_ok() {
        return Ok(size);
    }
    if stat.st_blocks.saturating_mul(512) >= stat.st_size {
        copy_range(from, to, 0, size)?;
        return Ok(size);
    }
    let mut at = 0;
    while at < size {
        let data = match rx::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error.into()),
        };
        let hole = match rx::seek(from, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(size),
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => size,
            Err(error) => return Err(error.into()),
        };
        copy_range(from, to, data, hole)?;
        at = hole.max(data + 1);
    }
    rx::ftruncate(to, size)?;
    Ok(size)
}

/// Copies the bytes from `start` to `end`, at the same place. copy_file_range(2), with pread and pwrite where it refuses.
fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let want = usize::try_from(end - source)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match rx::copy_file_range(from, Some(&mut source), to, Some(&mut target), want) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(
                Errno::XDEV
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::BADF
                | Errno::PERM,
            ) => {
                return copy_through(from, to, source, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while at < end {
        let want = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let window = buffer.get_mut(..want).unwrap_or_default();
        let read = match rustix::io::pread(from, window, at) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut unwritten = buffer.get(..read).unwrap_or_default();
        while !unwritten.is_empty() {
            match rustix::io::pwrite(to, unwritten, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    unwritten = unwritten.get(written..).unwrap_or_default();
                    at += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Copies a stream to its end with a buffer of fitting size; returns the number of bytes.
pub fn copy_stream(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..read).unwrap_or_default())?;
        total += read as u64;
    }
}
