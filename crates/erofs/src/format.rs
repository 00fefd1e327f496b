//! Numbers and records of the format, `fs/erofs/erofs_fs.h` of Linux. All numbers are little-endian.

/// Where the superblock begins, in bytes.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
pub(crate) const SUPERBLOCK_SIZE: usize = 128;
/// A slot of the device table, in bytes.
pub(crate) const DEVICE_SLOT_SIZE: usize = 128;
/// Inodes are numbered by the slots of this many bytes in which they begin.
pub(crate) const INODE_SLOT: u64 = 32;
/// An extended inode, in bytes.
pub(crate) const INODE_SIZE: usize = 64;
/// What stands before the xattrs of an inode, in bytes.
pub(crate) const XATTR_HEADER_SIZE: usize = 12;
/// The place of a chunk, in bytes.
pub(crate) const CHUNK_PLACE_SIZE: usize = 8;
/// An entry of a folder without its name, in bytes.
pub(crate) const DIRENT_SIZE: usize = 12;

pub(crate) const MAGIC: u32 = 0xe0f5_e1e2;
/// `feature_incompat`: files in chunks.
pub(crate) const FEATURE_CHUNKED_FILE: u32 = 0x4;
/// `feature_incompat`: there are further devices.
pub(crate) const FEATURE_DEVICE_TABLE: u32 = 0x8;

/// `i_format`: an inode of 64 bytes.
pub(crate) const EXTENDED: u16 = 1;
/// The chunk's place is a record of eight bytes, with its device.
pub(crate) const CHUNK_PLACES: u32 = 0x20;
pub(crate) const CHUNK_BITS_MASK: u32 = 0x1f;
/// The block of a chunk that is a hole.
pub(crate) const HOLE: u32 = u32::MAX;

/// The longest name, `EROFS_NAME_LEN`, in bytes.
pub(crate) const NAME_MAX: usize = 255;
/// The longest target of a link that Linux follows, in bytes (`PATH_MAX` without its end).
pub(crate) const TARGET_MAX: usize = 4095;

/// How the content of an inode is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In blocks of the image.
    Plain,
    /// In blocks of the image, but its end beside the inode.
    Inline,
    /// In chunks, whose places are beside the inode.
    Chunks,
}

impl Layout {
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Plain => 0,
            Self::Inline => 2,
            Self::Chunks => 4,
        }
    }

    pub(crate) fn of_number(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Plain),
            2 => Some(Self::Inline),
            4 => Some(Self::Chunks),
            _ => None,
        }
    }
}

/// The size of a block, 512 to 4096 bytes. Content of files begins at multiples of it, so an index over a tar has blocks of 512.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    bits: u8,
}

impl BlockSize {
    /// 512 bytes, the block of a tar. Linux 6.4 and later.
    pub const TAR: Self = Self { bits: 9 };
    /// 4096 bytes, what every kernel with EROFS and older tools read.
    pub const PAGE: Self = Self { bits: 12 };

    pub(crate) fn of_bits(bits: u8) -> Option<Self> {
        (9..=12).contains(&bits).then_some(Self { bits })
    }

    pub(crate) fn bits(self) -> u8 {
        self.bits
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        1 << self.bits
    }

    /// `length` bytes in whole blocks, rounded up.
    pub(crate) fn blocks(self, length: u64) -> u64 {
        length.div_ceil(self.bytes())
    }

    /// The part of `length` after the last whole block.
    pub(crate) fn tail(self, length: u64) -> u64 {
        length % self.bytes()
    }
}

/// The superblock, without what we neither write nor read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) block_size: BlockSize,
    pub(crate) root: u16,
    pub(crate) inodes: u64,
    /// Blocks of the image.
    pub(crate) blocks: u32,
    /// The block in which the inode 0 begins.
    pub(crate) first_inode_block: u32,
    pub(crate) incompatible: u32,
    pub(crate) devices: u16,
    /// The first slot of the device table, counted in slots from the begin of the image.
    pub(crate) first_device_slot: u16,
}

