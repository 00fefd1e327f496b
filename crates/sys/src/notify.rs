//! Seccomp user notification: calls of a process that another process answers. seccomp_unotify(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::raw;
use crate::seccomp::{self, Instruction};

/// Where the calls of a filter's processes arrive. It is readable when a call waits and hung up when no process has the filter any more.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Names the call until it is answered or its thread is killed.
    pub id: u64,
    /// The thread that calls, in the process namespace of the reader. It may name another one as soon as [`Listener::is_waiting`] says no.
    pub thread: u32,
    /// `AUDIT_ARCH_*`.
    pub architecture: u32,
    /// The number of the call on that architecture.
    pub number: u32,
    /// Its arguments. What they point to may change at any time.
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel carries it out with the rights and the memory that its process has then.
    Continue,
    /// It returns this.
    Value(i64),
    /// It fails with this error number.
    Error(i32),
}

/// Puts a filter on this thread for good whose `SECCOMP_RET_USER_NOTIF` calls arrive at the listener. seccomp(2) with
/// SECCOMP_FILTER_FLAG_NEW_LISTENER, and a call that has been received is only interrupted by what kills (Linux 5.19).
///
/// `EBUSY` if a filter of this process has a listener already.
pub fn install(filter: &[Instruction]) -> io::Result<Listener> {
    seccomp::install_with(filter, NEW_LISTENER | WAIT_KILLABLE)
        .and_then(|ret| raw::owned(ret).map(Listener))
}

const NEW_LISTENER: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
const WAIT_KILLABLE: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Takes one call; `None` if its thread was killed meanwhile. Waits if there is none. SECCOMP_IOCTL_NOTIF_RECV.
    pub fn receive(&self) -> io::Result<Option<Notification>> {
        let mut space = MaybeUninit::<libc::seccomp_notif>::zeroed();
        // SAFETY: the kernel writes a struct of exactly this type, which it wants zeroed; it lives through the call.
        let ret = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_RECV,
                space.as_mut_ptr(),
            )
        };
        match raw::check(ret.into()) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: it was zeroed, which is a valid value of this type, and the kernel has filled it.
        let notif = unsafe { space.assume_init() };
        Ok(Some(Notification {
            id: notif.id,
            thread: notif.pid,
            architecture: notif.data.arch,
            number: notif.data.nr.cast_unsigned(),
            args: notif.data.args,
        }))
    }

    /// Whether the call still waits: its thread has not been killed, so its number has not gone to another one.
    /// SECCOMP_IOCTL_NOTIF_ID_VALID.
    pub fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one number that lives through the call.
        let ret = unsafe { libc::ioctl(self.0.as_raw_fd(), ID_VALID, &raw const id) };
        ret == 0
    }

    /// Answers a call. `ENOENT` if nobody waits any more. SECCOMP_IOCTL_NOTIF_SEND.
    pub fn answer(&self, id: u64, answer: Answer) -> io::Result<()> {
        let (val, error, flags) = match answer {
            Answer::Continue => (0, 0, CONTINUE),
            Answer::Value(value) => (value, 0, 0),
            Answer::Error(errno) => (0, -errno, 0),
        };
        let response = libc::seccomp_notif_resp {
            id,
            val,
            error,
            flags,
        };
        // SAFETY: the kernel reads a struct of exactly this type that lives through the call.
        let ret = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SEND,
                &raw const response,
            )
        };
        raw::check(ret.into()).map(drop)
    }

    /// Gives the caller a copy of `fd`, whose number its call returns. On an error the call still waits.
    /// SECCOMP_IOCTL_NOTIF_ADDFD with SECCOMP_ADDFD_FLAG_SEND, Linux 5.14.
    pub fn answer_with_fd(&self, id: u64, fd: impl AsFd, close_on_exec: bool) -> io::Result<()> {
        let added = libc::seccomp_notif_addfd {
            id,
            flags: ADDFD_SEND,
            srcfd: fd.as_fd().as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC.cast_unsigned()
            } else {
                0
            },
        };
        // SAFETY: the kernel reads a struct of exactly this type that lives through the call, and `fd` is open as long.
        let ret = unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ADDFD,
                &raw const added,
            )
        };
        raw::check(ret.into()).map(drop)
    }
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`.
const CONTINUE: u32 = 1;
/// `SECCOMP_ADDFD_FLAG_SEND`.
const ADDFD_SEND: u32 = 2;
/// `SECCOMP_IOCTL_NOTIF_ID_VALID`, which libc does not have: `_IOW('!', 2, __u64)`.
const ID_VALID: libc::Ioctl = 0x4008_2102;

/// Gives a copy of a descriptor of another thread's process. pidfd_open(2) with PIDFD_THREAD (Linux 6.9), pidfd_getfd(2) (Linux 5.6).
pub fn descriptor_of(thread: u32, number: i32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(thread)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    // PIDFD_THREAD is this flag.
    let thread_flag = rustix::process::PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());
    let pidfd = rustix::process::pidfd_open(pid, thread_flag)?;
    Ok(rustix::process::pidfd_getfd(
        &pidfd,
        number,
        rustix::process::PidfdGetfdFlags::empty(),
    )?)
}
