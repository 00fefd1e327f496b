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

/// Takes out of a line what would move the cursor, change the terminal or show something else than is there.
#[must_use]
pub fn harmless(text: &str) -> String {
    clean(text, "", false).replace('\t', "    ")
}

/// The same for what a step wrote or a daemon says in a line: tabs stay, and colours where no terminal reads them.
#[must_use]
pub fn harmless_line(text: &str, colours: bool) -> String {
    clean(text, "", colours)
}

/// The same for several lines.
#[must_use]
pub fn harmless_lines(text: &str) -> String {
    clean(text, "\n", false)
}

/// JSON with everything escaped that a terminal would not show as it is; the same values.
#[must_use]
pub fn harmless_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || is_deceptive(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Marks that reorder or hide the text around them.
fn is_deceptive(c: char) -> bool {
    matches!(u32::from(c), 0x61c | 0x200e | 0x200f | 0x2028..=0x202e | 0x2066..=0x2069 | 0xfff9..=0xfffb)
}

fn clean(text: &str, keep: &str, colours: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // A control sequence ends with a letter; that of a colour is `m`.
                Some('[') => {
                    let mut sequence = String::new();
                    for c in chars.by_ref() {
                        sequence.push(c);
                        if ('@'..='~').contains(&c) || sequence.len() > 64 {
                            break;
                        }
                    }
                    let is_colour = sequence.strip_suffix('m').is_some_and(|codes| {
                        codes
                            .chars()
                            .all(|c| c.is_ascii_digit() || matches!(c, ';' | ':'))
                    });
                    if colours && is_colour {
                        clean.push_str("\u{1b}[");
                        clean.push_str(&sequence);
                    }
                }
                // Titles, links and the like have a text of their own, up to a bell or `ESC \`.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}'
                            || c == '\u{9c}'
                            || (c == '\u{1b}' && chars.next().is_some())
                        {
                            break;
                        }
                    }
                }
                // Whatever else is one character.
                Some(_) | None => {}
            },
            '\t' => clean.push('\t'),
            c if keep.contains(c) => clean.push(c),
            c if c.is_control() || is_deceptive(c) => {}
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a terminal would do something else than show the text.
    pub(crate) fn acts(text: &str) -> bool {
        text.chars()
            .any(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || is_deceptive(c))
    }

    #[test]
    fn nothing_that_a_daemon_says_acts_on_a_terminal() {
        let attacks = [
            ("a\u{1b}[2Jb", "ab"),
            ("a\u{1b}[31mred\u{1b}[0m", "ared"),
            ("a\u{1b}]0;title\u{7}b", "ab"),
            (
                "a\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\b",
                "alinkb",
            ),
            ("a\u{1b}P+q544e\u{1b}\\b", "ab"),
            ("a\u{9b}2Jb", "a2Jb"),
            ("a\u{1b}", "a"),
            ("a\u{1b}[", "a"),
            ("a\u{1b}cb", "ab"),
            ("a\u{8}\u{8}b\u{7}", "ab"),
            ("a\rb", "ab"),
            ("a\nb", "ab"),
            ("a\u{202e}b\u{2066}c", "abc"),
            ("a\tb", "a    b"),
        ];
        for (attack, shown) in attacks {
            assert_eq!(harmless(attack), shown, "{attack:?}");
            for text in [
                harmless_line(attack, false),
                harmless_lines(attack),
                harmless_json(attack).replace('\r', ""),
            ] {
                assert!(!acts(&text), "{attack:?} gives {text:?}");
            }
        }
        assert_eq!(
            harmless_line("\u{1b}[1;31mred\u{1b}[0m\u{1b}[2J\u{1b}[?25l", true),
            "\u{1b}[1;31mred\u{1b}[0m"
        );
        assert_eq!(harmless_lines("a\n\tb"), "a\n\tb");
        assert_eq!(
            harmless_json("{\"a\": \"\u{9b}\u{202e}\"}"),
            r#"{"a": "\u009b\u202e"}"#
        );
    }
}
