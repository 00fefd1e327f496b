//! One entry after the other into files.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use fstree::dir::{set_file_mode, set_file_owner, set_file_times, set_file_xattr};
use fstree::{Dir, Kind, Meta, Owner, PathError, Root, Times};
use rustix::io::Errno;
use sys::userns::overlay_xattrs;

use super::nested::{nobodys_device, opaque_mark, settle};
use super::times::DirTimes;
use super::{ApplyError, ApplyOptions, Whiteouts};
use crate::tar::{EntryKind, Header, Reader};

pub(crate) const WHITEOUT: &[u8] = b".wh.";
pub(crate) const META: &[u8] = b".wh..wh.";
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
const COPY_BUFFER_BYTES: usize = 256 << 10;
pub(crate) const IMPLIED_MODE: u32 = 0o755;
const MAX_OPEN_DIRS: usize = 64;

/// An unpacking in progress.
pub(super) struct Unpack<'a> {
    root: &'a Root,
    options: &'a ApplyOptions,
    pub(super) files_size: u64,
    pub(super) entries: u64,
    // Directories by the name entries use for them. Forgotten when a name may have come to mean something else.
    open: HashMap<PathBuf, Rc<Dir>>,
    dir_times: DirTimes,
    // Paths that this layer created, kept where whiteouts remove files: a whiteout applies to earlier layers only.
    unpacked: HashSet<PathBuf>,
    buffer: Vec<u8>,
}

impl<'a> Unpack<'a> {
    pub(super) fn new(root: &'a Root, options: &'a ApplyOptions) -> Result<Self, ApplyError> {
        Ok(Self {
            root,
            options,
            files_size: 0,
            entries: 0,
            open: HashMap::new(),
            dir_times: DirTimes::default(),
            unpacked: HashSet::new(),
            buffer: vec![0; COPY_BUFFER_BYTES],
        })
    }

