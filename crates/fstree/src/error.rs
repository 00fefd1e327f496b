//! Errors of file operations, worded as Go words them, because clients and tests match the words.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on one path that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}: {}", path.display(), errno_text(source))]
pub struct PathError {
    /// What was tried, as the call's short name.
    pub op: &'static str,
    /// The path inside its root.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl PathError {
    /// Says which operation on which path met `source`. Of a path that is deeper than a tree may be, the beginning is told.
    pub fn new(op: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self {
            op,
            path: crate::descent::shortened(path.as_ref()),
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

/// The text Go's `syscall.Errno` has for an error, which is what BuildKit's clients read.
#[must_use]
pub fn errno_text(error: &io::Error) -> String {
    use rustix::io::Errno;
    let Some(code) = error.raw_os_error() else {
        return error.to_string();
    };
    let known = match Errno::from_raw_os_error(code) {
        Errno::NOENT => "no such file or directory",
        Errno::EXIST => "file exists",
        Errno::NOTDIR => "not a directory",
        Errno::ISDIR => "is a directory",
        Errno::NOTEMPTY => "directory not empty",
        Errno::ACCESS => "permission denied",
        Errno::PERM => "operation not permitted",
        Errno::NOSPC => "no space left on device",
        Errno::DQUOT => "disk quota exceeded",
        Errno::LOOP => "too many levels of symbolic links",
        Errno::XDEV => "invalid cross-device link",
        Errno::NAMETOOLONG => "file name too long",
        Errno::ROFS => "read-only file system",
        Errno::INVAL => "invalid argument",
        Errno::IO => "input/output error",
        Errno::OPNOTSUPP => "operation not supported",
        Errno::BUSY => "device or resource busy",
        Errno::MLINK => "too many links",
        Errno::NFILE => "too many open files in system",
        Errno::MFILE => "too many open files",
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            let mut chars = text.chars();
            return chars
                .next()
                .map(|c| c.to_lowercase().chain(chars).collect())
                .unwrap_or_default();
        }
    };
    known.to_owned()
}
