//! Unpacks archives that `ADD` meets.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use fstree::action::Unpacker;
use fstree::{Owner, Root};

use crate::apply::{ApplyError, ApplyOptions, Whiteouts, apply};
use crate::compress::decompress;
use crate::tar::{Reader, TarError};

/// How to unpack an archive.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Owner of all files; none for the owners in the archive.
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

/// Returns whether a stream is an archive, compressed or not, by reading its first entry. An error where it may be one, but
/// decompressing it takes more memory than there is for it.
pub fn is_archive(stream: impl Read + Send) -> io::Result<bool> {
    let Ok(plain) = decompress(stream) else {
        return Ok(false);
    };
    match Reader::new(plain).next_entry() {
        Ok(first_entry) => Ok(first_entry.is_some()),
        Err(TarError::Io(error)) if takes_too_much(&error) => {
            let reason = "the archive takes too much memory to decompress; compress it with a smaller window or dictionary";
            Err(io::Error::new(io::ErrorKind::OutOfMemory, reason))
        }
        Err(_) => Ok(false),
    }
}

fn takes_too_much(error: &io::Error) -> bool {
    // zstd's error code for a window that is larger than allowed.
    error.kind() == io::ErrorKind::OutOfMemory || error.to_string().contains("too much memory")
}

/// The [`Unpacker`] for file actions.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArchiveUnpacker;

impl Unpacker for ArchiveUnpacker {
    fn is_archive(&self, mut file: &File) -> io::Result<bool> {
        let outcome = is_archive(file);
        file.seek(SeekFrom::Start(0))?;
        outcome
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
