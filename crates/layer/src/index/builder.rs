//! One entry after the other into the tree. The order of decisions is that of `apply/entry.rs`, which does the same with files.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use erofs::{
    Attributes, Content, DeviceNumber, Extent, FileKind, Node, NodeId, Tree, TreeError, Xattr,
};
use fstree::PathError;
use fstree::depth::TooDeep;
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;

use super::{FolderReason, IndexError, IndexOptions};
use crate::ApplyError;
use crate::apply::entry::{IMPLIED_MODE, META, OPAQUE, WHITEOUT, invalid, normal};
use crate::tar::{EntryKind, Header};

/// The device that the tar is.
const TAR: u16 = 1;
const BLOCK_BYTES: u64 = 512;
const OPAQUE_MARK: &[u8] = b"trusted.overlay.opaque";
const ACCESS_CONTROL_LIST: &str = "system.posix_acl_";
/// Links that may be followed on the way to one entry, as Linux allows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A tree in the making.
pub(super) struct Builder<'a> {
    options: &'a IndexOptions<'a>,
    tree: Tree,
    pub(super) files_size: u64,
    pub(super) entries: u64,
    /// Where in the tar the last content ends, in bytes.
    pub(super) contents_end: u64,
}

/// A folder of the tree, and where it is: the folders from the root to it.
#[derive(Debug, Clone)]
struct Place {
    ids: Vec<NodeId>,
    path: PathBuf,
}

impl Place {
    fn root(tree: &Tree) -> Self {
        Self {
            ids: vec![tree.root()],
            path: PathBuf::new(),
        }
    }

    fn id(&self, tree: &Tree) -> NodeId {
        self.ids.last().copied().unwrap_or(tree.root())
    }

    fn down(&mut self, name: &OsStr, id: NodeId) {
        self.ids.push(id);
        self.path.push(name);
    }

    fn up(&mut self) {
        if self.path.pop() {
            self.ids.pop();
        }
    }
}

impl<'a> Builder<'a> {
    pub(super) fn new(options: &'a IndexOptions<'a>) -> Result<Self, IndexError> {
        Ok(Self {
            options,
            tree: Tree::new(options.root.clone(), options.limits)?,
            files_size: 0,
            entries: 0,
            contents_end: 0,
        })
    }

    pub(super) fn into_tree(self) -> Tree {
        self.tree
    }

