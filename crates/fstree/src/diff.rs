//! What one tree changes about another, in the order and with the judgement of BuildKit's overlay differ.
//!
//! | upper directory has                    | change                                                       |
//! |----------------------------------------|--------------------------------------------------------------|
//! | character device 0/0, name below       | deletion                                                     |
//! | character device 0/0, no name below    | nothing                                                      |
//! | name that is not below                 | addition                                                     |
//! | name that is below, same metadata      | nothing; files with whole seconds are compared by contents   |
//! | name that is below, otherwise          | modification                                                 |
//! | opaque directory that is below         | as above, then the difference of both directories name by name |

use std::cmp::Ordering;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::dir::{Dir, Entry};
use crate::error::{Located, PathError};
use crate::root::Root;
use crate::stat::{Kind, Meta};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Add,
    /// It was there and is different.
    Modify,
    /// It is gone.
    Delete,
    /// Nothing, but the file has other names, which may be new.
    Unmodified,
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Path relative to the root, without a leading slash.
    pub path: PathBuf,
    /// Metadata of what is there now; none for a deletion.
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
    let lower = lower.map(|root| root.dir("/")).transpose()?;
    let mut out = Vec::new();
    walk_upper(&upper.dir("/")?, lower.as_ref(), Path::new(""), &mut out)?;
    Ok(out)
}

/// The changes between two whole trees, parents first.
pub fn tree_changes(lower: Option<&Root>, upper: &Root) -> Result<Vec<Change>, DiffError> {
    let lower = lower.map(|root| root.dir("/")).transpose()?;
    let mut out = Vec::new();
    walk_both(
        lower.as_ref(),
        &upper.dir("/")?,
        Path::new(""),
        false,
        &mut out,
    )?;
    Ok(out)
}

fn walk_upper(
    upper: &Dir,
    lower: Option<&Dir>,
    at: &Path,
    out: &mut Vec<Change>,
) -> Result<(), DiffError> {
    for Entry { name, .. } in upper.entries().at("open", at)? {
        let path = at.join(&name);
        let meta = upper.stat(&name).at("lstat", &path)?;
        let below = match lower {
            Some(lower) => lower.stat_opt(&name).at("lstat", &path)?,
            None => None,
        };
        if meta.is_whiteout() {
            if below.is_some() {
                out.push(Change {
                    kind: ChangeKind::Delete,
                    path,
                    meta: None,
                });
            }
            continue;
        }
        if !meta.is_dir() {
            let kind = match (&below, lower) {
                (Some(below), Some(lower))
                    if same(lower, below, upper, &meta, &name).at("open", &path)? =>
                {
                    continue;
                }
                (Some(_), _) => ChangeKind::Modify,
                (None, _) => ChangeKind::Add,
            };
            out.push(Change {
                kind,
                path,
                meta: Some(meta),
            });
            continue;
        }
        let dir = upper.open_dir(&name).at("open", &path)?;
        if marked(&dir, "redirect")
            .at("getxattr", &path)?
            .is_some_and(|value| !value.is_empty())
        {
            return Err(DiffError::Redirect { path });
        }
        match (&below, lower) {
            (Some(below), Some(lower))
                if same(lower, below, upper, &meta, &name).at("open", &path)? => {}
            (Some(_), _) => out.push(Change {
                kind: ChangeKind::Modify,
                path: path.clone(),
                meta: Some(meta),
            }),
            (None, _) => out.push(Change {
                kind: ChangeKind::Add,
                path: path.clone(),
                meta: Some(meta),
            }),
        }
        let below_dir = open_if_dir(lower, below.as_ref(), &name).at("open", &path)?;
        let opaque = below.is_some()
            && marked(&dir, "opaque").at("getxattr", &path)?.as_deref() == Some(b"y");
        if opaque {
            walk_both(below_dir.as_ref(), &dir, &path, true, out)?;
        } else {
            walk_upper(&dir, below_dir.as_ref(), &path, out)?;
        }
    }
    Ok(())
}

// Overlayfs keeps its marks in `trusted`, or in `user` when it is mounted without privilege.
fn marked(dir: &Dir, mark: &str) -> io::Result<Option<Vec<u8>>> {
    match dir.own_xattr(&format!("trusted.overlay.{mark}"))? {
        None => dir.own_xattr(&format!("user.overlay.{mark}")),
        found => Ok(found),
    }
}

