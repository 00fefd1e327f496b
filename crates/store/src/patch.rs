//! Writes a list of changes as an overlay upper.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use fstree::diff::{Change, ChangeKind};
use fstree::{Descent, Dir, Kind, Meta, PathError, Root, Times};

use crate::trash::Trash;

/// The name of the attribute by which overlayfs marks opaque directories for this process.
fn opaque() -> String {
    format!("{}opaque", sys::userns::overlay_xattrs())
}

/// Returns whether an upper says more on a foreign lower than the `changes` it stands for: a directory that hides everything
/// below it, a name that was copied up and left as it was, a whiteout of what was never there.
pub(crate) fn says_more(upper: &Root, changes: &[Change]) -> io::Result<bool> {
    // The changed paths and the directories above them.
    let mut changed: HashSet<&Path> = HashSet::new();
    for change in changes {
        for path in change.path.ancestors() {
            if !changed.insert(path) {
                break;
            }
        }
    }
    let opaque = opaque();
    let top = upper.dir("/").map_err(io::Error::other)?;
    let mut levels = vec![(PathBuf::new(), top.entries()?.into_iter())];
    let mut descent = Descent::new(top);
    while let Some((at, entries)) = levels.last_mut() {
        let Some(entry) = entries.next() else {
            levels.pop();
            descent.up()?;
            continue;
        };
        let path = at.join(&entry.name);
        if !changed.contains(path.as_path()) {
            return Ok(true);
        }
        if entry.kind == Kind::Dir {
            descent.down(&entry.name)?;
            if descent.dir().own_xattr(&opaque)?.is_some_and(|v| v == b"y") {
                return Ok(true);
            }
            levels.push((path, descent.dir().entries()?.into_iter()));
        }
    }
    Ok(false)
}

fn at<T>(op: &'static str, path: &Path, result: io::Result<T>) -> Result<T, PathError> {
    result.map_err(|e| {
        PathError::new(
            op,
            path,
            rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO),
        )
    })
}

fn is_overlay_xattr(key: &str) -> bool {
    key.starts_with("trusted.overlay.") || key.starts_with("user.overlay.")
}

/// Gives a directory the metadata of another, times excepted.
fn copy_dir_metadata(from: &Dir, to: &Dir) -> io::Result<Meta> {
    let meta = from.meta()?;
    to.set_own_owner(meta.uid, meta.gid)?;
    to.set_own_mode(meta.mode & 0o7777)?;
    for (key, value) in from.own_xattrs()? {
        if !is_overlay_xattr(&key) {
            to.set_own_xattr(&key, &value)?;
        }
    }
    Ok(meta)
}

/// Writes changes into an upper; see [`write_changes`].
struct PatchWriter<'a> {
    from: &'a Root,
    to: &'a Root,
    link: bool,
    /// For a whole tree: where goes what is replaced or deleted.
    trash: Option<&'a Trash>,
    dirs: Vec<(PathBuf, Times)>,
    /// Those whose times are not to change.
    kept: HashSet<PathBuf>,
    /// Files with several names that were copied: the path of the copy, by inode.
    copied: HashMap<((u32, u32), u64), PathBuf>,
}

/// Writes `changes` into the empty directory `to`, as an upper that means the same on any lower. Files are taken from `from`: as
/// second names with `link` (both lie on one filesystem and neither will be written), else as copies.
pub(crate) fn write_changes(
    from: &Root,
    changes: &[Change],
    to: &Root,
    link: bool,
) -> Result<(), PathError> {
    write(from, changes, to, link, None)
}

/// Does `changes` to the whole tree `to`, by copies. What they replace or delete goes to the trash.
pub(crate) fn apply_changes(
    from: &Root,
    changes: &[Change],
    to: &Root,
    trash: &Trash,
) -> Result<(), PathError> {
    write(from, changes, to, false, Some(trash))
}

fn write(
    from: &Root,
    changes: &[Change],
    to: &Root,
    link: bool,
    trash: Option<&Trash>,
) -> Result<(), PathError> {
    let mut writer = PatchWriter {
        from,
        to,
        link,
        trash,
        dirs: Vec::new(),
        kept: HashSet::new(),
        copied: HashMap::new(),
    };
    let root = Path::new("/");
    let meta = at(
        "copy",
        root,
        copy_dir_metadata(&from.dir(root)?, &to.dir(root)?),
    )?;
    writer.dirs.push((
        root.to_owned(),
        Times {
            atime: Some(meta.atime),
            mtime: Some(meta.mtime),
        },
    ));
    for change in changes {
        writer.write(change)?;
    }
    // Children come after their parents in the list, and writing below changes a directory's time: set times last, deepest first.
    for (path, times) in writer.dirs.iter().rev() {
        at("set times", path, to.dir(path)?.set_own_times(*times))?;
    }
    Ok(())
}

