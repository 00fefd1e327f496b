//! Tar archives: members as they stand, read for comparing and written for attacking.
//!
//! Written by hand because a library would refuse half of what the attacks need.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const BLOCK: usize = 512;

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    /// The type flag: `0` file, `1` hard link, `2` symlink, `3` and `4` devices, `5` folder, `6` fifo.
    pub(super) kind: u8,
    pub(super) mode: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// As written: seconds, with a fraction from a pax record.
    pub(super) mtime: String,
    pub(super) link: Vec<u8>,
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) data: Vec<u8>,
}

impl Member {
    pub(super) fn new(kind: u8, name: &str) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            kind,
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            mtime: "1700000000".to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn file(name: &str, data: &[u8]) -> Self {
        Self {
            data: data.to_vec(),
            ..Self::new(b'0', name)
        }
    }

    pub(super) fn link(kind: u8, name: &str, target: &str) -> Self {
        Self {
            link: target.as_bytes().to_vec(),
            ..Self::new(kind, name)
        }
    }

    pub(super) fn with_mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    pub(super) fn device(self, major: u64, minor: u64) -> Self {
        Self {
            major,
            minor,
            ..self
        }
    }
}

/// Writes an archive of these members and the two empty blocks.
pub(super) fn write(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        append(&mut out, member);
    }
    out.extend([0; 2 * BLOCK]);
    out
}

/// Appends one member, with a pax header where its names are long.
pub(super) fn append(out: &mut Vec<u8>, member: &Member) {
    let mut records = String::new();
    for (key, value) in [("path", &member.name), ("linkpath", &member.link)] {
        if value.len() > 100 {
            record(&mut records, key, &String::from_utf8_lossy(value));
        }
    }
    for (name, value) in &member.xattrs {
        record(
            &mut records,
            &format!("SCHILY.xattr.{name}"),
            &String::from_utf8_lossy(value),
        );
    }
    if !records.is_empty() {
        pax(out, records.as_bytes());
    }
    block(out, member, member.data.len());
    body(out, &member.data);
}

/// Appends a pax header of any bytes.
pub(super) fn pax(out: &mut Vec<u8>, records: &[u8]) {
    block(out, &Member::new(b'x', "PaxHeaders/x"), records.len());
    body(out, records);
}

/// Appends `key=value` as a pax record.
pub(super) fn record(out: &mut String, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let len = (1..20)
        .map(|digits| rest + digits)
        .find(|len| rest + len.to_string().len() == *len);
    let _never = writeln!(out, "{} {key}={value}", len.unwrap_or(rest));
}

