//! Copying between trees, with the rules of BuildKit's `COPY`.
//!
//! A directory at the destination is merged into, a file there is replaced. A directory that the patterns do not
//! let through is made only when something below it is. Later names of one file stay names of one file.
//!
//! Exclude patterns speak of a directory's contents, by paths below it, and of sources that stand by themselves, by name or whole path:
//! files, and what a wildcard finds. A directory that is named without a wildcard is wanted whatever they say.
//!
//! One thread walks. Files with one name wait until their directory has been walked, and are then copied by several.

mod files;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use pattern::{MatchInfo, PatternMatcher};

use self::files::{Attributes, File};
use super::{
    ActionError, Archives, Copy, DestParents, DirCopy, Existing, Missing, ModeChange, Unpacker,
    Wildcards, clean_path, lexical, wildcard,
};
use crate::descent::Descent;
use crate::dir::{Dir, Entry, Times};
use crate::error::{Located, PathError};
use crate::root::Root;
use crate::stat::{Kind, Meta};

const DIRECTORY_MODE: u32 = 0o755;
/// Files of a directory that may wait to be copied.
const MAX_WAITING_FILES: usize = 4096;

/// Performs a [`Copy`] from one tree into another. Blocks.
pub fn copy(
    src: &Root,
    dest: &Root,
    action: &Copy,
    unpacker: Option<&dyn Unpacker>,
) -> Result<(), ActionError> {
    let src_path = clean_path(&action.src);
    let dest_path = clean_path(&action.dest);
    if action.parents == DestParents::Require {
        let at = dest.resolve(&action.dest, true)?;
        let parent = at.parent().unwrap_or_else(|| Path::new("/"));
        dest.lstat(parent)
            .map_err(|e| ActionError::from(e).during(format!("failed to stat {}", action.dest)))?;
    }
    let exclude = matcher("excludepatterns", &action.exclude)?;
    let sources = if action.wildcards == Wildcards::Match {
        let matches = wildcard::resolve(src, &src_path, action.link, exclude.as_ref())?;
        if matches.left_out_dir
            && action.dir == DirCopy::Contents
            && dest.stat_opt(dest.resolve(&dest_path, true)?)?.is_none()
        {
            // There is a directory to copy to, as if all that is in the excluded one were excluded.
            dest.mkdir_all(&dest_path, DIRECTORY_MODE, action.owner, action.timestamp)?;
        }
        if matches.paths.is_empty() && !matches.left_out {
            return if action.missing == Missing::Allow {
                Ok(())
            } else {
                Err(ActionError::NoMatch(src_path))
            };
        }
        matches.paths
    } else {
        vec![PathBuf::from(&src_path)]
    };
    for source in sources {
        if let Some(exclude) = &exclude
            && is_excluded_file(src, &source, action, exclude)?
        {
            continue;
        }
        if let Some(unpacker) = unpacker.filter(|_| action.archives == Archives::Unpack)
            && unpack(src, &source, dest, &dest_path, action, unpacker)?
        {
            continue;
        }
        copy_one(src, &source, dest, &dest_path, action)?;
    }
    Ok(())
}

// DIFFERS: BuildKit looks at what is in directories only, and copies a file that the patterns name when it is a source itself.
fn is_excluded_file(
    src: &Root,
    source: &Path,
    action: &Copy,
    exclude: &PatternMatcher,
) -> Result<bool, ActionError> {
    if !exclude.names(&wildcard::shown(lexical(source))) {
        return Ok(false);
    }
    let from = wildcard::resolve_source(src, source, action.link)?;
    Ok(src.lstat_opt(&from)?.is_some_and(|meta| !meta.is_dir()))
}

fn unpack(
    src: &Root,
    source: &Path,
    dest: &Root,
    dest_path: &str,
    action: &Copy,
    unpacker: &dyn Unpacker,
) -> Result<bool, ActionError> {
    let source = src.resolve(source, true)?;
    if !src.lstat_opt(&source)?.is_some_and(|meta| meta.is_file()) {
        return Ok(false);
    }
    let file = src.open_file(&source)?;
    if !unpacker.is_archive(&file).at("read", &source)? {
        return Ok(false);
    }
    let at = dest.resolve(dest_path, true)?;
    dest.mkdir_all(&at, DIRECTORY_MODE, action.owner, action.timestamp)?;
    let file = src.open_file(&source)?;
    unpacker
        .unpack(file, dest, &at, action.owner)
        .map_err(|e| ActionError::Unpack {
            path: source.to_string_lossy().into_owned(),
            source: e,
        })?;
    Ok(true)
}

