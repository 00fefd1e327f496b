//! The changes between two trees, in the order and by the rules of BuildKit's overlay differ.
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
use std::ffi::OsStr;
use std::io::{self, Read};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use crate::descent::Descent;
use crate::dir::{Dir, Entry};
use crate::error::{Located, PathError};
use crate::root::Root;
use crate::stat::{Kind, Meta};

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The path is new.
    Add,
    /// The path existed and is different.
    Modify,
    /// The path does not exist any more.
    Delete,
    /// The file has not changed, but it has other names, which may be new.
    Unmodified,
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The kind of the change.
    pub kind: ChangeKind,
    /// Path relative to the root, without a leading slash.
    pub path: PathBuf,
    /// Metadata of the path in the upper tree; `None` for a deletion.
    pub meta: Option<Meta>,
}

/// Changes cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// The upper directory has overlay redirects of renamed directories, which a layer cannot express.
    #[error("redirect_dir is used but it's not supported in overlayfs differ")]
    Redirect {
        /// The path of the directory.
        path: PathBuf,
    },
    /// A tree cannot be read.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl DiffError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Redirect { .. } => ErrorKind::Unsupported,
            Self::Path(error) => error.kind(),
        }
    }
}

/// The changes in `upper` over `lower` (the view of everything below; `None` for the lowest layer), parents first.
pub fn overlay_changes(upper: &Root, lower: Option<&Root>) -> Result<Vec<Change>, DiffError> {
    Differ::run(upper, lower, DirCompare::Marks)
}

/// The changes between two whole trees, parents first.
pub fn tree_changes(lower: Option<&Root>, upper: &Root) -> Result<Vec<Change>, DiffError> {
    Differ::run(upper, lower, DirCompare::Names { overlay: false })
}

/// How a directory is compared with the one below it.
#[derive(Clone, Copy)]
enum DirCompare {
    /// By what is in the upper one, marks of overlayfs among it.
    Marks,
    /// Name by name; with `overlay`, whiteouts in the upper one are not there.
    Names { overlay: bool },
}

/// A directory that is being compared.
struct DiffLevel {
    path: PathBuf,
    compare: DirCompare,
    above: Peekable<IntoIter<Entry>>,
    /// Names of the lower directory, where names are compared.
    below: Peekable<IntoIter<Entry>>,
}

impl DiffLevel {
    /// The next name in byte order: in the upper directory, in the lower one, or in both.
    fn next(&mut self) -> (Option<Entry>, Option<Entry>) {
        let order = match (self.above.peek(), self.below.peek()) {
            (Some(above), Some(below)) => above.name.as_bytes().cmp(below.name.as_bytes()),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let above = order.is_le().then(|| self.above.next()).flatten();
        let below = order.is_ge().then(|| self.below.next()).flatten();
        (above, below)
    }
}

struct Differ {
    upper: Descent,
    /// Goes along with `upper` as far as there are directories below.
    lower: Option<Descent>,
    levels: Vec<DiffLevel>,
    out: Vec<Change>,
}

impl Differ {
    fn run(
        upper: &Root,
        lower: Option<&Root>,
        compare: DirCompare,
    ) -> Result<Vec<Change>, DiffError> {
        let lower = lower.map(|root| root.dir("/")).transpose()?;
        let mut differ = Self {
            upper: Descent::new(upper.dir("/")?),
            lower: lower.map(Descent::new),
            levels: Vec::new(),
            out: Vec::new(),
        };
        differ.begin(PathBuf::new(), compare)?;
        while let Some(level) = differ.levels.last_mut() {
            match level.next() {
                (Some(entry), gone) => {
                    let path = level.path.join(&entry.name);
                    match level.compare {
                        DirCompare::Marks => differ.by_marks(&entry.name, path)?,
                        DirCompare::Names { overlay } => {
                            differ.by_name(&entry.name, path, gone.is_some(), overlay)?
                        }
                    }
                }
                (None, Some(gone)) => {
                    let path = level.path.join(gone.name);
                    differ.tell(ChangeKind::Delete, path, None);
                }
                (None, None) => differ.end()?,
            }
        }
        Ok(differ.out)
    }

    /// The directory below the one that is being compared.
    fn lower(&self) -> Option<&Dir> {
        let lower = self.lower.as_ref()?;
        (lower.depth() == self.upper.depth()).then(|| lower.dir())
    }

    fn tell(&mut self, kind: ChangeKind, path: PathBuf, meta: Option<Meta>) {
        self.out.push(Change { kind, path, meta });
    }

