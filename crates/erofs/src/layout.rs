//! Where everything of a tree lies in its image: decided before the first byte is written, so that writing goes forward only.

use crate::directory::{PackedEntry, Packer};
use crate::error::WriteError;
use crate::format::{
    BlockSize, CHUNK_BITS_MASK, CHUNK_PLACE_SIZE, CHUNK_PLACES, DIRENT_SIZE, INODE_SIZE,
    INODE_SLOT, Layout, XATTR_HEADER_SIZE, round_up,
};
use crate::tree::{Content, Extent, NodeId, Tree};
use crate::xattr;

/// Places of one file, at most this many: 64 MiB of index.
const CHUNKS_MAX: u64 = 8 << 20;

/// Where one node lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) nid: u64,
    pub(crate) layout: Layout,
    /// The content's bytes.
    pub(crate) size: u64,
    /// What the inode says beside the layout: the first block of its data counted from the first of all data, or the size of a chunk.
    pub(crate) detail: u32,
    /// Names that the node has; of a folder two, and one for each folder in it.
    pub(crate) links: u32,
    /// The folder that holds it; the root holds itself.
    pub(crate) parent: NodeId,
}

/// The nodes that have a name, in the order of their inodes, and their places.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) order: Vec<NodeId>,
    places: Vec<Option<Place>>,
    /// From the begin of the first inode to the end of the last, in bytes.
    pub(crate) inode_bytes: u64,
    pub(crate) data_blocks: u64,
}

impl Plan {
    /// Where a node lies that has a name.
    pub(crate) fn place(&self, id: NodeId) -> Option<&Place> {
        self.places.get(id.index())?.as_ref()
    }

    pub(crate) fn new(tree: &Tree, block_size: BlockSize) -> Result<Self, WriteError> {
        let mut plan = Self {
            order: Vec::new(),
            places: vec![None; tree.len()],
            inode_bytes: 0,
            data_blocks: 0,
        };
        plan.order.push(tree.root());
        plan.places[tree.root().index()] = Some(Place::unplaced(tree.root()));
        let mut next = 0;
        while let Some(id) = plan.order.get(next).copied() {
            next += 1;
            for child in tree
                .entries(id)
                .into_iter()
                .flat_map(|entries| entries.values())
            {
                match &mut plan.places[child.index()] {
                    Some(place) => place.links += 1,
                    slot => {
                        *slot = Some(Place::unplaced(id));
                        plan.order.push(*child);
                    }
                }
            }
        }
        for index in 0..plan.order.len() {
            plan.lay_down(tree, plan.order[index], block_size)?;
        }
        Ok(plan)
    }

    /// Gives one node its place after all before it.
    fn lay_down(
        &mut self,
        tree: &Tree,
        id: NodeId,
        block_size: BlockSize,
    ) -> Result<(), WriteError> {
        let Some(mut place) = self.places[id.index()] else {
            return Ok(());
        };
        let node = tree.node(id);
        let mut beside = xattrs_size(tree, id);
        let mut tail = 0;
        match &node.content {
            Content::Folder(entries) => {
                let folders = entries
                    .values()
                    .filter(|child| tree.entries(**child).is_some());
                // The tree's limit keeps it below the range of a u32.
                place.links = u32::try_from(folders.count()).unwrap_or(u32::MAX - 2) + 2;
                place.size = folder_size(entries.keys().map(|name| &**name), block_size);
                tail = self.split(&mut place, beside, block_size)?;
            }
            Content::Symlink(target) => {
                place.size = length(target.len());
                tail = self.split(&mut place, beside, block_size)?;
                if place.layout == Layout::Inline && tail < place.size {
                    // Linux reads a long target from blocks only.
                    self.data_blocks += 1;
                    (place.layout, tail) = (Layout::Plain, 0);
                }
            }
            Content::File { .. } | Content::SparseFile { .. } => {
                if let Some((size, extents)) = node.content.parts() {
                    let chunks = Chunks::new(size, &extents, block_size)?;
                    beside = chunks.lay_down(&mut place, beside);
                }
            }
            Content::CharDevice(number) | Content::BlockDevice(number) => {
                place.detail = number.encode().unwrap_or_default();
            }
            Content::Fifo | Content::Socket => {}
        }
        let mut at = round_up(self.inode_bytes, INODE_SLOT);
        // What lies beside the inode as its content's end may not lie in two blocks.
        let head = length(INODE_SIZE) + beside;
        // It fits behind some slot: `split` has seen to it.
        while tail > 0 && block_size.tail(at + head) + tail > block_size.bytes() {
            at += INODE_SLOT;
        }
        place.nid = at / INODE_SLOT;
        self.inode_bytes = at + head + tail;
        self.places[id.index()] = Some(place);
        Ok(())
    }

