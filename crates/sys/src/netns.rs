//! Network namespaces of single threads.
//!
//! The kernel keeps a network namespace for each thread, and a thread that is started inherits it. A socket stays in the namespace in
//! which it was opened, whoever uses it. So a thread of its own may go from namespace to namespace while the others stay.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::raw;

/// Moves the calling thread, and no other, into a new network namespace, which ends with the last thread, descriptor and mount that
/// holds it. unshare(2) with CLONE_NEWNET; needs CAP_SYS_ADMIN.
pub fn unshare() -> io::Result<()> {
    // SAFETY: with this flag the call changes which network the calling thread sees; it touches neither memory nor descriptors, and
    // does nothing to other threads.
    let ret = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    raw::check(ret.into()).map(drop)
}

/// Moves the calling thread, and no other, into the network namespace behind a descriptor. setns(2); needs CAP_SYS_ADMIN.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Opens the network namespace of the calling thread; the descriptor keeps it alive.
pub fn current() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/proc/thread-self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Whether the network of the calling thread belongs to this process's user namespace, or to one below it: only then may its root
/// change links, rules and routes of it. ioctl_ns(2) NS_GET_USERNS, Linux 4.9.
pub fn is_ours() -> io::Result<bool> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    let network = current()?;
    // SAFETY: the call takes no argument, and the descriptor is open for the whole call.
    let ret = unsafe { libc::ioctl(network.as_raw_fd(), NS_GET_USERNS as _) };
    match raw::owned(ret.into()) {
        Ok(_users) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode() -> u64 {
        rustix::fs::fstat(current().unwrap()).unwrap().st_ino
    }

    #[test]
    fn a_thread_leaves_its_network_and_comes_back_and_no_other_thread_moves() {
        testkit::requires!(root);
        let before = inode();
        let inside = std::thread::spawn(move || {
            let host = current().unwrap();
            unshare().unwrap();
            let inside = inode();
            let inherited = std::thread::spawn(inode).join().unwrap();
            assert_eq!(inherited, inside, "a thread that is started inherits it");
            enter(&host).unwrap();
            assert_eq!(inode(), before);
            inside
        });
        assert_ne!(inside.join().unwrap(), before);
        assert_eq!(inode(), before);
    }

    #[test]
    fn a_descriptor_of_something_else_is_no_network() {
        let file = std::fs::File::open("/proc/self/ns/uts").unwrap();
        let error = enter(&file).unwrap_err();
        let errno = error.raw_os_error();
        assert!(matches!(errno, Some(libc::EINVAL | libc::EPERM)), "{error}");
    }
}
