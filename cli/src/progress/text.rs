//! How times, sizes and names are written.

use std::time::{Duration, SystemTime};

/// Seconds between two times, zero if they are the wrong way round.
#[must_use]
pub fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

/// `12.34MB`, in powers of a thousand.
#[must_use]
pub fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let mut value = count as f64;
    let mut name = "B";
    for unit in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        name = unit;
    }
    format!("{value:.2}{name}")
}

/// Cuts a line that is too long.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(3)).collect();
    short.push_str("...");
    short
}

/// Takes out what would move the cursor or change the terminal; colours stay with `colours`.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\t' => clean.push_str("    "),
            '\u{1b}' => {
                // A control sequence ends with a letter; whatever else is one character.
                if chars.peek() == Some(&'[') {
                    let _bracket = chars.next();
                    for c in chars.by_ref() {
                        if c.is_ascii_alphabetic() || c == '~' {
                            break;
                        }
                    }
                } else {
                    let _one = chars.next();
                }
            }
            c if c.is_control() => {}
            c => clean.push(c),
        }
    }
    clean
}
