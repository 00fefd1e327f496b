//! Content digests of files and trees, BuildKit's byte for byte.
//!
//! The digest of one file is the SHA-256 of its metadata, as the tarsum format of old Docker wrote it, and of its
//! contents:
//!
//! | input, in this order            | in  | why                                                          |
//! |---------------------------------|-----|--------------------------------------------------------------|
//! | name                            | no  | empty; the name counts in the directory that holds it        |
//! | permissions, setuid and so on   | yes | type bits do not count, the type letter does                 |
//! | uid, gid                        | yes |                                                              |
//! | size                            | yes | of regular files, 0 of others                                |
//! | modification time               | no  | else nothing would ever hit                                  |
//! | type letter                     | yes | tar's; a socket counts as an empty regular file              |
//! | link target                     | yes | of symbolic links                                            |
//! | user name, group name           | no  | empty                                                        |
//! | device numbers                  | yes | but 0 when read from disk: BuildKit's test for them is never true |
//! | extended attributes, sorted     | yes | without `security.*` (`security.capability` counts) and `system.*` |
//! | contents                        | yes | of regular files                                             |
//!
//! The digest of a directory is the SHA-256 of its own metadata's digest under the name `\0`, followed for each child
//! in byte order by `\0`, the name, and the child's digest as text. A selection by patterns is hashed as the list of
//! selected files and directory metadata, each as its path with `\0` for `/` and its digest as text.

mod file;
mod nodes;
mod select;
mod store;
mod tree;

pub use file::FileHasher;

use std::path::Path;

use oci::Digest;
use parking_lot::Mutex;

use crate::error::PathError;
use crate::root::Root;
use crate::stat::Stat;
use tree::State;

/// The part of a tree that a digest covers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Follow a link in the last name.
    pub follow_links: bool,
    /// The path is a pattern.
    pub wildcard: bool,
    /// Only what matches one of these, relative to the path.
    pub include: Vec<String>,
    /// Patterns of files that are left out, relative to the path.
    pub exclude: Vec<String>,
    /// Paths of which at least one must be covered each.
    pub required_paths: Vec<String>,
}

/// A digest cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// The path does not exist in the tree.
    #[error("{0:?}: not found")]
    NotFound(String),
    /// A path leads through too many links.
    #[error("too many links")]
    TooManyLinks,
    /// A pattern is malformed.
    #[error("invalid {kind}: [{}]: {source}", patterns.join(" "))]
    Pattern {
        /// The list: `includepatterns` or `excludepatterns`.
        kind: &'static str,
        /// The whole list.
        patterns: Vec<String>,
        /// The error of the pattern.
        source: pattern::PatternError,
    },
    /// The tree cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Stored digests cannot be decoded.
    #[error("stored content digests are damaged: {0}")]
    Damaged(&'static str),
}

impl HashError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::TooManyLinks | Self::Pattern { .. } => ErrorKind::Invalid,
            Self::Path(error) => error.kind(),
            Self::Damaged(_) => ErrorKind::System,
        }
    }
}

/// The digests of one tree, computed on demand or as files arrive. Shared by reference between threads.
#[derive(Debug, Default)]
pub struct TreeHashes {
    state: Mutex<State>,
}

impl TreeHashes {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, HashError> {
        Ok(Self {
            state: Mutex::new(store::decode(bytes)?),
        })
    }

    /// Everything known, for storing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        state.dirty = false;
        store::encode(&state)
    }

    /// True when something was learned since the last [`encode`](Self::encode).
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.state.lock().dirty
    }

    /// A copy to go on with, for a tree that was forked from this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            state: Mutex::new(self.state.lock().fork()),
        }
    }

    /// Notes a file that arrived, with the digest a [`FileHasher`] made of it. Parents come before children.
    ///
    /// The first call marks the tree as one that is known in full: what is not noted does not exist. Of a later name
    /// of a hard link the digest is that of the first name, whenever that arrives.
    pub fn insert(&self, stat: &Stat, digest: &Digest) {
        self.state.lock().insert(stat, digest);
    }

    /// Notes that `path` and everything below is gone.
    pub fn remove(&self, path: &Path) {
        self.state.lock().remove(path);
    }

    /// The digest of `path`, reading from `root` what is not known yet. Blocks, and uses several threads.
    pub fn checksum(
        &self,
        root: &Root,
        path: &str,
        options: &Options,
    ) -> Result<Digest, HashError> {
        let mut state = self.state.lock();
        if !options.wildcard && options.include.is_empty() && options.exclude.is_empty() {
            return state.checksum(root, path, options.follow_links);
        }
        select::checksum(&mut state, root, path, options)
    }
}

/// The digest of `path` in a tree without any file: of the root it is that of nothing, anything else is not found.
pub fn empty_tree_checksum(path: &str) -> Result<Digest, HashError> {
    if path == "/" {
        return Ok(Digest::sha256(b""));
    }
    Err(PathError::new("open", path, rustix::io::Errno::NOENT).into())
}
