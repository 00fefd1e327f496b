//! Splitting a text into words.

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
