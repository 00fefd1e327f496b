//! The thread that waits for an answer, as procfs shows it.
//!
//! Everything here goes by the thread's number: it counts only if the notification is found valid afterwards.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use sys::caps::Set;

/// The longest path, with the zero byte at its end: the kernel's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Memory is read up to a multiple of this: the page behind it may not be mapped.
const PAGE_BYTES: u64 = 4096;

/// The most that is read of a file of procfs; a thread may have 65536 groups.
const MAX_PROCFS_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Caller {
    dir: OwnedFd,
    /// The ids that it reaches and makes files with, as the host has them.
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) umask: u32,
    /// The effective ones, in its user namespace.
    pub(super) capabilities: Set,
}

impl Caller {
    pub(super) fn open(procfs: &OwnedFd, thread: u32) -> io::Result<Self> {
        let dir = open(
            procfs,
            &thread.to_string(),
            OFlags::PATH | OFlags::DIRECTORY,
        )?;
        let status = read_text(&dir, "status")?;
        let Status {
            uid,
            gid,
            groups,
            umask,
            capabilities,
        } = Status::parse(&status).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            dir,
            uid,
            gid,
            groups,
            umask,
            capabilities,
        })
    }

    /// A folder that it has: `root`, `cwd`, or the one behind a descriptor.
    pub(super) fn folder(&self, name: &str) -> io::Result<OwnedFd> {
        open(&self.dir, name, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Its network namespace.
    pub(super) fn network(&self) -> io::Result<OwnedFd> {
        open(&self.dir, "ns/net", OFlags::RDONLY)
    }

    /// The inode of its user namespace.
    pub(super) fn user_namespace(&self) -> io::Result<u64> {
        let flags = rustix::fs::AtFlags::empty();
        Ok(rustix::fs::statat(&self.dir, "ns/user", flags)?.st_ino)
    }

    /// Copies the caller's memory from `address` on.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        File::from(open(&self.dir, "mem", OFlags::RDONLY)?).read_exact_at(into, address)
    }

    /// Copies the path at `address` in the caller's memory, without the zero byte at its end.
    pub(super) fn path(&self, mut address: u64) -> io::Result<Vec<u8>> {
        let memory = File::from(open(&self.dir, "mem", OFlags::RDONLY)?);
        let mut path = Vec::new();
        while path.len() < MAX_PATH_BYTES {
            let to_border =
                usize::try_from(PAGE_BYTES - address % PAGE_BYTES).unwrap_or(MAX_PATH_BYTES);
            let mut part = vec![0; to_border.min(MAX_PATH_BYTES - path.len())];
            memory.read_exact_at(&mut part, address)?;
            if let Some(end) = part.iter().position(|byte| *byte == 0) {
                path.extend(part.get(..end).unwrap_or_default());
                return Ok(path);
            }
            address = address.saturating_add(part.len() as u64);
            path.extend(part);
        }
        Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
    }
}

fn open(dir: impl AsFd, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        dir,
        name,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

pub(super) fn read_text(dir: impl AsFd, name: &str) -> io::Result<String> {
    let mut text = String::new();
    File::from(open(dir, name, OFlags::RDONLY)?)
        .take(MAX_PROCFS_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// What `/proc/…/status` says, proc_pid_status(5).
#[derive(Debug, PartialEq, Eq)]
struct Status {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    umask: u32,
    capabilities: Set,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        // Real, effective, saved, and the one for files.
        let for_files = |name| field(name)?.split_whitespace().nth(3)?.parse().ok();
        Some(Self {
            uid: for_files("Uid")?,
            gid: for_files("Gid")?,
            groups: field("Groups")?
                .split_whitespace()
                .map(|group| group.parse().ok())
                .collect::<Option<_>>()?,
            umask: u32::from_str_radix(field("Umask")?.trim(), 8).ok()?,
            capabilities: Set(u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_a_thread_gives_its_ids_for_files_and_no_name_counts_for_it() {
        // A program may name itself as it likes, but in one line, and the line before the others.
        let text = "Name:\tx\\nUid:\t0 0 0 0\nUmask:\t0027\nState:\tS (sleeping)\nUid:\t1\t2\t3\t268435456\nGid:\t5\t6\t7\t8\nFDSize:\t64\n\
                    Groups:\t10 268435466 \nCapInh:\t0\nCapEff:\t00000000a80425fb\n";
        let want = Status {
            uid: 268_435_456,
            gid: 8,
            groups: vec![10, 268_435_466],
            umask: 0o27,
            capabilities: Set(0xa804_25fb),
        };
        assert_eq!(Status::parse(text), Some(want));
        assert_eq!(Status::parse("Uid:\t1\t2\n"), None);
        let groups = text.replace("10 268435466 ", "");
        assert_eq!(Status::parse(&groups).unwrap().groups, Vec::<u32>::new());
    }
}
