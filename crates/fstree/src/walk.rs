//! Walks a tree in the order fsutil sends it, through include and exclude patterns.
//!
//! The order is depth first with the names of each directory in byte order: byte order of whole paths if `/` were
//! the lowest byte. A directory that no pattern includes is listed only when something below it is, right before
//! the first such thing.

use crate::error::PathError;
use crate::root::Root;
use crate::stat::Stat;

/// Which paths of a tree to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only what matches one of these; everything when empty.
    pub include: Vec<String>,
    /// Nothing that matches these, unless a later `!` pattern takes it back.
    pub exclude: Vec<String>,
    /// Paths that are included together with whatever the links in them lead to.
    pub follow: Vec<String>,
}

/// Why a walk ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// An include pattern is malformed.
    #[error("invalid includepatterns: [{}]: {reason}", patterns.join(" "))]
    Include {
        /// All include patterns.
        patterns: Vec<String>,
        /// What is wrong with one of them.
        reason: String,
    },
    /// An exclude pattern is malformed.
    #[error("invalid excludepatterns: [{}]: {reason}", patterns.join(" "))]
    Exclude {
        /// All exclude patterns.
        patterns: Vec<String>,
        /// What is wrong with one of them.
        reason: String,
    },
    /// The tree cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A walk in progress: an iterator of the listed files' metadata, paths relative to the root.
#[derive(Debug)]
pub struct Walk {
    root: Root,
}

impl Walk {
    /// Starts a walk of the whole tree.
    pub fn new(root: &Root, filter: &Filter) -> Result<Self, WalkError> {
        let _ = filter;
        Ok(Self { root: root.clone() })
    }
}

impl Iterator for Walk {
    type Item = Result<Stat, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = &self.root;
        todo!()
    }
}

/// Expands paths to themselves and everything the links in them lead to; `None` means the whole tree.
pub fn follow_links(root: &Root, paths: &[String]) -> Result<Option<Vec<String>>, WalkError> {
    let _ = (root, paths);
    todo!()
}
