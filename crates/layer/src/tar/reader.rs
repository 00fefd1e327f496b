//! Reading, with every length checked before it is believed.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::number::{read, read_decimal, read_time};
use super::sparse::{self, Map, fill};
use super::{BLOCK, EntryKind, Header, TarError};

// As Go: records and long names of more than this are an attack.
const MAX_SPECIAL_ENTRY_BYTES: u64 = 1 << 20;
// What may stand before one entry, headers and padding included. A name, a link and records of the largest size fit.
const MAX_BYTES_BEFORE_ENTRY: u64 = 4 << 20;
// The holes of all sparse files of an archive together. They cost an archive nothing, and whoever reads the files something.
const MAX_HOLE_BYTES: u64 = 1 << 40;

/// Reads entries from a stream: each header with [`next_entry`](Self::next_entry), then its contents with `read`.
///
/// Of a sparse file `read` gives the data only; [`pieces`](Self::pieces) tells where it lies.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    left: u64,
    padding: u64,
    pieces: Option<Map>,
    holes: u64,
    has_ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
            pieces: None,
            holes: 0,
            has_ended: false,
        }
    }

    /// Where the data of the current entry lies, as offset and length, when it is a sparse file.
    #[must_use]
    pub fn pieces(&self) -> Option<&[(u64, u64)]> {
        self.pieces.as_deref()
    }

    /// The stream, wherever it is.
    pub fn get_ref(&self) -> &R {
        &self.input
    }

    /// Gives the stream back, wherever it is.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Skips what is left of the entry before and reads the next header. `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Header>, TarError> {
        let mut before = Before::default();
        loop {
            let Some(block) = self.next_block()? else {
                return Ok(None);
            };
            let mut header = parse(&block)?;
            let kind = block.get(156).copied().unwrap_or_default();
            let size = header.size;
            match kind {
                // Records hold for one entry, and later ones replace them: they do not add up.
                b'x' => {
                    let data = self.special(size, &mut before)?;
                    before.records = Records::default();
                    before.records.parse(&data)?;
                }
                // Global records say nothing a tree can keep. To Go they are an entry, which ends what was said before.
                b'g' => {
                    self.special(size, &mut before)?;
                    before = Before::default();
                }
                b'L' => before.name = cut(self.special(size, &mut before)?),
                b'K' => before.link = cut(self.special(size, &mut before)?),
                _ => {
                    let stored = before.records.apply(&mut header)?.unwrap_or(size);
                    if !before.name.is_empty() {
                        header.name = before.name;
                    }
                    if !before.link.is_empty() {
                        header.link = before.link;
                    }
                    let pieces = before.records.pieces;
                    return self.start(header, kind, stored, &block, pieces).map(Some);
                }
            }
        }
    }

    // Sets up the contents of an entry whose header is complete. `stored` is what the archive has of it.
    fn start(
        &mut self,
        mut header: Header,
        kind: u8,
        mut stored: u64,
        block: &[u8; BLOCK],
        pieces: Map,
    ) -> Result<Header, TarError> {
        // An entry with contents is a file all the same.
        let is_empty = kind == 0 || header.size == 0;
        let old_dir =
            matches!(kind, 0 | b'0' | b'7') && is_empty && header.name.last() == Some(&b'/');
        if old_dir {
            header.kind = EntryKind::Dir;
        }
        if !header.kind.has_contents() {
            // Some writers announce the size of a link's target or of a directory and write nothing.
            stored = 0;
            header.size = 0;
        }
        self.left = stored;
        self.padding = pad(stored);
        self.pieces = None;
        if header.kind != EntryKind::File {
            return Ok(header);
        }
        match SparseForm::of(kind, &header, &pieces) {
            SparseForm::None => {}
            SparseForm::Gnu => {
                let (map, size) = sparse::from_gnu(block, &mut self.input)?;
                header.size = size;
                self.pieces = Some(map);
            }
            SparseForm::Data => {
                let (map, map_bytes) = sparse::from_data(&mut header, &mut self.input)?;
                self.left = stored
                    .checked_sub(map_bytes)
                    .ok_or(TarError::Invalid("bad sparse map"))?;
                self.pieces = Some(map);
            }
            SparseForm::Records => {
                self.pieces = Some(sparse::from_records(&mut header, pieces)?);
            }
        }
        header
            .records
            .retain(|key, _| !key.starts_with("GNU.sparse."));
        if let Some(map) = &self.pieces {
            if map.iter().map(|(_, length)| length).sum::<u64>() != self.left {
                return Err(TarError::Invalid("sparse map does not fit the data"));
            }
            let holes = header.size.saturating_sub(self.left);
            self.holes = self.holes.saturating_add(holes);
            if self.holes > MAX_HOLE_BYTES {
                return Err(TarError::Invalid("sparse files too large"));
            }
        }
        Ok(header)
    }

    fn next_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.has_ended {
            return Ok(None);
        }
        self.skip()?;
        let mut block = [0; BLOCK];
        match fill(&mut self.input, &mut block)? {
            0 => {
                self.has_ended = true;
                return Ok(None);
            }
            BLOCK => {}
            _ => return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into())),
        }
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        // One empty block ends an archive when another follows, or nothing at all.
        self.has_ended = true;
        let n = fill(&mut self.input, &mut block)?;
        if n != 0 && block.iter().take(n).any(|b| *b != 0) {
            return Err(TarError::Invalid("data after an empty header"));
        }
        Ok(None)
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let (unread, padding) = (self.left, self.padding);
        self.left = 0;
        self.padding = 0;
        if io::copy(&mut self.input.by_ref().take(unread), &mut io::sink())? != unread {
            return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        // Some writers leave out the padding of the last entry, and the end of the archive with it.
        io::copy(&mut self.input.by_ref().take(padding), &mut io::sink())?;
        Ok(())
    }

    fn special(&mut self, size: u64, before: &mut Before) -> Result<Vec<u8>, TarError> {
        if size > MAX_SPECIAL_ENTRY_BYTES {
            return Err(TarError::Invalid("records too long"));
        }
        before.bytes += BLOCK as u64 + size + pad(size);
        if before.bytes > MAX_BYTES_BEFORE_ENTRY {
            return Err(TarError::Invalid("too many headers before an entry"));
        }
        let mut data = Vec::new();
        if self.input.by_ref().take(size).read_to_end(&mut data)? as u64 != size {
            return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.padding = pad(size);
        Ok(data)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let n = self
            .input
            .read(buffer.get_mut(..room).unwrap_or_default())?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn pad(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn cut(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    name
}

// Owners below zero are those of systems whose `nobody` is -2.
fn owner(id: i64) -> u64 {
    u64::try_from(id).unwrap_or(u64::from(u32::MAX - 1))
}

fn parse(block: &[u8; BLOCK]) -> Result<Header, TarError> {
    let field = |range: std::ops::Range<usize>| block.get(range).unwrap_or_default();
    let number = |range| read(field(range)).ok_or(TarError::Invalid("bad number"));
    let positive = |range| {
        number(range)
            // The conversion fails for negative numbers only.
            .and_then(|n| u64::try_from(n).map_err(|_| TarError::Invalid("negative number")))
    };
    let string = |range| cut(field(range).to_vec());

    let stored = number(148..156)?;
    let sum = |as_signed: bool| -> i64 {
        block
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b })
            .map(|b| {
                if as_signed {
                    i64::from(b.cast_signed())
                } else {
                    i64::from(b)
                }
            })
            .sum()
    };
    if stored != sum(false) && stored != sum(true) {
        return Err(TarError::Invalid("bad checksum"));
    }
    let magic = field(257..263);
    let ustar = magic == b"ustar\0";
    let gnu = magic == b"ustar ";
    let mut header = Header {
        name: string(0..100),
        kind: EntryKind::from_byte(block.get(156).copied().unwrap_or_default()),
        mode: (number(100..108)? & 0o7777) as u32,
        uid: owner(number(108..116)?),
        gid: owner(number(116..124)?),
        size: positive(124..136)?,
        mtime: number(136..148)?,
        link: string(157..257),
        ..Header::default()
    };
    if i64::try_from(header.size).is_err() {
        return Err(TarError::Invalid("size out of range"));
    }
    if ustar || gnu {
        header.uname = string(265..297);
        header.gname = string(297..329);
        if matches!(header.kind, EntryKind::Char | EntryKind::Block) {
            header.devmajor = positive(329..337)?;
            header.devminor = positive(337..345)?;
        }
    }
    if ustar {
        let prefix = string(345..500);
        if !prefix.is_empty() {
            header.name = [&prefix, &b"/"[..], &header.name].concat();
        }
    }
    Ok(header)
}

// Fields of the next entry from extended headers.
#[derive(Debug, Default)]
struct Before {
    records: Records,
    name: Vec<u8>,
    link: Vec<u8>,
    bytes: u64,
}

// The form in which a sparse entry describes its data.
enum SparseForm {
    None,
    // GNU's own header.
    Gnu,
    // PAX records, version 0.0 or 0.1.
    Records,
    // A table before the data, version 1.0.
    Data,
}

impl SparseForm {
    fn of(kind: u8, header: &Header, pieces: &Map) -> Self {
        if kind == b'S' {
            return Self::Gnu;
        }
        let record = |key: &str| header.records.get(key).map_or(&b""[..], Vec::as_slice);
        match (record("GNU.sparse.major"), record("GNU.sparse.minor")) {
            (b"1", b"0") => Self::Data,
            (b"0", b"0" | b"1") => Self::Records,
            (b"", b"") if !pieces.is_empty() || !record("GNU.sparse.map").is_empty() => {
                Self::Records
            }
            // An unknown version: Go reads it as an ordinary file too.
            _ => Self::None,
        }
    }
}

// Records that hold for the next entry.
#[derive(Debug, Default)]
struct Records {
    all: BTreeMap<String, Vec<u8>>,
    // Sparse pieces of version 0.0, whose records repeat.
    pieces: Map,
    offset: Option<u64>,
}

impl Records {
    fn parse(&mut self, mut data: &[u8]) -> Result<(), TarError> {
        let bad = || TarError::Invalid("bad record");
        while !data.is_empty() {
            let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
            let (length, _) = data.split_at(space);
            let length = read_decimal(length)
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(bad)?;
            let (record, rest) = data.split_at_checked(length).ok_or_else(bad)?;
            let record = record
                .get(space + 1..)
                .and_then(|r| r.strip_suffix(b"\n"))
                .ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            let (key, value) = record.split_at(equals);
            self.add(key, value.get(1..).unwrap_or_default())?;
            data = rest;
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let bad = TarError::Invalid("bad record");
        // There are writers whose names of attributes are not UTF-8: nothing here knows such a record.
        let Ok(key) = std::str::from_utf8(key) else {
            return Ok(());
        };
        let text = matches!(key, "path" | "linkpath" | "uname" | "gname");
        if key.is_empty() || key.contains('\0') || (text && value.contains(&0)) {
            return Err(bad);
        }
        let number = || read_decimal(value).and_then(|n| u64::try_from(n).ok());
        match key {
            "GNU.sparse.offset" => self.offset = Some(number().ok_or(bad)?),
            "GNU.sparse.numbytes" => {
                let offset = self.offset.take().ok_or(bad)?;
                self.pieces
                    .push((offset, number().ok_or(TarError::Invalid("bad sparse map"))?));
            }
            _ => {
                self.all.insert(key.to_owned(), value.to_vec());
            }
        }
        Ok(())
    }

    // Overrides the header's fields; returns the stored size when a record gives one.
    fn apply(&mut self, header: &mut Header) -> Result<Option<u64>, TarError> {
        let bad = || TarError::Invalid("bad record");
        let mut stored = None;
        for (key, value) in std::mem::take(&mut self.all) {
            // An empty value takes a record back.
            if value.is_empty() && !key.starts_with(super::XATTR_RECORD) {
                continue;
            }
            let number = || {
                read_decimal(&value)
                    .and_then(|n| u64::try_from(n).ok())
                    .ok_or_else(bad)
            };
            match key.as_str() {
                "path" => header.name = value,
                "linkpath" => header.link = value,
                "uname" => header.uname = value,
                "gname" => header.gname = value,
                "uid" => header.uid = owner(read_decimal(&value).ok_or_else(bad)?),
                "gid" => header.gid = owner(read_decimal(&value).ok_or_else(bad)?),
                "size" => {
                    stored = Some(number()?);
                    header.size = number()?;
                }
                "mtime" => (header.mtime, header.mtime_ns) = read_time(&value).ok_or_else(bad)?,
                "atime" => {
                    let (seconds, ns) = read_time(&value).ok_or_else(bad)?;
                    header.atime = Some(
                        seconds
                            .saturating_mul(1_000_000_000)
                            .saturating_add(i64::from(ns)),
                    );
                }
                "ctime" => {}
                _ => {
                    header.records.insert(key, value);
                }
            }
        }
        Ok(stored)
    }
}
