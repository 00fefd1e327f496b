//! JSON as Go's `encoding/json` writes it.
//!
//! Digests of documents that BuildKit writes depend on Go's escaping: `<`, `>` and `&` are written as `\u003c`,
//! `\u003e`, `\u0026`, and U+2028 and U+2029 as escapes. Maps are `BTreeMap`s, so keys are in byte order as in Go.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::ser::Formatter;

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

/// Parses JSON bytes.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// Reads `null` as the default value, as Go does for maps and slices.
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
mod tests {
    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let text = String::from_utf8(super::to_vec("a<b>&\u{2028}\n\u{8}\u{1}é\u{7f}")).unwrap();
        assert_eq!(
            text,
            "\"a\\u003cb\\u003e\\u0026\\u2028\\n\\b\\u0001é\u{7f}\""
        );
    }
}
