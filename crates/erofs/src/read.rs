//! Reads images of our own form, trusting no byte of them.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use oci::error::ErrorKind;

use crate::directory;
use crate::format::{
    BlockSize, CHUNK_BITS_MASK, CHUNK_PLACE_SIZE, CHUNK_PLACES, FEATURE_CHUNKED_FILE,
    FEATURE_DEVICE_TABLE, HOLE, INODE_SIZE, INODE_SLOT, Layout, RawInode, SUPERBLOCK_OFFSET,
    SUPERBLOCK_SIZE, Superblock, TARGET_MAX, round_up, u16_at, u32_at, xattr_size,
};
use crate::layout::length;
use crate::tree::{Attributes, DeviceNumber, Extent, FileKind};
use crate::xattr;

/// What an image is read from.
pub trait ReadAt {
    /// Fills `bytes` from byte `offset` on; an error of the kind `UnexpectedEof` where there are fewer.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| self.get(start..start.checked_add(bytes.len())?));
        let source = range.ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(source);
        Ok(())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(bytes, offset)
    }
}

/// The number of an inode in its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nid(u64);

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("cannot read the index: {0}")]
    Io(#[source] io::Error),
    /// The image has no superblock, or one that we do not write.
    #[error("this is no index of a layer")]
    NoImage,
    /// An inode contradicts itself or others.
    #[error("the index is damaged: inode {}: {source}", .inode.0)]
    Damaged {
        /// Which.
        inode: Nid,
        /// How it contradicts itself or others.
        source: InodeFault,
    },
    /// The superblock does not say what the tree holds.
    #[error("the index is damaged: it says that it has {said} files and has {counted}")]
    Count {
        /// Of the superblock.
        said: u64,
        /// Of the tree.
        counted: u64,
    },
}

/// How an inode contradicts itself or others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InodeFault {
    /// It lies outside of the image, or what it names does.
    #[error("it is outside of the index")]
    Outside,
    /// A form of inode that we do not write.
    #[error("its form is unknown")]
    Form,
    /// The type is none, or not the one that the folder's entry says.
    #[error("its type is wrong")]
    Type,
    /// The extended attributes.
    #[error("its extended attributes are wrong")]
    Xattrs,
    /// The entries are out of order, double, or without "." and "..".
    #[error("its entries are wrong")]
    Entries,
    /// The target of the link.
    #[error("its target is wrong")]
    Target,
    /// The places of its chunks.
    #[error("its places are wrong")]
    Places,
    /// The number of its names.
    #[error("the number of its links is wrong")]
    Links,
}

impl ReadError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(error) => ErrorKind::of_host(error),
            Self::NoImage | Self::Damaged { .. } | Self::Count { .. } => ErrorKind::System,
        }
    }
}

/// What an inode says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: Nid,
    /// What it is.
    pub kind: FileKind,
    /// The content's bytes.
    pub size: u64,
    /// Names that it has; of a folder two, and one for each folder in it.
    pub links: u32,
    /// Owner, times, permissions, xattrs.
    pub attributes: Attributes,
    raw: RawInode,
}

impl Inode {
    /// Of a device node, its number.
    #[must_use]
    pub fn device_number(&self) -> Option<DeviceNumber> {
        let device = matches!(self.kind, FileKind::CharDevice | FileKind::BlockDevice);
        device.then(|| DeviceNumber::decode(self.raw.place))
    }
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// One part of a path.
    pub name: Vec<u8>,
    /// What has the name.
    pub nid: Nid,
}

/// What [`Image::check`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSummary {
    /// Inodes.
    pub inodes: u64,
    /// Names, those of links among them.
    pub names: u64,
    /// Bytes of the contents of all files, once for each file.
    pub content_bytes: u64,
}

/// An image that is read.
#[derive(Debug)]
pub struct Image<R> {
    source: R,
    superblock: Superblock,
}

