//! Ignore files: text to patterns.

use crate::syntax::to_utf8;

/// Returns the patterns of a `.dockerignore`, in order and cleaned.
///
/// A byte order mark (of UTF-8 or UTF-16), empty lines and lines that start with `#` are skipped. A leading slash is cut, since
/// patterns start at the context's root anyway. `!` stays in front.
pub fn patterns(text: &[u8]) -> Vec<String> {
    let text = to_utf8(text);
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let text = String::from_utf8_lossy(text);
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(pattern_of)
        // One more than a matcher takes, so that it is refused rather than cut.
        .take(pattern::MAX_PATTERNS + 1)
        .collect()
}

fn pattern_of(line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (mark, rest) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if rest.is_empty() {
        return Some(mark.to_owned());
    }
    let cleaned = gostd::path::clean(rest);
    let relative = cleaned
        .strip_prefix('/')
        .filter(|rest| !rest.is_empty())
        .unwrap_or(&cleaned);
    Some(format!("{mark}{relative}"))
}

#[cfg(test)]
mod tests {
    use super::patterns;

    #[test]
    fn lines_become_clean_patterns() {
        let text = b"\xef\xbb\xbftest1\n/test2\n/a/file/here\n\nlastfile\n# this is a comment\n! /inverted/abs/path\n!\n! \n";
        assert_eq!(
            patterns(text),
            [
                "test1",
                "test2",
                "a/file/here",
                "lastfile",
                "!inverted/abs/path",
                "!",
                "!"
            ]
        );
        assert_eq!(
            patterns(b" # not a comment\n./a/../b/\n/\n!/x/\r\nlast"),
            ["# not a comment", "b", "/", "!x", "last"]
        );
    }
}
