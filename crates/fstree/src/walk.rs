//! Walks a tree in the order fsutil sends it, through include and exclude patterns.
//!
//! The order is depth first with the names of each directory in byte order: byte order of whole paths if `/` were
//! the lowest byte. A directory that no pattern includes is listed only when something below it is, right before
//! the first such thing. Files that vanish during the walk are left out.

mod follow;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use pattern::MatchInfo;

use crate::descent::Descent;
use crate::dir::{Dir, Entry};
use crate::error::{Located, PathError};
use crate::root::Root;
use crate::stat::{CHANGE_MARK, Kind, MODE_SOCKET, Meta, Stat};

pub use follow::follow_links;
pub use pattern::PatternMatcher;

/// Selects the paths of a tree.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only what matches one of these; everything when empty.
    pub include: Vec<String>,
    /// Patterns of files that are left out, unless a later `!` pattern takes them back.
    pub exclude: Vec<String>,
    /// Paths that are included together with whatever the links in them lead to.
    pub follow: Vec<String>,
}

/// A walk failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
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
}

impl WalkError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Pattern { .. } => ErrorKind::Invalid,
            Self::Path(error) => error.kind(),
        }
    }
}

/// A walk in progress: an iterator of the listed files' metadata, paths relative to the root.
#[derive(Debug)]
pub struct Walk {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    stack: Vec<WalkLevel>,
    // The directories of the levels.
    dirs: Descent,
    ready: VecDeque<Stat>,
    // First names of files with several.
    first_names: HashMap<((u32, u32), u64), PathBuf>,
    xattrs: bool,
    change_marks: bool,
}

#[derive(Debug)]
struct WalkLevel {
    path: PathBuf,
    left: std::vec::IntoIter<Entry>,
    include: MatchInfo,
    exclude: MatchInfo,
    // Metadata of the directory itself while it is not listed yet.
    unlisted: Option<Stat>,
}

enum PathSelection {
    List,
    Skip,
    SkipAllBelow,
}

impl Walk {
    /// Starts a walk of the whole tree. The root itself is not listed.
    pub fn new(root: &Root, filter: &Filter) -> Result<Self, WalkError> {
        let mut include = filter.include.clone();
        if !filter.follow.is_empty()
            && let Some(targets) = follow_links(root, &filter.follow)?
        {
            include.extend(targets);
            include = follow::without_nested(include).unwrap_or_default();
        }
        Self::start(root, &include, &filter.exclude)
    }

    fn start(root: &Root, include: &[String], exclude: &[String]) -> Result<Self, WalkError> {
        let dir = root.dir("/")?;
        let left = dir.entries().at("open", "/")?.into_iter();
        let top = WalkLevel {
            path: PathBuf::new(),
            left,
            include: MatchInfo::default(),
            exclude: MatchInfo::default(),
            unlisted: None,
        };
        Ok(Self {
            include: matcher("includepatterns", include)?,
            exclude: matcher("excludepatterns", exclude)?,
            stack: vec![top],
            dirs: Descent::new(dir),
            ready: VecDeque::new(),
            first_names: HashMap::new(),
            xattrs: true,
            change_marks: false,
        })
    }

    /// The same walk without extended attributes, which cost as much as everything else.
    #[must_use]
    pub fn without_xattrs(self) -> Self {
        Self {
            xattrs: false,
            ..self
        }
    }

    /// The same walk with a mark for each regular file, under [`CHANGE_MARK`] among its attributes, that is another one
    /// when the file has changed, whatever its other metadata say.
    #[must_use]
    pub fn with_change_marks(self) -> Self {
        Self {
            change_marks: true,
            ..self
        }
    }

    // Looks at the next name; what is to be listed lands in `ready`.
    fn step(&mut self) -> Result<bool, PathError> {
        let Some(level) = self.stack.last_mut() else {
            return Ok(false);
        };
        let Some(entry) = level.left.next() else {
            let left = self.stack.pop().map(|level| level.path).unwrap_or_default();
            self.dirs.up().at("open", left)?;
            return Ok(true);
        };
        let path = level.path.join(&entry.name);
        let (verdict, include, exclude) = judge(
            self.include.as_ref(),
            self.exclude.as_ref(),
            level,
            &path,
            entry.kind == Kind::Dir,
        );
        let list = match verdict {
            PathSelection::List => true,
            PathSelection::Skip if entry.kind == Kind::Dir => false,
            PathSelection::Skip | PathSelection::SkipAllBelow => return Ok(true),
        };
        let extra = (self.xattrs, self.change_marks);
        let (stat, below) = match look(self.dirs.dir(), &entry, &path, &mut self.first_names, extra)
        {
            // Gone, or exchanged for something else, since the directory was read.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(true);
            }
            Err(e) if !list && e.kind() == io::ErrorKind::PermissionDenied => return Ok(true),
            other => other.at("open", &path)?,
        };
        let mut unlisted = Some(stat);
        if list {
            for level in &mut self.stack {
                self.ready.extend(level.unlisted.take());
            }
            self.ready.extend(unlisted.take());
        }
        if let Some((dir, entries)) = below {
            self.dirs.enter(dir).at("open", &path)?;
            self.stack.push(WalkLevel {
                path,
                left: entries.into_iter(),
                include,
                exclude,
                unlisted,
            });
        }
        Ok(true)
    }
}

