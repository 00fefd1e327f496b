//! Unpacks a layer into a directory.
//!
//! The stream is decompressed and hashed on one thread and unpacked on another. Nothing is synced to disk file by file;
//! who keeps the result decides when it must be durable. An entry never leads outside: names are resolved in the root,
//! links in them included, hard links are made to what the layer (or one below it) has, and what stands where an entry
//! goes is replaced, never written through.

pub(crate) mod entry;
mod nested;
pub(crate) mod pipe;
mod times;

use std::io::{self, Read};
use std::path::PathBuf;

use fstree::{Owner, PathError, Root};
use oci::Digest;

use entry::Unpack;
use pipe::Rest;

/// How a layer's whiteouts are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// As overlayfs marks: character devices 0/0 and opaque directories. For an upper directory.
    Overlay,
    /// By removing what they name. For a directory that holds the layers below as well.
    Remove,
    /// Not at all: they are files like others. For archives that are no layers.
    Literal,
}

/// How to unpack a layer.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// How whiteouts are carried out.
    pub whiteouts: Whiteouts,
    /// Roots of the layers below, topmost first: a directory the layer only implies gets their metadata.
    pub parents: Vec<Root>,
    /// Stop with an error when the unpacked files exceed this many bytes.
    pub limit: Option<u64>,
    /// Owner of all files; none for the owners in the entries.
    pub owner: Option<Owner>,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            whiteouts: Whiteouts::Overlay,
            parents: Vec::new(),
            limit: None,
            owner: None,
        }
    }
}

/// The outcome of unpacking a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Length of the uncompressed stream.
    pub uncompressed_size: u64,
    /// Sum of the file sizes.
    pub files_size: u64,
    /// Number of entries.
    pub entries: u64,
}

/// A layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The stream is not a valid tar archive.
    #[error(transparent)]
    Tar(#[from] crate::tar::TarError),
    /// The stream cannot be decompressed.
    #[error(transparent)]
    Compress(#[from] crate::compress::CompressError),
    /// Reading the stream failed.
    #[error("cannot read layer: {0}")]
    Read(#[from] io::Error),
    /// A file cannot be written.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An entry is not allowed in a layer.
    #[error("invalid entry {}: {reason}", path.display())]
    Entry {
        /// The entry's name.
        path: PathBuf,
        /// The fault of the entry.
        reason: &'static str,
    },
    /// A file belongs to somebody whom this daemon's user namespace does not have.
    #[error(
        "cannot give {} its owner {uid}:{gid}: this daemon has no such ids; give its user more in /etc/subuid and /etc/subgid (`rbuild doctor` says how)",
        path.display()
    )]
    NoSuchOwner {
        /// The name of the file.
        path: PathBuf,
        /// The user id in the layer.
        uid: u32,
        /// The group id in the layer.
        gid: u32,
    },
    /// The layer is larger than allowed.
    #[error("layer is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

impl ApplyError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Tar(error) => error.kind(),
            Self::Compress(error) => error.kind(),
            Self::Read(error) => ErrorKind::of_io(error),
            Self::Path(error) => error.kind(),
            Self::Entry { .. } => ErrorKind::Hostile,
            Self::NoSuchOwner { .. } => ErrorKind::Unsupported,
            Self::TooLarge { .. } => ErrorKind::Exhausted,
        }
    }
}

/// Unpacks a layer, compressed or not, into `root`, to the end of the stream. Blocks.
///
/// What follows the end of the archive is part of a layer's digest. Of an archive that is no layer it is not looked at: a
/// stream that breaks off there, or goes on with something else, is logged and taken.
pub fn apply(
    layer: &mut (dyn Read + Send),
    root: &Root,
    options: &ApplyOptions,
) -> Result<Applied, ApplyError> {
    let rest = if options.whiteouts == Whiteouts::Literal {
        Rest::Ignored
    } else {
        Rest::Read
    };
    let (unpacked, plain) = pipe::with_plain(layer, rest, |plain| {
        let mut unpack = Unpack::new(root, options)?;
        let mut reader = crate::tar::Reader::new(plain);
        while let Some(header) = reader.next_entry()? {
            unpack.entry(&header, &mut reader)?;
        }
        unpack.finish()?;
        Ok::<_, ApplyError>((unpack.files_size, unpack.entries))
    })?;
    let (files_size, entries) = unpacked;
    Ok(Applied {
        diff_id: plain.diff_id,
        uncompressed_size: plain.size,
        files_size,
        entries,
    })
}
