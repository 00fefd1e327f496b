//! Unpacks archives that `ADD` meets.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use fstree::action::Unpacker;
use fstree::{Owner, Root};

use crate::apply::{ApplyError, ApplyOptions, Whiteouts, apply};
use crate::compress::decompress;
use crate::tar::Reader;

/// How to unpack an archive.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Who everything belongs to; as the archive says when not given.
    pub owner: Option<Owner>,
}

/// Unpacks a tar archive, compressed or not, into the directory `dest` of `root`. Blocks.
///
/// `dest` is the root of everything that happens: links in the archive, or already there, do not lead out of it.
pub fn unpack_archive(
    archive: &mut (dyn Read + Send),
    root: &Root,
    dest: &Path,
    options: &UnpackOptions,
) -> Result<(), ApplyError> {
    let options = ApplyOptions {
        whiteouts: Whiteouts::Literal,
        owner: options.owner,
        ..ApplyOptions::default()
    };
    apply(archive, &root.subroot(dest)?, &options)?;
    Ok(())
}

/// Tells whether a stream is an archive, compressed or not, by reading its first entry.
pub fn is_archive(stream: impl Read + Send) -> bool {
    let Ok(plain) = decompress(stream) else {
        return false;
    };
    matches!(Reader::new(plain).next_entry(), Ok(Some(_)))
}

/// The [`Unpacker`] for file actions.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArchiveUnpacker;

impl Unpacker for ArchiveUnpacker {
    fn is_archive(&self, mut file: &File) -> io::Result<bool> {
        let found = is_archive(file);
        file.seek(SeekFrom::Start(0))?;
        Ok(found)
    }

    fn unpack(
        &self,
        mut file: File,
        root: &Root,
        dest: &Path,
        owner: Option<Owner>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        unpack_archive(&mut file, root, dest, &UnpackOptions { owner })?;
        Ok(())
    }
}