impl PatchWriter<'_> {
    /// The directory that `path` lies in, made if need be as it is in the source.
    fn parent(&mut self, path: &Path) -> Result<Dir, PathError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut here = PathBuf::from("/");
        let mut dir = self.to.dir(&here)?;
        for part in parent.components() {
            let std::path::Component::Normal(name) = part else {
                continue;
            };
            here.push(name);
            let next = match at("stat", &here, dir.stat_opt(name))? {
                Some(_) => {
                    let next = at("open", &here, dir.open_dir(name))?;
                    if self.trash.is_some() {
                        // What is written below it is no change of it.
                        let meta = at("stat", &here, next.meta())?;
                        self.keep_times(&here, &meta);
                    }
                    next
                }
                None => self.make_dir(&dir, name, &here)?,
            };
            dir = next;
        }
        Ok(dir)
    }

    fn make_dir(&mut self, dir: &Dir, name: &OsStr, path: &Path) -> Result<Dir, PathError> {
        let new_dir = match at("stat", path, dir.stat_opt(name))? {
            Some(meta) if meta.is_dir() || self.trash.is_none() => {
                at("open", path, dir.open_dir(name))?
            }
            there => {
                if there.is_some() {
                    self.discard(dir, name, path)?;
                }
                at("create", path, dir.create_dir(name, 0o755))?
            }
        };
        let meta = at(
            "copy",
            path,
            copy_dir_metadata(&self.from.dir(path)?, &new_dir),
        )?;
        self.set_times_later(path, &meta);
        Ok(new_dir)
    }

    fn set_times_later(&mut self, path: &Path, meta: &Meta) {
        let times = Times {
            atime: Some(meta.atime),
            mtime: Some(meta.mtime),
        };
        self.dirs.push((path.to_owned(), times));
    }

    /// The same for a directory that stays, the first time that something is written below it.
    fn keep_times(&mut self, path: &Path, meta: &Meta) {
        if self.kept.insert(path.to_owned()) {
            self.set_times_later(path, meta);
        }
    }

    /// Removes what is there in a whole tree.
    fn discard(&self, dir: &Dir, name: &OsStr, path: &Path) -> Result<(), PathError> {
        let Some(trash) = self.trash else {
            return Ok(());
        };
        at("remove", path, trash.take(dir, name))
    }

    fn write(&mut self, change: &Change) -> Result<(), PathError> {
        let path = Path::new("/").join(&change.path);
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let dir = self.parent(&path)?;
        if change.kind == ChangeKind::Delete {
            return match self.trash {
                Some(_) => self.discard(&dir, name, &path),
                None => at("delete", &path, dir.whiteout(name)),
            };
        }
        let (from, from_name) = self.from.named("open", &path)?;
        let meta = at("stat", &path, from.stat(&from_name))?;
        if meta.is_dir() {
            self.make_dir(&dir, name, &path)?;
            return Ok(());
        }
        self.discard(&dir, name, &path)?;
        if self.link {
            return at("link", &path, dir.link(&from, &from_name, name));
        }
        if meta.nlink > 1 {
            if let Some(first) = self.copied.get(&(meta.dev, meta.ino)) {
                let (first_dir, first_name) = self.to.named("open", first)?;
                return at("link", &path, dir.link(&first_dir, &first_name, name));
            }
            self.copied.insert((meta.dev, meta.ino), path.clone());
        }
        at(
            "copy",
            &path,
            copy_node(&from, &from_name, &meta, &dir, name),
        )
    }
}

fn copy_node(from: &Dir, from_name: &OsStr, meta: &Meta, to: &Dir, name: &OsStr) -> io::Result<()> {
    let times = Times {
        atime: Some(meta.atime),
        mtime: Some(meta.mtime),
    };
    match meta.kind() {
        Kind::File => {
            let source = from.open_file(from_name)?;
            let file = to.create_file(name, 0o600)?;
            sys::reflink::copy_contents(&source, &file)?;
        }
        Kind::Symlink => to.symlink(&from.readlink(from_name)?, name)?,
        kind @ (Kind::Dir | Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket) => {
            to.mknod(name, kind, meta.mode & 0o7777, meta.rdev)?
        }
    }
    to.chown(name, meta.uid, meta.gid)?;
    if !meta.is_symlink() {
        to.chmod(name, meta.mode & 0o7777)?;
    }
    for (key, value) in from.xattrs(from_name)? {
        if !is_overlay_xattr(&key) {
            to.set_xattr(name, &key, &value)?;
        }
    }
    to.set_times(name, times)
}

/// Bytes on disk below a directory; files with several names count once. Of any depth: this also counts what was never checked.
pub(crate) fn disk_size(root: &Root) -> io::Result<i64> {
    let mut inodes = HashSet::new();
    let top = root.dir("/").map_err(io::Error::other)?;
    let mut total = top.meta()?.blocks * 512;
    fstree::descent::each(top, |_, _, meta| {
        if meta.is_dir() || meta.nlink <= 1 || inodes.insert((meta.dev, meta.ino)) {
            total += meta.blocks * 512;
        }
        Ok::<_, io::Error>(true)
    })?;
    Ok(i64::try_from(total).unwrap_or(i64::MAX))
}