fn copy_one(
    src: &Root,
    source: &Path,
    dest: &Root,
    dest_path: &str,
    action: &Copy,
) -> Result<(), ActionError> {
    let dir_mode = match action.mode {
        // A symbolic mode changes existing modes, so it does not apply to folders that are created on the way.
        Some(mode) if action.mode_str.is_empty() => mode & 0o777,
        _ => DIRECTORY_MODE,
    };
    let mut new_dirs = Vec::new();
    // Of "a/b" the directory "a" is made here; of "a/b/" and "a/b/." all of it.
    let towards = match dest_path.rsplit_once('/') {
        Some((dir, name)) if !name.is_empty() && name != "." => dir,
        _ => dest_path,
    };
    new_dirs.extend(dest.mkdir_all(towards, dir_mode, action.owner, action.timestamp)?);
    let mut copier = Copier::new(dest, action)?;

    let target = dest.resolve(lexical(Path::new(dest_path)), true)?;
    let from = wildcard::resolve_source(src, source, action.link)?;
    let meta = src.lstat(&from)?;
    let existing = dest.stat_opt(&target)?;
    let into = match &existing {
        Some(existing) => {
            if meta.is_dir() {
                action.dir == DirCopy::Itself
            } else {
                existing.is_dir()
            }
        }
        None => false,
    };
    let target = match lexical(source).file_name() {
        // A source that ends in "/." names no entry of its own: its contents go where they are sent.
        Some(name) if into && !ends_in_dot(source) => target.join(name),
        _ => target,
    };
    let parent = if action.dir == DirCopy::Contents && meta.is_dir() && existing.is_none() {
        target.as_path()
    } else {
        target.parent().unwrap_or_else(|| Path::new("/"))
    };
    new_dirs.extend(dest.mkdir_all(parent, dir_mode, action.owner, action.timestamp)?);
    copier.copy_top(src, &from, &meta, &target)?;
    if let Some(time) = action.timestamp {
        for path in new_dirs.iter().rev() {
            dest.dir(path)?
                .set_own_times(Times::both(time))
                .at("utime", path)?;
        }
    }
    Ok(())
}

fn ends_in_dot(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/.")
}

struct Copier<'a> {
    dest: &'a Root,
    action: &'a Copy,
    attributes: Attributes<'a>,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    // Destination of the first name of each file that has several.
    links: HashMap<((u32, u32), u64), PathBuf>,
    levels: Vec<CopyLevel>,
}

// The directories of a copy on the way down. Of the destination there are as many as have been made.
struct CopyTarget {
    src: Descent,
    dest: Descent,
}

impl CopyTarget {
    // How many levels have their directory in the destination.
    fn dest_levels(&self) -> usize {
        self.dest.depth() + 1
    }
}

// A directory that is being copied.
struct CopyLevel {
    meta: Meta,
    // The entries that are still to be copied.
    entries: std::vec::IntoIter<Entry>,
    dest_path: PathBuf,
    // Path from the top of the copy, as patterns see it.
    shown: PathBuf,
    include: MatchInfo,
    exclude: MatchInfo,
    // Made, or taken although it was there; its metadata is the source's in the end.
    finish: bool,
    // Files of it that are still to be copied.
    waiting: Vec<File>,
}

impl<'a> Copier<'a> {
    fn new(dest: &'a Root, action: &'a Copy) -> Result<Self, ActionError> {
        let mode = if action.mode_str.is_empty() {
            None
        } else {
            Some(ModeChange::parse(&action.mode_str)?)
        };
        Ok(Self {
            dest,
            action,
            attributes: Attributes { action, mode },
            include: matcher("includepatterns", &action.include)?,
            exclude: matcher("excludepatterns", &action.exclude)?,
            links: HashMap::new(),
            levels: Vec::new(),
        })
    }

    fn copy_top(
        &mut self,
        src: &Root,
        from: &Path,
        meta: &Meta,
        target: &Path,
    ) -> Result<(), ActionError> {
        if let Some((dir, name)) = self.dest.parent(target)? {
            self.replace_if_asked(&dir, &name, meta, target)?;
            if !meta.is_dir() {
                let (src_dir, src_name) = src.named("open", from)?;
                return self.copy_leaf(&src_dir, &src_name, meta, &dir, &name, target);
            }
            let (created_dir, created) = make_dir(&dir, &name, meta, target, false)?;
            return self.copy_top_dir(src, from, meta, created_dir, created, target);
        }
        if !meta.is_dir() {
            return Err(ActionError::IsADirectory(
                target.to_string_lossy().into_owned(),
            ));
        }
        let created_dir = self.dest.dir(target)?;
        self.copy_top_dir(src, from, meta, created_dir, false, target)
    }

