//! Making, joining, confining, starting and ending processes.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::process::{self as rx, Pid, Resource, Rlimit};

use crate::raw;

/// Proof that this process has one thread. Only then may a copy of it go on running Rust code.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Counts the threads through procfs. The holder must start none afterwards.
    pub fn claim() -> io::Result<Self> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        if threads == 1 {
            Ok(Self(PhantomData))
        } else {
            Err(io::Error::other("this process has several threads"))
        }
    }
}

/// Has a function called before `main`, and before the test harness of a test binary starts its threads.
#[macro_export]
macro_rules! before_main {
    ($function:path) => {
        const _: () = {
            extern "C" fn call() {
                $function();
            }
            // SAFETY: the section holds pointers to functions that the C runtime calls once before main; the standard library does not need
            // main to have run for what such a function may do here.
            #[allow(unsafe_code, reason = "a section of function pointers")]
            #[used]
            #[unsafe(link_section = ".init_array")]
            static CALL: extern "C" fn() = call;
        };
    };
}

/// New namespaces for a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Processes.
    pub pid: bool,
    /// Mounts.
    pub mount: bool,
    /// System V IPC and message queues.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
    /// Network.
    pub net: bool,
    /// Root of the control groups.
    pub cgroup: bool,
    /// Users, groups and capabilities.
    pub user: bool,
}

impl Namespaces {
    fn bits(self) -> libc::c_int {
        let pick = |yes, bit| if yes { bit } else { 0 };
        pick(self.pid, libc::CLONE_NEWPID)
            | pick(self.mount, libc::CLONE_NEWNS)
            | pick(self.ipc, libc::CLONE_NEWIPC)
            | pick(self.uts, libc::CLONE_NEWUTS)
            | pick(self.net, libc::CLONE_NEWNET)
            | pick(self.cgroup, libc::CLONE_NEWCGROUP)
            | pick(self.user, libc::CLONE_NEWUSER)
    }
}

/// Which side of a clone goes on here.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The old one, with the new one's number and descriptor.
    Parent {
        /// Its number in this process's namespace.
        pid: i32,
        /// Its pidfd.
        pidfd: OwnedFd,
    },
}

/// Copies this process into new namespaces and, on the v2 hierarchy, into a control group. clone3(2), Linux 5.3 (5.7 for the group).
///
/// The child gets SIGCHLD sent to its parent when it ends.
pub fn clone3(
    alone: &SingleThreaded,
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let signal = libc::SIGCHLD.cast_unsigned().into();
    clone_with(alone, namespaces.bits(), signal, cgroup)
}

/// Copies this process as a further child of its own parent, which hears of the child's end as it would of ours. clone3(2) with
/// CLONE_PARENT; not for the first process of a process namespace.
pub fn clone_sibling(alone: &SingleThreaded, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    clone_with(alone, libc::CLONE_PARENT, 0, cgroup)
}

fn clone_with(
    _: &SingleThreaded,
    flags: libc::c_int,
    exit_signal: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = u64::from((flags | libc::CLONE_PIDFD).cast_unsigned());
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd).addr() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: without CLONE_VM the child has its own copy of all memory, and with one thread (the token) no lock in it is held by a thread
    // that is not there; `args` has the kernel's layout and the kernel writes only `pidfd`, which lives on.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match raw::check(ret)? {
        0 => Ok(Cloned::Child),
        pid => Ok(Cloned::Parent {
            pid: i32::try_from(pid).map_err(io::Error::other)?,
            // The kernel has stored a new descriptor before it returned to the parent.
            pidfd: raw::owned(pidfd.into())?,
        }),
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[repr(C, align(8))]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Moves this process into new namespaces. unshare(2).
pub fn unshare(_: &SingleThreaded, namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: the call takes flags only; it changes what this process sees, not its memory.
    let ret = unsafe { libc::unshare(namespaces.bits()) };
    crate::nested::forget();
    raw::check(ret.into()).map(drop)
}

