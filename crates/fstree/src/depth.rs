//! Limits on the depth and length of paths in a tree.

use std::path::{Path, PathBuf};

/// The most names of a path in a tree.
///
/// DIFFERS: BuildKit has no bound of its own, and fails where a call meets a path of more than 4,096 bytes.
pub const MAX_DEPTH: usize = 1024;
/// The most bytes of a path in a tree: as many as the kernel takes in one call.
pub const MAX_PATH: usize = 4096;
/// Names of a path that an error shows.
const SHOWN_NAMES: usize = 8;

/// A path of a tree has too many names, or is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nested too deep: a path may have {MAX_DEPTH} names and {MAX_PATH} bytes")]
pub struct TooDeep;

/// The path, or its beginning where it is deeper or longer than one of a tree may be.
pub(crate) fn shortened(path: &Path) -> PathBuf {
    if check_path(path).is_ok() {
        return path.to_path_buf();
    }
    let mut out: PathBuf = path.components().take(SHOWN_NAMES).collect();
    out.push("…");
    out
}

/// Refuses a path that is deeper or longer than a tree may be.
pub fn check_path(path: &Path) -> Result<(), TooDeep> {
    // A path has at most half as many names as bytes.
    let len = path.as_os_str().len();
    if len > MAX_PATH || (len > MAX_DEPTH && path.components().count() > MAX_DEPTH) {
        return Err(TooDeep);
    }
    Ok(())
}