    // Metadata of a directory that was there already stays, but for its times, which become the source's.
    fn copy_top_dir(
        &mut self,
        src: &Root,
        from: &Path,
        meta: &Meta,
        dest: Dir,
        created: bool,
        target: &Path,
    ) -> Result<(), ActionError> {
        let src = src.dir(from)?;
        let entries = src.entries().at("open", target)?.into_iter();
        self.levels.push(CopyLevel {
            meta: *meta,
            entries,
            dest_path: target.to_path_buf(),
            shown: PathBuf::new(),
            include: MatchInfo::default(),
            exclude: MatchInfo::default(),
            finish: created,
            waiting: Vec::new(),
        });
        let mut way = CopyTarget {
            src: Descent::new(src),
            dest: Descent::new(dest),
        };
        while let Some(level) = self.levels.last_mut() {
            match level.entries.next() {
                Some(entry) => self.copy_entry(&mut way, &entry.name)?,
                None => self.end_level(&mut way)?,
            }
        }
        Ok(())
    }

    // Ends the innermost level.
    fn end_level(&mut self, way: &mut CopyTarget) -> Result<(), ActionError> {
        self.copy_waiting(way)?;
        let depth = self.levels.len();
        let Some(level) = self.levels.pop() else {
            return Ok(());
        };
        let target = &level.dest_path;
        if way.dest_levels() == depth {
            let dest = way.dest.dir();
            if level.finish {
                self.finish_dir(way.src.dir(), dest, &level.meta, target)?;
            } else if depth == 1 {
                dest.set_own_times(self.attributes.times(&level.meta))
                    .at("utime", target)?;
            }
            way.dest.up().at("open", target)?;
        }
        Ok(way.src.up().at("open", target)?)
    }

    // Copies the files of the innermost level that wait.
    fn copy_waiting(&mut self, way: &CopyTarget) -> Result<(), ActionError> {
        let level_has_dest = way.dest_levels() == self.levels.len();
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        let waiting = std::mem::take(&mut level.waiting);
        if !level_has_dest {
            return Ok(());
        }
        self.attributes
            .copy_files(way.src.dir(), way.dest.dir(), &waiting)
    }

    fn copy_entry(&mut self, way: &mut CopyTarget, name: &OsStr) -> Result<(), ActionError> {
        let level = self
            .levels
            .last()
            .expect("entries are copied inside a level");
        let shown = level.shown.join(name);
        let target = level.dest_path.join(name);
        let text = shown.to_string_lossy();
        let (included, include) = match &self.include {
            Some(matcher) => matcher.matches_using_parent_results(&text, &level.include),
            None => (true, MatchInfo::default()),
        };
        let (excluded, exclude) = match &self.exclude {
            Some(matcher) => matcher.matches_using_parent_results(&text, &level.exclude),
            None => (false, MatchInfo::default()),
        };
        let take = included && !excluded;
        let exceptions = self
            .exclude
            .as_ref()
            .is_some_and(PatternMatcher::exclusions);
        if excluded && !exceptions {
            return Ok(());
        }
        let meta = way.src.dir().stat(name).at("lstat", &shown)?;
        if !take && !meta.is_dir() {
            return Ok(());
        }
        let mut dest = None;
        if take {
            self.make_levels(way)?;
            let into = way.dest.dir();
            self.replace_if_asked(into, name, &meta, &target)?;
            if meta.is_file() && meta.nlink <= 1 {
                let level = self
                    .levels
                    .last_mut()
                    .expect("entries are copied inside a level");
                let name = name.to_owned();
                level.waiting.push(File { name, meta, target });
                if level.waiting.len() >= MAX_WAITING_FILES {
                    self.copy_waiting(way)?;
                }
                return Ok(());
            }
            if !meta.is_dir() {
                return self.copy_leaf(way.src.dir(), name, &meta, into, name, &target);
            }
            dest = Some(make_dir(into, name, &meta, &target, true)?.0);
        }
        way.src.down(name).at("open", &shown)?;
        let entries = way.src.dir().entries().at("open", &shown)?.into_iter();
        if let Some(dest) = dest {
            way.dest.enter(dest).at("open", &target)?;
        }
        self.levels.push(CopyLevel {
            meta,
            entries,
            dest_path: target,
            shown,
            include,
            exclude,
            finish: take,
            waiting: Vec::new(),
        });
        Ok(())
    }

    // Makes the directories of all levels that are not there yet.
    fn make_levels(&mut self, way: &mut CopyTarget) -> Result<(), ActionError> {
        for level in self.levels.iter_mut().skip(way.dest_levels()) {
            let name = level.dest_path.file_name().unwrap_or_default();
            let (dir, new) = make_dir(way.dest.dir(), name, &level.meta, &level.dest_path, true)?;
            level.finish = new;
            way.dest.enter(dir).at("open", &level.dest_path)?;
        }
        Ok(())
    }