    /// Gives a content its blocks. What is not in a whole block lies behind the inode and its xattrs, if it can lie there within one
    /// block: returns the length of it.
    fn split(
        &mut self,
        place: &mut Place,
        xattrs: u64,
        block_size: BlockSize,
    ) -> Result<u64, WriteError> {
        let tail = block_size.tail(place.size);
        let before_tail = (length(INODE_SIZE) + xattrs) % INODE_SLOT;
        if tail > 0 && before_tail + tail <= block_size.bytes() {
            place.layout = Layout::Inline;
            place.detail = self.take_blocks(place.size / block_size.bytes())?;
            return Ok(tail);
        }
        place.detail = self.take_blocks(block_size.blocks(place.size))?;
        Ok(0)
    }

    fn take_blocks(&mut self, count: u64) -> Result<u32, WriteError> {
        let first = u32::try_from(self.data_blocks).map_err(|_| WriteError::ImageTooLarge)?;
        self.data_blocks += count;
        Ok(first)
    }
}

impl Place {
    fn unplaced(parent: NodeId) -> Self {
        Self {
            nid: 0,
            layout: Layout::Plain,
            size: 0,
            detail: 0,
            links: 1,
            parent,
        }
    }
}

/// A length in memory as one on disk.
pub(crate) fn length(bytes: usize) -> u64 {
    bytes.try_into().unwrap_or(u64::MAX)
}

fn xattrs_size(tree: &Tree, id: NodeId) -> u64 {
    let xattrs = tree.node(id).attributes.xattrs();
    let sizes = xattrs
        .iter()
        .filter_map(|(name, value)| xattr::entry_size(name, value).ok());
    match length(sizes.sum()) {
        0 => 0,
        entries => length(XATTR_HEADER_SIZE) + entries,
    }
}

/// All names of a folder in order, "." and ".." among them. Of both the same key: a node.
pub(crate) fn names_with_dots<'a, T: Copy>(
    entries: impl Iterator<Item = (&'a [u8], T)>,
    own: T,
    parent: T,
) -> impl Iterator<Item = (&'a [u8], T)> {
    let dots: [(&[u8], T); 2] = [(b".", own), (b"..", parent)];
    let mut dots = dots.into_iter().peekable();
    let mut entries = entries.peekable();
    std::iter::from_fn(move || match (dots.peek(), entries.peek()) {
        (Some((dot, _)), Some((name, _))) if name < dot => entries.next(),
        (Some(_), _) => dots.next(),
        (None, _) => entries.next(),
    })
}

/// What the packed entries take: whole blocks, and what is in the last.
fn folder_size<'a>(names: impl Iterator<Item = &'a [u8]>, block_size: BlockSize) -> u64 {
    let (mut blocks, mut filled) = (0, 0);
    for (name, ()) in names_with_dots(names.map(|name| (name, ())), (), ()) {
        let size = length(DIRENT_SIZE + name.len());
        if filled + size > block_size.bytes() {
            (blocks, filled) = (blocks + 1, 0);
        }
        filled += size;
    }
    blocks * block_size.bytes() + filled
}

