//! Escapes as Go's `net/url` writes and reads them.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What `url.QueryEscape` escapes: all but letters, digits and `-_.~`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    // Written as a plus sign after that.
    .remove(b' ');

/// A percent sign is not followed by two hexadecimal digits. Printed as Go prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL escape {}", crate::strconv::quote(.0))]
pub struct EscapeError(pub String);

/// Escapes a value of a query: letters, digits and `-_.~` stay, a blank becomes `+`.
#[must_use]
pub fn query_escape(value: &str) -> String {
    utf8_percent_encode(value, QUERY)
        .to_string()
        .replace(' ', "+")
}

/// The reverse of [`query_escape`].
pub fn query_unescape(text: &str) -> Result<Vec<u8>, EscapeError> {
    match text.contains('+') {
        true => path_unescape(&text.replace('+', " ")),
        false => path_unescape(text),
    }
}

/// Takes the escapes out of a segment of a path: as [`query_unescape`], but `+` stays.
///
/// The answer need not be UTF-8.
pub fn path_unescape(text: &str) -> Result<Vec<u8>, EscapeError> {
    for (at, _) in text.match_indices('%') {
        let escape = text.as_bytes().get(at..).unwrap_or_default();
        let escape = escape.get(..3).unwrap_or(escape);
        if escape.len() < 3 || !escape.iter().skip(1).all(u8::is_ascii_hexdigit) {
            return Err(EscapeError(String::from_utf8_lossy(escape).into_owned()));
        }
    }
    Ok(percent_decode_str(text).collect())
}

/// Takes out the escapes that are some and keeps the rest, for texts that are shown or tried rather than checked.
#[must_use]
pub fn unescape_lossy(text: &str) -> Cow<'_, [u8]> {
    Cow::from(percent_decode_str(text))
}
