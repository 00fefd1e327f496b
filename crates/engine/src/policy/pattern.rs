//! The expressions of a policy, compiled once.

use std::collections::HashMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::error::PolicyError;
use super::{Work, failed};
use crate::api::Failure;

/// Size limit of a text to be matched, and of a rewritten identifier.
pub(super) const MAX_TEXT_BYTES: usize = 64 << 10;
/// Size limit of a replacement, before the limit of identifiers is applied.
pub(super) const MAX_REPLACED_BYTES: usize = 1 << 20;
/// Size classes of compiled expressions; an expression counts as the first class that it fits into.
const SIZE_STEPS_BYTES: [usize; 5] = [8 << 10, 32 << 10, 128 << 10, 512 << 10, 1 << 20];
/// Automata of that size in an expression: one searches forwards, one backwards for the start of a match.
const MACHINES_PER_PATTERN: usize = 2;
/// Size limit of all compiled expressions of a request.
const MAX_PATTERNS_BYTES: usize = 64 << 20;
/// Size limit of an expression's text.
const MAX_PATTERN_TEXT_BYTES: usize = 64 << 10;
/// Cost of one match beside that of its characters.
const MATCH_COST: u64 = 64;

/// One compiled expression. A text that does not compile is an error only when it is matched, as in the reference.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Result<Regex, PolicyError>,
    /// Cost of matching one character, relative to a small expression.
    weight: u64,
}

/// The expressions of all policies of a request; equal texts are compiled once.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    by_text: HashMap<String, Arc<Pattern>>,
    size: usize,
}

impl Patterns {
    /// Compiles a regular expression.
    pub(crate) fn regex(&mut self, text: &str) -> Result<Arc<Pattern>, Failure> {
        if let Some(pattern) = self.by_text.get(text) {
            return Ok(Arc::clone(pattern));
        }
        let pattern = Arc::new(self.compile(text)?);
        self.by_text.insert(text.to_owned(), Arc::clone(&pattern));
        Ok(pattern)
    }

    /// Compiles a wildcard, in which each `*` matches any text.
    pub(crate) fn wildcard(&mut self, text: &str) -> Result<Arc<Pattern>, Failure> {
        let escaped = regex::escape(text);
        if escaped.contains("\\*\\*") {
            return Ok(Arc::new(Pattern {
                regex: Err(PolicyError::Wildcard(text.to_owned())),
                weight: 1,
            }));
        }
        self.regex(&format!("^{}$", escaped.replace("\\*", "(.*)")))
    }

    fn compile(&mut self, text: &str) -> Result<Pattern, Failure> {
        let too_large = |text: &str| {
            let cut = text.floor_char_boundary(200);
            let text = text.get(..cut).unwrap_or_default();
            failed(format!(
                "the expressions of the source policies are too large, the last of them is {text:?}"
            ))
        };
        if text.len() > MAX_PATTERN_TEXT_BYTES {
            return Err(too_large(text));
        }
        for size in SIZE_STEPS_BYTES {
            let regex = RegexBuilder::new(text)
                .size_limit(size)
                .dfa_size_limit(size)
                .nest_limit(64)
                .build();
            if matches!(regex, Err(regex::Error::CompiledTooBig(_))) {
                continue;
            }
            self.size += size * MACHINES_PER_PATTERN;
            if self.size > MAX_PATTERNS_BYTES {
                return Err(too_large(text));
            }
            return Ok(Pattern {
                regex: regex.map_err(|source| PolicyError::Regex { source }),
                weight: u64::try_from(size / SIZE_STEPS_BYTES[0]).unwrap_or(u64::MAX),
            });
        }
        Err(too_large(text))
    }
}

impl Pattern {
    fn spend_match(&self, text: &str, work: &Work) -> Result<&Regex, PolicyError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(PolicyError::LongText(text.len()));
        }
        let letters = u64::try_from(text.len()).unwrap_or(u64::MAX);
        work.spend((MATCH_COST + letters).saturating_mul(self.weight))?;
        self.regex.as_ref().map_err(Clone::clone)
    }

    /// Whether the expression matches a part of the text.
    pub(crate) fn is_match(&self, text: &str, work: &Work) -> Result<bool, PolicyError> {
        Ok(self.spend_match(text, work)?.is_match(text))
    }

    /// Replaces all matches in the text.
    pub(crate) fn replace_all(
        &self,
        text: &str,
        to: &str,
        work: &Work,
    ) -> Result<String, PolicyError> {
        let regex = self.spend_match(text, work)?;
        check_replacement(text, to)?;
        let mut out = String::new();
        let mut end = 0;
        for captures in regex.captures_iter(text) {
            work.spend(MATCH_COST)?;
            let whole = captures.get(0).map_or(end..end, |m| m.range());
            out.push_str(text.get(end..whole.start).unwrap_or_default());
            captures.expand(to, &mut out);
            end = whole.end;
            if out.len() > MAX_REPLACED_BYTES {
                return Err(PolicyError::LongReplacement);
            }
        }
        out.push_str(text.get(end..).unwrap_or_default());
        Ok(out)
    }

    /// The replacement with the groups of the first match filled in; the text itself if nothing matches.
    pub(crate) fn expand(&self, text: &str, to: &str, work: &Work) -> Result<String, PolicyError> {
        let regex = self.spend_match(text, work)?;
        check_replacement(text, to)?;
        let Some(captures) = regex.captures(text) else {
            return Ok(text.to_owned());
        };
        let mut out = String::new();
        captures.expand(to, &mut out);
        Ok(out)
    }
}

/// Refuses a replacement that would be too long if each group it names matched the whole text.
fn check_replacement(text: &str, to: &str) -> Result<(), PolicyError> {
    let groups = to.bytes().filter(|byte| *byte == b'$').count();
    if groups.saturating_mul(text.len()).saturating_add(to.len()) > MAX_REPLACED_BYTES {
        return Err(PolicyError::LongReplacement);
    }
    Ok(())
}
