//! The tree that an image describes: nodes with attributes, in folders by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use oci::error::ErrorKind;

use crate::format::{NAME_MAX, TARGET_MAX, XATTR_HEADER_SIZE, xattr_count};
use crate::xattr::{self, Xattr, Xattrs};

/// What a tree may hold. The entries bound the memory: a node with its name takes about 150 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes, the root included.
    pub nodes: usize,
    /// Bytes of all xattrs and targets of links.
    pub attribute_bytes: usize,
}

impl Default for Limits {
    /// Ten million nodes, 256 MiB of attributes.
    fn default() -> Self {
        Self {
            nodes: 10_000_000,
            attribute_bytes: 256 << 20,
        }
    }
}

/// A node of one [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        // A u32 fits into the usize of every platform that mounts.
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The number of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// At most 4095, as Linux encodes it.
    pub major: u32,
    /// At most 1,048,575.
    pub minor: u32,
}

impl DeviceNumber {
    /// The number as the format has it, `new_encode_dev` of Linux. None: too large.
    pub(crate) fn encode(self) -> Option<u32> {
        (self.major < 1 << 12 && self.minor < 1 << 20).then_some(())?;
        Some(self.minor & 0xff | self.major << 8 | (self.minor & !0xff) << 12)
    }

    pub(crate) fn decode(number: u32) -> Self {
        Self {
            major: (number >> 8) & 0xfff,
            minor: number & 0xff | (number >> 12) & 0xf_ff00,
        }
    }
}

/// A part of a file that lies in a device. Between parts, and after the last, there are zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it begins, in bytes; a multiple of the block.
    pub file_offset: u64,
    /// Bytes; a multiple of the block, but for the part with which the file ends.
    pub length: u64,
    /// The device, counted from 1.
    pub device: u16,
    /// Where in the device it begins, in bytes; a multiple of the block.
    pub device_offset: u64,
}

/// What a node is, as a number of the format's file types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket's node.
    Socket,
    /// A symbolic link.
    Symlink,
}

impl FileKind {
    const ALL: [(Self, u8, u16); 7] = [
        (Self::File, 1, 0o100_000),
        (Self::Folder, 2, 0o040_000),
        (Self::CharDevice, 3, 0o020_000),
        (Self::BlockDevice, 4, 0o060_000),
        (Self::Fifo, 5, 0o010_000),
        (Self::Socket, 6, 0o140_000),
        (Self::Symlink, 7, 0o120_000),
    ];

    fn row(self) -> (u8, u16) {
        let [first, ..] = Self::ALL;
        let row = Self::ALL.into_iter().find(|(kind, ..)| *kind == self);
        let (_, number, type_bits) = row.unwrap_or(first);
        (number, type_bits)
    }

    /// The number in an entry of a folder.
    pub(crate) fn number(self) -> u8 {
        self.row().0
    }

    /// The type's bits of `st_mode`.
    #[must_use]
    pub fn type_bits(self) -> u16 {
        self.row().1
    }

    pub(crate) fn of_mode(mode: u16) -> Option<Self> {
        let row = Self::ALL.into_iter();
        row.clone()
            .find(|(.., type_bits)| *type_bits == mode & 0o170_000)
            .map(|(kind, ..)| kind)
    }
}

/// What a node holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Entries by name. Made empty; filled with [`Tree::add`] and [`Tree::link`].
    Folder(BTreeMap<Box<[u8]>, NodeId>),
    /// A file without holes that lies in one piece, as nearly all do.
    File {
        /// Bytes. An empty file lies nowhere: device and place are not looked at.
        size: u64,
        /// The device, counted from 1.
        device: u16,
        /// Where it begins there, in bytes; a multiple of the block.
        device_offset: u64,
    },
    /// A file with holes, or in several pieces.
    SparseFile {
        /// Bytes.
        size: u64,
        /// In order of their place in the file, none over another.
        extents: Box<[Extent]>,
    },
    /// A symbolic link with its target, 1 to 4095 bytes without NUL.
    Symlink(Box<[u8]>),
    /// A character device; 0:0 is a whiteout of overlayfs.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A socket's node.
    Socket,
}

