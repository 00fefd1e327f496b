//! Blocks of folders: entries of twelve bytes, each with the place of its name, then the names. Entries are in the order of their
//! names' bytes over the whole folder, "." and ".." among them; the kernel searches by halving.

use crate::format::{BlockSize, DIRENT_SIZE, put, u16_at, u64_at};

/// An entry to be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) nid: u64,
    pub(crate) kind: u8,
}

/// Gathers entries into blocks.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    block_size: usize,
    entries: Vec<PackedEntry<'a>>,
    filled: usize,
}

impl<'a> Packer<'a> {
    pub(crate) fn new(block_size: BlockSize) -> Self {
        Self {
            block_size: 1 << block_size.bits(),
            entries: Vec::new(),
            filled: 0,
        }
    }

    /// Takes one more entry. Returns the block that is full, which `entry` had no room in, as long as what is in it.
    pub(crate) fn push(&mut self, entry: PackedEntry<'a>) -> Option<Vec<u8>> {
        let size = DIRENT_SIZE + entry.name.len();
        let full = (self.filled + size > self.block_size).then(|| self.take());
        self.filled += size;
        self.entries.push(entry);
        full
    }

    /// The block that is not full, as long as what is in it.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut block = vec![0; self.filled];
        let mut name_at = DIRENT_SIZE * self.entries.len();
        for (index, entry) in self.entries.drain(..).enumerate() {
            let at = DIRENT_SIZE * index;
            put(&mut block, at, &entry.nid.to_le_bytes());
            // A block has at most 4096 bytes.
            let place = u16::try_from(name_at).unwrap_or(u16::MAX);
            put(&mut block, at + 8, &place.to_le_bytes());
            put(&mut block, at + 10, &[entry.kind]);
            put(&mut block, name_at, entry.name);
            name_at += entry.name.len();
        }
        self.filled = 0;
        block
    }
}

/// The entries of a block: name, nid, kind. None where the block contradicts itself.
pub(crate) fn unpack(block: &[u8]) -> Option<Vec<PackedEntry<'_>>> {
    let first_name = usize::from(u16_at(block, 8));
    if block.len() < DIRENT_SIZE || first_name == 0 || !first_name.is_multiple_of(DIRENT_SIZE) {
        return None;
    }
    let count = first_name / DIRENT_SIZE;
    block.get(..first_name)?;
    let mut entries = Vec::with_capacity(count);
    for index in 0..count {
        let at = DIRENT_SIZE * index;
        let start = usize::from(u16_at(block, at + 8));
        let name = if index + 1 < count {
            block.get(start..usize::from(u16_at(block, at + DIRENT_SIZE + 8)))?
        } else {
            // The last name of a block goes to its end, or to the first NUL.
            let to_end = block.get(start..)?;
            let length = to_end.iter().position(|byte| *byte == 0);
            &to_end[..length.unwrap_or(to_end.len())]
        };
        entries.push(PackedEntry {
            name,
            nid: u64_at(block, at),
            kind: block[at + 10],
        });
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_unpacked_as_they_were_packed_and_a_block_holds_what_fits() {
        let long = vec![b'n'; 255];
        let names: Vec<Vec<u8>> = (0..40u8)
            .map(|index| [&long[..usize::from(index) * 6], &[b'a' + index % 26]].concat())
            .collect();
        let entries: Vec<PackedEntry<'_>> = names
            .iter()
            .zip(7u64..)
            .map(|(name, nid)| PackedEntry { name, nid, kind: 1 })
            .collect();
        let mut packer = Packer::new(BlockSize::TAR);
        let mut blocks = Vec::new();
        for entry in &entries {
            blocks.extend(packer.push(*entry));
        }
        blocks.push(packer.take());
        assert!(blocks.len() > 5);
        assert!(blocks.iter().all(|block| block.len() <= 512));
        let unpacked: Vec<PackedEntry<'_>> = blocks
            .iter()
            .flat_map(|block| unpack(block).unwrap())
            .collect();
        assert_eq!(unpacked, entries);
    }

    #[test]
    fn a_block_that_contradicts_itself_has_no_entries() {
        let whole = |first_name: u16, second_name: u16| {
            let mut block = vec![0; 64];
            put(&mut block, 8, &first_name.to_le_bytes());
            put(&mut block, 20, &second_name.to_le_bytes());
            block
        };
        for (block, why) in [
            (vec![], "nothing"),
            (vec![0; 11], "less than an entry"),
            (whole(0, 0), "no entry"),
            (whole(13, 0), "half an entry"),
            (whole(24, 23), "a name that ends before it begins"),
            (whole(24, 65), "a name outside"),
            (whole(120, 0), "entries outside"),
        ] {
            assert_eq!(unpack(&block), None, "{why}");
        }
    }
}
