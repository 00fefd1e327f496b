//! Go's habits with text, where they are visible: quoting, spaces, yes and no.

use std::fmt::Write as _;

/// Quotes like Go's `%q`.
pub(crate) fn quote(text: impl AsRef<str>) -> String {
    let mut out = String::from("\"");
    for c in text.as_ref().chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if is_print(c) => out.push(c),
            c if u32::from(c) < 0x80 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if u32::from(c) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

/// An approximation of Go's printable characters: no controls, no spaces but the plain one, no format characters in common use.
fn is_print(c: char) -> bool {
    if c == ' ' {
        return true;
    }
    let invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{fff9}'..='\u{fffb}');
    // Planes without characters, tags, private use, and the last two of each plane, which are none.
    let nothing =
        matches!(c, '\u{40000}'..='\u{e00ff}' | '\u{f0000}'..) || u32::from(c) & 0xfffe == 0xfffe;
    !c.is_control() && !c.is_whitespace() && !invisible && !nothing
}

/// Reads a truth value as Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The white space between words. Narrower than Unicode's, and a line feed is not part of it.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Cuts at the first run of blanks.
pub(crate) fn split_blank(text: &str) -> Option<(&str, &str)> {
    let start = text.find(is_blank)?;
    let (head, rest) = text.split_at(start);
    Some((head, rest.trim_start_matches(is_blank)))
}

/// Cuts at every run of blanks; like Go's `Split`, with empty words at the ends if there are blanks at the ends.
pub(crate) fn split_all_blank(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some((word, tail)) = split_blank(rest) {
        words.push(word);
        rest = tail;
    }
    words.push(rest);
    words
}
