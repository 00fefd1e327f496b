//! A logical line cut into name, flags and the rest.

use crate::text::split_blank;

/// A logical line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) flags: Vec<String>,
    pub(super) args: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn split(line: &'a str, escape: char) -> Self {
        let line = line.trim();
        match split_blank(line) {
            Some((name, rest)) => {
                let (flags, args) = flags(rest, escape);
                Line {
                    name,
                    flags,
                    args: args.trim(),
                }
            }
            None => Line {
                name: line,
                flags: Vec::new(),
                args: "",
            },
        }
    }
}

/// Takes the words that start with `--` off the front. A bare `--` ends them.
///
/// Quotes and escapes are removed from flags, in contrast to arguments.
// DIFFERS: BuildKit reads flags byte by byte and garbles what is not ASCII; we keep it.
fn flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, quoted, tail) = flag(rest, escape);
        let ended = tail.is_empty();
        if word == "--" {
            return (flags, tail);
        }
        if quoted || !word.is_empty() {
            flags.push(word);
        }
        if ended {
            return (flags, "");
        }
        rest = tail;
    }
}

/// Reads one flag; the tail starts with the white space after it.
fn flag(text: &str, escape: char) -> (String, bool, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut chars = text.chars();
    loop {
        let tail = chars.as_str();
        let Some(c) = chars.next() else {
            return (word, quoted, "");
        };
        match quote {
            None if c.is_whitespace() => return (word, quoted, tail),
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                quoted = true;
            }
            Some(open) if open == c => quote = None,
            _ if c == escape => word.extend(chars.next()),
            _ => word.push(c),
        }
    }
}
