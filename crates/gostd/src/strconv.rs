//! Truth values, whole numbers and quoted text, as Go's `strconv` reads and writes them.

mod print;

use std::fmt::Write as _;
use std::num::IntErrorKind;
use std::str::FromStr;

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

/// The text is not a whole number of the size that is read. Printed as Go prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIntError {
    /// Something other than a sign and digits, or nothing.
    #[error("strconv.ParseInt: parsing {}: invalid syntax", quote(.0))]
    Syntax(String),
    /// The number is too large or too small.
    #[error("strconv.ParseInt: parsing {}: value out of range", quote(.0))]
    Range(String),
}

/// Reads a decimal number with or without a sign, as `strconv.ParseInt(text, 10, …)` does for the size of `T`.
pub fn parse_int<T: FromStr<Err = std::num::ParseIntError>>(
    text: &str,
) -> Result<T, ParseIntError> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        // Go's two answers stand for all kinds of Rust's.
        let is_range = matches!(
            error.kind(),
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow
        );
        let answer = if is_range {
            ParseIntError::Range
        } else {
            ParseIntError::Syntax
        };
        answer(text.to_owned())
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_fail_with_one_of_two_answers() {
        for (text, number) in [
            ("0", 0),
            ("+7", 7),
            ("-07", -7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_int(text), Ok(number), "{text}");
        }
        for text in ["", "+", "-", "++1", " 1", "1 ", "1_0", "0x1", "1.0", "x"] {
            let error = ParseIntError::Syntax(text.to_owned());
            assert_eq!(parse_int::<i64>(text), Err(error), "{text}");
        }
        for text in ["2147483648", "-2147483649", "99999999999999999999"] {
            let error = parse_int::<i32>(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("strconv.ParseInt: parsing \"{text}\": value out of range")
            );
        }
    }
}
