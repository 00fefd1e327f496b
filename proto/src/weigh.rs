//! What a message takes in memory, known before it is decoded.
//!
//! An element of a list takes two bytes on the wire and some hundreds in memory, so the length of a message says little about what
//! decoding it costs. Here the bytes are walked along the shapes of the messages, which are generated like the messages, and what they
//! would take is added up. A message that would take too much is refused before anything is allocated for it.
//!
//! | limit | of | |
//! |---|---|---|
//! | [`crate::MAX_MESSAGE`] | a message on the wire | 16 MiB |
//! | [`budget`] | a message in memory | 1 MiB and sixteen times its length, at most 96 MiB |
//! | [`DEPTH`] | messages in messages | 100, as the decoder has it |

use prost::Message;

/// A message may take this much, however short it is.
const FREE: usize = 1 << 20;
/// What lists may make of one byte. Honest messages make three to seven of it.
const GROWTH: usize = 16;
/// No message takes more than this.
const MOST: usize = 96 << 20;
/// What the allocator adds to a short text.
const ALLOCATION: usize = 32;
/// Messages in messages.
const DEPTH: usize = 100;

/// A message of the wire: what one takes in memory, and what its fields hold.
#[derive(Debug)]
pub struct Shape {
    /// Its name on the wire.
    pub name: &'static str,
    /// What one takes, without what hangs off it.
    pub size: usize,
    /// Its fields, by their numbers.
    pub fields: &'static [Field],
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Its number.
    pub number: u64,
    /// Its name.
    pub name: &'static str,
    /// Whether it is a list or a map.
    pub many: bool,
    /// What one of it holds.
    pub holds: Holds,
}

/// What a field holds.
#[derive(Debug)]
pub enum Holds {
    /// A number, a flag or a choice.
    Number,
    /// A text or bytes.
    Bytes,
    /// A message.
    Message(&'static Shape),
}

/// A message that has a shape.
pub trait Shaped {
    /// Its shape.
    const SHAPE: &'static Shape;
}

/// Decodes a message that is thrown away when what is returned is.
pub type Decode = fn(&[u8]) -> Result<Box<dyn std::any::Any>, Refused>;

/// Decodes a message, if it does not take too much.
pub fn decode_as<M: Message + Default + Shaped + 'static>(
    bytes: &[u8],
) -> Result<Box<dyn std::any::Any>, Refused> {
    Ok(Box::new(decode::<M>(bytes)?))
}

/// Why a message was not decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It would take too much memory.
    #[error(
        "message of {wire} bytes would take more than {budget} bytes of memory: it has too many small parts"
    )]
    TooLarge {
        /// Its length.
        wire: usize,
        /// What a message of that length may take.
        budget: usize,
    },
    /// Its bytes are none of a message.
    #[error("{0}")]
    Malformed(#[from] prost::DecodeError),
}

/// What a message of so many bytes may take in memory.
#[must_use]
pub fn budget(wire: usize) -> usize {
    MOST.min(FREE.saturating_add(wire.saturating_mul(GROWTH)))
}

/// Decodes a message, if it does not take more than its [`budget`].
pub fn decode<M: Message + Default + Shaped>(bytes: &[u8]) -> Result<M, Refused> {
    let budget = budget(bytes.len());
    if weigh(M::SHAPE, bytes, budget).is_none() {
        let wire = bytes.len();
        return Err(Refused::TooLarge { wire, budget });
    }
    Ok(M::decode(bytes)?)
}

/// What a message takes in memory; none if that is more than `most`. What is no message is weighed up to where it ends being one,
/// which is as far as it would be decoded.
#[must_use]
pub fn weigh(shape: &'static Shape, bytes: &[u8], most: usize) -> Option<usize> {
    let mut total = shape.size;
    let mut stack: Vec<(&'static Shape, &[u8])> = vec![(shape, bytes)];
    while let Some((shape, mut rest)) = stack.pop() {
        while let Some((number, wire)) = field(&mut rest) {
            // A field that is not known is skipped without keeping anything.
            let Ok(at) = shape.fields.binary_search_by_key(&number, |f| f.number) else {
                continue;
            };
            let Some(field) = shape.fields.get(at) else {
                continue;
            };
            // A list grows by doubling, and a node of a map may be half empty.
            let one = |size: usize| {
                if field.many {
                    size.saturating_mul(2)
                } else {
                    0
                }
            };
            let more = match (&field.holds, wire) {
                (Holds::Number, Wire::Data(packed)) => packed.len().saturating_mul(16),
                (Holds::Number, _) => one(8),
                (Holds::Bytes, Wire::Data([])) => one(24),
                (Holds::Bytes, Wire::Data(data)) => one(24)
                    .saturating_add(data.len())
                    .saturating_add(ALLOCATION),
                (Holds::Message(inner), Wire::Data(data)) => {
                    if stack.len() >= DEPTH {
                        return None;
                    }
                    // What is left of this one comes after the inner one.
                    stack.push((shape, rest));
                    stack.push((inner, data));
                    rest = &[];
                    one(inner.size)
                }
                // Not what the field holds: decoding ends here.
                (Holds::Bytes | Holds::Message(_), _) => return Some(total),
            };
            total = total.saturating_add(more);
            if total > most {
                return None;
            }
        }
    }
    Some(total)
}

/// One field as it lies on the wire.
enum Wire<'a> {
    Number,
    Data(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The next field; none at the end, and where the bytes stop being a message. Groups, which nobody writes, are stepped into: their
/// fields count as those of the message, which is more than the nothing that is kept of them.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let key = varint(bytes)?;
    let wire = match key & 7 {
        0 => {
            varint(bytes)?;
            Wire::Number
        }
        1 => skip(bytes, 8)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (data, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Data(data)
        }
        3 | 4 => return Some((0, Wire::Number)),
        5 => skip(bytes, 4)?,
        _ => return None,
    };
    Some((key >> 3, wire))
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<Wire<'a>> {
    let (_, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(Wire::Number)
}
