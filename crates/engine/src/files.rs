//! Reading files of a tree for a frontend.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use executor::IdRange;
use frontend::BridgeError;
use frontend::bridge::{FileRange, FileStat};
use oci::ErrorKind;
use ops::{OpFailure, PathError, Root};
use store::StoreError;

use crate::api::{Failure, FailureKind};

/// Size limit of one read.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Number of entries up to which a folder is listed.
const MAX_ENTRIES: usize = 1 << 20;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// There is no such file. `op` and `path` are as the reader gave them.
    #[error("{op} {path}: no such file or directory")]
    Missing { op: &'static str, path: String },
    /// The path cannot be resolved in the tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The kernel refused the read.
    #[error("{op} {path}: {source}")]
    Read {
        op: &'static str,
        path: String,
        source: std::io::Error,
    },
    /// It is not a regular file, or too large to be read in one piece.
    #[error("{0}")]
    Refused(String),
    /// The tree cannot be opened.
    #[error(transparent)]
    Tree(#[from] StoreError),
    /// The mount of a container cannot be opened.
    #[error(transparent)]
    Mount(#[from] OpFailure),
}

impl ReadError {
    pub(crate) fn missing(op: &'static str, path: &str) -> Self {
        Self::Missing {
            op,
            path: path.to_owned(),
        }
    }

    /// What kind of error it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Path(error) => error.kind(),
            Self::Read { source, .. } => ErrorKind::of_io(source),
            Self::Refused(_) => ErrorKind::Invalid,
            Self::Tree(error) => error.kind(),
            Self::Mount(error) => error.kind(),
        }
    }
}

impl From<ReadError> for BridgeError {
    fn from(error: ReadError) -> Self {
        // Clients expect these errors without a kind.
        let cause = error.kind();
        let mut failure = Failure::new(FailureKind::Unknown, error);
        failure.cause = cause;
        failure.into()
    }
}

/// Reads (a part of) a regular file.
pub(crate) fn read(root: &Root, name: &str, range: Option<FileRange>) -> Result<Bytes, ReadError> {
    // Opening a device or a pipe has side effects, so the type is checked first; the error names the opening only.
    let meta = root.stat(name).map_err(|error| {
        if error.is_not_found() {
            ReadError::missing("open", name)
        } else {
            error.into()
        }
    })?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(ReadError::Refused(format!(
            "open {name}: not a regular file"
        )));
    }
    let mut file = root.open_file(name)?;
    let range = range.unwrap_or(FileRange {
        offset: 0,
        length: 0,
    });
    // Callers may read one byte more than the limit, to find out that a file is too large.
    let all = range.length == 0;
    let read_limit = if all {
        MAX_FILE_BYTES + 1
    } else {
        range.length.min(MAX_FILE_BYTES + 1)
    };
    let failed = |source| ReadError::Read {
        op: "read",
        path: name.to_owned(),
        source,
    };
    file.seek(SeekFrom::Start(range.offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(read_limit)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES && (all || range.length > MAX_FILE_BYTES + 1) {
        return Err(ReadError::Refused(format!(
            "{name} exceeds maximum allowed size of {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(Bytes::from(bytes))
}

/// Lists a folder; `include` is a pattern on names, empty for all. With `ids`, owners are shown as in a container with this range.
pub(crate) fn list(
    root: &Root,
    name: &str,
    include: &str,
    ids: Option<IdRange>,
) -> Result<Vec<FileStat>, ReadError> {
    let dir = root.dir(name)?;
    let failed = |source| ReadError::Read {
        op: "readdir",
        path: name.to_owned(),
        source,
    };
    let mut entries = dir.entries().map_err(failed)?;
    if entries.len() > MAX_ENTRIES {
        return Err(ReadError::Refused(format!(
            "{name} has more than {MAX_ENTRIES} entries"
        )));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut names = Vec::new();
    for entry in entries {
        let display_name = entry.name.to_string_lossy().into_owned();
        if include.is_empty() || matches(include.as_bytes(), display_name.as_bytes()) {
            names.push((Path::new(name).join(&entry.name), display_name));
        }
    }
    stat_all(root, names, false, ids)
}

/// Returns the metadata of one file; a link at the end of the path is not followed.
pub(crate) fn lstat(root: &Root, name: &str) -> Result<FileStat, ReadError> {
    stat_one(root, name, false, None)
}

/// Returns the metadata of the file that a path leads to, or of the link itself if its target is not in the tree.
pub(crate) fn stat(root: &Root, name: &str, ids: Option<IdRange>) -> Result<FileStat, ReadError> {
    stat_one(root, name, true, ids)
}

fn stat_one(
    root: &Root,
    name: &str,
    follow: bool,
    ids: Option<IdRange>,
) -> Result<FileStat, ReadError> {
    let base = Path::new(name)
        .file_name()
        .map_or("/".into(), |n| n.to_string_lossy().into_owned());
    let stats = stat_all(root, vec![(PathBuf::from(name), base)], follow, ids)?;
    stats
        .into_iter()
        .next()
        .ok_or_else(|| ReadError::missing("lstat", name))
}

/// Returns the metadata of files, each with the name that it is listed under.
fn stat_all(
    root: &Root,
    paths: Vec<(PathBuf, String)>,
    follow: bool,
    ids: Option<IdRange>,
) -> Result<Vec<FileStat>, ReadError> {
    let owner = |id: u32| match ids {
        Some(ids) => id.checked_sub(ids.base).unwrap_or(id),
        None => id,
    };
    let mut out = Vec::with_capacity(paths.len());
    for (path, shown) in paths {
        let mut meta = root.lstat(&path)?;
        if follow
            && meta.is_symlink()
            && let Ok(target) = root.stat(&path)
        {
            meta = target;
        }
        let linkname = if meta.is_symlink() {
            root.readlink(&path)?.to_string_lossy().into_owned()
        } else {
            String::new()
        };
        let xattrs = match root.parent(&path)? {
            Some((dir, name)) => dir.xattrs(&name).unwrap_or_default(),
            None => BTreeMap::default(),
        };
        let device = !(meta.is_file() || meta.is_dir() || meta.is_symlink());
        out.push(FileStat {
            path: shown,
            mode: meta.go_mode(),
            uid: owner(meta.uid),
            gid: owner(meta.gid),
            size: if meta.is_dir() {
                0
            } else {
                i64::try_from(meta.size).unwrap_or(i64::MAX)
            },
            mod_time: meta.mtime,
            linkname,
            devmajor: if device { i64::from(meta.rdev.0) } else { 0 },
            devminor: if device { i64::from(meta.rdev.1) } else { 0 },
            xattrs,
        });
    }
    Ok(out)
}

/// Whether a name matches a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || name.get(n) == Some(c) => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(p..)
        .unwrap_or_default()
        .iter()
        .all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn names_are_chosen_by_pattern() {
        assert!(matches(b"*.txt", b"a.txt") && matches(b"a?c*", b"abcd") && matches(b"*", b""));
        assert!(!matches(b"*.txt", b"a.txt2") && !matches(b"", b"a") && !matches(b"a", b""));
    }
}