impl Iterator for Walk {
    type Item = Result<Stat, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(stat) = self.ready.pop_front() {
                return Some(Ok(stat));
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    self.stack.clear();
                    return Some(Err(e.into()));
                }
            }
        }
    }
}

fn matcher(kind: &'static str, patterns: &[String]) -> Result<Option<PatternMatcher>, WalkError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    PatternMatcher::new(patterns)
        .map(Some)
        .map_err(|source| WalkError::Pattern {
            kind,
            patterns: patterns.to_vec(),
            source,
        })
}

fn judge(
    include: Option<&PatternMatcher>,
    exclude: Option<&PatternMatcher>,
    level: &WalkLevel,
    path: &Path,
    is_dir: bool,
) -> (PathSelection, MatchInfo, MatchInfo) {
    let text = path.to_string_lossy();
    let mut verdict = PathSelection::List;
    let mut infos = (MatchInfo::default(), MatchInfo::default());
    if let Some(matcher) = include {
        let (yes, info) = matcher.matches_using_parent_results(&text, &level.include);
        infos.0 = info;
        if !yes {
            if is_dir && !may_hold(matcher, &text, false) {
                return (PathSelection::SkipAllBelow, infos.0, infos.1);
            }
            verdict = PathSelection::Skip;
        }
    }
    if let Some(matcher) = exclude {
        let (yes, info) = matcher.matches_using_parent_results(&text, &level.exclude);
        infos.1 = info;
        if yes {
            if is_dir && !may_hold(matcher, &text, true) {
                return (PathSelection::SkipAllBelow, infos.0, infos.1);
            }
            verdict = PathSelection::Skip;
        }
    }
    (verdict, infos.0, infos.1)
}

// Whether a pattern (one that takes back, for `exceptions`) could match below a directory. Only plain prefixes are
// told apart; with any other pattern the answer is yes.
fn may_hold(matcher: &PatternMatcher, dir: &str, exceptions: bool) -> bool {
    let dir = format!("{dir}/");
    let mut patterns = matcher
        .patterns()
        .iter()
        .filter(|p| p.is_exclusion() == exceptions)
        .peekable();
    if patterns.peek().is_none() {
        return false;
    }
    let mut may_match = false;
    for pattern in patterns {
        let text = pattern.as_str();
        let text = text.strip_suffix("/**").unwrap_or(text);
        let text = text.strip_suffix("/*").unwrap_or(text);
        if text.contains(['*', '[', ']', '?', '^', '\\']) {
            return true;
        }
        may_match |= text.starts_with(&dir) || dir.strip_suffix('/') == Some(text);
    }
    may_match
}

type Below = Option<(Dir, Vec<Entry>)>;

fn look(
    above: &Dir,
    entry: &Entry,
    path: &Path,
    first_names: &mut HashMap<((u32, u32), u64), PathBuf>,
    (xattrs, change_marks): (bool, bool),
) -> io::Result<(Stat, Below)> {
    if entry.kind == Kind::Dir {
        let dir = above.open_dir(&entry.name)?;
        let meta = dir.meta()?;
        let xattrs = if xattrs {
            dir.own_xattrs()?
        } else {
            <_>::default()
        };
        let stat = describe(&meta, path, xattrs);
        let entries = dir.entries()?;
        return Ok((stat, Some((dir, entries))));
    }
    let meta = above.stat(&entry.name)?;
    let xattrs = if xattrs {
        above.xattrs(&entry.name)?
    } else {
        <_>::default()
    };
    let mut stat = describe(&meta, path, xattrs);
    if change_marks && meta.kind() == Kind::File {
        #[expect(
            clippy::disallowed_methods,
            reason = "change marks are compared with the times of the kernel, whatever a test holds"
        )]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
        stat.xattrs
            .insert(CHANGE_MARK.to_owned(), meta.change_mark(now));
    }
    if meta.is_symlink() {
        stat.linkname = above.readlink(&entry.name)?;
    } else if meta.nlink > 1 {
        match first_names.get(&(meta.dev, meta.ino)) {
            Some(first) => stat.linkname.clone_from(first),
            None => {
                first_names.insert((meta.dev, meta.ino), path.to_path_buf());
            }
        }
    }
    Ok((stat, None))
}

fn describe(
    meta: &Meta,
    path: &Path,
    mut xattrs: std::collections::BTreeMap<String, Vec<u8>>,
) -> Stat {
    xattrs.retain(|key, _| {
        !key.starts_with("com.apple.") && !key.starts_with(sys::userns::overlay_xattrs())
    });
    let device = matches!(meta.kind(), Kind::Block | Kind::Char);
    Stat {
        path: path.to_path_buf(),
        // The receiver makes a plain file of a socket: tar knows none.
        mode: meta.go_mode() & !MODE_SOCKET,
        uid: meta.uid,
        gid: meta.gid,
        size: if meta.is_dir() {
            0
        } else {
            i64::try_from(meta.size).unwrap_or(i64::MAX)
        },
        mod_time: meta.mtime,
        linkname: PathBuf::new(),
        devmajor: if device { i64::from(meta.rdev.0) } else { 0 },
        devminor: if device { i64::from(meta.rdev.1) } else { 0 },
        xattrs,
    }
}
