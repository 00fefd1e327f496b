//! JSON as Go's `encoding/json` writes and reads it.
//!
//! Digests of documents that BuildKit writes depend on Go's escaping: `<`, `>` and `&` are written as `\u003c`,
//! `\u003e`, `\u0026`, and U+2028 and U+2029 as escapes. Maps are `BTreeMap`s, so keys are in byte order as in Go.
//!
//! What others wrote is read by [`from_slice`] and nothing else. It takes what Go takes (the table is in `read.rs`), within
//! bounds, and without recursion over what the document decides.

mod document;
mod read;

use std::borrow::Cow;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::ser::Formatter;

use document::{Document, Kind};
use read::Value;

/// Values that a document may have: a multiple of what the largest image config or index has.
pub const MAX_VALUES: usize = 1 << 18;

/// Why a document cannot be read. What is wrong with the syntax is said as Go says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends too early.
    #[error("unexpected end of JSON input")]
    End,
    /// Something stands where it may not.
    #[error("invalid character {found:?} {place}")]
    Syntax {
        /// The byte.
        found: char,
        /// Where, in Go's words.
        place: Cow<'static, str>,
        /// Where, as a number of bytes.
        offset: usize,
    },
    /// Objects and lists are too deep inside each other.
    #[error("exceeded max depth")]
    Depth,
    /// There are too many values.
    #[error("more than {0} values")]
    Values(usize),
    /// It is larger than 4 GiB.
    #[error("too large")]
    Size,
    /// A value has another type than it must have, or is missing.
    #[error("{0}")]
    Shape(String),
    /// The value of a field cannot be read.
    #[error("{path}: {reason}")]
    Field {
        /// The field, after those that it is in.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl DecodeError {
    /// Adds the name of the field that a value is in.
    fn inside(self, name: &str) -> Self {
        match self {
            Self::Shape(reason) => Self::Field {
                path: name.to_owned(),
                reason,
            },
            Self::Field { path, reason } => Self::Field {
                path: format!("{name}.{path}"),
                reason,
            },
            Self::End | Self::Syntax { .. } | Self::Depth | Self::Values(_) | Self::Size => self,
        }
    }
}

impl serde::de::Error for DecodeError {
    fn custom<T: std::fmt::Display>(reason: T) -> Self {
        Self::Shape(reason.to_string())
    }
}

/// Serializes like Go's `json.Marshal`.
///
/// # Panics
/// Never for the documents of this workspace: only a map with non-string keys cannot be written as JSON.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Compact);
    value
        .serialize(&mut serializer)
        .expect("our documents have string keys and finite numbers");
    out
}

/// Serializes like Go's `json.MarshalIndent(value, prefix "", indent)`.
///
/// # Panics
/// As [`to_vec`].
pub fn to_vec_indent<T: Serialize + ?Sized>(value: &T, indent: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let formatter = Pretty {
        inner: serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes()),
    };
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value
        .serialize(&mut serializer)
        .expect("our documents have string keys and finite numbers");
    out
}

/// Decodes a document as Go's `json.Unmarshal` does.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    from_slice_with(bytes, MAX_VALUES)
}

/// As [`from_slice`], with another bound for the number of values.
pub fn from_slice_with<T: DeserializeOwned>(
    bytes: &[u8],
    max_values: usize,
) -> Result<T, DecodeError> {
    let document = Document::parse(bytes, max_values, true)?;
    T::deserialize(Value::new(&document, 0))
}

/// Decodes the first value of a stream as Go's `json.Decoder` does: what follows it is not looked at.
pub fn from_start<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let document = Document::parse(bytes, MAX_VALUES, false)?;
    T::deserialize(Value::new(&document, 0))
}

/// Names of members and the bytes of their values.
pub type RawMembers<'a> = Vec<(String, &'a [u8])>;

/// The members of an object with the bytes of their values, as Go puts them into a `map[string]json.RawMessage`: in order,
/// names that are there twice as well. `None` for `null`.
pub fn raw_members(bytes: &[u8]) -> Result<Option<RawMembers<'_>>, DecodeError> {
    let document = Document::parse(bytes, MAX_VALUES, true)?;
    let Some(members) = document.top_members() else {
        let kind = document.kind(0);
        return if kind == Kind::Null {
            Ok(None)
        } else {
            let reason = format!("cannot unmarshal {} where an object is wanted", kind.name());
            Err(DecodeError::Shape(reason))
        };
    };
    let members = members.map(|(name, value)| {
        let name = document.text(name).into_owned();
        (name, document.raw(value))
    });
    Ok(Some(members.collect()))
}

/// The bytes of the member that Go puts into a field of type `json.RawMessage`: the last one of that name, in any case.
pub fn raw_field<'a>(bytes: &'a [u8], field: &str) -> Result<Option<&'a [u8]>, DecodeError> {
    let members = raw_members(bytes)?.unwrap_or_default();
    let mut members_from_last = members.into_iter().rev();
    Ok(members_from_last
        .find(|(name, _)| read::is_same_name(field, name))
        .map(|(_, raw)| raw))
}

/// Writes the bytes of a value as Go writes a `json.RawMessage`: without blanks, with the characters escaped that it escapes,
/// and otherwise as they are.
pub fn compact(raw: &[u8], out: &mut Vec<u8>) {
    let mut in_string = false;
    let mut escaped = false;
    let mut rest = raw;
    while let Some((byte, tail)) = rest.split_first() {
        let mut after = tail;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => {}
            b'<' | b'>' | b'&' if in_string => out.extend(format!("\\u{byte:04x}").as_bytes()),
            0xe2 if in_string && matches!(tail, [0x80, 0xa8 | 0xa9, ..]) => {
                let last = tail.get(1).map_or(0, |b| b & 0xf);
                out.extend(format!("\\u202{last:x}").as_bytes());
                after = tail.get(2..).unwrap_or_default();
            }
            _ => {
                if *byte == b'"' && !escaped {
                    in_string = !in_string;
                }
                out.push(*byte);
            }
        }
        escaped = in_string && *byte == b'\\' && !escaped;
        rest = after;
    }
}

/// Reads `null` as the default value, as Go does for maps and slices: for types that are read by other means than
/// [`from_slice`].
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

struct Compact;

impl Formatter for Compact {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_go_fragment(writer, fragment)
    }
}

struct Pretty<'a> {
    inner: serde_json::ser::PrettyFormatter<'a>,
}

impl Formatter for Pretty<'_> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_go_fragment(writer, fragment)
    }
    fn begin_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.inner.begin_array(w)
    }
    fn end_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.inner.end_array(w)
    }
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.inner.begin_array_value(w, first)
    }
    fn end_array_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.inner.end_array_value(w)
    }
    fn begin_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.inner.begin_object(w)
    }
    fn end_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.inner.end_object(w)
    }
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.inner.begin_object_key(w, first)
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.inner.begin_object_value(w)
    }
    fn end_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.inner.end_object_value(w)
    }
}

fn write_go_fragment<W: ?Sized + io::Write>(writer: &mut W, fragment: &str) -> io::Result<()> {
    let mut rest = fragment;
    while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let (plain, tail) = rest.split_at(at);
        writer.write_all(plain.as_bytes())?;
        let c = tail
            .chars()
            .next()
            .expect("find returned the place of a char");
        write!(writer, "\\u{:04x}", c as u32)?;
        rest = tail.get(c.len_utf8()..).unwrap_or_default();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests;