impl fmt::Debug for Content {
    /// A folder says how much it holds, not what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(entries) => write!(f, "Folder({} entries)", entries.len()),
            Self::File {
                size,
                device,
                device_offset,
            } => write!(f, "File({size} bytes at {device}:{device_offset})"),
            Self::SparseFile { size, extents } => {
                write!(f, "SparseFile({size} bytes in {} parts)", extents.len())
            }
            Self::Symlink(target) => write!(f, "Symlink({})", target.escape_ascii()),
            Self::CharDevice(number) => write!(f, "CharDevice({number:?})"),
            Self::BlockDevice(number) => write!(f, "BlockDevice({number:?})"),
            Self::Fifo => f.write_str("Fifo"),
            Self::Socket => f.write_str("Socket"),
        }
    }
}

impl Content {
    /// An empty folder.
    #[must_use]
    pub fn folder() -> Self {
        Self::Folder(BTreeMap::new())
    }

    /// What overlayfs takes for "there is no such name": a character device 0:0.
    #[must_use]
    pub fn whiteout() -> Self {
        Self::CharDevice(DeviceNumber { major: 0, minor: 0 })
    }

    /// The size and the parts of a regular file; None of what is none. One in one piece has one part.
    pub(crate) fn parts(&self) -> Option<(u64, Cow<'_, [Extent]>)> {
        match self {
            Self::File {
                size,
                device,
                device_offset,
            } => {
                let whole = Extent {
                    file_offset: 0,
                    length: *size,
                    device: *device,
                    device_offset: *device_offset,
                };
                Some((*size, Cow::Owned(vec![whole])))
            }
            Self::SparseFile { size, extents } => Some((*size, Cow::Borrowed(extents))),
            Self::Folder(_)
            | Self::Symlink(_)
            | Self::CharDevice(_)
            | Self::BlockDevice(_)
            | Self::Fifo
            | Self::Socket => None,
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Folder(_) => FileKind::Folder,
            Self::File { .. } | Self::SparseFile { .. } => FileKind::File,
            Self::Symlink(_) => FileKind::Symlink,
            Self::CharDevice(_) => FileKind::CharDevice,
            Self::BlockDevice(_) => FileKind::BlockDevice,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
        }
    }
}

/// What stat(2) and listxattr(2) say of a node beside what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// The permission bits, with those for set-user-ID, set-group-ID and sticky: at most 0o7777.
    pub permissions: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Time of the last change, in seconds since 1970.
    pub seconds: i64,
    /// The part of a second, below 1,000,000,000.
    pub nanoseconds: u32,
    /// Extended attributes: name with its prefix, and value, in any order. In a box, as most nodes have none.
    pub xattrs: Option<Box<Xattrs>>,
}

