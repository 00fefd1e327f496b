//! Path patterns: ignore files, include and exclude lists, and Go's path match.
//!
//! - [`path_match`] is Go's `path.Match`: one pattern, one name, no `**`.
//! - [`PatternMatcher`] is a list as in an ignore file: anchored at the root, the last pattern that matches decides, `!`
//!   takes back, `**` crosses directories, and what is below a matched directory is matched.
//!
//! Patterns are hostile input: one that is malformed is an error when the list is made, matching cannot fail, and its
//! cost is bounded by length of pattern times length of path.

mod compile;
mod glob;
mod matcher;

pub use glob::{BadPattern, path_match};
pub use matcher::{MAX_PATTERNS, MAX_STEPS, MatchInfo, Pattern, PatternError, PatternMatcher};