impl<R: ReadAt> Image<R> {
    /// Reads the superblock.
    pub fn open(source: R) -> Result<Self, ReadError> {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        match source.read_exact_at(&mut bytes, SUPERBLOCK_OFFSET) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ReadError::NoImage);
            }
            Err(error) => return Err(ReadError::Io(error)),
        }
        let superblock = Superblock::decode(&bytes).ok_or(ReadError::NoImage)?;
        let unknown = superblock.incompatible & !(FEATURE_CHUNKED_FILE | FEATURE_DEVICE_TABLE);
        if unknown != 0 {
            return Err(ReadError::NoImage);
        }
        Ok(Self { source, superblock })
    }

    /// Devices that a mount needs beside the image.
    #[must_use]
    pub fn devices(&self) -> u16 {
        self.superblock.devices
    }

    /// The unit in which everything is placed.
    #[must_use]
    pub fn block_size(&self) -> BlockSize {
        self.superblock.block_size
    }

    /// The root folder.
    pub fn root(&self) -> Result<Inode, ReadError> {
        self.inode(Nid(self.superblock.root.into()))
    }

    /// An inode with its attributes.
    pub fn inode(&self, nid: Nid) -> Result<Inode, ReadError> {
        let mut bytes = [0; INODE_SIZE];
        self.read(nid, &mut bytes, self.inode_offset(nid)?)?;
        let raw = RawInode::decode(&bytes).ok_or(damaged(nid, InodeFault::Form))?;
        let kind = FileKind::of_mode(raw.mode).ok_or(damaged(nid, InodeFault::Type))?;
        let mut xattrs = vec![0; xattr_size(raw.xattr_count)];
        self.read(
            nid,
            &mut xattrs,
            self.inode_offset(nid)? + length(INODE_SIZE),
        )?;
        let xattrs = xattr::decode(&xattrs).ok_or(damaged(nid, InodeFault::Xattrs))?;
        Ok(Inode {
            nid,
            kind,
            size: raw.size,
            links: raw.links,
            attributes: Attributes {
                permissions: raw.mode & 0o7777,
                uid: raw.uid,
                gid: raw.gid,
                seconds: raw.seconds,
                nanoseconds: raw.nanoseconds,
                xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
            },
            raw,
        })
    }

    /// The entries of a folder in the order of their names, without "." and "..".
    pub fn entries(&self, folder: &Inode) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        self.visit_entries(folder, |name, nid, _| {
            if name != b"." && name != b".." {
                entries.push(Entry {
                    name: name.to_vec(),
                    nid,
                });
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// What a folder has under `name`.
    pub fn lookup(&self, folder: &Inode, name: &[u8]) -> Result<Option<Inode>, ReadError> {
        let mut nid = None;
        // Names of a block are above those of the blocks before: halving finds the block.
        let (mut low, mut high) = (0, self.block_count(folder)?);
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.folder_block(folder, middle)?;
            let entries = directory::unpack(&block);
            let entries = entries.ok_or(damaged(folder.nid, InodeFault::Entries))?;
            let place = entries.binary_search_by(|entry| entry.name.cmp(name));
            match place {
                Ok(place) => {
                    nid = Some(Nid(entries[place].nid));
                    break;
                }
                Err(0) => high = middle,
                Err(place) if place == entries.len() => low = middle + 1,
                Err(_) => break,
            }
        }
        nid.map(|nid| self.inode(nid)).transpose()
    }

    /// The target of a link.
    pub fn target(&self, link: &Inode) -> Result<Vec<u8>, ReadError> {
        let wrong = damaged(link.nid, InodeFault::Target);
        let length = usize::try_from(link.size)
            .ok()
            .filter(|length| *length <= TARGET_MAX);
        let Some(length) = length.filter(|_| link.kind == FileKind::Symlink) else {
            return Err(wrong);
        };
        let mut target = vec![0; length];
        match link.raw.layout {
            Layout::Inline => self.read(link.nid, &mut target, self.beside(link)?)?,
            Layout::Plain => self.read(link.nid, &mut target, self.block_offset(link.raw.place))?,
            Layout::Chunks => return Err(wrong),
        }
        Ok(target)
    }

    /// The parts of a file, in their order; neighbours that lie side by side are one.
    pub fn extents(&self, file: &Inode) -> Result<Vec<Extent>, ReadError> {
        let wrong = || damaged(file.nid, InodeFault::Places);
        let mut extents: Vec<Extent> = Vec::new();
        if file.kind != FileKind::File {
            return Err(wrong());
        }
        if file.size == 0 {
            return Ok(extents);
        }
        if file.raw.layout != Layout::Chunks || file.raw.place & !CHUNK_BITS_MASK != CHUNK_PLACES {
            return Err(wrong());
        }
        let block = self.superblock.block_size;
        let bits = u32::from(block.bits()) + (file.raw.place & CHUNK_BITS_MASK);
        let chunk_size = 1u64 << bits;
        let count = file.size.div_ceil(chunk_size);
        let table = round_up(self.beside(file)?, length(CHUNK_PLACE_SIZE));
        let end = count
            .checked_mul(length(CHUNK_PLACE_SIZE))
            .and_then(|size| table.checked_add(size));
        if end.is_none_or(|end| end > self.end()) {
            return Err(wrong());
        }
        for chunk in 0..count {
            let mut record = [0; CHUNK_PLACE_SIZE];
            self.read(
                file.nid,
                &mut record,
                table + chunk * length(CHUNK_PLACE_SIZE),
            )?;
            let (device, first_block) = (u16_at(&record, 2), u32_at(&record, 4));
            if first_block == HOLE {
                continue;
            }
            if u16_at(&record, 0) != 0 || device == 0 || device > self.superblock.devices {
                return Err(wrong());
            }
            let file_offset = chunk * chunk_size;
            let part = Extent {
                file_offset,
                length: chunk_size.min(file.size - file_offset),
                device,
                device_offset: self.block_offset(first_block),
            };
            match extents.last_mut() {
                Some(last)
                    if last.device == device
                        && last.file_offset + last.length == file_offset
                        && last.device_offset + last.length == part.device_offset =>
                {
                    last.length += part.length;
                }
                _ => extents.push(part),
            }
        }
        Ok(extents)
    }

    /// Walks the whole tree and compares everything with everything: `fsck`'s part of an index. Memory is a few bytes for each inode.
    pub fn check(&self) -> Result<ImageSummary, ReadError> {
        let root = self.root()?;
        if root.kind != FileKind::Folder {
            return Err(damaged(root.nid, InodeFault::Type));
        }
        let mut summary = ImageSummary {
            inodes: 1,
            names: 0,
            content_bytes: 0,
        };
        // How often each inode that is no folder was named, and how often it says to be.
        let mut names = std::collections::HashMap::new();
        let mut folders = VecDeque::from([(root.nid, root.nid)]);
        let mut seen_folders = std::collections::HashSet::from([root.nid]);
        while let Some((nid, parent)) = folders.pop_front() {
            let folder = self.inode(nid)?;
            let wrong = || damaged(nid, InodeFault::Entries);
            let mut previous: Option<Vec<u8>> = None;
            let (mut dots, mut folder_count) = (0, 2);
            self.visit_entries(&folder, |name, child, kind| {
                if previous.as_deref().is_some_and(|previous| previous >= name) {
                    return Err(wrong());
                }
                previous = Some(name.to_vec());
                match name {
                    b"." if child == nid => dots += 1,
                    b".." if child == parent => dots += 1,
                    b"" | b"." | b".." => return Err(wrong()),
                    _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => return Err(wrong()),
                    _ => {
                        summary.names += 1;
                        let inode = self.inode(child)?;
                        if inode.kind.number() != kind {
                            return Err(damaged(child, InodeFault::Type));
                        }
                        if inode.kind == FileKind::Folder {
                            if !seen_folders.insert(child) {
                                return Err(damaged(child, InodeFault::Links));
                            }
                            folder_count += 1;
                            summary.inodes += 1;
                            folders.push_back((child, nid));
                            return Ok(());
                        }
                        let count = names.entry(child).or_insert((0u32, inode.links));
                        count.0 += 1;
                        if count.0 == 1 {
                            summary.inodes += 1;
                            summary.content_bytes += self.check_content(&inode)?;
                        }
                    }
                }
                Ok(())
            })?;
            if dots != 2 {
                return Err(wrong());
            }
            if folder.links != folder_count {
                return Err(damaged(nid, InodeFault::Links));
            }
        }
        if let Some((nid, _)) = names.iter().find(|(_, (named, links))| named != links) {
            return Err(damaged(*nid, InodeFault::Links));
        }
        let (said, counted) = (self.superblock.inodes, summary.inodes);
        if said != counted {
            return Err(ReadError::Count { said, counted });
        }
        Ok(summary)
    }

    /// The bytes of a file whose places are right; nothing for what is no file.
    fn check_content(&self, inode: &Inode) -> Result<u64, ReadError> {
        match inode.kind {
            FileKind::File => {
                self.extents(inode)?;
                Ok(inode.size)
            }
            FileKind::Symlink => {
                let target = self.target(inode)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(damaged(inode.nid, InodeFault::Target));
                }
                Ok(0)
            }
            FileKind::Folder
            | FileKind::CharDevice
            | FileKind::BlockDevice
            | FileKind::Fifo
            | FileKind::Socket => Ok(0),
        }
    }

    fn visit_entries(
        &self,
        folder: &Inode,
        mut visit: impl FnMut(&[u8], Nid, u8) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        for number in 0..self.block_count(folder)? {
            let block = self.folder_block(folder, number)?;
            let entries = directory::unpack(&block);
            for entry in entries.ok_or(damaged(folder.nid, InodeFault::Entries))? {
                visit(entry.name, Nid(entry.nid), entry.kind)?;
            }
        }
        Ok(())
    }

    fn block_count(&self, folder: &Inode) -> Result<u64, ReadError> {
        // A folder lies in the image, and is not larger.
        if folder.kind != FileKind::Folder || folder.size > self.end() {
            return Err(damaged(folder.nid, InodeFault::Entries));
        }
        Ok(self.superblock.block_size.blocks(folder.size))
    }

    fn folder_block(&self, folder: &Inode, number: u64) -> Result<Vec<u8>, ReadError> {
        let block_size = self.superblock.block_size;
        let start = number * block_size.bytes();
        let size = block_size.bytes().min(folder.size.saturating_sub(start));
        let mut block = vec![0; usize::try_from(size).unwrap_or_default()];
        let whole = size == block_size.bytes();
        let offset = match folder.raw.layout {
            Layout::Inline if !whole => self.beside(folder)?,
            Layout::Inline | Layout::Plain => self.block_offset(folder.raw.place) + start,
            Layout::Chunks => return Err(damaged(folder.nid, InodeFault::Form)),
        };
        self.read(folder.nid, &mut block, offset)?;
        Ok(block)
    }

    /// Where what lies behind an inode and its xattrs begins, in bytes.
    fn beside(&self, inode: &Inode) -> Result<u64, ReadError> {
        let xattrs = length(xattr_size(inode.raw.xattr_count));
        Ok(self.inode_offset(inode.nid)? + length(INODE_SIZE) + xattrs)
    }

    fn inode_offset(&self, nid: Nid) -> Result<u64, ReadError> {
        let offset = nid.0.checked_mul(INODE_SLOT);
        let offset = offset.and_then(|offset| {
            self.block_offset(self.superblock.first_inode_block)
                .checked_add(offset)
        });
        let outside = damaged(nid, InodeFault::Outside);
        offset.filter(|offset| *offset < self.end()).ok_or(outside)
    }

    fn block_offset(&self, block: u32) -> u64 {
        u64::from(block) << self.superblock.block_size.bits()
    }

    fn end(&self) -> u64 {
        self.block_offset(self.superblock.blocks)
    }

    fn read(&self, nid: Nid, bytes: &mut [u8], offset: u64) -> Result<(), ReadError> {
        match self.source.read_exact_at(bytes, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged(nid, InodeFault::Outside))
            }
            Err(error) => Err(ReadError::Io(error)),
        }
    }
}

fn damaged(inode: Nid, fault: InodeFault) -> ReadError {
    ReadError::Damaged {
        inode,
        source: fault,
    }
}
