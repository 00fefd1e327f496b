//! Writes the image of a tree, from its first byte to its last.

use std::io::{self, Write};

use crate::error::WriteError;
use crate::format::{
    BlockSize, CHUNK_PLACE_SIZE, DEVICE_SLOT_SIZE, FEATURE_CHUNKED_FILE, FEATURE_DEVICE_TABLE,
    HOLE, INODE_SIZE, Layout, RawInode, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock, put,
    round_up, xattr_count,
};
use crate::layout::{Chunks, Place, Plan, folder_blocks, length};
use crate::tree::{Content, Extent, NodeId, Tree};
use crate::xattr;

/// Images are filled up to a multiple of this many bytes, a page, so that the kernel reads whole ones.
const IMAGE_UNIT: u64 = 4096;

/// A file beside the image that holds contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its length in bytes. A content in a last block that is cut is outside: reading it fails with EIO.
    pub size: u64,
}

/// How an image is written.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions<'a> {
    /// The unit in which everything is placed.
    pub block_size: BlockSize,
    /// The devices in the order in which a mount names them; extents count from 1.
    pub devices: &'a [Device],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The image, in bytes.
    pub size: u64,
    /// Nodes that have a name.
    pub inodes: u64,
}

/// Writes the image of `tree`. Nothing is synced.
pub fn write(
    tree: &Tree,
    options: WriteOptions<'_>,
    image: impl Write,
) -> Result<Written, WriteError> {
    let block_size = options.block_size;
    let plan = Plan::new(tree, block_size)?;
    let devices = u16::try_from(options.devices.len()).map_err(|_| WriteError::ImageTooLarge)?;
    let head =
        SUPERBLOCK_OFFSET + length(SUPERBLOCK_SIZE) + u64::from(devices) * length(DEVICE_SLOT_SIZE);
    let first_inode_block = block_size.blocks(head);
    let first_data_block = first_inode_block + block_size.blocks(plan.inode_bytes);
    let blocks = first_data_block + plan.data_blocks;
    let block_number = |number: u64| u32::try_from(number).map_err(|_| WriteError::ImageTooLarge);

    // The root is the first inode, in one of the first slots.
    let root = plan.place(tree.root()).map_or(0, |place| place.nid);
    let root = u16::try_from(root).map_err(|_| WriteError::ImageTooLarge)?;
    let mut features = FEATURE_CHUNKED_FILE;
    if devices > 0 {
        features |= FEATURE_DEVICE_TABLE;
    }
    let superblock = Superblock {
        block_size,
        root,
        inodes: length(plan.order.len()),
        blocks: block_number(blocks)?,
        first_inode_block: block_number(first_inode_block)?,
        incompatible: features,
        devices,
        first_device_slot: slot_after_superblock(),
    };
    let mut writer = Writer {
        tree,
        plan: &plan,
        options,
        first_data_block: block_number(first_data_block)?,
        out: Counted {
            out: image,
            written: 0,
        },
    };
    writer.out.zeros_to(SUPERBLOCK_OFFSET)?;
    writer.out.write_all(&superblock.encode())?;
    writer.device_table()?;
    writer
        .out
        .zeros_to(first_inode_block * block_size.bytes())?;
    writer.inodes()?;
    writer.out.zeros_to(first_data_block * block_size.bytes())?;
    writer.data()?;
    let size = round_up(blocks * block_size.bytes(), IMAGE_UNIT);
    writer.out.zeros_to(size)?;
    writer.out.out.flush()?;
    Ok(Written {
        size,
        inodes: superblock.inodes,
    })
}

fn slot_after_superblock() -> u16 {
    let slot = (SUPERBLOCK_OFFSET + length(SUPERBLOCK_SIZE)) / length(DEVICE_SLOT_SIZE);
    u16::try_from(slot).unwrap_or(u16::MAX)
}

struct Writer<'a, W> {
    tree: &'a Tree,
    plan: &'a Plan,
    options: WriteOptions<'a>,
    first_data_block: u32,
    out: Counted<W>,
}