impl Superblock {
    pub(crate) fn encode(self) -> [u8; SUPERBLOCK_SIZE] {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(&mut bytes, 12, &[self.block_size.bits]);
        put(&mut bytes, 14, &self.root.to_le_bytes());
        put(&mut bytes, 16, &self.inodes.to_le_bytes());
        put(&mut bytes, 36, &self.blocks.to_le_bytes());
        put(&mut bytes, 40, &self.first_inode_block.to_le_bytes());
        put(&mut bytes, 80, &self.incompatible.to_le_bytes());
        put(&mut bytes, 86, &self.devices.to_le_bytes());
        put(&mut bytes, 88, &self.first_device_slot.to_le_bytes());
        bytes
    }

    /// None: these bytes are no superblock, or one whose blocks have another size than ours can have.
    pub(crate) fn decode(bytes: &[u8; SUPERBLOCK_SIZE]) -> Option<Self> {
        (u32_at(bytes, 0) == MAGIC).then_some(())?;
        Some(Self {
            block_size: BlockSize::of_bits(bytes[12])?,
            root: u16_at(bytes, 14),
            inodes: u64_at(bytes, 16),
            blocks: u32_at(bytes, 36),
            first_inode_block: u32_at(bytes, 40),
            incompatible: u32_at(bytes, 80),
            devices: u16_at(bytes, 86),
            first_device_slot: u16_at(bytes, 88),
        })
    }
}

/// An extended inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawInode {
    pub(crate) layout: Layout,
    /// Size of the xattrs as the format counts it, see [`xattr_count`].
    pub(crate) xattr_count: u16,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    /// The first block of the content, the number of a device node, or the size of a chunk.
    pub(crate) place: u32,
    pub(crate) serial: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
    pub(crate) links: u32,
}

impl RawInode {
    pub(crate) fn encode(self) -> [u8; INODE_SIZE] {
        let mut bytes = [0; INODE_SIZE];
        let format = EXTENDED | self.layout.number() << 1;
        put(&mut bytes, 0, &format.to_le_bytes());
        put(&mut bytes, 2, &self.xattr_count.to_le_bytes());
        put(&mut bytes, 4, &self.mode.to_le_bytes());
        put(&mut bytes, 8, &self.size.to_le_bytes());
        put(&mut bytes, 16, &self.place.to_le_bytes());
        put(&mut bytes, 20, &self.serial.to_le_bytes());
        put(&mut bytes, 24, &self.uid.to_le_bytes());
        put(&mut bytes, 28, &self.gid.to_le_bytes());
        put(&mut bytes, 32, &self.seconds.to_le_bytes());
        put(&mut bytes, 40, &self.nanoseconds.to_le_bytes());
        put(&mut bytes, 44, &self.links.to_le_bytes());
        bytes
    }

    /// None: a form of inode that we do not write.
    pub(crate) fn decode(bytes: &[u8; INODE_SIZE]) -> Option<Self> {
        let format = u16_at(bytes, 0);
        (format & EXTENDED != 0 && format >> 4 == 0).then_some(())?;
        Some(Self {
            layout: Layout::of_number(format >> 1)?,
            xattr_count: u16_at(bytes, 2),
            mode: u16_at(bytes, 4),
            size: u64_at(bytes, 8),
            place: u32_at(bytes, 16),
            serial: u32_at(bytes, 20),
            uid: u32_at(bytes, 24),
            gid: u32_at(bytes, 28),
            seconds: i64::from_le_bytes(array_at(bytes, 32)),
            nanoseconds: u32_at(bytes, 40),
            links: u32_at(bytes, 44),
        })
    }
}

/// How the format counts xattrs of `size` bytes, header included: in units of four bytes after the header, plus one.
pub(crate) fn xattr_count(size: usize) -> Option<u16> {
    match size.checked_sub(XATTR_HEADER_SIZE) {
        None => Some(0),
        Some(entries) => u16::try_from(entries / 4 + 1).ok(),
    }
}

/// The other way round: bytes, header included.
pub(crate) fn xattr_size(count: u16) -> usize {
    match usize::from(count).checked_sub(1) {
        None => 0,
        Some(units) => XATTR_HEADER_SIZE + 4 * units,
    }
}

/// `length` rounded up to a multiple of `unit`.
pub(crate) fn round_up(length: u64, unit: u64) -> u64 {
    length.div_ceil(unit) * unit
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// `N` bytes at `at`, zeros where there are none.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(slice) = bytes.get(at..at + N) {
        array.copy_from_slice(slice);
    }
    array
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
