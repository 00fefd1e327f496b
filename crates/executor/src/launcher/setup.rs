//! What the launcher makes once, before it serves: an empty filesystem, filters of system calls, and the user namespace of containers.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use sys::mount::{self, AttrChange, Attrs};
use sys::process::{self, Cloned, Namespaces, SingleThreaded};
use sys::seccomp::Instruction;
use sys::userns::{self, IdRange};
use sys::{file, notify, path, socket};

use super::init::RESTRICTED_ATTRS;
use super::nested;
use super::supervise;
use crate::error::errno;

/// Where a container's root is attached before it becomes the root.
pub(super) const ROOT_PLACE: &str = "/root";
/// Where a container's own small files are made.
pub(super) const FILES_PLACE: &str = "/files";

/// What the launcher prepares once for all containers.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) alone: SingleThreaded,
    pub(super) filter: Option<Vec<Instruction>>,
    /// Keeps confined processes from the host's abstract sockets; none on kernels that know no such thing.
    pub(super) scope: Option<OwnedFd>,
    /// What containers in a user namespace need; `None` when there is no user namespace.
    pub(super) users: Option<Users>,
}

/// What containers in a user namespace have beside the others.
#[derive(Debug)]
pub(super) struct Users {
    /// The user namespace that they all share.
    pub(super) namespace: OwnedFd,
    pub(super) ids: IdRange,
    /// Their seccomp filter, which leaves some calls to the supervisor.
    pub(super) filter: Vec<Instruction>,
    /// Where a new process sends its listener and its v1 control groups, with its number.
    pub(super) listeners: OwnedFd,
    /// The other end of `listeners`, where the launcher takes them.
    pub(super) arriving: OwnedFd,
    /// procfs of the launcher's process namespace, for supervisors.
    pub(super) procfs: OwnedFd,
}

/// The range of ids that the daemon wrote into our arguments: base and count.
pub(super) fn user_ids() -> Option<IdRange> {
    let argument = std::env::args().nth(1)?;
    let (base, count) = argument.split_once(':')?;
    Some(IdRange {
        base: base.parse().ok()?,
        count: count.parse().ok()?,
    })
}

/// Makes what containers in a user namespace need, and finds out whether the kernel has it all.
pub(super) fn prepare_users(alone: &SingleThreaded, ids: IdRange) -> io::Result<Users> {
    supervise::check()?;
    let filter = crate::seccomp::compile_supervised(super::default_capabilities())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
    let (arriving, listeners) = socket::pair()?;
    let users = Users {
        namespace: user_namespace(alone, ids)?,
        ids,
        filter,
        listeners,
        arriving,
        procfs: mount::new_mount(c"proc", &[], RESTRICTED_ATTRS)?.into(),
    };
    try_listener(alone, &users.filter)?;
    Ok(users)
}

/// Has a child install the filter: the kernel may not know it, and a daemon whose own calls somebody supervises cannot give steps
/// another supervisor.
fn try_listener(alone: &SingleThreaded, filter: &[Instruction]) -> io::Result<()> {
    let pidfd = match process::clone3(alone, Namespaces::default(), None)? {
        Cloned::Child => process::exit_now(match notify::install(filter) {
            Ok(_listener) => 0,
            Err(error) => errno(&error),
        }),
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    let mut exits = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut exits, None))?;
    match process::wait_any()?.map(|exit| exit.code) {
        Some(0) => Ok(()),
        code => Err(io::Error::from_raw_os_error(
            code.and_then(|code| i32::try_from(code).ok())
                .unwrap_or(libc::EIO),
        )),
    }
}

/// Makes a user namespace: a child is cloned into it for as long as it takes to open it.
fn user_namespace(alone: &SingleThreaded, range: IdRange) -> io::Result<OwnedFd> {
    let new_namespace = Namespaces {
        user: true,
        ..Namespaces::default()
    };
    let (pid, pidfd) = match process::clone3(alone, new_namespace, None)? {
        Cloned::Child => {
            drop(process::die_with_parent());
            loop {
                rustix::event::pause();
            }
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let namespace = userns::write_maps(pid, range).and_then(|()| userns::open(pid));
    process::pidfd_send_signal(&pidfd, libc::SIGKILL)?;
    let mut exits = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut exits, None))?;
    process::wait_any()?;
    namespace
}

/// Exchanges the host's mounts for an empty filesystem.
pub(super) fn leave_host_mounts(alone: &SingleThreaded) -> io::Result<()> {
    process::unshare(
        alone,
        Namespaces {
            mount: true,
            ..Namespaces::default()
        },
    )?;
    let host_mounts = nested::copy_host_mounts()?;
    let root = path::open_host_path("/")?;
    mount::mount_setattr(
        &root,
        AttrChange {
            private: true,
            recursive: true,
            ..AttrChange::default()
        },
    )?;
    let empty = mount::new_mount(
        c"tmpfs",
        &[("mode", "0755"), ("size", "64k")],
        Attrs {
            nodev: true,
            ..Attrs::default()
        },
    )?;
    for place in [ROOT_PLACE, FILES_PLACE] {
        file::mkdirat(&empty, place.trim_start_matches('/'), 0o700)?;
    }
    mount::move_mount(&empty, &root)?;
    nested::attach(&empty, host_mounts)?;
    rustix::process::fchdir(&empty)?;
    mount::pivot_root_here()?;
    mount::umount_detach(c".")?;
    Ok(rustix::process::chdir("/")?)
}