    /// Begins with the directory that was entered.
    fn begin(&mut self, path: PathBuf, compare: DirCompare) -> Result<(), PathError> {
        let above = self.upper.dir().entries().at("open", &path)?;
        let below = match (compare, self.lower()) {
            (DirCompare::Names { .. }, Some(lower)) => lower.entries().at("open", &path)?,
            (DirCompare::Names { .. }, None) | (DirCompare::Marks, _) => Vec::new(),
        };
        self.levels.push(DiffLevel {
            path,
            compare,
            above: above.into_iter().peekable(),
            below: below.into_iter().peekable(),
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), PathError> {
        let path = self
            .levels
            .pop()
            .map(|level| level.path)
            .unwrap_or_default();
        if self.lower().is_some()
            && let Some(lower) = &mut self.lower
        {
            lower.up().at("open", &path)?;
        }
        self.upper.up().at("open", &path)
    }

    /// Goes into a directory, and into the one below it if `below` is one.
    fn enter(&mut self, name: &OsStr, path: &Path, below: Option<&Meta>) -> Result<(), PathError> {
        let lower = self.lower().is_some() && below.is_some_and(Meta::is_dir);
        self.upper.down(name).at("open", path)?;
        if lower && let Some(lower) = &mut self.lower {
            lower.down(name).at("open", path)?;
        }
        Ok(())
    }

    fn by_marks(&mut self, name: &OsStr, path: PathBuf) -> Result<(), DiffError> {
        let upper = self.upper.dir();
        let meta = upper.stat(name).at("lstat", &path)?;
        let below = match self.lower() {
            Some(lower) => lower.stat_opt(name).at("lstat", &path)?,
            None => None,
        };
        if meta.is_whiteout() {
            if below.is_some() {
                self.tell(ChangeKind::Delete, path, None);
            }
            return Ok(());
        }
        let kind = match (&below, self.lower()) {
            (Some(below), Some(lower)) => {
                let is_same = same(lower, below, upper, &meta, name).at("open", &path)?;
                (!is_same).then_some(ChangeKind::Modify)
            }
            _ => Some(ChangeKind::Add),
        };
        if !meta.is_dir() {
            if let Some(kind) = kind {
                self.tell(kind, path, Some(meta));
            }
            return Ok(());
        }
        self.enter(name, &path, below.as_ref())?;
        let is_redirected = marked(self.upper.dir(), "redirect")
            .at("getxattr", &path)?
            .is_some_and(|value| !value.is_empty());
        if is_redirected {
            return Err(DiffError::Redirect { path });
        }
        if let Some(kind) = kind {
            self.tell(kind, path.clone(), Some(meta));
        }
        let is_opaque = below.is_some()
            && marked(self.upper.dir(), "opaque")
                .at("getxattr", &path)?
                .as_deref()
                == Some(b"y");
        let compare = if is_opaque {
            DirCompare::Names { overlay: true }
        } else {
            DirCompare::Marks
        };
        Ok(self.begin(path, compare)?)
    }

    fn by_name(
        &mut self,
        name: &OsStr,
        path: PathBuf,
        is_below: bool,
        overlay: bool,
    ) -> Result<(), DiffError> {
        let upper = self.upper.dir();
        let meta = upper.stat(name).at("lstat", &path)?;
        let below = match self.lower() {
            Some(lower) if is_below => Some(lower.stat(name).at("lstat", &path)?),
            _ => None,
        };
        // Seen as overlayfs shows the directory, a whiteout is not there.
        if overlay && meta.is_whiteout() {
            if below.is_some() {
                self.tell(ChangeKind::Delete, path, None);
            }
            return Ok(());
        }
        let kind = match (&below, self.lower()) {
            (Some(below), Some(lower)) => {
                if same(lower, below, upper, &meta, name).at("open", &path)? {
                    (!meta.is_dir() && meta.nlink > 1).then_some(ChangeKind::Unmodified)
                } else {
                    Some(ChangeKind::Modify)
                }
            }
            _ => Some(ChangeKind::Add),
        };
        if let Some(kind) = kind {
            self.tell(kind, path.clone(), Some(meta));
        }
        if meta.is_dir() {
            self.enter(name, &path, below.as_ref())?;
            self.begin(path, DirCompare::Names { overlay })?;
        }
        Ok(())
    }
}

// Overlayfs keeps its marks in `trusted`, or in `user` when it is mounted without privilege.
fn marked(dir: &Dir, mark: &str) -> io::Result<Option<Vec<u8>>> {
    match dir.own_xattr(&format!("trusted.overlay.{mark}"))? {
        None => dir.own_xattr(&format!("user.overlay.{mark}")),
        mark_value => Ok(mark_value),
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

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
    if is.mtime.rem_euclid(NANOS_PER_SECOND) != 0 {
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
