//! Errors of file operations, worded as Go words them, because clients and tests match the words.

use std::io;
use std::path::{Path, PathBuf};

pub use oci::error::errno_text;

/// An operation on one path that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}: {}", path.display(), errno_text(source))]
pub struct PathError {
    /// The operation, by the short name of its call, as `open`.
    pub op: &'static str,
    /// The path inside its root.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl PathError {
    /// Makes the error of an operation on a path. Of a path that is deeper than a tree may be, only the beginning is kept.
    pub fn new(op: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self {
            op,
            path: crate::depth::shortened(path.as_ref()),
            source: source.into(),
        }
    }

    /// True when the path or a part of it does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Adds operation and path to a bare error.
pub(crate) trait Located<T> {
    fn at(self, op: &'static str, path: impl AsRef<Path>) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> Located<T> for Result<T, E> {
    fn at(self, op: &'static str, path: impl AsRef<Path>) -> Result<T, PathError> {
        self.map_err(|e| PathError::new(op, path, e))
    }
}

impl PathError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        oci::ErrorKind::of_io(&self.source)
    }
}
