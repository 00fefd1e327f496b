//! The globs of `${name#glob}` and its kin: `*` and `?`, no classes.

use regex::Regex;

use super::error::{GlobError, ShellErrorKind};

/// Translates a glob to a regular expression.
pub(super) fn translate(pattern: &str, greedy: bool, anchored: bool) -> Result<String, GlobError> {
    let mut out = String::with_capacity(pattern.len() + 4);
    if anchored {
        out.push('^');
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
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

/// What a match costs, in bytes of a plain result: a pattern is compiled, and a long one is matched a character at a time.
pub(super) fn cost(pattern: &str, value: &str) -> usize {
    let compiled = pattern.len().saturating_mul(64);
    compiled.saturating_add(value.len().saturating_mul(pattern.len() / 16))
}

fn compile(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, ShellErrorKind> {
    let fail = |reason| ShellErrorKind::Pattern {
        pattern: pattern.to_owned(),
        reason,
    };
    Regex::new(&translate(pattern, greedy, anchored).map_err(fail)?)
        .map_err(|error| fail(GlobError::Regex(error)))
}

/// Cuts the prefix that matches.
pub(super) fn trim_prefix(
    pattern: &str,
    value: &str,
    greedy: bool,
) -> Result<String, ShellErrorKind> {
    let found = compile(pattern, greedy, true)?
        .find(value)
        .map_or(0, |found| found.end());
    Ok(value.get(found..).unwrap_or_default().to_owned())
}

/// Cuts the suffix that matches. The shortest suffix is the shortest prefix of everything read backwards.
pub(super) fn trim_suffix(
    pattern: &str,
    value: &str,
    greedy: bool,
) -> Result<String, ShellErrorKind> {
    Ok(reverse(&trim_prefix(
        &reverse_pattern(pattern),
        &reverse(value),
        greedy,
    )?))
}

/// Replaces the first or all matches.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    all: bool,
) -> Result<String, ShellErrorKind> {
    let regex = compile(pattern, true, false)?;
    Ok(if all {
        regex.replace_all(value, replacement).into_owned()
    } else {
        regex
            .replacen(value, 1, regex::NoExpand(replacement))
            .into_owned()
    })
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
