//! User namespaces: the ids of a container are other ids of the host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::caps;
use crate::process::{self, Cloned, Namespaces, SingleThreaded};

pub use crate::nested::{is_nested, setgroups_denied};

/// The prefix of the attributes in which overlayfs keeps its marks: root's outside of user namespaces, anybody's (`userxattr`) in them.
pub fn overlay_xattrs() -> &'static str {
    if is_nested() {
        "user.overlay."
    } else {
        "trusted.overlay."
    }
}

/// Ids of a user namespace: `count` from `inside` on are those from `outside` on of the namespace around it. A line of `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapLine {
    /// The first id in the namespace.
    pub inside: u32,
    /// The id that it is outside.
    pub outside: u32,
    /// How many there are.
    pub count: u32,
}

/// The effective user and group of this process, in its own user namespace. geteuid(2), getegid(2).
pub fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

/// Reads the lines of a map and leaves out those that do not hold three numbers.
pub fn parse_map(text: &str) -> Vec<MapLine> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(MapLine {
            inside: next()?,
            outside: next()?,
            count: next()?,
        })
    };
    text.lines().filter_map(line).collect()
}

/// Whether users and groups of this number exist in this process's user namespace. user_namespaces(7).
pub fn has_ids(uid: u32, gid: u32) -> bool {
    let has = |file: &str, id: u32| {
        let lines = parse_map(&fs::read_to_string(file).unwrap_or_default());
        lines
            .iter()
            .any(|line| id >= line.inside && id - line.inside < line.count)
    };
    has("/proc/self/uid_map", uid) && has("/proc/self/gid_map", gid)
}

/// Whether this process's user namespace has one user only: nobody gave its maker further ids.
pub fn has_one_id() -> bool {
    let lines = parse_map(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
    matches!(lines.as_slice(), [MapLine { count: 1, .. }])
}

/// Gives the process the one id that it has as the namespace's root, which nobody has to allow. Once in its life; user_namespaces(7).
pub fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))
}

/// Moves this process into a user namespace and a mount namespace of its own. `map` is called with its number in a copy of this process
/// that stays outside, and gives the ids; what it says, at most 4 KiB, is returned. unshare(2).
///
/// A process whose ids nobody has mapped can only map its own with [`map_self`].
pub fn enter(
    alone: &SingleThreaded,
    map: impl FnOnce(i32) -> Result<(), String>,
) -> io::Result<Result<(), String>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let (ours, theirs) = crate::socket::pair()?;
    match process::clone3(alone, Namespaces::default(), None)? {
        Cloned::Child => {
            drop(ours);
            drop(process::die_with_parent());
            let mut go = [0; 1];
            // The end of the stream means that it could not leave.
            if let Ok((1, _)) = crate::socket::receive(&theirs, &mut go) {
                let said = map(own).err().unwrap_or_default();
                let mut text = said.into_bytes();
                text.truncate(MAX_WORDS);
                text.push(b'.');
                drop(crate::socket::send(&theirs, &text, &[]));
            }
            process::exit_now(0)
        }
        Cloned::Parent { .. } => {}
    }
    drop(theirs);
    let left = process::unshare(
        alone,
        Namespaces {
            user: true,
            mount: true,
            ..Namespaces::default()
        },
    );
    let said = left.and_then(|()| {
        crate::socket::send(&ours, b"1", &[])?;
        let mut buffer = vec![0; MAX_WORDS + 1];
        let (length, _) = crate::socket::receive(&ours, &mut buffer)?;
        match buffer.get(..length).and_then(<[u8]>::split_last) {
            Some((_, [])) => Ok(Ok(())),
            Some((_, said)) => Ok(Err(String::from_utf8_lossy(said).into_owned())),
            None => Ok(Err("who maps the ids has ended".to_owned())),
        }
    });
    drop(ours);
    rustix::io::retry_on_intr(|| rustix::process::wait(rustix::process::WaitOptions::empty()))?;
    said
}

/// The longest answer of who maps ids, in bytes.
const MAX_WORDS: usize = 4096;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_line_by_line() {
        let line = |inside, outside, count| MapLine {
            inside,
            outside,
            count,
        };
        for (text, lines) in [
            ("", vec![]),
            (
                "         0          0 4294967295\n",
                vec![line(0, 0, u32::MAX)],
            ),
            (
                "0 1000 1\n1 100000 65536\n",
                vec![line(0, 1000, 1), line(1, 100_000, 65536)],
            ),
            ("0 1000\nnonsense\n-1 0 1\n", vec![]),
        ] {
            assert_eq!(parse_map(text), lines, "{text:?}");
        }
    }

    #[test]
    fn overlay_keeps_its_marks_where_this_process_may_write_them() {
        let expected = if is_nested() { "user." } else { "trusted." };
        assert!(overlay_xattrs().starts_with(expected));
        assert_eq!(
            is_nested(),
            fs::read_link("/proc/self/ns/user").unwrap()
                != std::path::Path::new("user:[4026531837]")
        );
    }

    #[test]
    fn ids_that_nobody_mapped_are_not_there() {
        assert!(has_ids(0, 0) || !is_nested());
        assert!(
            !has_ids(u32::MAX, u32::MAX),
            "the number that stands for as it is"
        );
    }
}