    /// Takes one entry, whose content begins at byte `content_at` of the tar; `pieces` where it is sparse.
    pub(super) fn entry(
        &mut self,
        header: &Header,
        pieces: Option<&[(u64, u64)]>,
        content_at: u64,
    ) -> Result<(), IndexError> {
        self.entries += 1;
        if header.kind == EntryKind::File {
            self.files_size = self.files_size.saturating_add(header.size);
            if let Some(limit) = self.options.limit.filter(|limit| self.files_size > *limit) {
                return Err(ApplyError::TooLarge { limit }.into());
            }
        }
        let path = normal(header.path());
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        let parent = self.parent(path.parent().unwrap_or_else(|| Path::new("")))?;
        let folder = parent.id(&self.tree);
        let place = parent.path.join(name);
        fstree::depth::check_path(&place).map_err(|TooDeep| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidFilename, TooDeep);
            ApplyError::from(PathError::new("open", &place, source))
        })?;
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(folder, &path, name, header);
        }
        match header.kind {
            EntryKind::Dir => self.place_folder(folder, name, header),
            EntryKind::HardLink => self.place_link(folder, &path, name, header),
            EntryKind::File => {
                let content = self.file(header, pieces, content_at)?;
                self.place(folder, &path, name, header, content)
            }
            EntryKind::Symlink => {
                let content = Content::Symlink(header.link.as_slice().into());
                self.place(folder, &path, name, header, content)
            }
            EntryKind::Char | EntryKind::Block => {
                // The kernel takes 32 bits; the conversion has no other reason to fail.
                let number = |part: u64| {
                    u32::try_from(part).map_err(|_| invalid(&path, "device number out of range"))
                };
                let number = DeviceNumber {
                    major: number(header.devmajor)?,
                    minor: number(header.devminor)?,
                };
                let content = if header.kind == EntryKind::Char {
                    Content::CharDevice(number)
                } else {
                    Content::BlockDevice(number)
                };
                self.place(folder, &path, name, header, content)
            }
            EntryKind::Fifo => self.place(folder, &path, name, header, Content::Fifo),
            EntryKind::Other(_) => Err(invalid(&path, "unhandled tar header type").into()),
        }
    }

    fn place(
        &mut self,
        folder: NodeId,
        path: &Path,
        name: &OsStr,
        header: &Header,
        content: Content,
    ) -> Result<(), IndexError> {
        let attributes = self.attributes(path, header, content.kind())?;
        let node = Node {
            attributes,
            content,
        };
        self.tree.add(folder, name.as_bytes(), node)?;
        Ok(())
    }

    /// Where the content of a file lies.
    fn file(
        &mut self,
        header: &Header,
        pieces: Option<&[(u64, u64)]>,
        content_at: u64,
    ) -> Result<Content, IndexError> {
        let size = header.size;
        let Some(pieces) = pieces else {
            self.contents_end = content_at.saturating_add(size);
            return Ok(Content::File {
                size,
                device: TAR,
                device_offset: content_at,
            });
        };
        let mut extents = Vec::with_capacity(pieces.len());
        let mut device_offset = content_at;
        for (file_offset, length) in pieces.iter().copied().filter(|(_, length)| *length > 0) {
            let end = file_offset.saturating_add(length);
            let at_borders = file_offset.is_multiple_of(BLOCK_BYTES)
                && device_offset.is_multiple_of(BLOCK_BYTES)
                && (end == size || end.is_multiple_of(BLOCK_BYTES));
            if !at_borders {
                return Err(IndexError::NeedsFolder(FolderReason::SparseFile));
            }
            extents.push(Extent {
                file_offset,
                length,
                device: TAR,
                device_offset,
            });
            device_offset = device_offset.saturating_add(length);
        }
        self.contents_end = device_offset;
        Ok(Content::SparseFile {
            size,
            extents: extents.into(),
        })
    }

    fn place_folder(
        &mut self,
        folder: NodeId,
        name: &OsStr,
        header: &Header,
    ) -> Result<(), IndexError> {
        let name = name.as_bytes();
        let mut attributes = self.attributes(header.path(), header, FileKind::Folder)?;
        let previous = self.tree.lookup(folder, name);
        if let Some(previous) = previous.filter(|id| self.tree.entries(*id).is_some()) {
            let old = self.tree.node(previous).attributes.xattrs();
            let kept: Vec<Xattr> = old
                .iter()
                .filter(|(key, _)| !attributes.xattrs().iter().any(|(new, _)| new == key))
                .cloned()
                .collect();
            for (key, value) in kept {
                set_xattr(&mut attributes, key, value);
            }
            self.tree.set_attributes(previous, attributes)?;
            return Ok(());
        }
        // What the layer removed and made again must not show what is below.
        if previous.is_some_and(|id| self.is_whiteout(id)) {
            set_xattr(&mut attributes, OPAQUE_MARK.into(), Box::from(*b"y"));
        }
        let content = Content::folder();
        let node = Node {
            attributes,
            content,
        };
        self.tree.add(folder, name, node)?;
        Ok(())
    }

    fn place_link(
        &mut self,
        folder: NodeId,
        path: &Path,
        name: &OsStr,
        header: &Header,
    ) -> Result<(), IndexError> {
        let target = normal(Path::new(OsStr::from_bytes(&header.link)));
        if target == path {
            return Ok(());
        }
        let Some(target_name) = target.file_name() else {
            return Err(invalid(path, "a hard link to the root").into());
        };
        let from = self.parent(target.parent().unwrap_or_else(|| Path::new("")))?;
        let target = self
            .tree
            .lookup(from.id(&self.tree), target_name.as_bytes());
        let Some(target) = target else {
            return Err(IndexError::NeedsFolder(FolderReason::LinkBelow));
        };
        if self.tree.entries(target).is_some() || self.is_whiteout(target) {
            return Err(invalid(path, "a hard link to what is no file").into());
        }
        self.tree.link(folder, name.as_bytes(), target)?;
        Ok(())
    }

    fn whiteout(
        &mut self,
        folder: NodeId,
        path: &Path,
        name: &OsStr,
        header: &Header,
    ) -> Result<(), IndexError> {
        if name.as_bytes() == OPAQUE {
            return self.make_opaque(folder);
        }
        // Other marks that begin so were aufs's own and say nothing about files.
        if name.as_bytes().starts_with(META) {
            return Ok(());
        }
        let hidden = name.as_bytes().get(WHITEOUT.len()..).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(invalid(path, "invalid whiteout name").into());
        }
        match self.tree.lookup(folder, hidden) {
            // The layer itself has the name: the whiteout is about what is below it.
            Some(id) if self.tree.entries(id).is_some() => self.make_opaque(id),
            Some(_) => Ok(()),
            None => {
                let attributes = Attributes {
                    uid: id_of(header.uid),
                    gid: id_of(header.gid),
                    seconds: self.options.now,
                    ..Attributes::default()
                };
                let content = Content::whiteout();
                let node = Node {
                    attributes,
                    content,
                };
                self.tree.add(folder, hidden, node)?;
                Ok(())
            }
        }
    }

    fn make_opaque(&mut self, folder: NodeId) -> Result<(), IndexError> {
        let mut attributes = self.tree.node(folder).attributes.clone();
        set_xattr(&mut attributes, OPAQUE_MARK.into(), Box::from(*b"y"));
        Ok(self.tree.set_attributes(folder, attributes)?)
    }

    fn is_whiteout(&self, id: NodeId) -> bool {
        self.tree.node(id).content == Content::whiteout()
    }

    /// The folder that an entry goes into, links of the layer followed; made where it is not there.
    fn parent(&mut self, path: &Path) -> Result<Place, IndexError> {
        let mut place = Place::root(&self.tree);
        let mut pending = reversed_parts(path);
        let mut links = 0;
        while let Some(part) = pending.pop() {
            let Part::Down(name) = part else {
                place.up();
                continue;
            };
            let folder = place.id(&self.tree);
            let child = self.tree.lookup(folder, name.as_bytes());
            let target = child.and_then(|id| match &self.tree.node(id).content {
                Content::Symlink(target) => Some(OsString::from(OsStr::from_bytes(target))),
                Content::Folder(_)
                | Content::File { .. }
                | Content::SparseFile { .. }
                | Content::CharDevice(_)
                | Content::BlockDevice(_)
                | Content::Fifo
                | Content::Socket => None,
            });
            if let Some(target) = target {
                links += 1;
                if links > MAX_LINKS {
                    return Err(path_error("open", path, Errno::LOOP));
                }
                if Path::new(&target).is_absolute() {
                    place = Place::root(&self.tree);
                }
                pending.extend(reversed_parts(Path::new(&target)));
                continue;
            }
            let below = place.path.join(&name);
            let id = match child {
                Some(id) if self.tree.entries(id).is_some() => id,
                Some(id) if self.is_whiteout(id) => {
                    let mut attributes = self.implied();
                    set_xattr(&mut attributes, OPAQUE_MARK.into(), Box::from(*b"y"));
                    self.add_folder(folder, &name, attributes)?
                }
                Some(_) => return Err(path_error("mkparent", &below, Errno::NOTDIR)),
                None => {
                    let attributes = self.options.below.folder(&below)?;
                    let attributes = attributes.unwrap_or_else(|| self.implied());
                    self.add_folder(folder, &name, attributes)?
                }
            };
            place.down(&name, id);
        }
        Ok(place)
    }

    fn add_folder(
        &mut self,
        folder: NodeId,
        name: &OsStr,
        attributes: Attributes,
    ) -> Result<NodeId, TreeError> {
        let content = Content::folder();
        let node = Node {
            attributes,
            content,
        };
        self.tree.add(folder, name.as_bytes(), node)
    }

    /// Of a folder that no entry and no layer below describes.
    fn implied(&self) -> Attributes {
        Attributes {
            permissions: u16::try_from(IMPLIED_MODE).unwrap_or_default(),
            seconds: self.options.now,
            ..Attributes::default()
        }
    }

    fn attributes(
        &self,
        path: &Path,
        header: &Header,
        kind: FileKind,
    ) -> Result<Attributes, IndexError> {
        let mut attributes = Attributes {
            permissions: if kind == FileKind::Symlink {
                0o777
            } else {
                u16::try_from(header.mode & 0o7777).unwrap_or_default()
            },
            uid: id_of(header.uid),
            gid: id_of(header.gid),
            seconds: header.mtime,
            nanoseconds: header.mtime_ns.min(999_999_999),
            xattrs: None,
        };
        for (key, value) in header.xattrs() {
            // An archive must not set `trusted` attributes: overlayfs keeps its marks there.
            let skipped = if key.starts_with("trusted.") {
                true
            } else if key.starts_with(ACCESS_CONTROL_LIST) {
                return Err(IndexError::NeedsFolder(FolderReason::AccessControlList));
            } else if key.starts_with("user.") {
                // Linux lets only files and folders have attributes of users.
                !matches!(kind, FileKind::File | FileKind::Folder)
            } else {
                !key.starts_with("security.")
            };
            if skipped {
                tracing::debug!(path = %path.display(), key, "extended attribute in archive ignored");
                continue;
            }
            set_xattr(&mut attributes, key.as_bytes().into(), value.into());
        }
        Ok(attributes)
    }
}

enum Part {
    Up,
    Down(OsString),
}

/// The parts of a path, the first one last.
fn reversed_parts(path: &Path) -> Vec<Part> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(Part::Down(name.to_owned())),
            Component::ParentDir => Some(Part::Up),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn set_xattr(attributes: &mut Attributes, key: Box<[u8]>, value: Box<[u8]>) {
    let xattrs = attributes.xattrs.get_or_insert_default();
    xattrs.retain(|(other, _)| *other != key);
    xattrs.push((key, value));
}

fn id_of(id: u64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX - 1)
}

fn path_error(op: &'static str, path: &Path, error: Errno) -> IndexError {
    ApplyError::from(PathError::new(op, path, error)).into()
}
