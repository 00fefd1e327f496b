//! Physical lines.

use std::borrow::Cow;

use super::MAX_LINE;

/// Returns a text file as UTF-8: one that a byte order mark says to be UTF-16, as Windows' PowerShell writes files, is converted. All
/// others are given as they are.
// DIFFERS: BuildKit takes such a Dockerfile for gibberish, and such an ignore file for patterns that match nothing.
pub fn to_utf8(data: &[u8]) -> Cow<'_, [u8]> {
    let (units, bytes): (fn([u8; 2]) -> u16, _) = match data {
        [0xff, 0xfe, rest @ ..] => (u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => (u16::from_be_bytes, rest),
        _ => return Cow::Borrowed(data),
    };
    let (pairs, _) = bytes.as_chunks::<2>();
    let chars = char::decode_utf16(pairs.iter().map(|pair| units(*pair)));
    let text: String = chars
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    Cow::Owned(text.into_bytes())
}

/// Cuts a byte order mark.
pub(super) fn strip_bom(data: &[u8]) -> &[u8] {
    data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data)
}

/// The lines of a file with their line ends. A line that is too long ends the iteration.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    too_long: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            rest: data,
            too_long: false,
        }
    }

    /// Whether the iteration ended because of a line that is too long.
    pub(super) fn too_long(&self) -> bool {
        self.too_long
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() || self.too_long {
            return None;
        }
        let text = self
            .rest
            .iter()
            .take(MAX_LINE + 1)
            .position(|byte| *byte == b'\n');
        let length = match text {
            Some(end) => end + 1,
            None if self.rest.len() > MAX_LINE => {
                self.too_long = true;
                return None;
            }
            None => self.rest.len(),
        };
        let (line, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(line)
    }
}