    fn replace_if_asked(
        &self,
        dir: &Dir,
        name: &OsStr,
        meta: &Meta,
        target: &Path,
    ) -> Result<(), ActionError> {
        if self.action.existing == Existing::Merge {
            return Ok(());
        }
        match dir.stat_opt(name).at("lstat", target)? {
            Some(existing) if !(existing.is_dir() && meta.is_dir()) => {
                Ok(dir.remove_all(name).at("unlinkat", target)?)
            }
            _ => Ok(()),
        }
    }

    fn copy_leaf(
        &mut self,
        src: &Dir,
        src_name: &OsStr,
        meta: &Meta,
        dir: &Dir,
        name: &OsStr,
        target: &Path,
    ) -> Result<(), ActionError> {
        files::make_way(dir, name, target)?;
        match meta.kind() {
            Kind::File => return self.copy_file(src, src_name, meta, dir, name, target),
            Kind::Symlink => {
                let link = src.readlink(src_name).at("readlink", target)?;
                dir.symlink(&link, name).at("symlink", target)?;
            }
            // No process listens on a copied socket; an empty file replaces it, as in BuildKit.
            Kind::Socket => dir.mknod(name, Kind::File, 0, (0, 0)).at("mknod", target)?,
            // DIFFERS: BuildKit masks the type bits such that a block device becomes a character device.
            kind @ (Kind::Block | Kind::Char | Kind::Fifo) => {
                dir.mknod(name, kind, meta.mode, meta.rdev)
                    .at("mknod", target)?;
            }
            Kind::Dir => {
                return Err(PathError::new("open", target, rustix::io::Errno::ISDIR).into());
            }
        }
        let owner = self.attributes.owner(meta);
        dir.chown(name, owner.uid, owner.gid).at("lchown", target)?;
        if !meta.is_symlink() {
            dir.chmod(name, self.attributes.mode(meta))
                .at("chmod", target)?;
        }
        self.attributes
            .copy_xattrs(&src.xattrs(src_name).unwrap_or_default(), |k, v| {
                dir.set_xattr(name, k, v)
            });
        dir.set_times(name, self.attributes.times(meta))
            .at("utime", target)?;
        Ok(())
    }

    fn copy_file(
        &mut self,
        src: &Dir,
        src_name: &OsStr,
        meta: &Meta,
        dir: &Dir,
        name: &OsStr,
        target: &Path,
    ) -> Result<(), ActionError> {
        if meta.nlink > 1 {
            if let Some(first) = self.links.get(&(meta.dev, meta.ino)) {
                let (from, from_name): (Dir, OsString) = self.dest.named("link", first)?;
                return Ok(dir.link(&from, &from_name, name).at("link", target)?);
            }
            self.links
                .insert((meta.dev, meta.ino), target.to_path_buf());
        }
        self.attributes
            .copy_file(src, src_name, meta, dir, name, target)
    }

    fn finish_dir(
        &self,
        src: &Dir,
        dest: &Dir,
        meta: &Meta,
        target: &Path,
    ) -> Result<(), ActionError> {
        let owner = self.attributes.owner(meta);
        dest.set_own_owner(owner.uid, owner.gid)
            .at("lchown", target)?;
        dest.set_own_mode(self.attributes.mode(meta))
            .at("chmod", target)?;
        self.attributes
            .copy_xattrs(&src.own_xattrs().unwrap_or_default(), |k, v| {
                dest.set_own_xattr(k, v)
            });
        dest.set_own_times(self.attributes.times(meta))
            .at("utime", target)?;
        Ok(())
    }
}

fn matcher(kind: &'static str, patterns: &[String]) -> Result<Option<PatternMatcher>, ActionError> {
    if patterns.is_empty() {
        return Ok(None);
    }
    PatternMatcher::new(patterns)
        .map(Some)
        .map_err(|source| ActionError::Pattern {
            kind,
            patterns: patterns.to_vec(),
            source,
        })
}

// The directory for a copy of one: made, or the one that is there.
fn make_dir(
    dir: &Dir,
    name: &OsStr,
    meta: &Meta,
    target: &Path,
    take_mode: bool,
) -> Result<(Dir, bool), ActionError> {
    match dir.stat_opt(name).at("lstat", target)? {
        None => Ok((
            dir.create_dir(name, meta.mode & 0o7777)
                .at("mkdir", target)?,
            true,
        )),
        Some(existing) if existing.is_dir() => {
            let dir = dir.open_dir(name).at("open", target)?;
            if take_mode {
                dir.set_own_mode(meta.mode & 0o7777).at("chmod", target)?;
            }
            Ok((dir, false))
        }
        Some(_) => Err(ActionError::NotADirectory(
            target.to_string_lossy().into_owned(),
        )),
    }
}