impl Attributes {
    /// The extended attributes.
    #[must_use]
    pub fn xattrs(&self) -> &[Xattr] {
        self.xattrs.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// A node: its attributes and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, times, permissions, xattrs.
    pub attributes: Attributes,
    /// What it is and holds.
    pub content: Content,
}

/// Why something cannot be in the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A name that no folder can hold.
    #[error("{:?} cannot be the name of a file", .0.escape_ascii().to_string())]
    Name(Box<[u8]>),
    /// A target that no link can have.
    #[error("a symbolic link cannot have a target of {length} bytes, or one with NUL")]
    Target {
        /// Its length, in bytes.
        length: usize,
    },
    /// The parent is no folder.
    #[error("{:?} is to be put into what is no folder", .0.escape_ascii().to_string())]
    NotFolder(Box<[u8]>),
    /// A folder cannot have a second name.
    #[error("{:?} is to be another name of a folder", .0.escape_ascii().to_string())]
    FolderLinked(Box<[u8]>),
    /// A folder is made empty, and filled afterwards.
    #[error("{:?} is to be a folder that holds something before it is in the tree", .0.escape_ascii().to_string())]
    FolderFilled(Box<[u8]>),
    /// An attribute whose name or value the format has no room for.
    #[error("the extended attribute {:?} with a value of {length} bytes cannot be stored", .name.escape_ascii().to_string())]
    Xattr {
        /// Its name.
        name: Box<[u8]>,
        /// The length of its value, in bytes.
        length: usize,
    },
    /// The attributes of one node together are more than the format has room for.
    #[error("extended attributes of {size} bytes are more than a file can have")]
    Xattrs {
        /// Bytes that they take.
        size: usize,
    },
    /// A device number that Linux cannot have.
    #[error("there is no device {}:{}", .0.major, .0.minor)]
    DeviceNumber(DeviceNumber),
    /// Permissions or nanoseconds out of their range.
    #[error("permissions {permissions:o} or nanoseconds {nanoseconds} are out of range")]
    Attributes {
        /// The permissions.
        permissions: u16,
        /// The nanoseconds.
        nanoseconds: u32,
    },
    /// There are more nodes than the limit.
    #[error("a layer can have at most {limit} files")]
    TooManyNodes {
        /// The limit.
        limit: usize,
    },
    /// The extended attributes and targets are longer than the limit.
    #[error("extended attributes and links of a layer can have at most {limit} bytes")]
    TooManyAttributes {
        /// The limit.
        limit: usize,
    },
}

impl TreeError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_)
            | Self::Target { .. }
            | Self::Xattr { .. }
            | Self::Xattrs { .. }
            | Self::DeviceNumber(_)
            | Self::Attributes { .. } => ErrorKind::Hostile,
            Self::NotFolder(_) | Self::FolderLinked(_) => ErrorKind::Invalid,
            Self::FolderFilled(_) => ErrorKind::Bug,
            Self::TooManyNodes { .. } | Self::TooManyAttributes { .. } => ErrorKind::Exhausted,
        }
    }
}

/// A tree that grows by names. What has lost its last name stays in memory and is not written.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    limits: Limits,
    attribute_bytes: usize,
}

impl Tree {
    /// A tree that is an empty folder.
    pub fn new(root: Attributes, limits: Limits) -> Result<Self, TreeError> {
        let mut tree = Self {
            nodes: Vec::new(),
            limits,
            attribute_bytes: 0,
        };
        tree.push(
            b"/",
            Node {
                attributes: root,
                content: Content::folder(),
            },
        )?;
        Ok(tree)
    }

