//! Terminals of a devpts instance.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::raw;

/// Opens a new terminal of the devpts mounted at `devpts`: its master, unlocked. ioctl_tty(2) TIOCSPTLCK.
pub fn open_master(devpts: impl AsFd) -> io::Result<OwnedFd> {
    let master = rustix::fs::openat(
        devpts,
        c"ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int, which lives through the call.
    let ret = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    raw::check(ret.into())?;
    Ok(master)
}

/// Opens the other end of a master, without a name. ioctl_tty(2) TIOCGPTPEER, Linux 4.13.
pub fn open_peer(master: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes flags by value.
    let ret = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) };
    raw::owned(ret.into())
}

/// Makes a terminal the controlling one of this session. ioctl_tty(2) TIOCSCTTY.
pub fn make_controlling(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}

/// Sets a terminal's size in characters. ioctl_tty(2) TIOCSWINSZ.
pub fn set_size(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
