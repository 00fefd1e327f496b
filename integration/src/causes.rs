//! Why tests failed: the first error of each, counted.

use std::collections::BTreeMap;

use crate::outcome::{Outcomes, fold};

/// Follows the output of `-test.v` and keeps the first error that each test reports.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    tests: Outcomes,
    current: Option<String>,
    /// The next line holds the text of an error.
    pending: bool,
    first_errors: BTreeMap<String, String>,
}

impl Causes {
    /// Follows a suite with these tests, if they are known.
    pub(crate) fn new(tests: Outcomes) -> Self {
        Self {
            tests,
            ..Self::default()
        }
    }

    /// Whether `name` is a test with its matrix values, and not a group or a subtest.
    pub(crate) fn is_test(&self, name: &str) -> bool {
        fold(name, &self.tests).is_some_and(|test| test == name)
    }

    /// Takes the next line.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(text_after) = line.strip_prefix("=== ") {
            let name = text_after.split_whitespace().nth(1).unwrap_or_default();
            self.current = fold(name, &self.tests);
            self.pending = false;
            return;
        }
        let text = line.trim();
        if self.pending {
            self.pending = false;
            self.keep(text);
            return;
        }
        if let Some(text_after) = text.strip_prefix("Error:") {
            let text_after = text_after.trim();
            // These two say only that there is an error; which one is on the next line.
            if text_after.starts_with("Received unexpected error")
                || text_after.starts_with("Not equal")
            {
                self.pending = true;
            } else {
                self.keep(text_after);
            }
        } else if text.starts_with("panic:") || text.starts_with("fatal error:") {
            self.keep(text);
        }
    }

    fn keep(&mut self, text: &str) {
        if let Some(current) = &self.current {
            self.first_errors
                .entry(current.clone())
                .or_insert_with(|| text.chars().take(400).collect());
        }
    }

    /// Returns the first error of a test.
    pub(crate) fn of(&self, test: &str) -> Option<&str> {
        self.first_errors.get(test).map(String::as_str)
    }

    /// Counts the causes of `failed` tests, most frequent first; each with one of the tests as an example.
    pub(crate) fn ranking<'a>(
        &self,
        failed: impl Iterator<Item = &'a str>,
    ) -> Vec<(usize, String, &'a str)> {
        let mut counts: BTreeMap<String, (usize, &'a str)> = BTreeMap::new();
        for test in failed {
            let cause = normalise(self.of(test).unwrap_or("(no error text)"));
            counts.entry(cause).or_insert((0, test)).0 += 1;
        }
        let mut list: Vec<_> = counts
            .into_iter()
            .map(|(cause, (count, test))| (count, cause, test))
            .collect();
        list.sort_by_key(|(count, ..)| std::cmp::Reverse(*count));
        list
    }
}

/// Takes out what differs between two errors of the same cause: numbers, digests, folders of one run.
fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(' ') {
        if !out.is_empty() {
            out.push(' ');
        }
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        if digits >= 5 {
            out.push('#');
        } else {
            out.push_str(word);
        }
    }
    out.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_of_each_test_counts_also_with_interleaved_output() {
        let mut causes = Causes::default();
        for line in [
            "=== NAME  T/A/worker=oci",
            "        \tError:      \tReceived unexpected error:",
            "        \t            \tnot built: thing 1234567",
            "        \tError:      \tsecond",
            "=== NAME  T/B/worker=oci/frontend=builtin/sub",
            "        \tError:      \tShould be true",
            "=== NAME  T/C/worker=oci",
            "        \tError:      \tReceived unexpected error:",
            "        \t            \tnot built: thing 7654321",
        ] {
            causes.line(line);
        }
        let ranking = causes.ranking(
            [
                "T/A/worker=oci",
                "T/B/worker=oci/frontend=builtin",
                "T/C/worker=oci",
            ]
            .into_iter(),
        );
        assert_eq!(
            ranking,
            [
                (2, "not built: thing #".to_owned(), "T/A/worker=oci"),
                (
                    1,
                    "Should be true".to_owned(),
                    "T/B/worker=oci/frontend=builtin"
                ),
            ]
        );
    }
}
