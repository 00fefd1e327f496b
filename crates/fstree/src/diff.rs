//! The changes an overlay upper directory makes to what lies below it.
use std::path::PathBuf;

use crate::error::PathError;
use crate::root::Root;
use crate::stat::Meta;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Add,
    /// It was there and is different.
    Modify,
    /// It is gone.
    Delete,
}

/// One changed path.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Path relative to the root, without a leading slash.
    pub path: PathBuf,
    /// Metadata of what is there now; of the whiteout for a deletion, if there is one.
    pub meta: Option<Meta>,
}

/// Why changes could not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// The upper directory was written with renamed directories recorded, which says nothing a layer can carry.
    #[error("redirect_dir is used but it's not supported in overlayfs differ")]
    Redirect {
        /// The directory.
        path: PathBuf,
    },
    /// A tree cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The changes in `upper` over `lower` (the view of everything below; `None` for the lowest layer), parents first.
pub fn overlay_changes(upper: &Root, lower: Option<&Root>) -> Result<Vec<Change>, DiffError> {
    let _ = (upper, lower);
    todo!()
}

/// The changes between two whole trees, parents first.
pub fn tree_changes(lower: Option<&Root>, upper: &Root) -> Result<Vec<Change>, DiffError> {
    let _ = (upper, lower);
    todo!()
}