/// Joins namespaces of the process behind a pidfd (Linux 5.8), or the one behind a namespace descriptor. setns(2).
///
/// The process namespace applies to children only.
pub fn setns(_: &SingleThreaded, fd: impl AsFd, namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call and the flags are plain numbers.
    let ret = unsafe { libc::setns(fd.as_fd().as_raw_fd(), namespaces.bits()) };
    crate::nested::forget();
    raw::check(ret.into()).map(drop)
}

/// Sends a signal to the process behind a pidfd. pidfd_send_signal(2), Linux 5.1.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means what kill(2) would send; the descriptor is open for the whole call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            no_info,
            0,
        )
    };
    raw::check(ret).map(drop)
}

/// How a child ended and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The child's number.
    pub pid: i32,
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: u32,
    /// Time in user mode, of it and the children it waited for.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Largest resident size, in bytes.
    pub max_rss: u64,
    /// Blocks of 512 bytes read from disk.
    pub in_blocks: u64,
    /// Blocks of 512 bytes written to disk.
    pub out_blocks: u64,
}

/// Takes one child that has ended, if there is one. wait4(2) with WNOHANG.
pub fn wait_any() -> io::Result<Option<Ended>> {
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to locals that live through the call and have the types the kernel writes.
    let ret = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match raw::check(ret.into()) {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        Err(error) => return Err(error),
    }
    // SAFETY: it was zeroed, which is a valid rusage, and the kernel has filled it.
    let usage = unsafe { usage.assume_init() };
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Some(Ended {
        pid: ret,
        code: code.cast_unsigned(),
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss: usage.ru_maxrss.cast_unsigned() * 1024,
        in_blocks: usage.ru_inblock.cast_unsigned(),
        out_blocks: usage.ru_oublock.cast_unsigned(),
    }))
}

/// Waits for a child and returns its exit code, or 128 and the number of the signal that ended it. waitpid(2).
pub fn wait_for(pid: i32) -> io::Result<i32> {
    let pid = Pid::from_raw(pid);
    let ended = rustix::io::retry_on_intr(|| rx::waitpid(pid, rx::WaitOptions::empty()))?;
    let code = ended.and_then(|(_, status)| {
        status
            .exit_status()
            .or_else(|| Some(128 + status.terminating_signal()?))
    });
    Ok(code.unwrap_or(255))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.cast_unsigned())
        + Duration::from_micros(time.tv_usec.cast_unsigned())
}

/// Replaces this process's program. execve(2); returns only with the error.
pub fn execve(path: &CStr, args: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let pointers = |list: &[CString]| {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists end with null and their strings, like `path`, outlive the call, which returns only if nothing was replaced.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Makes three descriptors this process's standard streams. dup2(2).
pub fn set_stdio(streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    for (target, fd) in (0..).zip(streams) {
        if fd.as_raw_fd() <= 2 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: the standard streams belong to no OwnedFd of ours; what is replaced is closed by the kernel.
        let ret = unsafe { libc::dup2(fd.as_raw_fd(), target) };
        raw::check(ret.into())?;
    }
    Ok(())
}

/// Marks every descriptor from `first` on to be closed at exec. close_range(2) with CLOSE_RANGE_CLOEXEC, Linux 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only a flag of descriptors changes; none is closed under its owner.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 4u32) };
    raw::check(ret).map(drop)
}

/// Gives every signal its default action and blocks none. signal(2), sigprocmask(2).
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: the default action runs no code of ours; refusals (SIGKILL, the C library's own) are of no interest.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is a local of the right type.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was initialised above; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
}

/// Ignores a signal. signal(2).
pub fn ignore_signal(signal: i32) {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// A descriptor that becomes readable when a child ends. signalfd(2); SIGCHLD is blocked for it.
pub fn child_signal_fd() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is a local of the right type.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: the set was initialised above; the old mask is not asked for.
    let ret = unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
    raw::check(ret.into())?;
    // SAFETY: the set was initialised above; -1 asks for a new descriptor.
    let ret = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    raw::owned(ret.into())
}

/// Resource limits by the name `ulimit` and Docker use for them.
pub fn rlimit_number(name: &str) -> Option<u32> {
    let number = match name {
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        "as" => libc::RLIMIT_AS,
        _ => return None,
    };
    #[allow(
        clippy::unnecessary_cast,
        reason = "the C libraries disagree on the type"
    )]
    Some(number as u32)
}

