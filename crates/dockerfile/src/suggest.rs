//! The nearest known word.

/// Finds the option at most two edits away, the nearest first.
///
/// Nothing is found when `value` is an option itself. Without `case_sensitive` the answer takes the case of `value`.
// DIFFERS: of two equally near options the first wins; BuildKit's choice changes from run to run.
pub fn nearest<'a>(value: &str, options: impl IntoIterator<Item = &'a str>, case_sensitive: bool) -> Option<String> {
    let wanted = if case_sensitive { value.to_owned() } else { value.to_lowercase() };
    let wanted: Vec<char> = wanted.chars().collect();
    let mut best = None;
    let mut limit = 3;
    for option in options {
        let option = if case_sensitive { option.to_owned() } else { option.to_lowercase() };
        let chars: Vec<char> = option.chars().collect();
        if chars == wanted {
            return None;
        }
        if chars.len().abs_diff(wanted.len()) >= limit {
            continue;
        }
        let distance = distance(&wanted, &chars);
        if distance < limit {
            limit = distance;
            best = Some(option);
        }
    }
    best.filter(|best| !best.is_empty()).map(|best| if case_sensitive { best } else { match_case(&best, value) })
}

fn match_case(found: &str, like: &str) -> String {
    if like == like.to_lowercase() {
        found.to_lowercase()
    } else if like == like.to_uppercase() {
        found.to_uppercase()
    } else {
        found.to_owned()
    }
}

/// Levenshtein's distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = if x == y { diagonal } else { 1 + diagonal.min(*cell).min(left) };
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
        assert_eq!(nearest("FORM", ["FROM", "RUN"], false).as_deref(), Some("FROM"));
        assert_eq!(nearest("form", ["FROM", "RUN"], false).as_deref(), Some("from"));
        assert_eq!(nearest("RNU", ["FROM", "RUN"], false).as_deref(), Some("RUN"));
        assert_eq!(nearest("bnd", ["bind", "cache"], true).as_deref(), Some("bind"));
        assert_eq!(nearest("bind", ["bind", "bint"], true), None);
        assert_eq!(nearest("somethingelse", ["bind", "cache"], true), None);
        assert_eq!(nearest("BIND", ["bind"], true), None);
    }
}
