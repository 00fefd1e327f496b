//! Extended attributes beside their inode: a header, then for each the length of its name, a number for the name's prefix, the length
//! of its value, the rest of the name and the value, filled up to four bytes.

use crate::format::{XATTR_HEADER_SIZE, round_up, u16_at};

/// An extended attribute: name with its prefix, and value.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// Extended attributes of one node.
pub type Xattrs = Vec<Xattr>;

/// Prefixes that the format has numbers for. ACLs are whole names.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

const ENTRY_HEADER_SIZE: usize = 4;

/// Why an attribute cannot be in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XattrFault {
    /// The name has no prefix that the format has a number for, nothing after it, or more after it than it can count.
    Name,
    /// The value is longer than the format can count.
    Value,
}

/// An attribute's name as the number of its prefix and the rest.
fn split(name: &[u8]) -> Result<(u8, &[u8]), XattrFault> {
    for (prefix, number) in PREFIXES {
        let Some(suffix) = name.strip_prefix(prefix) else {
            continue;
        };
        let whole = !prefix.ends_with(b".");
        if whole == suffix.is_empty() && suffix.len() <= usize::from(u8::MAX) {
            return Ok((number, suffix));
        }
    }
    Err(XattrFault::Name)
}

/// The bytes that one attribute takes, or why it cannot be there.
pub(crate) fn entry_size(name: &[u8], value: &[u8]) -> Result<usize, XattrFault> {
    let (_, suffix) = split(name)?;
    u16::try_from(value.len()).map_err(|_| XattrFault::Value)?;
    let size = ENTRY_HEADER_SIZE + suffix.len() + value.len();
    Ok(size.next_multiple_of(4))
}

/// Header and entries; nothing for no attribute. Each was checked with [`entry_size`]: one that cannot be there is left out.
pub(crate) fn encode(attributes: &[Xattr]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in attributes {
        let (Ok((prefix, suffix)), Ok(value_size)) = (split(name), u16::try_from(value.len()))
        else {
            continue;
        };
        if bytes.is_empty() {
            bytes.resize(XATTR_HEADER_SIZE, 0);
        }
        // `split` bounds the suffix.
        let suffix_size = u8::try_from(suffix.len()).unwrap_or(u8::MAX);
        bytes.extend_from_slice(&[suffix_size, prefix]);
        bytes.extend_from_slice(&value_size.to_le_bytes());
        bytes.extend_from_slice(suffix);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// The attributes in `bytes`, header included; None where the bytes contradict themselves or have what we do not write.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Xattr>> {
    let mut attributes = Vec::new();
    if bytes.is_empty() {
        return Some(attributes);
    }
    bytes.get(..XATTR_HEADER_SIZE)?;
    let shared_count = bytes[4];
    if shared_count != 0 {
        return None;
    }
    let mut at = XATTR_HEADER_SIZE;
    while at < bytes.len() {
        let suffix_size = usize::from(*bytes.get(at)?);
        let prefix_number = *bytes.get(at + 1)?;
        bytes.get(at + 2..at + 4)?;
        let value_size = usize::from(u16_at(bytes, at + 2));
        let suffix_at = at + ENTRY_HEADER_SIZE;
        let value_at = suffix_at + suffix_size;
        let (prefix, _) = PREFIXES
            .iter()
            .find(|(_, number)| *number == prefix_number)?;
        let mut name = prefix.to_vec();
        name.extend_from_slice(bytes.get(suffix_at..value_at)?);
        let value = bytes.get(value_at..value_at + value_size)?;
        attributes.push((name.into(), value.into()));
        let end = u64::try_from(value_at + value_size).ok()?;
        at = usize::try_from(round_up(end, 4)).ok()?;
    }
    Some(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let long = vec![7u8; 65_535];
        let cases: [&[(&[u8], &[u8])]; 4] = [
            &[],
            &[(b"user.a", b"")],
            &[
                (b"security.capability", b"\x01\0\0\x02"),
                (b"system.posix_acl_access", b"12345"),
                (b"system.posix_acl_default", b"1"),
                (b"trusted.overlay.opaque", b"y"),
            ],
            &[(b"user.long", &long)],
        ];
        for case in cases {
            let attributes: Vec<Xattr> = case
                .iter()
                .map(|(name, value)| (Box::from(*name), Box::from(*value)))
                .collect();
            let bytes = encode(&attributes);
            let entries: usize = case
                .iter()
                .map(|(name, value)| entry_size(name, value).unwrap())
                .sum();
            let header = if case.is_empty() {
                0
            } else {
                XATTR_HEADER_SIZE
            };
            assert_eq!(bytes.len(), header + entries);
            assert_eq!(decode(&bytes), Some(attributes));
        }
    }

    #[test]
    fn an_attribute_that_the_format_has_no_room_for_is_refused() {
        let long = vec![b'n'; 256];
        let value = vec![0; 65_536];
        let cases: [(&[u8], &[u8], XattrFault); 7] = [
            (b"", b"", XattrFault::Name),
            (b"user.", b"", XattrFault::Name),
            (b"user", b"", XattrFault::Name),
            (b"system.nfs4_acl", b"", XattrFault::Name),
            (b"system.posix_acl_access2", b"", XattrFault::Name),
            (
                &[b"user.".as_slice(), &long].concat(),
                b"",
                XattrFault::Name,
            ),
            (b"user.a", &value, XattrFault::Value),
        ];
        for (name, value, fault) in cases {
            assert_eq!(entry_size(name, value), Err(fault), "{name:?}");
        }
    }

    #[test]
    fn bytes_that_end_early_are_no_attributes() {
        let bytes = encode(&[(Box::from(*b"user.name"), Box::from(*b"value"))]);
        // Header, entry, name and value; after them the fill.
        let end = XATTR_HEADER_SIZE + ENTRY_HEADER_SIZE + 4 + 5;
        for length in 1..bytes.len() {
            let complete = length == XATTR_HEADER_SIZE || length >= end;
            assert_eq!(decode(&bytes[..length]).is_some(), complete, "{length}");
        }
    }
}
