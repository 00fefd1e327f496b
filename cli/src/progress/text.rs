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

/// How many columns a text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

// Two for the scripts and pictures that are drawn wide, none for marks on the letter before.
fn columns(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Cuts a line that is too long.
#[must_use]
pub fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let dots = if room > 12 { "..." } else { "" };
    let mut left = room.saturating_sub(dots.len());
    let mut short = String::new();
    for c in text.chars() {
        let Some(rest) = left.checked_sub(columns(c)) else {
            break;
        };
        left = rest;
        short.push(c);
    }
    short + dots
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
