//! Reading and writing tar streams.
//!
//! The writer's bytes are those of Go's `archive/tar`, because the digest of a layer is the digest of these bytes: a
//! plain USTAR header when every field fits, else PAX records in byte order before it, never GNU extensions. The
//! reader takes USTAR, PAX, GNU long names, base-256 numbers and sparse files, and treats all of it as hostile.

mod number;
mod reader;
mod sparse;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of a header and the unit everything is padded to.
pub(crate) const BLOCK: usize = 512;

/// Prefix of PAX records with extended attributes.
pub const XATTR_RECORD: &str = "SCHILY.xattr.";

/// A tar stream cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream breaks the format.
    #[error("invalid tar: {0}")]
    Invalid(&'static str),
    /// The stream uses a feature that is not supported.
    #[error("tar with {0} is not supported")]
    Unsupported(&'static str),
    /// A header cannot be written.
    #[error("cannot write a tar header: {0}")]
    Header(&'static str),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl TarError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Invalid(_) => ErrorKind::Hostile,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Header(_) => ErrorKind::Invalid,
            Self::Io(error) => ErrorKind::of_io(error),
        }
    }
}

/// The type of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    #[default]
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
    /// Anything else, by its type byte.
    Other(u8),
}

impl EntryKind {
    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            b'0' | 0 | b'7' | b'S' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::Char,
            b'4' => Self::Block,
            b'5' => Self::Dir,
            b'6' => Self::Fifo,
            other => Self::Other(other),
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::Char => b'3',
            Self::Block => b'4',
            Self::Dir => b'5',
            Self::Fifo => b'6',
            Self::Other(byte) => byte,
        }
    }

    /// True when contents may follow the header.
    pub(crate) fn has_contents(self) -> bool {
        !matches!(
            self,
            Self::HardLink | Self::Symlink | Self::Char | Self::Block | Self::Dir | Self::Fifo
        )
    }
}

/// Metadata of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Path as in the archive; of a directory it ends in a slash.
    pub name: Vec<u8>,
    /// The type of the entry.
    pub kind: EntryKind,
    /// Permission bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Bytes of contents; of a sparse file with its holes.
    pub size: u64,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// The part of the modification time below a second; never written.
    pub mtime_ns: u32,
    /// Access time in nanoseconds since 1970, if the archive tells; never written.
    pub atime: Option<i64>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Name of the owner.
    pub uname: Vec<u8>,
    /// Name of the group.
    pub gname: Vec<u8>,
    /// Major number of a device.
    pub devmajor: u64,
    /// Minor number of a device.
    pub devminor: u64,
    /// Other PAX records, extended attributes as `SCHILY.xattr.*` among them.
    pub records: BTreeMap<String, Vec<u8>>,
}

impl Header {
    /// The name as a path.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.name))
    }

    /// Extended attributes by their own names.
    pub fn xattrs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR_RECORD)?, value.as_slice())))
    }
}