impl<W: Write> Writer<'_, W> {
    fn device_table(&mut self) -> Result<(), WriteError> {
        for device in self.options.devices {
            let mut slot = [0; DEVICE_SLOT_SIZE];
            let blocks = u32::try_from(device.size / self.options.block_size.bytes());
            let blocks = blocks.map_err(|_| WriteError::ImageTooLarge)?;
            put(&mut slot, 64, &blocks.to_le_bytes());
            self.out.write_all(&slot)?;
        }
        Ok(())
    }

    fn inodes(&mut self) -> Result<(), WriteError> {
        let start = self.out.written;
        for (id, serial) in self.plan.order.iter().zip(1u32..) {
            let Some(place) = self.plan.place(*id) else {
                continue;
            };
            self.out
                .zeros_to(start + place.nid * crate::format::INODE_SLOT)?;
            self.inode(*id, place, serial)?;
        }
        Ok(())
    }

    fn inode(&mut self, id: NodeId, place: &Place, serial: u32) -> Result<(), WriteError> {
        let node = self.tree.node(id);
        let xattrs = xattr::encode(node.attributes.xattrs());
        let in_blocks =
            place.size > 0 && matches!(node.content, Content::Folder(_) | Content::Symlink(_));
        let inode = RawInode {
            layout: place.layout,
            xattr_count: xattr_count(xattrs.len()).unwrap_or_default(),
            mode: node.content.kind().type_bits() | node.attributes.permissions,
            size: place.size,
            place: place.detail + if in_blocks { self.first_data_block } else { 0 },
            serial,
            uid: node.attributes.uid,
            gid: node.attributes.gid,
            seconds: node.attributes.seconds,
            nanoseconds: node.attributes.nanoseconds,
            links: place.links,
        };
        self.out.write_all(&inode.encode())?;
        self.out.write_all(&xattrs)?;
        let block_size = self.options.block_size;
        match &node.content {
            Content::Folder(_) if place.layout == Layout::Inline => {
                let full = place.size / block_size.bytes();
                let mut number = 0;
                let out = &mut self.out;
                folder_blocks(self.tree, self.plan, id, block_size, |block| {
                    number += 1;
                    if number > full {
                        out.write_all(&block)?;
                    }
                    Ok(())
                })
            }
            Content::Symlink(target) if place.layout == Layout::Inline => {
                Ok(self.out.write_all(target)?)
            }
            Content::File { .. } | Content::SparseFile { .. } => match node.content.parts() {
                Some((size, extents)) => self.chunks(size, &extents),
                None => Ok(()),
            },
            Content::Folder(_)
            | Content::Symlink(_)
            | Content::CharDevice(_)
            | Content::BlockDevice(_)
            | Content::Fifo
            | Content::Socket => Ok(()),
        }
    }

    fn chunks(&mut self, size: u64, extents: &[Extent]) -> Result<(), WriteError> {
        let block_size = self.options.block_size;
        for extent in extents.iter().filter(|extent| extent.length > 0) {
            let index = usize::from(extent.device).checked_sub(1);
            let device = index.and_then(|index| self.options.devices.get(index));
            let end = extent.device_offset.saturating_add(extent.length);
            let end = block_size.blocks(end).saturating_mul(block_size.bytes());
            if device.is_none_or(|device| end > device.size) {
                let (device, device_offset) = (extent.device, extent.device_offset);
                return Err(WriteError::OutsideDevice {
                    device,
                    device_offset,
                });
            }
        }
        if size == 0 {
            return Ok(());
        }
        let places = Chunks::new(size, extents, block_size)?;
        self.out
            .zeros_to(round_up(self.out.written, length(CHUNK_PLACE_SIZE)))?;
        for place in places.places() {
            let (device, block) = place.unwrap_or((0, HOLE));
            let mut record = [0; CHUNK_PLACE_SIZE];
            put(&mut record, 2, &device.to_le_bytes());
            put(&mut record, 4, &block.to_le_bytes());
            self.out.write_all(&record)?;
        }
        Ok(())
    }

    /// Blocks of folders and long targets, in the order of their inodes.
    fn data(&mut self) -> Result<(), WriteError> {
        let block_size = self.options.block_size;
        for id in &self.plan.order {
            let Some(place) = self.plan.place(*id) else {
                continue;
            };
            match &self.tree.node(*id).content {
                Content::Folder(_) => {
                    let full = place.size / block_size.bytes();
                    let plain = place.layout == Layout::Plain;
                    let mut number = 0;
                    let out = &mut self.out;
                    folder_blocks(self.tree, self.plan, *id, block_size, |block| {
                        number += 1;
                        if number <= full || plain {
                            out.write_all(&block)?;
                            out.zeros_to(round_up(out.written, block_size.bytes()))?;
                        }
                        Ok(())
                    })?;
                }
                Content::Symlink(target) if place.layout == Layout::Plain => {
                    self.out.write_all(target)?;
                    self.out
                        .zeros_to(round_up(self.out.written, block_size.bytes()))?;
                }
                Content::Symlink(_)
                | Content::File { .. }
                | Content::SparseFile { .. }
                | Content::CharDevice(_)
                | Content::BlockDevice(_)
                | Content::Fifo
                | Content::Socket => {}
            }
        }
        Ok(())
    }
}

/// Counts what goes through.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += length(bytes.len());
        self.out.write_all(bytes)
    }

    /// Zeros up to byte `end` of the image.
    fn zeros_to(&mut self, end: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.written < end {
            let missing = usize::try_from(end - self.written).unwrap_or(usize::MAX);
            self.write_all(&ZEROS[..missing.min(ZEROS.len())])?;
        }
        Ok(())
    }
}

const _: () = assert!(INODE_SIZE.is_multiple_of(CHUNK_PLACE_SIZE));
