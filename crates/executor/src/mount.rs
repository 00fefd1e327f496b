//! What is mounted into a container.

use std::fmt;
use std::os::fd::OwnedFd;

use sys::mount::DetachedMount;

/// Something mounted into a container.
#[derive(Debug)]
pub struct Mount {
    /// Absolute path in the container; links in it are resolved inside the root. A missing place is made, and removed again afterwards.
    pub dest: String,
    /// What is mounted.
    pub source: MountSource,
    /// Of a [`MountSource::Mount`], what below its root is mounted; empty for all. Resolved once, inside that mount.
    pub selector: String,
    /// The container cannot write to it.
    pub readonly: bool,
}

/// Where a mount's content comes from. A name is never resolved twice: what is mounted is what the descriptor holds (P3).
///
/// `Debug` shows no contents: they are secrets.
pub enum MountSource {
    /// A detached mount, such as the store makes.
    Mount(DetachedMount),
    /// A directory, file or socket of the host, held open (`O_PATH` will do).
    Place(OwnedFd),
    /// A new empty tmpfs.
    Tmpfs {
        /// Its limit in bytes.
        size: Option<u64>,
    },
    /// A file that exists nowhere but in the container, for secrets: on a tmpfs of its own, without suid, devices and execution.
    File {
        /// The bytes.
        contents: Vec<u8>,
        /// Permissions.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl fmt::Debug for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(mount) => f.debug_tuple("Mount").field(mount).finish(),
            Self::Place(place) => f.debug_tuple("Place").field(place).finish(),
            Self::Tmpfs { size } => f.debug_struct("Tmpfs").field("size", size).finish(),
            Self::File { contents, mode, .. } => f
                .debug_struct("File")
                .field("bytes", &contents.len())
                .field("mode", mode)
                .finish_non_exhaustive(),
        }
    }
}
