//! Writing, byte for byte as Go's `archive/tar` does.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::number::{fits_octal, write_octal};
use super::{BLOCK, EntryKind, Header, TarError};

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const OWNER_NAME_BYTES: usize = 32;
const MAX_RECORDS_BYTES: usize = 1 << 20;

type Block = [u8; BLOCK];

/// Writes entries to a stream: each header with [`append`](Self::append), its contents with `write`, and at the very
/// end [`finish`](Self::finish).
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    // Contents the last header announced and that are not written yet.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            left: 0,
            padding: 0,
        }
    }

    /// Writes a header; the contents of the entry before must be complete.
    pub fn append(&mut self, header: &Header) -> Result<(), TarError> {
        self.end_entry()?;
        let (fits_ustar, records) = plan(header)?;
        let block = if fits_ustar {
            ustar(header)
        } else {
            self.write_records(header, &records)?
        };
        self.out.write_all(&block)?;
        self.left = if header.kind.has_contents() {
            header.size
        } else {
            0
        };
        self.padding = padding(self.left);
        Ok(())
    }

    /// Ends the archive and gives the stream back.
    pub fn finish(mut self) -> Result<W, TarError> {
        self.end_entry()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn end_entry(&mut self) -> Result<(), TarError> {
        if self.left > 0 {
            return Err(TarError::Header(
                "the entry before is shorter than its header says",
            ));
        }
        self.out
            .write_all([0; BLOCK].get(..self.padding).unwrap_or_default())?;
        self.padding = 0;
        Ok(())
    }

    fn write_records(
        &mut self,
        header: &Header,
        records: &BTreeMap<&str, Vec<u8>>,
    ) -> Result<Block, TarError> {
        let mut data = Vec::new();
        for (key, value) in records {
            write_record(&mut data, key, value);
        }
        if data.len() > MAX_RECORDS_BYTES {
            return Err(TarError::Header("records too long"));
        }
        if !data.is_empty() {
            let mut block = [0; BLOCK];
            let mut name = ascii(&records_name(&header.name));
            name.truncate(NAME_BYTES);
            while name.last() == Some(&b'/') {
                name.pop();
            }
            text(&mut block, 0..100, &name);
            for field in [100..108, 108..116, 116..124, 136..148] {
                number(&mut block, field, 0);
            }
            number(&mut block, 124..136, data.len() as i64);
            byte(&mut block, b'x');
            seal(&mut block);
            self.out.write_all(&block)?;
            self.out.write_all(&data)?;
            self.out.write_all(
                [0; BLOCK]
                    .get(..padding(data.len() as u64))
                    .unwrap_or_default(),
            )?;
        }
        let mut block = common(header, &header.name, true);
        seal(&mut block);
        Ok(block)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the entry is longer than its header says",
            ));
        }
        let n = self.out.write(bytes.get(..room).unwrap_or_default())?;
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

// Whether USTAR holds everything, and the records to write if it does not.
fn plan(header: &Header) -> Result<(bool, BTreeMap<&str, Vec<u8>>), TarError> {
    let mut fits_ustar = true;
    let mut records = BTreeMap::new();
    let mut string = |value: &[u8], width: usize, key: &'static str, splits: bool| {
        if value.contains(&0) {
            return Err(TarError::Header("a name with a NUL"));
        }
        if !value.is_ascii() || value.len() > width {
            fits_ustar &= splits && split(value).is_some();
            records.insert(key, value.to_vec());
        }
        Ok(())
    };
    string(&header.name, NAME_BYTES, "path", true)?;
    string(&header.link, NAME_BYTES, "linkpath", false)?;
    string(&header.uname, OWNER_NAME_BYTES, "uname", false)?;
    string(&header.gname, OWNER_NAME_BYTES, "gname", false)?;
    for (value, width, key) in [
        (header.uid, 8, "uid"),
        (header.gid, 8, "gid"),
        (header.size, 12, "size"),
    ] {
        // A header takes 63 bits; the conversion has no other reason to fail.
        let value = i64::try_from(value).map_err(|_| TarError::Header("a number out of range"))?;
        if !fits_octal(width, value) {
            fits_ustar = false;
            records.insert(key, value.to_string().into_bytes());
        }
    }
    if !fits_octal(12, header.mtime) {
        fits_ustar = false;
        records.insert("mtime", header.mtime.to_string().into_bytes());
    }
    for value in [u64::from(header.mode), header.devmajor, header.devminor] {
        if !i64::try_from(value).is_ok_and(|value| fits_octal(8, value)) {
            return Err(TarError::Header("a device number out of range"));
        }
    }
    let plain_file = matches!(
        header.kind,
        EntryKind::File | EntryKind::Char | EntryKind::Block | EntryKind::Fifo
    );
    if plain_file && header.name.last() == Some(&b'/') {
        return Err(TarError::Header("filename may not have trailing slash"));
    }
    for (key, value) in &header.records {
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(TarError::Header("a record name with = or NUL"));
        }
        fits_ustar = false;
        records.entry(key).or_insert_with(|| value.clone());
    }
    Ok((fits_ustar, records))
}

