//! Where the data of a sparse file lies.

use std::io::{self, Read};

use super::number::{read, read_decimal};
use super::{BLOCK, Header, TarError};

const MAX_PIECES: usize = 1 << 16;
// Blocks that continue a GNU header; they need not have a piece in them.
const MAX_MAP_BLOCKS: usize = 2048;

/// Pieces of data as offset and length, in order, without overlaps, inside the file.
pub(super) type Map = Vec<(u64, u64)>;

/// Reads the map out of a GNU header and the blocks that continue it; returns it with the size of the whole file.
pub(super) fn from_gnu(block: &[u8; BLOCK], input: &mut impl Read) -> Result<(Map, u64), TarError> {
    // `star` has the same type byte for another table.
    if block.get(257..263) != Some(b"ustar ") {
        return Err(TarError::Invalid("bad sparse map"));
    }
    let number = |field: Option<&[u8]>| {
        field
            .and_then(read)
            .and_then(|n| u64::try_from(n).ok())
            .ok_or(TarError::Invalid("bad sparse map"))
    };
    let mut map = Vec::new();
    let mut take = |table: &[u8]| {
        for piece in table.chunks_exact(24) {
            if piece.first() == Some(&0) {
                break;
            }
            map.push((number(piece.get(..12))?, number(piece.get(12..24))?));
        }
        if map.len() > MAX_PIECES {
            Err(TarError::Invalid("sparse map too long"))
        } else {
            Ok(())
        }
    };
    take(block.get(386..482).unwrap_or_default())?;
    let size = number(block.get(483..495))?;
    let mut more = block.get(482).copied().unwrap_or_default() != 0;
    let mut blocks = 0;
    while more {
        blocks += 1;
        if blocks > MAX_MAP_BLOCKS {
            return Err(TarError::Invalid("sparse map too long"));
        }
        let mut next = [0; BLOCK];
        input.read_exact(&mut next)?;
        take(next.get(..504).unwrap_or_default())?;
        more = next.get(504).copied().unwrap_or_default() != 0;
    }
    Ok((checked(map, size)?, size))
}

/// Reads the map out of PAX records, of version 0.0 or 0.1.
pub(super) fn from_records(header: &mut Header, pieces: Map) -> Result<Map, TarError> {
    name_and_size(header)?;
    let map = match header.records.remove("GNU.sparse.map") {
        Some(text) if pieces.is_empty() => {
            let mut numbers = text.split(|b| *b == b',').map(decimal);
            let mut map = Vec::new();
            while let Some(offset) = numbers.next() {
                let length = numbers.next().ok_or(TarError::Invalid("bad sparse map"))?;
                map.push((offset?, length?));
                if map.len() > MAX_PIECES {
                    return Err(TarError::Invalid("sparse map too long"));
                }
            }
            map
        }
        _ => pieces,
    };
    checked(map, header.size)
}

/// Reads the map that version 1.0 puts before the data; returns it with the number of bytes it took.
pub(super) fn from_data(
    header: &mut Header,
    input: &mut impl Read,
) -> Result<(Map, u64), TarError> {
    name_and_size(header)?;
    let mut bytes_read = 0;
    let mut line = Vec::new();
    let mut block = [0; BLOCK];
    let mut at = BLOCK;
    let mut next = |bytes_read: &mut u64| -> Result<u64, TarError> {
        line.clear();
        loop {
            if at == BLOCK {
                input.read_exact(&mut block)?;
                *bytes_read += BLOCK as u64;
                at = 0;
            }
            let byte = block.get(at).copied().unwrap_or_default();
            at += 1;
            if byte == b'\n' {
                return decimal(&line);
            }
            line.push(byte);
            if line.len() > 20 {
                return Err(TarError::Invalid("bad sparse map"));
            }
        }
    };
    let count = next(&mut bytes_read)?;
    if count > MAX_PIECES as u64 {
        return Err(TarError::Invalid("sparse map too long"));
    }
    let mut map = Vec::new();
    for _ in 0..count {
        map.push((next(&mut bytes_read)?, next(&mut bytes_read)?));
    }
    Ok((checked(map, header.size)?, bytes_read))
}

// The names and sizes that readers which do not know sparse files are to see are others than the file's.
fn name_and_size(header: &mut Header) -> Result<(), TarError> {
    if let Some(name) = header.records.remove("GNU.sparse.name") {
        header.name = name;
    }
    let size = header
        .records
        .remove("GNU.sparse.size")
        .or_else(|| header.records.remove("GNU.sparse.realsize"));
    if let Some(size) = size {
        header.size = decimal(&size)?;
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Result<u64, TarError> {
    read_decimal(text)
        .and_then(|n| u64::try_from(n).ok())
        .ok_or(TarError::Invalid("bad sparse map"))
}

fn checked(map: Map, size: u64) -> Result<Map, TarError> {
    let mut end = 0_u64;
    for (offset, length) in &map {
        if *offset < end {
            return Err(TarError::Invalid("sparse map out of order"));
        }
        end = offset
            .checked_add(*length)
            .filter(|end| *end <= size)
            .ok_or(TarError::Invalid("sparse map too large"))?;
    }
    Ok(map)
}

/// Reads until the buffer is full or the stream ends; returns how much was read.
pub(super) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => n += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}
