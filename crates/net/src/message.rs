//! Messages of netlink as bytes: written with their attributes, and read with every length checked.
//!
//! A message is a header of 16 bytes, a fixed part that its type decides, and attributes: length, type, value, padded to four bytes.
//! Numbers are in the machine's order, but where nftables says otherwise. The facts are those of `linux/netlink.h`.

/// The flag that an attribute holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its number.
const TYPE_BITS: u16 = 0x3fff;

/// Flags of a message's header.
pub(crate) mod flags {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const ACK: u16 = 4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCLUSIVE: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    /// A flag of answers: the dumped objects changed meanwhile.
    pub(crate) const INTERRUPTED: u16 = 0x10;
}

/// Types of messages that every family has.
pub(crate) const ERROR: u16 = 2;
pub(crate) const DONE: u16 = 3;

const HEADER_BYTES: usize = 16;

/// A message that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Begins a message of a type with the flags, to which [`flags::REQUEST`] is added, and its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        put(&mut bytes, 4, &kind.to_ne_bytes());
        put(&mut bytes, 6, &(flags | flags::REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    /// Adds an attribute.
    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let begin = self.begin(kind);
        self.bytes.extend_from_slice(value);
        self.end(begin);
        self
    }

    /// Adds a text as netlink has it: with a zero byte at its end.
    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attr(kind, &value)
    }

    /// Adds a number in the machine's order.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds a number in the network's order, as nftables wants it.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds those which `inside` adds.
    pub(crate) fn nest(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let begin = self.begin(kind | NESTED);
        let mut message = inside(self);
        message.end(begin);
        message
    }

    /// Adds bytes that stand before nested attributes, such as the fixed part of a nested message.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// The finished message.
    pub(crate) fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let message_flags = u16::from_ne_bytes([
            self.bytes.get(6).copied().unwrap_or_default(),
            self.bytes.get(7).copied().unwrap_or_default(),
        ]);
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        put(&mut self.bytes, 0, &length.to_ne_bytes());
        put(&mut self.bytes, 6, &(message_flags | flags).to_ne_bytes());
        put(&mut self.bytes, 8, &sequence.to_ne_bytes());
        self.bytes
    }

    fn begin(&mut self, kind: u16) -> usize {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        begin
    }

    fn end(&mut self, begin: usize) {
        // Our attributes are far below 64 KiB; a longer one would be refused by the kernel, which checks lengths.
        let length = u16::try_from(self.bytes.len() - begin).unwrap_or(u16::MAX);
        put(&mut self.bytes, begin, &length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl Received<'_> {
    /// The number of an error message's error, 0 for an acknowledgement. `None` if it is another message.
    pub(crate) fn errno(&self) -> Option<i32> {
        if self.kind != ERROR {
            return None;
        }
        let code = number(self.body, 0).unwrap_or_default().cast_signed();
        Some(code.wrapping_neg())
    }
}

/// The messages of a datagram; ends at the first whose length is wrong.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER_BYTES..length)?;
        let message = Received {
            kind: short(bytes, 4)?,
            flags: short(bytes, 6)?,
            sequence: number(bytes, 8)?,
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message or attribute behind its fixed part; ends at the first whose length is wrong.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes, 0)?);
        let kind = short(bytes, 2)? & TYPE_BITS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(attribute_kind, _)| *attribute_kind == kind)
        .map(|(_, value)| value)
}

/// A text without the zero byte at its end.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    let value = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

/// A number of four bytes in the machine's order.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// A number of two bytes in the machine's order.
pub(crate) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_lengths_and_padding() {
        let message = Message::new(16, flags::CREATE, &[7])
            .text(3, "ab")
            .nest(18, |inside| inside.u32(1, 5).attr(2, &[]))
            .finish(9, flags::ACK);
        let mut expected = Vec::new();
        expected.extend(44u32.to_ne_bytes());
        expected.extend(16u16.to_ne_bytes());
        expected.extend(0x405u16.to_ne_bytes());
        expected.extend(9u32.to_ne_bytes());
        expected.extend([0; 4]);
        expected.extend([7, 0, 0, 0]);
        expected.extend(7u16.to_ne_bytes());
        expected.extend(3u16.to_ne_bytes());
        expected.extend(*b"ab\0\0");
        expected.extend(16u16.to_ne_bytes());
        expected.extend(0x8012u16.to_ne_bytes());
        expected.extend(8u16.to_ne_bytes());
        expected.extend(1u16.to_ne_bytes());
        expected.extend(5u32.to_ne_bytes());
        expected.extend(4u16.to_ne_bytes());
        expected.extend(2u16.to_ne_bytes());
        assert_eq!(message, expected);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let first_message = Message::new(16, 0, &[0; 4]).text(3, "eth0").finish(1, 0);
        let second_message = Message::new(17, 0, &[0; 4])
            .nest(5, |inside| inside.be32(1, 6))
            .finish(2, 0);
        let datagram = [first_message, second_message].concat();
        let received: Vec<_> = messages(&datagram).collect();
        assert_eq!(
            received
                .iter()
                .map(|m| (m.kind, m.sequence))
                .collect::<Vec<_>>(),
            [(16, 1), (17, 2)]
        );
        let link_attributes = received[0].body.get(4..).unwrap();
        assert_eq!(attribute(link_attributes, 3).map(text).unwrap(), "eth0");
        assert_eq!(attribute(link_attributes, 4), None);
        let second = attribute(received[1].body.get(4..).unwrap(), 5).unwrap();
        assert_eq!(attribute(second, 1), Some(&[0, 0, 0, 6][..]));
        assert_eq!(received[0].errno(), None);
    }

    #[test]
    fn wrong_lengths_end_the_reading_and_nothing_else() {
        let good = Message::new(16, 0, &[]).attr(1, &[1, 2]).finish(1, 0);
        // Each is cut, or says that it is longer or shorter than it can be.
        for length in [0u32, 1, 15, 25, u32::MAX] {
            let mut bytes = good.clone();
            put(&mut bytes, 0, &length.to_ne_bytes());
            assert_eq!(messages(&bytes).count(), 0, "length {length}");
        }
        for cut in 0..good.len() {
            let cut_off = good.get(..cut).unwrap();
            // The padding of the last attribute may be missing from a datagram.
            assert_eq!(messages(cut_off).count(), 0, "cut at {cut}");
        }
        for length in [0u16, 1, 3, 9, u16::MAX] {
            let mut value = vec![0; 8];
            put(&mut value, 0, &length.to_ne_bytes());
            assert_eq!(attributes(&value).count(), 0, "length {length}");
        }
        assert_eq!(attributes(&[]).count(), 0);
        assert_eq!(text(b"no end"), "no end");
        assert_eq!(number(&[1, 2, 3], 0), None);
        assert_eq!(short(&[1], 0), None);
    }

    #[test]
    fn an_error_message_tells_its_number() {
        let errno = |body: &[u8]| {
            let message = Received {
                kind: ERROR,
                flags: 0,
                sequence: 1,
                body,
            };
            message.errno()
        };
        assert_eq!(errno(&0i32.to_ne_bytes()), Some(0));
        assert_eq!(errno(&(-17i32).to_ne_bytes()), Some(17));
        assert_eq!(errno(&i32::MIN.to_ne_bytes()), Some(i32::MIN));
        assert_eq!(errno(&[]), Some(0));
    }
}
