//! The file actions of a build, as BuildKit's file operation performs them, never outside the given roots.

mod chmod;
mod choice;
mod copy;
mod wildcard;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::dir::{Dir, Times, set_file_mode, set_file_owner, set_file_times};
use crate::error::{Located, PathError};
use crate::root::{Owner, Root};

pub use chmod::ModeChange;
pub use choice::{Archives, DestParents, DirCopy, Existing, Missing, SourceLink, Wildcards};
pub use copy::copy;

/// Makes a directory.
#[derive(Clone, Debug)]
pub struct Mkdir {
    /// The path in the tree.
    pub path: String,
    /// Permission bits; only the lower nine count.
    pub mode: u32,
    /// Whether missing directories towards the path are made.
    pub make_parents: bool,
    /// The owner; root when not given.
    pub owner: Option<Owner>,
    /// Time to set, in nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Writes a file, replacing what was there.
#[derive(Clone, Debug)]
pub struct Mkfile {
    /// The path in the tree.
    pub path: String,
    /// Permission bits; only the lower nine count.
    pub mode: u32,
    /// Contents.
    pub data: Vec<u8>,
    /// The owner; root when not given.
    pub owner: Option<Owner>,
    /// Time to set, in nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Makes a symbolic link.
#[derive(Clone, Debug)]
pub struct Symlink {
    /// The target, as it is written into the link.
    pub oldpath: String,
    /// The path of the link.
    pub newpath: String,
    /// The owner; root when not given.
    pub owner: Option<Owner>,
    /// Time to set, in nanoseconds since 1970.
    pub timestamp: Option<i64>,
}

/// Removes files.
#[derive(Clone, Debug)]
pub struct Remove {
    /// The path, or a pattern.
    pub path: String,
    /// Whether a missing path fails the action; a pattern may always match nothing.
    pub missing: Missing,
    /// Whether the path is a pattern.
    pub wildcards: Wildcards,
}

/// Copies files from one tree into another.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// The path, or a pattern, in the source tree.
    pub src: String,
    /// The path in the destination tree.
    pub dest: String,
    /// The owner of copies; as in the source when not given.
    pub owner: Option<Owner>,
    /// Permission bits (`07777`) for copies; as in the source when not given.
    pub mode: Option<u32>,
    /// Symbolic mode change, as chmod(1) takes it; wins over `mode`.
    pub mode_str: String,
    /// Whether a link in the last name of `src` is followed.
    pub link: SourceLink,
    /// The part of a directory that is copied.
    pub dir: DirCopy,
    /// Whether an archive is unpacked.
    pub archives: Archives,
    /// Whether directories towards `dest` are made.
    pub parents: DestParents,
    /// Whether `src` is a pattern.
    pub wildcards: Wildcards,
    /// Whether a pattern may match nothing; a path without a pattern must exist in any case.
    pub missing: Missing,
    /// Time for copies, in nanoseconds since 1970; as in the source when not given.
    pub timestamp: Option<i64>,
    /// Patterns: of a directory, only matching paths are copied.
    pub include: Vec<String>,
    /// Patterns: of a directory, matching paths are left out. A source file that they name is not copied at all.
    pub exclude: Vec<String>,
    /// Whether existing files are replaced.
    pub existing: Existing,
}

/// A file action failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// A call failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An operation failed as a part of another.
    #[error("{what}: {source}")]
    During {
        /// The other operation.
        what: String,
        /// The error of the operation.
        source: Box<ActionError>,
    },
    /// A pattern matched nothing.
    #[error("{0} not found")]
    NoMatch(String),
    /// A removal names nothing.
    #[error("rmPath: invalid empty path")]
    EmptyPath,
    /// A directory would replace something else.
    #[error("cannot copy to non-directory: {0}")]
    NotADirectory(String),
    /// A file would replace a directory.
    #[error("cannot replace to directory {0} with file")]
    IsADirectory(String),
    /// The symbolic mode is malformed.
    #[error("invalid mode {0:?}: invalid syntax")]
    Mode(String),
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
    /// An archive cannot be unpacked.
    #[error("failed to unpack {path}: {}", oci::error::chain(source.as_ref()))]
    Unpack {
        /// The path of the archive.
        path: String,
        /// The error of the unpacker.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Unpacks archives for copies that ask for it; `layer` has the one that is used.
pub trait Unpacker: Send + Sync {
    /// Returns whether a file is an archive that can be unpacked, from its contents.
    fn is_archive(&self, file: &File) -> std::io::Result<bool>;

    /// Unpacks `file`, read from its start, into the existing directory `dest`.
    fn unpack(
        &self,
        file: File,
        root: &Root,
        dest: &Path,
        owner: Option<Owner>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

impl ActionError {
    fn during(self, what: impl Into<String>) -> Self {
        Self::During {
            what: what.into(),
            source: Box::new(self),
        }
    }
}

/// Performs a [`Mkdir`]. A path that exists is no error, unless parents are to be made and it is not a directory.
pub fn mkdir(root: &Root, action: &Mkdir) -> Result<(), ActionError> {
    let mode = action.mode & 0o777;
    if action.make_parents {
        root.mkdir_all(&action.path, mode, action.owner, action.timestamp)?;
        return Ok(());
    }
    let path = root.resolve(&action.path, true)?;
    let Some((dir, name)) = root.parent(&path).map_err(|e| PathError {
        op: "mkdir",
        path: path.clone(),
        ..e
    })?
    else {
        return Ok(());
    };
    let new_dir = match dir.create_dir(&name, mode) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.at("mkdir", &path)?,
    };
    if let Some(owner) = action.owner {
        new_dir
            .set_own_owner(owner.uid, owner.gid)
            .at("lchown", &path)?;
    }
    if let Some(time) = action.timestamp {
        new_dir
            .set_own_times(Times::both(time))
            .at("utime", &path)?;
    }
    Ok(())
}

/// Performs a [`Mkfile`]. What is at the path is replaced, never written through.
pub fn mkfile(root: &Root, action: &Mkfile) -> Result<(), ActionError> {
    let path = root.resolve(&action.path, true)?;
    let Some((dir, name)) = root.parent(&path).map_err(|e| PathError {
        path: path.clone(),
        ..e
    })?
    else {
        return Err(PathError::new("mkfile", &path, Errno::ISDIR).into());
    };
    let (mut file, staged) = staging_file(&dir).at("open", &path)?;
    let written = (|| {
        file.write_all(&action.data)?;
        if let Some(owner) = action.owner {
            set_file_owner(&file, owner.uid, owner.gid)?;
        }
        set_file_mode(&file, action.mode & 0o777)?;
        if let Some(time) = action.timestamp {
            set_file_times(&file, Times::both(time))?;
        }
        dir.rename(&staged, &dir, &name)
    })();
    if written.is_err() {
        // The first error is the one to tell.
        dir.unlink(&staged).ok();
    }
    Ok(written.at("rename", &path)?)
}

fn staging_file(dir: &Dir) -> std::io::Result<(File, OsString)> {
    let mut attempt = 0_u32;
    loop {
        let name = OsString::from(format!(".tmp-mkfile{attempt}"));
        match dir.create_file(&name, 0o600) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 10_000 => {
                attempt += 1
            }
            other => return other.map(|file| (file, name)),
        }
    }
}

/// Performs a [`Symlink`].
pub fn symlink(root: &Root, action: &Symlink) -> Result<(), ActionError> {
    let path = root.resolve(&action.newpath, true)?;
    let (dir, name) = root.named("symlink", &path)?;
    dir.symlink(Path::new(&action.oldpath), &name)
        .at("symlink", &path)?;
    if let Some(owner) = action.owner {
        dir.chown(&name, owner.uid, owner.gid).at("lchown", &path)?;
    }
    if let Some(time) = action.timestamp {
        dir.set_times(&name, Times::both(time)).at("utime", &path)?;
    }
    Ok(())
}

/// Performs a [`Remove`].
pub fn remove(root: &Root, action: &Remove) -> Result<(), ActionError> {
    let paths = if action.wildcards == Wildcards::Match {
        wildcard::resolve(root, &clean_path(&action.path), SourceLink::Copy, None)?.paths
    } else {
        vec![PathBuf::from(&action.path)]
    };
    for path in paths {
        remove_path(root, &path, action.missing)?;
    }
    Ok(())
}

fn remove_path(root: &Root, path: &Path, missing: Missing) -> Result<(), ActionError> {
    let path = lexical(path);
    let Some(name) = path.file_name() else {
        return Err(ActionError::EmptyPath);
    };
    let path = root
        .resolve(path.parent().unwrap_or_else(|| Path::new("/")), true)?
        .join(name);
    // DIFFERS: a dangling link is there, and is removed; BuildKit looks through it and finds nothing.
    if missing == Missing::Refuse {
        root.lstat(&path)
            .map_err(|e| PathError { op: "stat", ..e })?;
    }
    Ok(root.remove_all(&path)?)
}

/// A path from the root, `..` and dots taken out by their text alone.
pub(crate) fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for name in crate::root::components(path) {
        if name == ".." {
            out.pop();
        } else {
            out.push(name);
        }
    }
    out
}

/// As [`lexical`], keeping a slash or `/.` at the end: they say that a directory is meant.
fn clean_path(path: &str) -> String {
    let mut out = lexical(Path::new(path)).to_string_lossy().into_owned();
    let root = out == "/";
    if path.ends_with("/.") {
        out.push_str(if root { "." } else { "/." });
    } else if path.ends_with('/') && !root {
        out.push('/');
    }
    out
}

impl ActionError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        let mut error = self;
        // The levels are as many as the action has parts: there is no recursion over them.
        while let Self::During { source, .. } = error {
            error = source;
        }
        match error {
            Self::Path(error) => error.kind(),
            Self::NoMatch(_) => ErrorKind::NotFound,
            Self::EmptyPath
            | Self::NotADirectory(_)
            | Self::IsADirectory(_)
            | Self::Mode(_)
            | Self::Pattern { .. } => ErrorKind::Invalid,
            Self::Unpack { source, .. } => ErrorKind::of_causes(source.as_ref()),
            Self::During { .. } => ErrorKind::Failed,
        }
    }
}
