//! Lists of patterns.

use crate::compile::MatchKind;
use crate::glob::{BadPattern, check};
use gostd::path::clean;

/// Most patterns in a list.
pub const MAX_PATTERNS: usize = 100_000;

/// Most characters in all patterns of a list that are not compared as text: a path takes a step for each of them and of its own.
pub const MAX_STEPS: usize = 128 << 10;

/// A list of patterns is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// A `!` without a pattern.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclusion,
    /// The list is too long: each path is matched against all patterns.
    // DIFFERS: BuildKit has no such limits.
    #[error("too many patterns: {what}, at most {most} are accepted")]
    TooMany {
        /// What is counted, as `patterns`.
        what: String,
        /// The most that is accepted.
        most: usize,
    },
    /// A pattern is malformed.
    #[error("syntax error in pattern")]
    Syntax {
        /// The pattern as it was given.
        pattern: String,
    },
}

/// One pattern of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    exclusion: bool,
    kind: MatchKind,
}

impl Pattern {
    fn parse(text: &str) -> Result<Option<Self>, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let cleaned = clean(text);
        let (text, exclusion) = cleaned
            .strip_prefix('!')
            .map_or((cleaned.as_str(), false), |rest| (rest, true));
        if text.is_empty() {
            return Err(PatternError::LoneExclusion);
        }
        let syntax = |BadPattern| PatternError::Syntax {
            pattern: text.to_owned(),
        };
        check(text).map_err(syntax)?;
        Ok(Some(Self {
            kind: MatchKind::compile(text).map_err(syntax)?,
            text: text.to_owned(),
            exclusion,
        }))
    }

    /// Returns the cleaned pattern without its `!`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the pattern takes back what others matched.
    pub fn is_exclusion(&self) -> bool {
        self.exclusion
    }

    /// Returns whether the pattern alone matches exactly this path.
    pub fn matches(&self, path: &str) -> bool {
        self.kind.matches(path)
    }

    fn matches_any(&self, paths: &[&str]) -> bool {
        paths.iter().any(|path| self.matches(path))
    }
}

/// A path and the directories above it.
fn with_parents(path: &str) -> Vec<&str> {
    std::iter::once(path).chain(parents(path)).collect()
}

/// The directories above a path, outermost first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}

/// The patterns that matched a directory. A walk passes it down, so that parents are not matched again.
///
/// The default value knows nothing about parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchInfo {
    matched: Vec<bool>,
}

impl MatchInfo {
    /// Returns whether any pattern matched.
    pub fn any(&self) -> bool {
        self.matched.contains(&true)
    }
}

/// A list of patterns. Paths are relative to the root and separated by slashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    exclusions: bool,
}

impl PatternMatcher {
    /// Makes a matcher. Empty patterns are left out, white space around them is cut.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let patterns: Vec<Pattern> = patterns
            .into_iter()
            .filter_map(|text| Pattern::parse(text.as_ref()).transpose())
            .collect::<Result<_, _>>()?;
        let limit = |count: usize, what: &str, most| {
            let what = format!("{count} {what}");
            if count > most {
                Err(PatternError::TooMany { what, most })
            } else {
                Ok(())
            }
        };
        limit(patterns.len(), "in a list", MAX_PATTERNS)?;
        let steps = patterns.iter().map(|pattern| pattern.kind.steps());
        limit(
            steps.sum(),
            "characters in those that have wildcards",
            MAX_STEPS,
        )?;
        let exclusions = patterns.iter().any(Pattern::is_exclusion);
        Ok(Self {
            patterns,
            exclusions,
        })
    }

    /// Returns the patterns.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Returns about how many steps one character of a path costs with all patterns.
    pub fn weight(&self) -> usize {
        self.patterns
            .iter()
            .map(|pattern| 1 + pattern.kind.steps())
            .sum()
    }

    /// Returns whether any pattern takes back what others matched.
    pub fn exclusions(&self) -> bool {
        self.exclusions
    }

    /// Returns whether a path or a directory above it is matched.
    pub fn matches_or_parent_matches(&self, path: &str) -> bool {
        let paths = with_parents(path);
        let mut matched = false;
        for pattern in &self.patterns {
            // Only a pattern that could change the result is tried.
            if pattern.exclusion == matched && pattern.matches_any(&paths) {
                matched = !pattern.exclusion;
            }
        }
        matched
    }

    /// Returns whether the list names a path that stands by itself rather than in a tree that is walked: whether a pattern matches its
    /// last name or all of it. Directories above it are not looked at.
    pub fn names(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.exclusion == matched && pattern.matches_any(&[name, path]) {
                matched = !pattern.exclusion;
            }
        }
        matched
    }

    /// Returns whether a path or a directory above it is matched, given what the parent's answer was, and what to hand to the path's own children.
    ///
    /// A default `parent` stands for "not asked", and then all parents are looked at. So does one of another list.
    pub fn matches_using_parent_results(
        &self,
        path: &str,
        parent: &MatchInfo,
    ) -> (bool, MatchInfo) {
        let parent_is_decided =
            !parent.matched.is_empty() && parent.matched.len() == self.patterns.len();
        let paths = if parent_is_decided {
            vec![path]
        } else {
            with_parents(path)
        };
        let mut matched = false;
        let mut info = MatchInfo {
            matched: Vec::with_capacity(self.patterns.len()),
        };
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited =
                parent_is_decided && parent.matched.get(index).copied().unwrap_or_default();
            let hit = inherited || (pattern.exclusion == matched && pattern.matches_any(&paths));
            info.matched.push(hit);
            if hit {
                matched = !pattern.exclusion;
            }
        }
        (matched, info)
    }
}

#[cfg(test)]
mod tests;
