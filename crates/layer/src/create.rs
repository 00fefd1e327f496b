//! Packs the changes of a snapshot into a layer.
//!
//! The uncompressed bytes are those BuildKit's overlay differ writes, so that diff IDs agree:
//!
//! | of an entry            | written                                                                       |
//! |------------------------|-------------------------------------------------------------------------------|
//! | order                  | that of the changes, the directories above a change before it                 |
//! | name                   | without a slash in front, directories with one behind                         |
//! | mode                   | the twelve permission bits                                                    |
//! | owner                  | numbers only                                                                  |
//! | time                   | whole seconds, rounded down, not after the given latest time                  |
//! | extended attributes    | `security.capability`, nothing else                                           |
//! | sockets                | left out                                                                      |
//! | later names of a file  | hard links to the first                                                       |
//! | deletions              | empty file `.wh.` before the name, mode 0, time 0                             |

mod pack;
mod stream;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use fstree::diff::{self, Change, DiffError};
use fstree::walk::{Filter, Walk};
use fstree::{Kind, PathError, Root, Stat, stat};
use oci::Digest;

use crate::compress::{CompressError, Compression, decompress};
use crate::tar::{EntryKind, Header, Reader, TarError, Writer, XATTR_RECORD};
use pack::Packer;
use stream::LayerStream;

/// How to pack a layer.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The compression of the blob.
    pub compression: Compression,
    /// No file gets a later modification time than this, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub latest_time: Option<i64>,
}

/// A packed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A layer cannot be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The changes cannot be determined.
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
    Tar(#[from] TarError),
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

impl CreateError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Diff(error) => error.kind(),
            Self::Path(error) => error.kind(),
            Self::Changed { .. } => ErrorKind::Failed,
            Self::Tar(error) => error.kind(),
            Self::Compress(error) => error.kind(),
            Self::Write(error) => ErrorKind::of_host(error),
            Self::Walk(error) => error.kind(),
        }
    }
}

/// Packs what `upper` changes over `lower` (the view of everything below; `None` for the lowest layer) into `out`.
/// One streaming pass; blocks.
pub fn create(
    upper: &Root,
    lower: Option<&Root>,
    options: &CreateOptions,
    out: &mut (dyn Write + Send),
) -> Result<LayerInfo, CreateError> {
    create_from_changes(upper, &diff::overlay_changes(upper, lower)?, options, out)
}

/// Packs the given changes, whose files are read from `tree`. Blocks.
pub fn create_from_changes(
    tree: &Root,
    changes: &[Change],
    options: &CreateOptions,
    out: &mut (dyn Write + Send),
) -> Result<LayerInfo, CreateError> {
    let mut packer = Packer::new(
        tree,
        options.latest_time,
        LayerStream::new(out, &options.compression)?,
    );
    for change in changes {
        packer.add(change.kind, &change.path, change.meta.as_ref())?;
    }
    packer.finish()?.finish()
}

/// Packs an existing blob anew: with other compression, and with times held down to `latest_time` if one is given.
/// Blocks.
pub fn convert(
    blob: &mut (dyn Read + Send),
    options: &CreateOptions,
    out: &mut (dyn Write + Send),
) -> Result<LayerInfo, CreateError> {
    let mut tar = decompress(blob)?;
    let mut stream = LayerStream::new(out, &options.compression)?;
    let Some(latest) = options.latest_time else {
        io::copy(&mut tar, &mut stream)?;
        return stream.finish();
    };
    let mut reader = Reader::new(tar);
    let mut writer = Writer::new(stream);
    while let Some(mut header) = reader.next_entry()? {
        let pieces = reader.pieces().map(<[(u64, u64)]>::to_vec);
        let is_sparse = pieces.is_some();
        if header.mtime >= latest {
            header.mtime = latest;
        }
        writer.append(&header)?;
        // A sparse file is written with its holes.
        let mut at = 0;
        for (offset, length) in pieces.into_iter().flatten() {
            write_zeros(offset.saturating_sub(at), &mut writer)?;
            io::copy(&mut reader.by_ref().take(length), &mut writer)?;
            at = offset.saturating_add(length);
        }
        if is_sparse {
            write_zeros(header.size.saturating_sub(at), &mut writer)?;
        }
        io::copy(&mut reader, &mut writer)?;
    }
    io::copy(&mut reader.into_inner(), &mut io::sink())?;
    writer.finish()?.finish()
}

