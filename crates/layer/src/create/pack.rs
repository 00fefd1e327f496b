//! One change after the other into tar entries.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fstree::diff::ChangeKind;
use fstree::{Dir, Kind, Meta, PathError, Root};

use super::CreateError;
use crate::tar::{EntryKind, Header, Writer, XATTR_RECORD};

pub(super) const BUFFER: usize = 256 << 10;

const CAPABILITY: &str = "security.capability";
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Writes the entries of changes.
pub(super) struct Packer<'a, W: Write> {
    tree: &'a Root,
    latest: Option<i64>,
    tar: Writer<W>,
    // First written names of files with several, and names not written because nothing about them changed.
    sources: HashMap<u64, Vec<u8>>,
    unchanged: HashMap<u64, Vec<Vec<u8>>>,
    // Directories that were written.
    dirs: HashSet<PathBuf>,
    open: Option<(PathBuf, Dir)>,
    buffer: Vec<u8>,
}

impl<'a, W: Write> Packer<'a, W> {
    pub(super) fn new(tree: &'a Root, latest: Option<i64>, out: W) -> Self {
        Self {
            tree,
            latest,
            tar: Writer::new(out),
            sources: HashMap::new(),
            unchanged: HashMap::new(),
            dirs: HashSet::new(),
            open: None,
            buffer: vec![0; BUFFER],
        }
    }

    pub(super) fn finish(self) -> Result<W, CreateError> {
        Ok(self.tar.finish()?)
    }

    pub(super) fn add(
        &mut self,
        kind: ChangeKind,
        path: &Path,
        meta: Option<&Meta>,
    ) -> Result<(), CreateError> {
        let meta = match (kind, meta) {
            (ChangeKind::Delete, _) | (_, None) => return self.add_whiteout(path),
            (_, Some(meta)) => meta,
        };
        let Some(mut header) = self.header(path, meta)? else {
            return Ok(());
        };
        let mut link_names = Vec::new();
        if meta.nlink > 1 && !meta.is_dir() {
            if let Some(source) = self.sources.get(&meta.ino) {
                header.kind = EntryKind::HardLink;
                header.link.clone_from(source);
                header.size = 0;
            } else if kind == ChangeKind::Unmodified {
                self.unchanged
                    .entry(meta.ino)
                    .or_default()
                    .push(header.name);
                return Ok(());
            } else {
                self.sources.insert(meta.ino, header.name.clone());
                link_names = self.unchanged.remove(&meta.ino).unwrap_or_default();
            }
        } else if kind == ChangeKind::Unmodified {
            return Ok(());
        }
        if let Some(capability) = self.capability(path, meta)? {
            header
                .records
                .insert(format!("{XATTR_RECORD}{CAPABILITY}"), capability);
        }
        self.append(path, &header)?;
        if header.kind == EntryKind::File && header.size > 0 {
            let mut file = self.open_file(path)?;
            copy_exactly(
                &mut file,
                header.size,
                &mut self.tar,
                path,
                &mut self.buffer,
            )?;
        }
        let source = header.name.clone();
        for link_name in link_names {
            header.kind = EntryKind::HardLink;
            header.link.clone_from(&source);
            header.size = 0;
            header.name = link_name;
            let path = header.path().to_path_buf();
            self.append(&path, &header)?;
        }
        Ok(())
    }

    fn add_whiteout(&mut self, path: &Path) -> Result<(), CreateError> {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let mut whiteout = b".wh.".to_vec();
        whiteout.extend_from_slice(name);
        let path = path.with_file_name(std::ffi::OsStr::from_bytes(&whiteout));
        let header = Header {
            name: path.as_os_str().as_bytes().to_vec(),
            ..Header::default()
        };
        self.append(&path, &header)
    }