/// Appends the header of `member` alone, for `size` bytes that may never come.
pub(super) fn block(out: &mut Vec<u8>, member: &Member, size: usize) {
    let mut head = [0_u8; BLOCK];
    let octal = |head: &mut [u8], at: usize, width: usize, value: u64| {
        let text = format!("{value:0>width$o}", width = width - 1);
        put(head, at, width - 1, text.as_bytes());
    };
    put(&mut head, 0, 100, &member.name);
    octal(&mut head, 100, 8, member.mode);
    octal(&mut head, 108, 8, member.uid);
    octal(&mut head, 116, 8, member.gid);
    octal(&mut head, 124, 12, size as u64);
    octal(&mut head, 136, 12, member.mtime.parse().unwrap_or(0));
    put(&mut head, 148, 8, b"        ");
    put(&mut head, 156, 1, &[member.kind]);
    put(&mut head, 157, 100, &member.link);
    put(&mut head, 257, 8, b"ustar\x0000");
    octal(&mut head, 329, 8, member.major);
    octal(&mut head, 337, 8, member.minor);
    let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
    put(&mut head, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    out.extend(head);
}

fn put(head: &mut [u8], at: usize, width: usize, bytes: &[u8]) {
    for (place, byte) in head.iter_mut().skip(at).take(width).zip(bytes) {
        *place = *byte;
    }
}

fn body(out: &mut Vec<u8>, data: &[u8]) {
    out.extend(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Reads all members of an archive.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Member>, String> {
    let mut members = Vec::new();
    let mut records: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let (mut long_name, mut long_link) = (None, None);
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + BLOCK) {
        if head.iter().all(|byte| *byte == 0) {
            break;
        }
        let field = |from: usize, width: usize| head.get(from..from + width).unwrap_or_default();
        let pax_size = records
            .get("size")
            .and_then(|size| String::from_utf8_lossy(size).parse().ok());
        let size = pax_size.unwrap_or_else(|| value(field(124, 12)));
        let size = usize::try_from(size).map_err(|error| error.to_string())?;
        at += BLOCK;
        let data = bytes
            .get(at..at + size)
            .ok_or_else(|| format!("a member of {size} bytes at {at} is cut"))?;
        at += size.next_multiple_of(BLOCK);
        match field(156, 1).first() {
            Some(b'x') => records = pax_records(data),
            Some(b'g') => {}
            Some(b'L') => long_name = Some(text(data)),
            Some(b'K') => long_link = Some(text(data)),
            kind => {
                let prefix = text(field(345, 155));
                let mut name = text(field(0, 100));
                if !prefix.is_empty() && field(257, 6) == b"ustar\0" {
                    name = [prefix, b"/".to_vec(), name].concat();
                }
                let xattrs = records
                    .iter()
                    .filter_map(|(key, value)| {
                        Some((key.strip_prefix("SCHILY.xattr.")?.to_owned(), value.clone()))
                    })
                    .collect();
                let number = |key: &str, or: u64| {
                    let record = records
                        .get(key)
                        .and_then(|value| String::from_utf8_lossy(value).parse().ok());
                    record.unwrap_or(or)
                };
                members.push(Member {
                    name: records
                        .get("path")
                        .cloned()
                        .or(long_name.take())
                        .unwrap_or(name),
                    kind: kind.copied().filter(|kind| *kind != 0).unwrap_or(b'0'),
                    mode: value(field(100, 8)),
                    uid: number("uid", value(field(108, 8))),
                    gid: number("gid", value(field(116, 8))),
                    mtime: records.get("mtime").map_or_else(
                        || value(field(136, 12)).to_string(),
                        |time| String::from_utf8_lossy(time).into_owned(),
                    ),
                    link: records
                        .get("linkpath")
                        .cloned()
                        .or(long_link.take())
                        .unwrap_or_else(|| text(field(157, 100))),
                    major: value(field(329, 8)),
                    minor: value(field(337, 8)),
                    xattrs,
                    data: data.to_vec(),
                });
                records.clear();
            }
        }
    }
    Ok(members)
}

fn text(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect()
}

/// Octal digits, or base 256 when the first bit is set.
fn value(bytes: &[u8]) -> u64 {
    if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        let start = u64::from(bytes.first().copied().unwrap_or(0) & 0x7f);
        return bytes
            .iter()
            .skip(1)
            .fold(start, |sum, byte| (sum << 8) | u64::from(*byte));
    }
    bytes
        .iter()
        .filter(|byte| (b'0'..=b'7').contains(byte))
        .fold(0, |sum, byte| (sum << 3) | u64::from(byte - b'0'))
}

fn pax_records(mut data: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    while let Some(space) = data.iter().position(|byte| *byte == b' ') {
        let Ok(len) =
            String::from_utf8_lossy(data.get(..space).unwrap_or_default()).parse::<usize>()
        else {
            break;
        };
        let Some(record) = data.get(space + 1..len.saturating_sub(1)) else {
            break;
        };
        if let Some(equals) = record.iter().position(|byte| *byte == b'=') {
            let (key, value) = record.split_at(equals);
            records.insert(
                String::from_utf8_lossy(key).into_owned(),
                value.get(1..).unwrap_or_default().to_vec(),
            );
        }
        data = data.get(len..).unwrap_or_default();
    }
    records
}

#[cfg(test)]
mod tests {
    use super::{Member, read, write};

    #[test]
    fn what_is_written_is_read() {
        let long = "l".repeat(300);
        let members = [
            Member::file("a/b", b"text"),
            Member::file(&long, b""),
            Member::link(b'2', "s", &long),
            Member::new(b'4', "dev").device(7, 300),
        ];
        assert_eq!(read(&write(&members)).unwrap(), members);
    }
}
