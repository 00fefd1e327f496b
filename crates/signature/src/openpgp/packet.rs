//! Packets: a tag, a length, a body (RFC 9580, section 4.2).

use crate::cursor::Cursor;
use oci::ErrorKind;

/// Packets that are accepted, of keys or of a signature.
pub(super) const MAX_PACKETS: usize = 1000;

/// A signature.
pub(crate) const SIGNATURE: u8 = 2;
/// A primary key.
pub(crate) const PUBLIC_KEY: u8 = 6;
/// A user's name.
pub(crate) const USER_ID: u8 = 13;
/// A subkey.
pub(crate) const PUBLIC_SUBKEY: u8 = 14;

/// Bytes are not a sequence of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The first byte is not that of a packet.
    #[error("openpgp: invalid data: tag byte does not have MSB set")]
    Tag,
    /// The packet's length is more than the bytes that are left.
    #[error("openpgp: invalid data: packet is cut off")]
    Truncated,
    /// The length is partial or indeterminate, which only encrypted and literal data may be.
    #[error("openpgp: invalid data: packet without a length of its own")]
    Length,
    /// There are more than `MAX_PACKETS`.
    #[error("more than {MAX_PACKETS} packets")]
    TooMany,
}

impl PacketError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub(crate) tag: u8,
    pub(crate) body: &'a [u8],
}

/// The packets of some bytes; it ends after an error.
#[derive(Debug)]
pub(crate) struct Packets<'a, 'c> {
    bytes: Cursor<'a>,
    count: &'c mut usize,
}

impl<'a, 'c> Packets<'a, 'c> {
    /// Reads packets and adds their number to `count`, which the blocks of a ring share.
    pub(crate) fn new(bytes: &'a [u8], count: &'c mut usize) -> Self {
        Self {
            bytes: Cursor::new(bytes),
            count,
        }
    }

    fn read(&mut self) -> Result<Packet<'a>, PacketError> {
        *self.count += 1;
        if *self.count > MAX_PACKETS {
            return Err(PacketError::TooMany);
        }
        let head = self.bytes.u8().ok_or(PacketError::Truncated)?;
        if head & 0x80 == 0 {
            return Err(PacketError::Tag);
        }
        let (tag, length) = if head & 0x40 == 0 {
            let length = match head & 3 {
                0 => self.bytes.u8().map(u32::from),
                1 => self.bytes.u16().map(u32::from),
                2 => self.bytes.u32(),
                _ => return Err(PacketError::Length),
            };
            ((head & 0x3f) >> 2, length)
        } else {
            let length = match self.bytes.u8() {
                Some(224..=254) => return Err(PacketError::Length),
                first => first.and_then(|first| length(first, &mut self.bytes)),
            };
            (head & 0x3f, length)
        };
        let body = length
            .and_then(|length| self.bytes.take(usize::try_from(length).ok()?))
            .ok_or(PacketError::Truncated)?;
        Ok(Packet { tag, body })
    }
}

/// A length of one, two or five bytes, as packets and subpackets have it. The caller refuses partial lengths.
pub(crate) fn length(first: u8, bytes: &mut Cursor<'_>) -> Option<u32> {
    match first {
        0..192 => Some(u32::from(first)),
        255 => bytes.u32(),
        192..255 => Some(u32::from(first - 192) * 256 + u32::from(bytes.u8()?) + 192),
    }
}

impl<'a> Iterator for Packets<'a, '_> {
    type Item = Result<Packet<'a>, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let packet = self.read();
        if packet.is_err() {
            self.bytes = Cursor::new(&[]);
        }
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_PACKETS, Packet, PacketError, Packets};

    fn read(bytes: &[u8]) -> Result<Vec<(u8, usize)>, PacketError> {
        Packets::new(bytes, &mut 0)
            .map(|packet| packet.map(|Packet { tag, body }| (tag, body.len())))
            .collect()
    }

    #[test]
    fn old_and_new_lengths_are_read() {
        let with = |head: &[u8], length: usize| [head, &vec![7; length]].concat();
        for (head, length, tag) in [
            (&[0x98, 3][..], 3, 6),
            (&[0x99, 1, 0], 256, 6),
            (&[0x9a, 0, 1, 0, 0], 65536, 6),
            (&[0xc2, 0], 0, 2),
            (&[0xc2, 191], 191, 2),
            (&[0xc2, 192, 0], 192, 2),
            (&[0xc2, 223, 255], 8383, 2),
            (&[0xff, 255, 0, 0, 0, 1], 1, 63),
        ] {
            assert_eq!(read(&with(head, length)), Ok(vec![(tag, length)]));
            // One byte less is not enough, and one more is the next packet, or the start of none.
            if length > 0 {
                assert_eq!(read(&with(head, length - 1)), Err(PacketError::Truncated));
            }
            assert_eq!(read(&with(head, length + 1)), Err(PacketError::Tag));
        }
    }

    #[test]
    fn what_has_no_length_of_its_own_is_refused() {
        for bytes in [&[0x9b, 1, 2][..], &[0xc2, 224, 1], &[0xcb, 254, 1]] {
            assert_eq!(read(bytes), Err(PacketError::Length), "{bytes:?}");
        }
        for bytes in [
            &[0x99][..],
            &[0x99, 1],
            &[0xc2],
            &[0xc2, 200],
            &[0xc2, 255, 1],
        ] {
            assert_eq!(read(bytes), Err(PacketError::Truncated), "{bytes:?}");
        }
        let huge = [0xc2, 255, 255, 255, 255, 255];
        assert_eq!(read(&huge), Err(PacketError::Truncated));
        assert_eq!(read(&[]), Ok(vec![]));
    }

    #[test]
    fn packets_are_counted_across_runs_and_end_with_the_first_error() {
        let bytes = [0xc2, 0].repeat(MAX_PACKETS);
        let mut count = 0;
        assert!(Packets::new(&bytes, &mut count).all(|packet| packet.is_ok()));
        let mut more = Packets::new(&bytes, &mut count);
        assert_eq!(more.next(), Some(Err(PacketError::TooMany)));
        assert_eq!(more.next(), None);
    }
}
