//! Packs the changes of a snapshot into a layer.
use std::io::{self, Write};
use std::path::PathBuf;

use fstree::diff::{Change, DiffError};
use fstree::walk::Filter;
use fstree::{PathError, Root, Stat};
use oci::Digest;

use crate::compress::{CompressError, Compression};

/// How to pack a layer.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// How to compress.
    pub compression: Compression,
    /// No file gets a later modification time than this, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub latest_time: Option<i64>,
}

/// A packed layer.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob.
    pub size: u64,
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Length of the uncompressed stream.
    pub uncompressed_size: u64,
    /// Media type of the blob in an OCI image.
    pub media_type: &'static str,
}

/// Why a layer was not packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The changes cannot be told.
    #[error("failed to record upperdir changes: {0}")]
    Diff(#[from] DiffError),
    /// A file cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file became shorter or longer while it was packed.
    #[error("{} changed while it was packed", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An entry cannot be written as tar.
    #[error(transparent)]
    Tar(#[from] crate::tar::TarError),
    /// The stream cannot be compressed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The blob cannot be written.
    #[error("cannot write layer: {0}")]
    Write(#[from] io::Error),
    /// The walk of a tree failed.
    #[error(transparent)]
    Walk(#[from] fstree::walk::WalkError),
}

/// Packs what `upper` changes over `lower` (the view of everything below; `None` for the lowest layer) into `out`,
/// the same bytes BuildKit writes before compression. One streaming pass; blocks.
pub fn create(
    upper: &Root,
    lower: Option<&Root>,
    options: &CreateOptions,
    out: &mut (dyn Write + Send),
) -> Result<LayerInfo, CreateError> {
    let _ = (upper, lower, options, out);
    todo!()
}

/// Packs the given changes, whose files are read from `tree`.
pub fn create_from_changes(
    tree: &Root,
    changes: &[Change],
    options: &CreateOptions,
    out: &mut (dyn Write + Send),
) -> Result<LayerInfo, CreateError> {
    let _ = (tree, changes, options, out);
    todo!()
}

/// Writes a whole tree as a plain tar, as the `tar` exporter does; `edit` may change an entry, or drop it by returning false.
pub fn write_tree(
    root: &Root,
    filter: &Filter,
    out: &mut dyn Write,
    edit: &mut dyn FnMut(&mut Stat) -> bool,
) -> Result<(), CreateError> {
    let _ = (root, filter, out, edit);
    todo!()
}