fn open_if_dir(
    dir: Option<&Dir>,
    meta: Option<&Meta>,
    name: &std::ffi::OsStr,
) -> io::Result<Option<Dir>> {
    match (dir, meta) {
        (Some(dir), Some(meta)) if meta.is_dir() => dir.open_dir(name).map(Some),
        _ => Ok(None),
    }
}

fn walk_both(
    lower: Option<&Dir>,
    upper: &Dir,
    at: &Path,
    overlay: bool,
    out: &mut Vec<Change>,
) -> Result<(), DiffError> {
    let mut below = match lower {
        Some(lower) => lower.entries().at("open", at)?,
        None => Vec::new(),
    }
    .into_iter()
    .peekable();
    let mut above = upper.entries().at("open", at)?.into_iter().peekable();
    loop {
        let order = match (below.peek(), above.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(b), Some(a)) => b.name.as_bytes().cmp(a.name.as_bytes()),
        };
        let gone = if order == Ordering::Greater {
            None
        } else {
            below.next()
        };
        let Some(entry) = (if order == Ordering::Less {
            None
        } else {
            above.next()
        }) else {
            let path = at.join(gone.map(|e| e.name).unwrap_or_default());
            out.push(Change {
                kind: ChangeKind::Delete,
                path,
                meta: None,
            });
            continue;
        };
        let path = at.join(&entry.name);
        let meta = upper.stat(&entry.name).at("lstat", &path)?;
        let was = match (lower, gone) {
            (Some(lower), Some(gone)) => Some((lower, lower.stat(&gone.name).at("lstat", &path)?)),
            _ => None,
        };
        // Seen as overlayfs shows the directory, a whiteout is not there.
        if overlay && meta.is_whiteout() {
            if was.is_some() {
                out.push(Change {
                    kind: ChangeKind::Delete,
                    path,
                    meta: None,
                });
            }
            continue;
        }
        let kind = match &was {
            None => Some(ChangeKind::Add),
            Some((lower, was))
                if same(lower, was, upper, &meta, &entry.name).at("open", &path)? =>
            {
                (!meta.is_dir() && meta.nlink > 1).then_some(ChangeKind::Unmodified)
            }
            Some(_) => Some(ChangeKind::Modify),
        };
        if let Some(kind) = kind {
            out.push(Change {
                kind,
                path: path.clone(),
                meta: Some(meta),
            });
        }
        if meta.is_dir() {
            let dir = upper.open_dir(&entry.name).at("open", &path)?;
            let (lower, was) = was.unzip();
            let lower = open_if_dir(lower, was.as_ref(), &entry.name).at("open", &path)?;
            walk_both(lower.as_ref(), &dir, &path, overlay, out)?;
        }
    }
}

const SECOND: i64 = 1_000_000_000;

// Whether a copied-up file is what it was. Only when both times are whole seconds, as after unpacking, contents decide.
fn same(
    lower: &Dir,
    was: &Meta,
    upper: &Dir,
    is: &Meta,
    name: &std::ffi::OsStr,
) -> io::Result<bool> {
    if was.same_file(is) {
        return Ok(true);
    }
    if (was.mode, was.uid, was.gid, was.rdev) != (is.mode, is.uid, is.gid, is.rdev) {
        return Ok(false);
    }
    let capability = "security.capability";
    if lower.xattr(name, capability)? != upper.xattr(name, capability)? {
        return Ok(false);
    }
    if is.is_dir() {
        return Ok(true);
    }
    if was.size != is.size || was.mtime != is.mtime {
        return Ok(false);
    }
    if is.mtime.rem_euclid(SECOND) != 0 {
        return Ok(true);
    }
    match is.kind() {
        Kind::Symlink => Ok(lower.readlink(name)? == upper.readlink(name)?),
        Kind::File if is.size > 0 => same_contents(lower.open_file(name)?, upper.open_file(name)?),
        Kind::Dir | Kind::File | Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket => Ok(true),
    }
}

fn same_contents(mut a: impl Read, mut b: impl Read) -> io::Result<bool> {
    let mut left = vec![0; 64 << 10];
    let mut right = vec![0; 64 << 10];
    loop {
        let n = fill(&mut a, &mut left)?;
        let m = fill(&mut b, &mut right)?;
        if left.get(..n) != right.get(..m) {
            return Ok(false);
        }
        if n < left.len() {
            return Ok(true);
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => n += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}
