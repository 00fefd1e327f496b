//! What a suite said of its tests, and comparing that with lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::process::{Error, at};

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It failed.
    Fail,
    /// It passed.
    Pass,
    /// It skipped itself.
    Skip,
}

impl Outcome {
    /// The word for it in the test output and in our lists.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fail => "FAIL",
            Self::Pass => "PASS",
            Self::Skip => "SKIP",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Fail, Self::Pass, Self::Skip]
            .into_iter()
            .find(|o| o.word() == word)
    }
}

/// Tests by name.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// Reads a `--- PASS: name (1.2s)` line.
pub(crate) fn parse_line(line: &str) -> Option<(&str, Outcome)> {
    let (word, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
    let name = rest.split_once(' ').map_or(rest, |(name, _)| name);
    Some((name, Outcome::parse(word)?))
}

/// Folds a test's name to the test with its matrix values; `None` for names that only group tests.
///
/// A subtest may look like a matrix value, so where the names of `tests` are known, they decide.
pub(crate) fn fold(name: &str, tests: &Outcomes) -> Option<String> {
    if !tests.is_empty() {
        let ends = name
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([name.len()]);
        let prefixes: Vec<&str> = ends.filter_map(|end| name.get(..end)).collect();
        return prefixes
            .into_iter()
            .rev()
            .find(|prefix| tests.contains_key(*prefix))
            .map(str::to_owned);
    }
    let mut parts: Vec<&str> = Vec::new();
    let mut in_matrix = false;
    for part in name.split('/') {
        if in_matrix && !part.contains('=') {
            break;
        }
        in_matrix |= part.starts_with("worker=");
        parts.push(part);
    }
    in_matrix.then(|| parts.join("/"))
}

/// Reads a list of `PASS: name` lines; a line without a word names a test that passes.
pub(crate) fn read_list(file: &Path) -> Result<Outcomes, Error> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(at("reading", file)(error)),
    };
    Ok(parse_list(&text))
}

fn parse_list(text: &str) -> Outcomes {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_once(": ") {
            Some((word, name)) => (
                name.to_owned(),
                Outcome::parse(word).unwrap_or(Outcome::Pass),
            ),
            None => (line.to_owned(), Outcome::Pass),
        })
        .collect()
}

/// Returns the names that passed.
pub(crate) fn passed(outcomes: &Outcomes) -> BTreeSet<&str> {
    outcomes
        .iter()
        .filter(|(_, o)| **o == Outcome::Pass)
        .map(|(name, _)| name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtests_fold_into_the_test_and_its_matrix_values() {
        let test = "TestIntegration/TestX/worker=oci/frontend=builtin";
        let no_outcomes = Outcomes::new();
        assert_eq!(
            fold(&format!("{test}/inner"), &no_outcomes).as_deref(),
            Some(test)
        );
        assert_eq!(fold(test, &no_outcomes).as_deref(), Some(test));
        assert_eq!(fold("TestIntegration", &no_outcomes), None);
        let tests = parse_list(test);
        assert_eq!(
            fold(&format!("{test}/looks=so/inner"), &tests).as_deref(),
            Some(test)
        );
        assert_eq!(fold("TestIntegration/TestX", &tests), None);
    }

    #[test]
    fn result_lines_are_read_with_any_indent_and_nothing_else_is() {
        assert_eq!(
            parse_line("    --- PASS: T/worker=oci (0.10s)"),
            Some(("T/worker=oci", Outcome::Pass))
        );
        assert_eq!(
            parse_line("--- SKIP: T (0.00s)"),
            Some(("T", Outcome::Skip))
        );
        assert_eq!(parse_line("=== RUN   T"), None);
        assert_eq!(parse_line("--- a/file"), None);
    }

    #[test]
    fn lists_take_words_comments_and_bare_names() {
        let list = parse_list("# note\nPASS: a\nFAIL: b\n\nc\n");
        assert_eq!(passed(&list).into_iter().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(list.get("b"), Some(&Outcome::Fail));
    }
}