    pub(super) fn entry(
        &mut self,
        header: &Header,
        data: &mut Reader<impl Read>,
    ) -> Result<(), ApplyError> {
        self.entries += 1;
        if header.kind == EntryKind::File {
            self.files_size = self.files_size.saturating_add(header.size);
            if let Some(limit) = self.options.limit.filter(|limit| self.files_size > *limit) {
                return Err(ApplyError::TooLarge { limit });
            }
        }
        let path = normal(header.path());
        // The root has its own metadata, whatever the archive says about it.
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let dir = self.parent(path.parent().unwrap_or_else(|| Path::new("")))?;
        if self.options.whiteouts != Whiteouts::Literal && name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&dir, &path, name, header);
        }
        self.place(&dir, &path, name, header, data)?;
        if self.options.whiteouts == Whiteouts::Remove {
            self.unpacked.insert(path);
        }
        Ok(())
    }

    /// Sets what could only be set at the end.
    pub(super) fn finish(&mut self) -> Result<(), ApplyError> {
        self.dir_times.set(self.root)
    }

    fn place(
        &mut self,
        dir: &Dir,
        path: &Path,
        name: &OsStr,
        header: &Header,
        data: &mut Reader<impl Read>,
    ) -> Result<(), ApplyError> {
        let at = |op| move |e: io::Error| PathError::new(op, path, e);
        match header.kind {
            EntryKind::File => {
                let file = self
                    .fresh(dir, path, name, |dir| dir.create_file(name, 0o600))
                    .map_err(at("open"))?;
                self.write_data(&file, header, data)?;
                return self.finish_file(&file, path, header);
            }
            EntryKind::Dir => return self.place_dir(dir, path, name, header),
            EntryKind::HardLink => return self.place_link(dir, path, name, header),
            EntryKind::Symlink => {
                let target = Path::new(OsStr::from_bytes(&header.link));
                self.fresh(dir, path, name, |dir| dir.symlink(target, name))
                    .map_err(at("symlink"))?;
                self.open.clear();
            }
            EntryKind::Char | EntryKind::Block | EntryKind::Fifo => {
                let kind = if header.kind == EntryKind::Char {
                    Kind::Char
                } else if header.kind == EntryKind::Block {
                    Kind::Block
                } else {
                    Kind::Fifo
                };
                // The kernel takes 32 bits; the conversion has no other reason to fail.
                let number = |n: u64| {
                    u32::try_from(n).map_err(|_| invalid(path, "device number out of range"))
                };
                let rdev = (number(header.devmajor)?, number(header.devminor)?);
                let mode = header.mode & 0o7777;
                let node = self.fresh(dir, path, name, |dir| dir.mknod(name, kind, mode, rdev));
                if nobodys_device(path, kind, &node) {
                    return Ok(());
                }
                node.map_err(at("mknod"))?;
            }
            EntryKind::Other(_) => return Err(invalid(path, "unhandled tar header type")),
        }
        let owner = self.owner(header);
        let owned = dir.chown(name, owner.uid, owner.gid);
        settle(path, owner, owned)?;
        if header.kind != EntryKind::Symlink {
            dir.chmod(name, header.mode).map_err(at("chmod"))?;
        }
        set_xattrs(path, header, |key, value| dir.set_xattr(name, key, value))?;
        dir.set_times(name, times(header)).map_err(at("utime"))?;
        Ok(())
    }

    // Makes something new under a name; what is there goes first, unless this is a directory over a directory.
    fn fresh<T>(
        &mut self,
        dir: &Dir,
        path: &Path,
        name: &OsStr,
        make: impl Fn(&Dir) -> io::Result<T>,
    ) -> io::Result<T> {
        match make(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        self.clear(dir, path, name)?;
        make(dir)
    }

    fn clear(&mut self, dir: &Dir, path: &Path, name: &OsStr) -> io::Result<()> {
        dir.remove_all(name)?;
        self.open.clear();
        self.dir_times.forget(path);
        self.unpacked.retain(|unpacked| !unpacked.starts_with(path));
        Ok(())
    }

    fn place_dir(
        &mut self,
        dir: &Dir,
        path: &Path,
        name: &OsStr,
        header: &Header,
    ) -> Result<(), ApplyError> {
        let at = |op| move |e: io::Error| PathError::new(op, path, e);
        let new_dir = match dir.create_dir(name, header.mode) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let existing = dir.stat(name).map_err(at("lstat"))?;
                if existing.is_dir() {
                    dir.open_dir(name).map_err(at("open"))?
                } else {
                    self.clear(dir, path, name).map_err(at("remove"))?;
                    let new_dir = dir.create_dir(name, header.mode).map_err(at("mkdir"))?;
                    // What the layer removed and made again must not show what is below.
                    if existing.is_whiteout() && self.options.whiteouts == Whiteouts::Overlay {
                        new_dir
                            .set_own_xattr(&opaque_mark(), b"y")
                            .map_err(at("setxattr"))?;
                    }
                    new_dir
                }
            }
            other => other.map_err(at("mkdir"))?,
        };
        let owner = self.owner(header);
        let owned = new_dir.set_own_owner(owner.uid, owner.gid);
        settle(path, owner, owned)?;
        new_dir.set_own_mode(header.mode).map_err(at("chmod"))?;
        set_xattrs(path, header, |key, value| new_dir.set_own_xattr(key, value))?;
        if self.dir_times.note(self.root, path, times(header))? {
            self.open.clear();
        }
        Ok(())
    }

    fn place_link(
        &mut self,
        dir: &Dir,
        path: &Path,
        name: &OsStr,
        header: &Header,
    ) -> Result<(), ApplyError> {
        let target = normal(Path::new(OsStr::from_bytes(&header.link)));
        if target == path {
            return Ok(());
        }
        let Some(target_name) = target.file_name() else {
            return Err(invalid(path, "a hard link to the root"));
        };
        let from = self.parent(target.parent().unwrap_or_else(|| Path::new("")))?;
        let at = |op| move |e: io::Error| PathError::new(op, path, e);
        let target_stat = match from.stat_opt(target_name).map_err(at("link"))? {
            Some(target_stat) => target_stat,
            None => {
                self.copy_up(&from, &target, target_name)?;
                from.stat(target_name).map_err(at("link"))?
            }
        };
        if target_stat.is_dir() || target_stat.is_whiteout() {
            return Err(invalid(path, "a hard link to what is no file"));
        }
        if dir
            .stat_opt(name)
            .map_err(at("link"))?
            .is_some_and(|old| old.same_file(&target_stat))
        {
            return Ok(());
        }
        self.fresh(dir, path, name, |dir| dir.link(&from, target_name, name))
            .map_err(at("link"))?;
        Ok(())
    }

    // A layer may link to a file of a layer below; overlayfs would copy it up first, and so do we.
    fn copy_up(&mut self, dir: &Dir, path: &Path, name: &OsStr) -> Result<(), ApplyError> {
        for parent in &self.options.parents {
            let Some(meta) = parent.lstat_opt(path)? else {
                continue;
            };
            if !meta.is_file() {
                break;
            }
            let file = parent.open_file(path)?;
            let at = |op| move |e: io::Error| PathError::new(op, path, e);
            let copy = dir.create_file(name, 0o600).map_err(at("open"))?;
            sys::reflink::copy_contents(&file, &copy).map_err(at("copy"))?;
            let (uid, gid) = (meta.uid, meta.gid);
            settle(path, Owner { uid, gid }, set_file_owner(&copy, uid, gid))?;
            set_file_mode(&copy, meta.mode).map_err(at("chmod"))?;
            let (from, from_name) = parent.named("open", path)?;
            for (key, value) in from.xattrs(&from_name).map_err(at("getxattr"))? {
                if !key.starts_with("trusted.") && !key.starts_with(overlay_xattrs()) {
                    set_file_xattr(&copy, &key, &value).map_err(at("setxattr"))?;
                }
            }
            let times = Times {
                atime: Some(meta.atime),
                mtime: Some(meta.mtime),
            };
            return Ok(set_file_times(&copy, times).map_err(at("utime"))?);
        }
        Err(PathError::new("link", path, Errno::NOENT).into())
    }

    fn write_data(
        &mut self,
        file: &File,
        header: &Header,
        data: &mut Reader<impl Read>,
    ) -> Result<(), ApplyError> {
        let at = |e: io::Error| PathError::new("write", header.path(), e);
        let mut file = file;
        let pieces = data.pieces().map(<[(u64, u64)]>::to_vec);
        let sparse = pieces.is_some();
        for (offset, length) in pieces.unwrap_or_else(|| vec![(0, header.size)]) {
            if offset > 0 {
                file.seek(SeekFrom::Start(offset)).map_err(at)?;
            }
            let mut missing = length;
            while missing > 0 {
                let chunk_size = usize::try_from(missing)
                    .unwrap_or(usize::MAX)
                    .min(self.buffer.len());
                let n = data.read(self.buffer.get_mut(..chunk_size).unwrap_or_default())?;
                if n == 0 {
                    return Err(ApplyError::Read(io::ErrorKind::UnexpectedEof.into()));
                }
                file.write_all(self.buffer.get(..n).unwrap_or_default())
                    .map_err(at)?;
                missing -= n as u64;
            }
        }
        if sparse {
            file.set_len(header.size).map_err(at)?;
        }
        Ok(())
    }

    fn finish_file(&self, file: &File, path: &Path, header: &Header) -> Result<(), ApplyError> {
        let at = |op| move |e: io::Error| PathError::new(op, path, e);
        let owner = self.owner(header);
        settle(path, owner, set_file_owner(file, owner.uid, owner.gid))?;
        set_file_mode(file, header.mode).map_err(at("chmod"))?;
        set_xattrs(path, header, |key, value| set_file_xattr(file, key, value))?;
        set_file_times(file, times(header)).map_err(at("utime"))?;
        Ok(())
    }

    fn whiteout(
        &mut self,
        dir: &Rc<Dir>,
        path: &Path,
        name: &OsStr,
        header: &Header,
    ) -> Result<(), ApplyError> {
        let at = |op| move |e: io::Error| PathError::new(op, path, e);
        let overlay = self.options.whiteouts == Whiteouts::Overlay;
        if name.as_bytes() == OPAQUE {
            if overlay {
                dir.set_own_xattr(&opaque_mark(), b"y")
                    .map_err(at("setxattr"))?;
                return Ok(());
            }
            let parent = path.parent().unwrap_or_else(|| Path::new(""));
            for entry in dir.entries().map_err(at("open"))? {
                if !self.brought(&parent.join(&entry.name)) {
                    dir.remove_all(&entry.name).map_err(at("remove"))?;
                    self.open.clear();
                }
            }
            return Ok(());
        }
        // Other marks that begin so were aufs's own and say nothing about files.
        if name.as_bytes().starts_with(META) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(name.as_bytes().get(WHITEOUT.len()..).unwrap_or_default());
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(invalid(path, "invalid whiteout name"));
        }
        if !overlay {
            if !self.brought(&path.with_file_name(hidden)) {
                dir.remove_all(hidden).map_err(at("remove"))?;
                self.open.clear();
            }
            return Ok(());
        }
        match dir.stat_opt(hidden).map_err(at("lstat"))? {
            // The layer itself has the name: the whiteout is about what is below it.
            Some(existing) if existing.is_dir() => {
                let hidden_dir = dir.open_dir(hidden).map_err(at("open"))?;
                hidden_dir
                    .set_own_xattr(&opaque_mark(), b"y")
                    .map_err(at("setxattr"))?;
            }
            Some(_) => {}
            None => {
                dir.whiteout(hidden).map_err(at("mknod"))?;
                let owner = self.owner(header);
                settle(path, owner, dir.chown(hidden, owner.uid, owner.gid))?;
            }
        }
        Ok(())
    }

    fn brought(&self, path: &Path) -> bool {
        self.unpacked.contains(path)
            || self
                .unpacked
                .iter()
                .any(|unpacked| unpacked.starts_with(path))
    }

    fn owner(&self, header: &Header) -> Owner {
        let id = |id: u64| u32::try_from(id).unwrap_or(u32::MAX - 1);
        self.options.owner.unwrap_or(Owner {
            uid: id(header.uid),
            gid: id(header.gid),
        })
    }

    // The directory an entry goes into; made when it is not there.
    fn parent(&mut self, path: &Path) -> Result<Rc<Dir>, ApplyError> {
        if let Some(dir) = self.open.get(path) {
            return Ok(Rc::clone(dir));
        }
        let dir = match self.root.dir(path) {
            Ok(dir) => dir,
            // Not there, or hidden by a whiteout of the same layer.
            Err(e)
                if matches!(
                    e.source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                self.make_parent(path)?
            }
            Err(e) => return Err(e.into()),
        };
        if self.open.len() >= MAX_OPEN_DIRS {
            self.open.clear();
        }
        self.disturb(path)?;
        let dir = Rc::new(dir);
        self.open.insert(path.to_path_buf(), Rc::clone(&dir));
        Ok(dir)
    }

    fn disturb(&mut self, path: &Path) -> Result<(), ApplyError> {
        if self.dir_times.disturb(self.root, path)? {
            self.open.clear();
        }
        Ok(())
    }

    fn make_parent(&mut self, path: &Path) -> Result<Dir, ApplyError> {
        let path = self.root.resolve(path, true)?;
        let mut dir = self.root.dir("/")?;
        let mut at = PathBuf::new();
        for name in path.components().filter_map(|c| match c {
            Component::Normal(name) => Some(OsString::from(name)),
            Component::RootDir
            | Component::ParentDir
            | Component::CurDir
            | Component::Prefix(_) => None,
        }) {
            let above = at.clone();
            at.push(&name);
            dir = match dir
                .stat_opt(&name)
                .map_err(|e| PathError::new("lstat", &at, e))?
            {
                Some(existing) if existing.is_dir() => dir
                    .open_dir(&name)
                    .map_err(|e| PathError::new("open", &at, e))?,
                Some(existing)
                    if existing.is_whiteout() && self.options.whiteouts == Whiteouts::Overlay =>
                {
                    self.disturb(&above)?;
                    dir.unlink(&name)
                        .map_err(|e| PathError::new("remove", &at, e))?;
                    let new_dir = self.imply(&dir, &at, &name, false)?;
                    new_dir
                        .set_own_xattr(&opaque_mark(), b"y")
                        .map_err(|e| PathError::new("setxattr", &at, e))?;
                    new_dir
                }
                Some(_) => {
                    return Err(PathError::new("mkparent", &at, Errno::NOTDIR).into());
                }
                None => {
                    self.disturb(&above)?;
                    self.imply(&dir, &at, &name, true)?
                }
            };
        }
        Ok(dir)
    }

    fn imply(
        &self,
        dir: &Dir,
        path: &Path,
        name: &OsStr,
        look_below: bool,
    ) -> Result<Dir, ApplyError> {
        let at = |op| move |e: io::Error| PathError::new(op, path, e);
        let new_dir = dir.create_dir(name, IMPLIED_MODE).map_err(at("mkdir"))?;
        if !look_below {
            return Ok(new_dir);
        }
        for parent in &self.options.parents {
            let Some(meta) = parent.stat_opt(path)? else {
                continue;
            };
            if meta.is_dir() {
                adopt(&new_dir, &parent.dir(path)?, &meta).map_err(at("chmod"))?;
            }
            break;
        }
        Ok(new_dir)
    }
}

