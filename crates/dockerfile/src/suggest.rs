//! The nearest known word.

/// Largest edit distance between a word and the option that is suggested for it.
const MAX_EDITS: usize = 2;
/// Longest word that gets a suggestion, in characters.
const MAX_WORD_CHARS: usize = 256;

/// Finds the option at most two edits away, the nearest first.
///
/// There is no suggestion when `value` is an option itself. Without `case_sensitive` the answer takes the case of `value`.
// DIFFERS: of two equally near options the one with the same first letter wins, then the first; BuildKit's choice
// changes from run to run.
pub fn nearest<'a>(
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> Option<String> {
    search(value, options, case_sensitive, true)
}

/// The same where the options have an order: of equally near ones the first wins.
pub fn nearest_in_order<'a>(
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    search(value, options, true, false)
}

fn search<'a>(
    value: &str,
    options: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
    initials: bool,
) -> Option<String> {
    let fold = |text: &str| {
        if case_sensitive {
            text.to_owned()
        } else {
            text.to_lowercase()
        }
    };
    let value_chars: Vec<char> = fold(value).chars().take(MAX_WORD_CHARS + 1).collect();
    if value_chars.len() > MAX_WORD_CHARS {
        return None;
    }
    let mut best: Option<((usize, bool), String)> = None;
    for option in options {
        if option.len() > 4 * MAX_WORD_CHARS {
            continue;
        }
        let option = fold(option);
        let chars: Vec<char> = option.chars().collect();
        if chars == value_chars {
            return None;
        }
        if chars.is_empty() || chars.len().abs_diff(value_chars.len()) > MAX_EDITS {
            continue;
        }
        let strange = initials && chars.first() != value_chars.first();
        let rank = (distance(&value_chars, &chars), strange);
        if rank.0 <= MAX_EDITS && best.as_ref().is_none_or(|(least, _)| rank < *least) {
            best = Some((rank, option));
        }
    }
    let (_, found) = best?;
    Some(if case_sensitive {
        found
    } else {
        match_case(&found, value)
    })
}

fn match_case(word: &str, like: &str) -> String {
    if like == like.to_lowercase() {
        word.to_lowercase()
    } else if like == like.to_uppercase() {
        word.to_uppercase()
    } else {
        word.to_owned()
    }
}

/// Levenshtein's distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = if x == y {
                diagonal
            } else {
                1 + diagonal.min(*cell).min(left)
            };
            diagonal = *cell;
            *cell = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_found_and_take_the_case_of_the_question() {
        assert_eq!(
            nearest("FORM", ["FROM", "RUN"], false).as_deref(),
            Some("FROM")
        );
        assert_eq!(
            nearest("form", ["FROM", "RUN"], false).as_deref(),
            Some("from")
        );
        assert_eq!(
            nearest("RNU", ["FROM", "RUN"], false).as_deref(),
            Some("RUN")
        );
        assert_eq!(
            nearest("bnd", ["bind", "cache"], true).as_deref(),
            Some("bind")
        );
        assert_eq!(nearest("bind", ["bind", "bint"], true), None);
        assert_eq!(nearest("somethingelse", ["bind", "cache"], true), None);
        assert_eq!(nearest("BIND", ["bind"], true), None);
    }
}
