//! Recognises archives by their first bytes, and finds the time of their newest file.

use std::io::{self, Read};

/// Whether `head` starts a gzip, bzip2, xz, zstd or tar archive. A tar header fills 512 bytes.
pub(crate) fn is_archive(head: &[u8]) -> bool {
    const MAGIC: [&[u8]; 4] = [
        b"BZh",
        &[0x1f, 0x8b, 0x08],
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ];
    MAGIC.iter().any(|magic| head.starts_with(magic)) || is_zstd_skippable(head) || is_tar(head)
}

fn is_zstd_skippable(head: &[u8]) -> bool {
    head.len() >= 8
        && head.first().is_some_and(|b| b & 0xf0 == 0x50)
        && head.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
}

/// A tar header names its own checksum: the sum of its bytes with the checksum field read as spaces.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.get(..512) else {
        return false;
    };
    let Some(field) = header.get(148..156) else {
        return false;
    };
    let text: String = field
        .iter()
        .map(|&b| char::from(b))
        .filter(|c| c.is_ascii_digit())
        .collect();
    let Ok(stated) = u32::from_str_radix(&text, 8) else {
        return false;
    };
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(at, &b)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(b)
            }
        })
        .sum();
    stated == sum && sum != 8 * 32
}

/// Size limit of the extended records (PAX) of one entry.
const MAX_RECORDS_BYTES: u64 = 1 << 20;

/// The modification time of the newest file in a tar, compressed with gzip or not; none for any other data.
pub(crate) fn newest(data: &[u8]) -> Option<i64> {
    if data.starts_with(&[0x1f, 0x8b]) {
        return scan(flate2::read::MultiGzDecoder::new(data)).ok()?;
    }
    scan(data).ok()?
}

fn scan(mut tar: impl Read) -> io::Result<Option<i64>> {
    let invalid_tar = || io::Error::from(io::ErrorKind::InvalidData);
    let mut newest = None;
    let (mut own_time, mut own_size) = (None, None);
    let mut header = [0_u8; 512];
    loop {
        match tar.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(newest),
            done => done?,
        }
        if header.iter().all(|b| *b == 0) {
            return Ok(newest);
        }
        if !is_tar(&header) {
            return Err(invalid_tar());
        }
        let field = |range: std::ops::Range<usize>| number(header.get(range).unwrap_or_default());
        let size = own_size
            .take()
            .or_else(|| field(124..136))
            .ok_or_else(invalid_tar)?;
        // The conversion fails for negative sizes only.
        let size = u64::try_from(size).map_err(|_| invalid_tar())?;
        let padded = size.checked_next_multiple_of(512).ok_or_else(invalid_tar)?;
        let kind = header.get(156).copied().unwrap_or_default();
        if kind == b'x' {
            if size > MAX_RECORDS_BYTES {
                return Err(invalid_tar());
            }
            let mut body = Vec::new();
            (&mut tar).take(padded).read_to_end(&mut body)?;
            own_time = record(&body, b"mtime=");
            own_size = record(&body, b"size=");
            continue;
        }
        let time = own_time.take().or_else(|| field(136..148));
        if matches!(kind, 0 | b'0' | b'7') && time > newest {
            newest = time;
        }
        io::copy(&mut (&mut tar).take(padded), &mut io::sink())?;
    }
}

/// Parses a number of a tar header: octal, or base 256 if the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        let fold = |value: i64, byte: &u8| value.checked_mul(256)?.checked_add(i64::from(*byte));
        let first = field.first().map(|b| i64::from(b & 0x7f))?;
        return field.iter().skip(1).try_fold(first, fold);
    }
    let text: String = field.iter().map(|&b| char::from(b)).collect();
    let text = text.trim_matches([' ', '\0']);
    if text.is_empty() {
        return Some(0);
    }
    i64::from_str_radix(text, 8).ok()
}

/// The integer part of the number `key` in PAX records.
fn record(body: &[u8], key: &[u8]) -> Option<i64> {
    let line = body.split(|b| *b == b'\n').find_map(|line| {
        let at = line.iter().position(|b| *b == b' ')?;
        line.get(at + 1..)?.strip_prefix(key)
    })?;
    let text = std::str::from_utf8(line).ok()?;
    text.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{is_archive, newest};

    #[test]
    fn the_newest_file_of_an_archive_is_found() {
        let entry = |kind: u8, mtime: i64, body: &[u8]| {
            let mut header = vec![0_u8; 512];
            header[..1].copy_from_slice(b"f");
            header[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
            header[136..147].copy_from_slice(format!("{mtime:011o}").as_bytes());
            header[148..156].copy_from_slice(b"        ");
            header[156] = kind;
            let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            header.extend(body);
            header.resize(header.len().next_multiple_of(512), 0);
            header
        };
        let tar = [
            entry(b'0', 5, b"abc"),
            entry(b'5', 90, b""),
            entry(b'x', 0, b"17 mtime=70.5\nxx\n"),
            entry(b'0', 7, b""),
            vec![0; 1024],
        ]
        .concat();
        assert_eq!(newest(&tar), Some(70));
        assert_eq!(newest(b"FROM scratch\n"), None);
        assert_eq!(newest(&[b'x'; 600]), None);
    }

    #[test]
    fn archives_are_recognised_by_their_heads() {
        assert!(is_archive(b"\x1f\x8b\x08rest") && is_archive(b"BZh9"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(&[0; 1024]));
        let mut tar = vec![0_u8; 512];
        tar[..4].copy_from_slice(b"file");
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar.iter().map(|&b| u32::from(b)).sum();
        tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        assert!(is_archive(&tar));
    }
}