fn ustar(header: &Header) -> Block {
    let (prefix, name) = split(&header.name).unwrap_or((b"", &header.name));
    let mut block = common(header, name, false);
    text(&mut block, 345..500, prefix);
    seal(&mut block);
    block
}

fn common(header: &Header, name: &[u8], only_ascii: bool) -> Block {
    let mut block = [0; BLOCK];
    let fit = |value: &[u8]| {
        if only_ascii {
            ascii(value)
        } else {
            value.to_vec()
        }
    };
    text(&mut block, 0..100, &fit(name));
    number(&mut block, 100..108, i64::from(header.mode));
    number(&mut block, 108..116, header.uid as i64);
    number(&mut block, 116..124, header.gid as i64);
    number(&mut block, 124..136, header.size as i64);
    number(&mut block, 136..148, header.mtime);
    byte(&mut block, header.kind.byte());
    text(&mut block, 157..257, &fit(&header.link));
    text(&mut block, 265..297, &fit(&header.uname));
    text(&mut block, 297..329, &fit(&header.gname));
    number(&mut block, 329..337, header.devmajor as i64);
    number(&mut block, 337..345, header.devminor as i64);
    block
}

fn field(block: &mut Block, range: std::ops::Range<usize>) -> &mut [u8] {
    block.get_mut(range).unwrap_or_default()
}

fn number(block: &mut Block, range: std::ops::Range<usize>, n: i64) {
    write_octal(field(block, range), n);
}

fn byte(block: &mut Block, kind: u8) {
    field(block, 156..157).fill(kind);
}

// A name that is cut off must not end in a slash: old readers would take it for a directory.
fn text(block: &mut Block, range: std::ops::Range<usize>, value: &[u8]) {
    let field = field(block, range);
    let width = field.len();
    for (to, from) in field.iter_mut().zip(value) {
        *to = *from;
    }
    if value.len() > width && field.last() == Some(&b'/') {
        let end = field
            .iter()
            .rposition(|b| *b != b'/')
            .map_or(0, |last| last + 1);
        if let Some(slash) = field.get_mut(end) {
            *slash = 0;
        }
    }
}

fn seal(block: &mut Block) {
    text(block, 257..265, b"ustar\x0000");
    field(block, 148..156).fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    number(block, 148..155, i64::from(sum));
}

fn ascii(value: &[u8]) -> Vec<u8> {
    value
        .iter()
        .copied()
        .filter(u8::is_ascii)
        .filter(|b| *b != 0)
        .collect()
}

// Where a long name can be cut at a slash so that both halves have a field.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_BYTES || !name.is_ascii() || name.contains(&0) {
        return None;
    }
    let reach = if name.len() > PREFIX_BYTES + 1 {
        PREFIX_BYTES + 1
    } else if name.last() == Some(&b'/') {
        name.len() - 1
    } else {
        name.len()
    };
    let at = name.get(..reach)?.iter().rposition(|b| *b == b'/')?;
    let (prefix, rest) = name.split_at_checked(at)?;
    let rest = rest.get(1..)?;
    let fits = at > 0 && at <= PREFIX_BYTES && !rest.is_empty() && rest.len() <= NAME_BYTES;
    fits.then_some((prefix, rest))
}

// What Go calls the entry that holds the records: `PaxHeaders.0` is put before the last name.
fn records_name(name: &[u8]) -> Vec<u8> {
    let (dir, file) = match name.iter().rposition(|b| *b == b'/') {
        Some(at) => name.split_at(at + 1),
        None => (&b""[..], name),
    };
    let joined = [dir, b"/PaxHeaders.0/", file].concat();
    let text = String::from_utf8_lossy(&joined);
    let absolute = name.first() == Some(&b'/');
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if absolute {
        format!("/{joined}").into_bytes()
    } else {
        joined.into_bytes()
    }
}

// The length in front counts itself.
fn write_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut size = rest + rest.to_string().len();
    if rest + size.to_string().len() != size {
        size = rest + size.to_string().len();
    }
    out.extend_from_slice(format!("{size} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}