// Gives a directory the metadata of the one it stands over.
fn adopt(dir: &Dir, below: &Dir, meta: &Meta) -> io::Result<()> {
    dir.set_own_owner(meta.uid, meta.gid)?;
    dir.set_own_mode(meta.mode)?;
    for (key, value) in below.own_xattrs()? {
        if !key.starts_with("trusted.") {
            dir.set_own_xattr(&key, &value)?;
        }
    }
    dir.set_own_times(Times {
        atime: Some(meta.atime),
        mtime: Some(meta.mtime),
    })
}

fn set_xattrs(
    path: &Path,
    header: &Header,
    set: impl Fn(&str, &[u8]) -> io::Result<()>,
) -> Result<(), ApplyError> {
    for (key, value) in header.xattrs() {
        // An archive must not set `trusted` attributes: overlayfs keeps its marks there.
        let result = if key.starts_with("trusted.") || key.starts_with(overlay_xattrs()) {
            continue;
        } else {
            set(key, value)
        };
        match result {
            Ok(()) => {}
            Err(e) if key != "security.capability" && may_ignore(&e) => {
                tracing::debug!(path = %path.display(), key, error = %e, "extended attribute in archive ignored");
            }
            Err(e) => return Err(PathError::new("setxattr", path, e).into()),
        }
    }
    Ok(())
}

fn may_ignore(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, Unsupported};
    matches!(error.kind(), PermissionDenied | Unsupported)
}

fn times(header: &Header) -> Times {
    let mtime = header
        .mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(header.mtime_ns));
    Times {
        atime: Some(header.atime.map_or(mtime, |atime| atime.max(mtime))),
        mtime: Some(mtime),
    }
}

/// A path from the root by its text alone: no dots, no slash in front, `..` stops at the root.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

pub(crate) fn invalid(path: &Path, reason: &'static str) -> ApplyError {
    ApplyError::Entry {
        path: path.to_path_buf(),
        reason,
    }
}
