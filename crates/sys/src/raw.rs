//! Turns what `syscall(2)` returns into results.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The value of a call that returns -1 and sets `errno` on failure.
pub(crate) fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// Takes ownership of the descriptor a call has just returned.
pub(crate) fn owned(ret: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(check(ret)?).map_err(io::Error::other)?;
    // SAFETY: a non-negative return of a descriptor-making call is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
