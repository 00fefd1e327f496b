//! User namespaces: the ids of a container are other ids of the host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::caps;

/// A range of ids: `0..count` in the namespace are `base..base + count` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The host's id for 0.
    pub base: u32,
    /// How many there are.
    pub count: u32,
}

impl IdRange {
    /// The host's id for one of the namespace; nothing for those it does not have.
    pub fn host_id(self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.base.checked_add(id))?
    }
}

/// A user namespace, held open, and the range that users and groups in it have.
#[derive(Debug)]
pub struct IdMapping {
    namespace: OwnedFd,
    range: IdRange,
}

impl IdMapping {
    /// Takes a namespace that the caller knows to map this range.
    pub fn new(namespace: OwnedFd, range: IdRange) -> Self {
        Self { namespace, range }
    }

    /// The range.
    pub fn range(&self) -> IdRange {
        self.range
    }
}

impl AsFd for IdMapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Gives the new user namespace of a child its users and groups. Once in its life; user_namespaces(7).
pub fn write_maps(pid: i32, range: IdRange) -> io::Result<()> {
    let line = format!("0 {} {}\n", range.base, range.count);
    fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    fs::write(format!("/proc/{pid}/gid_map"), &line)
}

/// Opens the user namespace of a child. It lives as long as the descriptor.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        format!("/proc/{pid}/ns/user"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Has this thread make files as another user, and keep all capabilities for it. setfsuid(2), setfsgid(2), capset(2).
///
/// On a mount whose ids are mapped only ids of the range can own a new file, and root is none of them.
pub fn set_file_owner(id: u32) -> io::Result<()> {
    set_file_ids(id, id)?;
    // Leaving root has dropped what overrides permissions of files.
    caps::raise()
}

/// Has this thread reach and make files as another user and group. What overrides permissions of files is dropped from the effective
/// capabilities on the way from root, and raised on the way back. setfsuid(2), setfsgid(2).
pub fn set_file_ids(uid: u32, gid: u32) -> io::Result<()> {
    // The calls return the old id whatever happens; asking for one that cannot be tells the one in force.
    // SAFETY: both calls take a number only and change credentials of this thread.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    unsafe { libc::setfsuid(uid) };
    // SAFETY: as above; -1 is no id and changes nothing.
    let (own_gid, own_uid) = (unsafe { libc::setfsgid(u32::MAX) }, unsafe {
        libc::setfsuid(u32::MAX)
    });
    if (own_uid.cast_unsigned(), own_gid.cast_unsigned()) != (uid, gid) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// This thread makes files as another user until this is dropped. Stays on its thread.
#[derive(Debug)]
pub struct FileOwner(std::marker::PhantomData<*const ()>);

impl FileOwner {
    /// See [`set_file_owner`].
    pub fn assume(id: u32) -> io::Result<Self> {
        let owner = Self(std::marker::PhantomData);
        set_file_owner(id)?;
        Ok(owner)
    }
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        // Back to root, which every process of ours that can map ids is; the kernel raises again what it dropped.
        drop(set_file_owner(0));
    }
}