/// Calls `block` with each block of a folder, the last as long as what is in it.
pub(crate) fn folder_blocks(
    tree: &Tree,
    plan: &Plan,
    id: NodeId,
    block_size: BlockSize,
    mut block: impl FnMut(Vec<u8>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let Some((entries, place)) = tree.entries(id).zip(plan.place(id)) else {
        return Ok(());
    };
    let names = entries.iter().map(|(name, child)| (&**name, *child));
    let mut packer = Packer::new(block_size);
    for (name, child) in names_with_dots(names, id, place.parent) {
        let entry = PackedEntry {
            name,
            nid: plan.place(child).map_or(0, |place| place.nid),
            kind: tree.node(child).content.kind().number(),
        };
        if let Some(full) = packer.push(entry) {
            block(full)?;
        }
    }
    block(packer.take())
}

/// A file in pieces of one size, each in one device or a hole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunks<'a> {
    size: u64,
    extents: &'a [Extent],
    /// The size of a chunk as a power of two.
    bits: u8,
    block_size: BlockSize,
}

impl<'a> Chunks<'a> {
    /// The largest chunks that no extent's border cuts.
    pub(crate) fn new(
        size: u64,
        extents: &'a [Extent],
        block_size: BlockSize,
    ) -> Result<Self, WriteError> {
        let block = block_size.bytes();
        // One chunk over all, unless a border lies within.
        let whole = size.max(block).checked_next_power_of_two();
        let mut bits = whole
            .ok_or(WriteError::FileTooLarge { size })?
            .trailing_zeros();
        let mut end = 0;
        for extent in extents.iter().filter(|extent| extent.length > 0) {
            let extent_end = extent.file_offset.checked_add(extent.length);
            let extent_end = extent_end.filter(|to| extent.file_offset >= end && *to <= size);
            let Some(extent_end) = extent_end else {
                return Err(WriteError::Extents { size });
            };
            end = extent_end;
            let aligned = block_size.tail(extent.device_offset) == 0
                && block_size.tail(extent.file_offset) == 0
                && (end == size || block_size.tail(end) == 0);
            let (device, device_offset) = (extent.device, extent.device_offset);
            if !aligned {
                return Err(WriteError::Unaligned {
                    device,
                    device_offset,
                });
            }
            let last_block = device_offset / block + block_size.blocks(extent.length);
            if device == 0 || last_block >= u64::from(u32::MAX) {
                return Err(WriteError::OutsideDevice {
                    device,
                    device_offset,
                });
            }
            bits = bits.min(extent.file_offset.trailing_zeros());
            if end != size {
                bits = bits.min(end.trailing_zeros());
            }
        }
        if bits - u32::from(block_size.bits()) > CHUNK_BITS_MASK {
            return Err(WriteError::FileTooLarge { size });
        }
        // At most 63.
        let bits = u8::try_from(bits).unwrap_or(u8::MAX);
        let chunks = Self {
            size,
            extents,
            bits,
            block_size,
        };
        if chunks.count() > CHUNKS_MAX {
            return Err(WriteError::Fragmented {
                size,
                chunks: chunks.count(),
            });
        }
        Ok(chunks)
    }

    fn count(self) -> u64 {
        self.size.div_ceil(1 << self.bits)
    }

    /// Returns what lies beside the inode, after `xattrs` bytes of xattrs.
    fn lay_down(self, place: &mut Place, xattrs: u64) -> u64 {
        place.size = self.size;
        if self.size == 0 {
            return xattrs;
        }
        place.layout = Layout::Chunks;
        place.detail = u32::from(self.bits - self.block_size.bits()) | CHUNK_PLACES;
        // The inode's own 64 bytes do not change where eights begin.
        round_up(xattrs, length(CHUNK_PLACE_SIZE)) + self.count() * length(CHUNK_PLACE_SIZE)
    }

    /// Device and block of each chunk; None is a hole.
    pub(crate) fn places(self) -> impl Iterator<Item = Option<(u16, u32)>> {
        let mut extents = self
            .extents
            .iter()
            .filter(|extent| extent.length > 0)
            .peekable();
        (0..self.count()).map(move |chunk| {
            let at = chunk << self.bits;
            while extents
                .next_if(|extent| extent.file_offset + extent.length <= at)
                .is_some()
            {}
            let extent = extents.peek().filter(|extent| extent.file_offset <= at)?;
            let device_offset = extent.device_offset + (at - extent.file_offset);
            let block = u32::try_from(device_offset / self.block_size.bytes()).ok()?;
            Some((extent.device, block))
        })
    }
}