fn write_zeros(count: u64, out: &mut impl Write) -> io::Result<u64> {
    io::copy(&mut io::repeat(0).take(count), out)
}

/// Writes a whole tree as a plain tar, as the `tar` exporter does; `edit` may change an entry, or drop it by returning
/// false. Blocks.
pub fn write_tree(
    root: &Root,
    filter: &Filter,
    out: &mut dyn Write,
    edit: &mut dyn FnMut(&mut Stat) -> bool,
) -> Result<(), CreateError> {
    let mut writer = Writer::new(out);
    write_tree_to(root, filter, &mut writer, "", edit)?;
    writer.finish()?.flush()?;
    Ok(())
}

/// As [`write_tree`], into an archive that has more, below `prefix` (empty, or ending in a slash).
pub fn write_tree_to<W: Write>(
    root: &Root,
    filter: &Filter,
    writer: &mut Writer<W>,
    prefix: &str,
    edit: &mut dyn FnMut(&mut Stat) -> bool,
) -> Result<(), CreateError> {
    // Where the first written name of a file with several is: the first one found may have been dropped.
    let mut written = std::collections::HashMap::new();
    let mut buffer = vec![0; pack::BUFFER];
    for stat in Walk::new(root, filter)? {
        let mut stat = stat?;
        let source = stat.path.clone();
        if !edit(&mut stat) {
            continue;
        }
        if stat.is_hard_link() {
            match written.get(&stat.linkname) {
                Some(first) => stat.linkname = PathBuf::clone(first),
                None => {
                    written.insert(std::mem::take(&mut stat.linkname), stat.path.clone());
                }
            }
        } else if stat.is_file() {
            written.insert(source.clone(), stat.path.clone());
        }
        let header = tree_header(&stat, prefix);
        writer.append(&header)?;
        if header.kind == EntryKind::File && header.size > 0 {
            let mut file = root.open_file(&source)?;
            pack::copy_exactly(&mut file, header.size, writer, &source, &mut buffer)?;
        }
    }
    Ok(())
}

fn tree_header(stat: &Stat, prefix: &str) -> Header {
    let bytes = |path: &std::path::Path| path.as_os_str().as_encoded_bytes().to_vec();
    let mut name = [prefix.as_bytes(), &bytes(&stat.path)].concat();
    let mut link = bytes(&stat.linkname);
    let hard = stat.is_hard_link();
    let kind = match stat.kind() {
        _ if hard => {
            link = [prefix.as_bytes(), &link].concat();
            EntryKind::HardLink
        }
        Kind::Dir => {
            name.push(b'/');
            EntryKind::Dir
        }
        Kind::Symlink => EntryKind::Symlink,
        Kind::Char => EntryKind::Char,
        Kind::Block => EntryKind::Block,
        Kind::Fifo => EntryKind::Fifo,
        Kind::File | Kind::Socket => EntryKind::File,
    };
    let size = if kind == EntryKind::File {
        u64::try_from(stat.size).unwrap_or(0)
    } else {
        0
    };
    // Rounded to the nearest second, as an archive without sub-second times is written by Go.
    let mtime = stat.mod_time.div_euclid(1_000_000_000)
        + i64::from(stat.mod_time.rem_euclid(1_000_000_000) >= 500_000_000);
    Header {
        name,
        kind,
        mode: stat::unix_permissions(stat.mode),
        uid: u64::from(stat.uid),
        gid: u64::from(stat.gid),
        size,
        mtime,
        link,
        devmajor: u64::try_from(stat.devmajor).unwrap_or(0),
        devminor: u64::try_from(stat.devminor).unwrap_or(0),
        records: stat
            .xattrs
            .iter()
            .map(|(key, value)| (format!("{XATTR_RECORD}{key}"), value.clone()))
            .collect(),
        ..Header::default()
    }
}
