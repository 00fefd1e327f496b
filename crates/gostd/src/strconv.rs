//! Truth values and quoted text, as Go's `strconv` reads and writes them.

mod print;

use std::fmt::Write as _;

/// The text is none of the twelve words for a truth value. Printed as Go prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("strconv.ParseBool: parsing {}: invalid syntax", quote(.0))]
pub struct ParseBoolError(pub String);

/// Reads a truth value: `1`, `t`, `T`, `true`, `True`, `TRUE` and their opposites, nothing else.
pub fn parse_bool(text: &str) -> Result<bool, ParseBoolError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(ParseBoolError(text.to_owned())),
    }
}

/// Whether a text is one of the six words for yes. For options where BuildKit takes what cannot be read as no.
#[must_use]
pub fn is_true(text: &str) -> bool {
    parse_bool(text).unwrap_or(false)
}

/// Quotes a text as `strconv.Quote` and the verb `%q` do.
#[must_use]
pub fn quote(text: impl AsRef<str>) -> String {
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

/// `["a" "b"]`, as `%q` writes a list.
#[must_use]
pub fn quote_list<T: AsRef<str>>(items: &[T]) -> String {
    let quoted: Vec<String> = items.iter().map(quote).collect();
    format!("[{}]", quoted.join(" "))
}

/// Whether Go prints a character as it is: `strconv.IsPrint`.
#[must_use]
pub fn is_print(c: char) -> bool {
    let code = u32::from(c);
    // An even number of bounds at or below a character means that it lies between two ranges.
    print::BOUNDS.partition_point(|bound| *bound <= code) % 2 == 1
}
