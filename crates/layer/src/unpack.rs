//! Unpacks archives that `ADD` meets.
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use fstree::action::Unpacker;
use fstree::{Owner, Root};

use crate::apply::ApplyError;

/// How to unpack an archive.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Who everything belongs to; as the archive says when not given.
    pub owner: Option<Owner>,
}

/// Unpacks a tar archive, compressed or not, into the directory `dest` of `root`. Blocks.
pub fn unpack_archive(
    archive: &mut dyn Read,
    root: &Root,
    dest: &Path,
    options: &UnpackOptions,
) -> Result<(), ApplyError> {
    let _ = (archive, root, dest, options);
    todo!()
}

/// The [`Unpacker`] for file actions.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArchiveUnpacker;

impl Unpacker for ArchiveUnpacker {
    fn unpack(
        &self,
        file: File,
        root: &Root,
        dest: &Path,
        owner: Option<Owner>,
    ) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let _ = (file, root, dest, owner);
        todo!()
    }
}
