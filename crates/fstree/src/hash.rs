//! Content digests of files and trees, BuildKit's byte for byte.
use oci::Digest;

use crate::error::PathError;
use crate::root::Root;
use crate::stat::Stat;
use std::path::Path;

/// What of a tree a digest covers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Follow a link in the last name.
    pub follow_links: bool,
    /// The path is a pattern.
    pub wildcard: bool,
    /// Only what matches one of these, relative to the path.
    pub include: Vec<String>,
    /// Nothing that matches these, relative to the path.
    pub exclude: Vec<String>,
    /// Paths of which at least one must be covered each.
    pub required_paths: Vec<String>,
}

/// Why a digest could not be made.
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
    #[error("invalid {kind}: [{}]: {reason}", patterns.join(" "))]
    Pattern {
        /// Which list it is in.
        kind: &'static str,
        /// The whole list.
        patterns: Vec<String>,
        /// What is wrong.
        reason: String,
    },
    /// The tree cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Stored digests cannot be decoded.
    #[error("stored content digests are damaged: {0}")]
    Damaged(&'static str),
}

/// The digest of one file in the making: metadata first, then the contents.
#[derive(Debug)]
pub struct FileHasher {
    inner: oci::Digester,
}

impl FileHasher {
    /// Starts with the file's metadata.
    #[must_use]
    pub fn new(stat: &Stat) -> Self {
        let _ = stat;
        Self { inner: oci::Digester::new() }
    }

    /// Adds contents.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.inner.finish()
    }
}

/// The digests of one tree, filled as they are asked for or as files arrive. Shared by reference between threads.
#[derive(Debug, Default)]
pub struct TreeHashes {
}

impl TreeHashes {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, HashError> {
        let _ = bytes;
        todo!()
    }

    /// Everything known, for storing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// True when something was learned since the last [`encode`](Self::encode).
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        todo!()
    }

    /// Notes a file that arrived, with the digest a [`FileHasher`] made of it. Parents come before children.
    ///
    /// The first call marks the tree as one that is known in full: what is not noted does not exist.
    pub fn insert(&self, stat: &Stat, digest: &Digest) {
        let _ = (stat, digest);
        todo!()
    }

    /// Notes that `path` and everything below is gone.
    pub fn remove(&self, path: &Path) {
        let _ = path;
        todo!()
    }

    /// The digest of `path`, reading from `root` what is not known yet. Blocks, and uses several threads.
    pub fn checksum(&self, root: &Root, path: &str, options: &Options) -> Result<Digest, HashError> {
        let _ = (root, path, options);
        todo!()
    }
}

/// The digest of `path` in a tree without any file: of the root it is that of nothing, anything else is not found.
pub fn empty_tree_checksum(path: &str) -> Result<Digest, HashError> {
    if path == "/" { Ok(Digest::sha256(b"")) } else { Err(HashError::NotFound(path.to_owned())) }
}
