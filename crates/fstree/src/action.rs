//! The file actions of a build, as BuildKit's file operation performs them, never outside the given roots.
use std::fs::File;

use crate::error::PathError;
use crate::root::{Owner, Root};

/// Makes a directory.
#[derive(Clone, Debug)]
pub struct Mkdir {
    /// Where.
    pub path: String,
    /// Permission bits; only the lower nine count.
    pub mode: u32,
    /// Also make what is missing on the way.
    pub make_parents: bool,
    /// Who it belongs to; root when not given.
    pub owner: Option<Owner>,
    /// Time to set, in nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Writes a file, replacing what was there.
#[derive(Clone, Debug)]
pub struct Mkfile {
    /// Where.
    pub path: String,
    /// Permission bits; only the lower nine count.
    pub mode: u32,
    /// Contents.
    pub data: Vec<u8>,
    /// Who it belongs to; root when not given.
    pub owner: Option<Owner>,
    /// Time to set, in nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Makes a symbolic link.
#[derive(Clone, Debug)]
pub struct Symlink {
    /// What it says.
    pub oldpath: String,
    /// Where it is.
    pub newpath: String,
    /// Who it belongs to; root when not given.
    pub owner: Option<Owner>,
    /// Time to set, in nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Removes files.
#[derive(Clone, Debug)]
pub struct Remove {
    /// What.
    pub path: String,
    /// A missing path is fine.
    pub allow_not_found: bool,
    /// The path is a pattern.
    pub allow_wildcard: bool,
}

/// Copies files from one tree into another.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// What, in the source tree.
    pub src: String,
    /// Where to, in the destination tree.
    pub dest: String,
    /// Who copies belong to; as in the source when not given.
    pub owner: Option<Owner>,
    /// Permission bits (`07777`) for copies; as in the source when not given.
    pub mode: Option<u32>,
    /// Symbolic mode change, as chmod(1) takes it; wins over `mode`.
    pub mode_str: String,
    /// Follow a link in the last name of `src`.
    pub follow_symlink: bool,
    /// Of a directory, copy what is in it rather than itself.
    pub dir_copy_contents: bool,
    /// Unpack archives instead of copying them.
    pub attempt_unpack: bool,
    /// Make what is missing towards `dest`.
    pub create_dest_path: bool,
    /// `src` is a pattern.
    pub allow_wildcard: bool,
    /// A pattern that matches nothing is fine.
    pub allow_empty_wildcard: bool,
    /// Time for copies, in nanoseconds since 1970; as in the source when not given.
    pub timestamp: Option<i64>,
    /// Of a directory, only what matches one of these.
    pub include: Vec<String>,
    /// Of a directory, nothing that matches these.
    pub exclude: Vec<String>,
    /// What is in the way of a copy is replaced whatever it is.
    pub always_replace_existing_dest_paths: bool,
}

/// Why a file action failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// A call failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A call failed on the way to something larger.
    #[error("{what}: {source}")]
    During {
        /// What was being done.
        what: String,
        /// The failure.
        source: Box<ActionError>,
    },
    /// A pattern matched nothing.
    #[error("{0} not found")]
    NoMatch(String),
    /// A removal names nothing.
    #[error("rmPath: invalid empty path")]
    EmptyPath,
    /// A directory would have to go where something else is.
    #[error("cannot copy to non-directory: {0}")]
    NotADirectory(String),
    /// A file would have to go where a directory is.
    #[error("cannot replace to directory {0} with file")]
    IsADirectory(String),
    /// The symbolic mode is malformed.
    #[error("invalid mode {0:?}: invalid syntax")]
    Mode(String),
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
    /// An archive cannot be unpacked.
    #[error("failed to unpack {path}: {source}")]
    Unpack {
        /// The archive.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Unpacks archives for copies that ask for it; `layer` has the one that is used.
pub trait Unpacker: Send + Sync {
    /// Unpacks `file` into the directory `dest` when it is an archive; false when it is none, with nothing written.
    fn unpack(
        &self,
        file: File,
        root: &Root,
        dest: &std::path::Path,
        owner: Option<Owner>,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>>;
}

/// Performs a [`Mkdir`].
pub fn mkdir(root: &Root, action: &Mkdir) -> Result<(), ActionError> {
    let _ = (root, action);
    todo!()
}

/// Performs a [`Mkfile`].
pub fn mkfile(root: &Root, action: &Mkfile) -> Result<(), ActionError> {
    let _ = (root, action);
    todo!()
}

/// Performs a [`Symlink`].
pub fn symlink(root: &Root, action: &Symlink) -> Result<(), ActionError> {
    let _ = (root, action);
    todo!()
}

/// Performs a [`Remove`].
pub fn remove(root: &Root, action: &Remove) -> Result<(), ActionError> {
    let _ = (root, action);
    todo!()
}

/// Performs a [`Copy`] from one tree into another. Blocks.
pub fn copy(src: &Root, dest: &Root, action: &Copy, unpacker: Option<&dyn Unpacker>) -> Result<(), ActionError> {
    let _ = (src, dest, action, unpacker);
    todo!()
}