    // Writes a header, and before it those of the directories above that were not written yet.
    fn append(&mut self, path: &Path, header: &Header) -> Result<(), CreateError> {
        let mut missing = Vec::new();
        let mut parent = path.parent();
        while let Some(dir) =
            parent.filter(|dir| !dir.as_os_str().is_empty() && !self.dirs.contains(*dir))
        {
            missing.push(dir.to_path_buf());
            parent = dir.parent();
        }
        for dir in missing.into_iter().rev() {
            let meta = self.tree.stat(&dir)?;
            if let Some(mut header) = self.header(&dir, &meta)? {
                if let Some(capability) = self.capability(&dir, &meta)? {
                    header
                        .records
                        .insert(format!("{XATTR_RECORD}{CAPABILITY}"), capability);
                }
                self.tar.append(&header)?;
            }
            self.dirs.insert(dir);
        }
        if header.kind == EntryKind::Dir {
            self.dirs.insert(path.to_path_buf());
        }
        Ok(self.tar.append(header)?)
    }

    fn header(&mut self, path: &Path, meta: &Meta) -> Result<Option<Header>, CreateError> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        let mut link = Vec::new();
        let kind = match meta.kind() {
            Kind::Socket => return Ok(None),
            Kind::Dir => {
                name.push(b'/');
                EntryKind::Dir
            }
            Kind::File => EntryKind::File,
            Kind::Symlink => {
                link = self
                    .in_dir(path, "readlink", |dir, name| dir.readlink(name))?
                    .into_os_string()
                    .into_encoded_bytes();
                EntryKind::Symlink
            }
            Kind::Block => EntryKind::Block,
            Kind::Char => EntryKind::Char,
            Kind::Fifo => EntryKind::Fifo,
        };
        let mut time = meta.mtime.div_euclid(NANOS_PER_SECOND);
        if let Some(latest) = self
            .latest
            .filter(|latest| meta.mtime > latest.saturating_mul(NANOS_PER_SECOND))
        {
            time = latest;
        }
        let device = matches!(kind, EntryKind::Block | EntryKind::Char);
        Ok(Some(Header {
            name,
            kind,
            mode: meta.mode & 0o7777,
            uid: u64::from(meta.uid),
            gid: u64::from(meta.gid),
            size: if kind == EntryKind::File {
                meta.size
            } else {
                0
            },
            mtime: time,
            link,
            devmajor: if device { u64::from(meta.rdev.0) } else { 0 },
            devminor: if device { u64::from(meta.rdev.1) } else { 0 },
            ..Header::default()
        }))
    }

    fn capability(&mut self, path: &Path, meta: &Meta) -> Result<Option<Vec<u8>>, CreateError> {
        if !matches!(meta.kind(), Kind::File | Kind::Dir) {
            return Ok(None);
        }
        let value = self.in_dir(path, "getxattr", |dir, name| dir.xattr(name, CAPABILITY))?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    fn open_file(&mut self, path: &Path) -> Result<File, CreateError> {
        self.in_dir(path, "open", |dir, name| dir.open_file(name))
    }

    // Changes come directory by directory, so the one that is open is most often the right one.
    fn in_dir<T>(
        &mut self,
        path: &Path,
        op: &'static str,
        call: impl FnOnce(&Dir, &std::ffi::OsStr) -> std::io::Result<T>,
    ) -> Result<T, CreateError> {
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        let dir = match &mut self.open {
            Some((at, dir)) if at == parent => dir,
            _ => {
                &mut self
                    .open
                    .insert((parent.to_path_buf(), self.tree.dir(parent)?))
                    .1
            }
        };
        let name = path.file_name().unwrap_or_default();
        call(dir, name).map_err(|e| PathError::new(op, path, e).into())
    }
}

/// Copies a file that must have exactly `size` bytes.
pub(super) fn copy_exactly(
    file: &mut File,
    size: u64,
    out: &mut impl Write,
    path: &Path,
    buffer: &mut [u8],
) -> Result<(), CreateError> {
    let mut missing = size;
    loop {
        let n = match file.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.map_err(|e| PathError::new("read", path, e))?,
        };
        if n as u64 > missing || (n == 0 && missing > 0) {
            return Err(CreateError::Changed {
                path: path.to_path_buf(),
            });
        }
        if n == 0 {
            return Ok(());
        }
        out.write_all(buffer.get(..n).unwrap_or_default())?;
        missing -= n as u64;
    }
}
