//! Keeps a layer as its uncompressed tar, and builds the tree of an index over it in the same pass: nothing is unpacked.
//!
//! The tree is the one that [`apply`](crate::apply()) would leave in the upper directory of a snapshot: the same whiteouts, the same
//! folders that the layer only implies, the same links. What lies in the tar in a form that an index cannot point at, or depends on
//! contents of the layers below, is not guessed: [`IndexError::NeedsFolder`] says that this layer has to be unpacked.

mod below;
mod builder;

use std::io::{self, Read, Write};

use erofs::{
    Attributes, BlockSize, Device, Limits, Tree, TreeError, WriteError, WriteOptions, Written,
};

pub use below::{Below, BelowError};
use builder::Builder;

use crate::apply::pipe::{self, Rest};
use crate::{Applied, ApplyError};

/// How a layer is indexed.
#[derive(Debug)]
pub struct IndexOptions<'a> {
    /// The layers below, as one tree: a folder that the layer only implies gets their metadata.
    pub below: &'a dyn Below,
    /// The metadata of the root, which no layer sets.
    pub root: Attributes,
    /// The time of a folder that is implied and stands nowhere below, in seconds since 1970.
    pub now: i64,
    /// Stop with an error when the files exceed this many bytes.
    pub limit: Option<u64>,
    /// How many entries and attributes a layer may have.
    pub limits: Limits,
}

/// A layer's tree, and what is known of the whole.
#[derive(Debug)]
pub struct Indexed {
    /// As after unpacking it.
    pub applied: Applied,
    /// The tree, whose files lie in device 1, the tar.
    tree: Tree,
}

impl Indexed {
    /// Writes the index, over a tar of `applied.uncompressed_size` bytes.
    pub fn write(&self, image: impl Write) -> Result<Written, WriteError> {
        let options = WriteOptions {
            block_size: BlockSize::TAR,
            devices: &[Device {
                size: self.applied.uncompressed_size,
            }],
        };
        erofs::write(&self.tree, options, image)
    }
}

/// Why a layer can only be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderReason {
    /// A sparse file whose parts do not begin and end where blocks do.
    SparseFile,
    /// A hard link to what the layer itself does not have.
    LinkBelow,
    /// An access control list, which changes the permissions that are seen.
    AccessControlList,
    /// A file in a last block that is cut off.
    CutBlock,
}

/// Why a layer was not indexed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// An error that unpacking the layer would have too.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// An entry that no index can hold.
    #[error("invalid entry: {0}")]
    Tree(#[from] TreeError),
    /// The layers below could not be asked.
    #[error(transparent)]
    Below(#[from] BelowError),
    /// The tar could not be written.
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
    /// The index could not be written.
    #[error(transparent)]
    Index(WriteError),
    /// The layer cannot be indexed and must be unpacked, for this reason.
    #[error("this layer has to be unpacked: {}", describe(*.0))]
    NeedsFolder(FolderReason),
}

impl From<io::Error> for IndexError {
    /// Of the stream, which is read.
    fn from(error: io::Error) -> Self {
        Self::Apply(error.into())
    }
}

impl IndexError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Apply(error) => error.kind(),
            Self::Tree(error) => error.kind(),
            Self::Below(error) => error.kind(),
            Self::Write(error) => oci::ErrorKind::of_host(error),
            Self::Index(error) => error.kind(),
            Self::NeedsFolder(_) => oci::ErrorKind::Unsupported,
        }
    }
}

fn describe(reason: FolderReason) -> &'static str {
    match reason {
        FolderReason::SparseFile => "a sparse file has parts within blocks",
        FolderReason::LinkBelow => "it links to a file of a layer below",
        FolderReason::AccessControlList => "a file has an access control list",
        FolderReason::CutBlock => "its last block is cut off",
    }
}

/// Reads a layer, compressed or not, to its end, writes it uncompressed to `tar`, and returns its tree. Blocks. Nothing is synced; what
/// was written before an error is of no use, but for [`IndexError::NeedsFolder`]: then the tar is whole.
pub fn index(
    layer: &mut (dyn Read + Send),
    tar: &mut dyn Write,
    options: &IndexOptions<'_>,
) -> Result<Indexed, IndexError> {
    let (builder, plain) = pipe::with_plain(layer, Rest::Read, |plain| {
        let mut builder = Builder::new(options)?;
        let mut reader = crate::tar::Reader::new(Kept::new(plain, tar));
        let walked = walk(&mut builder, &mut reader);
        let mut kept = reader.into_inner();
        // The tar is wanted whole by whoever unpacks it, too.
        let result = match walked {
            Ok(()) | Err(IndexError::NeedsFolder(_)) => {
                let drained = io::copy(&mut kept, &mut io::sink());
                walked.and(drained.map_err(IndexError::from))
            }
            Err(error) => Err(error),
        };
        // An error of writing comes through the reader, which knows nothing of it.
        match kept.failure {
            Some(error) => Err(IndexError::Write(error)),
            None => result.map(|_| builder),
        }
    })?;
    if builder.contents_end.div_ceil(512) > plain.size / 512 {
        return Err(IndexError::NeedsFolder(FolderReason::CutBlock));
    }
    Ok(Indexed {
        applied: Applied {
            diff_id: plain.diff_id,
            uncompressed_size: plain.size,
            files_size: builder.files_size,
            entries: builder.entries,
        },
        tree: builder.into_tree(),
    })
}

fn walk(
    builder: &mut Builder<'_>,
    reader: &mut crate::tar::Reader<Kept<'_>>,
) -> Result<(), IndexError> {
    while let Some(header) = reader.next_entry().map_err(ApplyError::from)? {
        let content_at = reader.get_ref().position;
        builder.entry(&header, reader.pieces(), content_at)?;
    }
    Ok(())
}

/// Writes everything that is read through it.
struct Kept<'a> {
    plain: &'a mut dyn Read,
    tar: &'a mut dyn Write,
    /// Bytes that were read.
    position: u64,
    failure: Option<io::Error>,
}

impl<'a> Kept<'a> {
    fn new(plain: &'a mut dyn Read, tar: &'a mut dyn Write) -> Self {
        Self {
            plain,
            tar,
            position: 0,
            failure: None,
        }
    }
}

impl Read for Kept<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Err(error) = self.tar.write_all(bytes) {
            let kind = error.kind();
            self.failure = Some(error);
            return Err(kind.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}