/// Sets a resource limit of this process by number. prlimit(2).
pub fn set_rlimit(number: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let no_old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the new limit lives through the call and has the layout of the 64-bit call; the old one is not asked for.
    let ret = unsafe { libc::syscall(libc::SYS_prlimit64, 0, number, &raw const limit, no_old) };
    raw::check(ret).map(drop)
}

/// How many descriptors a process might have open before this one raised its limit: soft and hard.
static ORIGINAL_OPEN_FILES: std::sync::OnceLock<(u64, u64)> = std::sync::OnceLock::new();

/// Raises how many descriptors this process may have open as far as it may: the soft limit of 1,024 is for programs that use `select`
/// (Go's runtime does the same for every program). What it starts inherits that, unless [`restore_open_files`] undoes it. setrlimit(2).
pub fn raise_open_files() -> io::Result<()> {
    let limit = rx::getrlimit(Resource::Nofile);
    let (Some(soft), Some(hard)) = (limit.current, limit.maximum) else {
        return Ok(());
    };
    if soft < hard && ORIGINAL_OPEN_FILES.set((soft, hard)).is_ok() {
        let raised = Rlimit {
            current: Some(hard),
            maximum: Some(hard),
        };
        rx::setrlimit(Resource::Nofile, raised)?;
    }
    Ok(())
}

/// The limit of open descriptors, soft and hard, that this process was started with, if it has raised it.
#[must_use]
pub fn original_open_files() -> Option<(u64, u64)> {
    ORIGINAL_OPEN_FILES.get().copied()
}

/// Gives a process that this one started the limit of open descriptors that this one was started with: programs of steps walk through
/// all descriptors that they might have. prlimit(2).
pub fn restore_open_files(process: u32) -> io::Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    if let (Some((soft, hard)), Some(pid)) = (original_open_files(), pid) {
        let original = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        rx::prlimit(Some(pid), Resource::Nofile, original)?;
    }
    Ok(())
}

/// Has the kernel kill this process when the one that made it ends. prctl(2) PR_SET_PDEATHSIG.
pub fn die_with_parent() -> io::Result<()> {
    Ok(rx::set_parent_process_death_signal(Some(rx::Signal::KILL))?)
}

/// Hides this process's memory and links in procfs from others, until it executes something. prctl(2) PR_SET_DUMPABLE.
pub fn set_undumpable() -> io::Result<()> {
    Ok(rx::set_dumpable_behavior(
        rx::DumpableBehavior::NotDumpable,
    )?)
}

/// Becomes another user. setgroups(2), setresgid(2) and setresuid(2) of the calling thread, which must be the only one.
pub fn become_user(_: &SingleThreaded, uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // What means "as it is" is no user: the step would run as root.
    if uid == u32::MAX || gid == u32::MAX || groups.contains(&u32::MAX) {
        return Err(rustix::io::Errno::INVAL.into());
    }
    let groups: Vec<rx::Gid> = groups.iter().map(|gid| rx::Gid::from_raw(*gid)).collect();
    let (uid, gid) = (rx::Uid::from_raw(uid), rx::Gid::from_raw(gid));
    // Where groups cannot be chosen the process keeps those of whoever made the namespace.
    if !crate::nested::setgroups_denied() {
        rustix::thread::set_thread_groups(&groups)?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Takes over a descriptor that this process was started with, such as a socket of the service manager. It must be owned by
/// nobody else here; that it is open is checked. fcntl(2) F_SETFD.
pub fn adopt_fd(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is only looked at, and a closed one gives EBADF.
    let open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if open < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the caller's word owned by nobody else.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

/// Ends this process at once: no destructors, no buffers. _exit(2).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: the call does not return and runs no handlers.
    unsafe { libc::_exit(code) }
}
