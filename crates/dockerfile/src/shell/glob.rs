//! The globs of `${name#glob}` and its kin: `*` and `?`, no classes.

use regex::Regex;

use super::error::{GlobError, ShellErrorKind};

/// How much `*` matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Star {
    Shortest,
    Longest,
}

/// The place in the value at which a match may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// At the beginning of the value.
    Start,
    Anywhere,
}

/// Translates a glob to a regular expression.
pub(super) fn translate(pattern: &str, star: Star, begin: Begin) -> Result<String, GlobError> {
    let mut out = String::with_capacity(pattern.len() + 4);
    if begin == Begin::Start {
        out.push('^');
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(match star {
                Star::Longest => ".*",
                Star::Shortest => ".*?",
            }),
            '?' => out.push('.'),
            // The escape of `}` and `/` belongs to `${…}`, not to the glob.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\')) => {
                    out.push('\\');
                    out.push(escaped);
                }
                other => {
                    return Err(GlobError::Escape(
                        other.unwrap_or(char::REPLACEMENT_CHARACTER),
                    ));
                }
            },
            '[' | ']' | '{' | '}' | '.' | '+' | '(' | ')' | '|' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Cost of a match, in bytes of a plain result: a pattern is compiled, and a long one is matched a character at a time.
pub(super) fn cost(pattern: &str, value: &str) -> usize {
    let compiled = pattern.len().saturating_mul(64);
    compiled.saturating_add(value.len().saturating_mul(pattern.len() / 16))
}

fn compile(pattern: &str, star: Star, begin: Begin) -> Result<Regex, ShellErrorKind> {
    let fail = |reason| ShellErrorKind::Pattern {
        pattern: pattern.to_owned(),
        reason,
    };
    Regex::new(&translate(pattern, star, begin).map_err(fail)?)
        .map_err(|error| fail(GlobError::Regex(error)))
}

/// Cuts the prefix that matches.
pub(super) fn trim_prefix(
    pattern: &str,
    value: &str,
    star: Star,
) -> Result<String, ShellErrorKind> {
    let prefix_end = compile(pattern, star, Begin::Start)?
        .find(value)
        .map_or(0, |prefix_end| prefix_end.end());
    Ok(value.get(prefix_end..).unwrap_or_default().to_owned())
}

/// Cuts the suffix that matches. The shortest suffix is the shortest prefix of everything read backwards.
pub(super) fn trim_suffix(
    pattern: &str,
    value: &str,
    star: Star,
) -> Result<String, ShellErrorKind> {
    Ok(reverse(&trim_prefix(
        &reverse_pattern(pattern),
        &reverse(value),
        star,
    )?))
}

/// Replaces the first or all matches.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
) -> Result<String, ShellErrorKind> {
    let regex = compile(pattern, Star::Longest, Begin::Anywhere)?;
    Ok(if all {
        let filled = |matched: &regex::Captures<'_>| {
            fill(replacement, matched.get(0).map_or("", |all| all.as_str()))
        };
        regex.replace_all(value, filled).into_owned()
    } else {
        regex
            .replacen(value, 1, regex::NoExpand(replacement))
            .into_owned()
    })
}

/// Fills in what Go's `Regexp.Expand` fills in: `$0` and `${0}` are the match, other names are groups that no glob has, `$$` is a
/// dollar sign, and what is no name stays.
fn fill(template: &str, matched: &str) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let inner = after.strip_prefix('{');
        let text = inner.unwrap_or(after);
        let (name, tail) = text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()));
        let tail = match inner {
            Some(_) => tail.strip_prefix('}'),
            None => Some(tail),
        };
        match tail {
            Some(tail) if !name.is_empty() => {
                if name == "0" {
                    out.push_str(matched);
                }
                rest = tail;
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out + rest
}

fn reverse(text: &str) -> String {
    text.chars().rev().collect()
}

/// Reads a glob backwards, with each escape still in front of what it escapes.
pub(super) fn reverse_pattern(pattern: &str) -> String {
    let mut units: Vec<String> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let mut unit = String::from(c);
        if c == '\\' {
            unit.extend(chars.next());
        }
        units.push(unit);
    }
    units.into_iter().rev().collect()
}