    /// The root folder.
    #[must_use]
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }

    /// Nodes that were ever added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node of this tree. An id of another tree gives whatever has that number here, or the root.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id.index()).unwrap_or(&self.nodes[0])
    }

    /// The entries of a folder; none of what is no folder.
    #[must_use]
    pub fn entries(&self, folder: NodeId) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.node(folder).content {
            Content::Folder(entries) => Some(entries),
            Content::File { .. }
            | Content::SparseFile { .. }
            | Content::Symlink(_)
            | Content::CharDevice(_)
            | Content::BlockDevice(_)
            | Content::Fifo
            | Content::Socket => None,
        }
    }

    /// What `folder` has under `name`.
    #[must_use]
    pub fn lookup(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        self.entries(folder)?.get(name).copied()
    }

    /// Puts a new node into a folder, in the place of what had the name. Folders are added empty.
    pub fn add(&mut self, folder: NodeId, name: &[u8], node: Node) -> Result<NodeId, TreeError> {
        check_name(name)?;
        self.check_folder(folder, name)?;
        let id = self.push(name, node)?;
        self.put(folder, name, id);
        Ok(id)
    }

    /// Gives a node another name: a hard link, in the place of what had the name. Folders are refused.
    pub fn link(&mut self, folder: NodeId, name: &[u8], target: NodeId) -> Result<(), TreeError> {
        check_name(name)?;
        self.check_folder(folder, name)?;
        if self.entries(target).is_some() {
            return Err(TreeError::FolderLinked(name.into()));
        }
        self.put(folder, name, target);
        Ok(())
    }

    /// Takes a name out of a folder. Returns what had it.
    pub fn remove(&mut self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        self.entries_mut(folder)?.remove(name)
    }

    /// Replaces the attributes of a node: a folder that comes again keeps what it holds.
    pub fn set_attributes(&mut self, id: NodeId, attributes: Attributes) -> Result<(), TreeError> {
        let size = check_attributes(&attributes)?;
        self.count_attributes(size)?;
        if let Some(node) = self.nodes.get_mut(id.index()) {
            node.attributes = attributes;
        }
        Ok(())
    }

    fn entries_mut(&mut self, folder: NodeId) -> Option<&mut BTreeMap<Box<[u8]>, NodeId>> {
        match &mut self.nodes.get_mut(folder.index())?.content {
            Content::Folder(entries) => Some(entries),
            Content::File { .. }
            | Content::SparseFile { .. }
            | Content::Symlink(_)
            | Content::CharDevice(_)
            | Content::BlockDevice(_)
            | Content::Fifo
            | Content::Socket => None,
        }
    }

    fn put(&mut self, folder: NodeId, name: &[u8], id: NodeId) {
        if let Some(entries) = self.entries_mut(folder) {
            entries.insert(name.into(), id);
        }
    }

    fn check_folder(&self, folder: NodeId, name: &[u8]) -> Result<(), TreeError> {
        match self.entries(folder) {
            Some(_) => Ok(()),
            None => Err(TreeError::NotFolder(name.into())),
        }
    }

    fn push(&mut self, name: &[u8], node: Node) -> Result<NodeId, TreeError> {
        let limit = self.limits.nodes;
        let number = u32::try_from(self.nodes.len()).ok();
        let Some(number) = number.filter(|_| self.nodes.len() < limit) else {
            return Err(TreeError::TooManyNodes { limit });
        };
        let mut size = check_attributes(&node.attributes)?;
        match &node.content {
            Content::Folder(entries) if !entries.is_empty() => {
                return Err(TreeError::FolderFilled(name.into()));
            }
            Content::Symlink(target) => {
                let length = target.len();
                if length == 0 || length > TARGET_MAX || target.contains(&0) {
                    return Err(TreeError::Target { length });
                }
                size += length;
            }
            Content::CharDevice(number) | Content::BlockDevice(number) => {
                number.encode().ok_or(TreeError::DeviceNumber(*number))?;
            }
            Content::Folder(_)
            | Content::File { .. }
            | Content::SparseFile { .. }
            | Content::Fifo
            | Content::Socket => {}
        }
        self.count_attributes(size)?;
        self.nodes.push(node);
        Ok(NodeId(number))
    }

    fn count_attributes(&mut self, size: usize) -> Result<(), TreeError> {
        let sum = self.attribute_bytes.saturating_add(size);
        let limit = self.limits.attribute_bytes;
        if sum > limit {
            return Err(TreeError::TooManyAttributes { limit });
        }
        self.attribute_bytes = sum;
        Ok(())
    }
}

fn check_name(name: &[u8]) -> Result<(), TreeError> {
    let wrong = name.is_empty()
        || name == b"."
        || name == b".."
        || name.len() > NAME_MAX
        || name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if wrong {
        return Err(TreeError::Name(name.into()));
    }
    Ok(())
}

/// The bytes that the xattrs take.
fn check_attributes(attributes: &Attributes) -> Result<usize, TreeError> {
    let (permissions, nanoseconds) = (attributes.permissions, attributes.nanoseconds);
    if permissions > 0o7777 || nanoseconds > 999_999_999 {
        return Err(TreeError::Attributes {
            permissions,
            nanoseconds,
        });
    }
    let mut size = 0;
    for (name, value) in attributes.xattrs() {
        let entry_size = xattr::entry_size(name, value);
        size += entry_size.map_err(|_fault| TreeError::Xattr {
            name: name.clone(),
            length: value.len(),
        })?;
    }
    if size > 0 && xattr_count(XATTR_HEADER_SIZE + size).is_none() {
        return Err(TreeError::Xattrs { size });
    }
    Ok(size)
}
