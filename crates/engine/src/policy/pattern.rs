//! The expressions of a policy, compiled once.

use std::collections::HashMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::{LONGEST, MOST_REPLACED, Work, failed};
use crate::api::Failure;

/// The sizes that an expression may have when it is compiled: it counts as the first that it fits into.
const SIZES: [usize; 5] = [8 << 10, 32 << 10, 128 << 10, 512 << 10, 1 << 20];
/// How many machines of that size one is: it is searched forwards, and backwards for where a match begins.
const MACHINES: usize = 2;
/// What all expressions of a request may take together.
const MOST: usize = 64 << 20;
/// The longest expression.
const LONGEST_TEXT: usize = 64 << 10;
/// What one look with an expression costs beside the letters.
const LOOK: u64 = 64;

/// One expression, or why it is none: what nothing looks at does no harm.
#[derive(Debug)]
pub(crate) struct Pattern {
    made: Result<Regex, String>,
    /// How many times a simple one it is.
    weight: u64,
}

/// The expressions of all policies of a request, each compiled once.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    known: HashMap<String, Arc<Pattern>>,
    size: usize,
}

impl Patterns {
    /// A regular expression.
    pub(crate) fn regex(&mut self, text: &str) -> Result<Arc<Pattern>, Failure> {
        if let Some(known) = self.known.get(text) {
            return Ok(Arc::clone(known));
        }
        let pattern = Arc::new(self.compile(text)?);
        self.known.insert(text.to_owned(), Arc::clone(&pattern));
        Ok(pattern)
    }

    /// A text in which each `*` stands for any.
    pub(crate) fn wildcard(&mut self, text: &str) -> Result<Arc<Pattern>, Failure> {
        let escaped = regex::escape(text);
        if escaped.contains("\\*\\*") {
            let why = format!(
                "failed to translate wildcard {text:?} to regexp: invalid wildcard: \"**\""
            );
            return Ok(Arc::new(Pattern {
                made: Err(why),
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
        if text.len() > LONGEST_TEXT {
            return Err(too_large(text));
        }
        for size in SIZES {
            let made = RegexBuilder::new(text)
                .size_limit(size)
                .dfa_size_limit(size)
                .nest_limit(64)
                .build();
            if matches!(made, Err(regex::Error::CompiledTooBig(_))) {
                continue;
            }
            self.size += size * MACHINES;
            if self.size > MOST {
                return Err(too_large(text));
            }
            return Ok(Pattern {
                made: made.map_err(|e| e.to_string()),
                weight: u64::try_from(size / SIZES[0]).unwrap_or(u64::MAX),
            });
        }
        Err(too_large(text))
    }
}

impl Pattern {
    fn look(&self, text: &str, work: &Work) -> Result<&Regex, String> {
        if text.len() > LONGEST {
            return Err(format!(
                "a text of {} bytes cannot be matched: at most {LONGEST} are accepted",
                text.len()
            ));
        }
        let letters = u64::try_from(text.len()).unwrap_or(u64::MAX);
        work.spend((LOOK + letters).saturating_mul(self.weight))?;
        self.made.as_ref().map_err(Clone::clone)
    }

    /// Whether it is found in the text.
    pub(crate) fn is_match(&self, text: &str, work: &Work) -> Result<bool, String> {
        Ok(self.look(text, work)?.is_match(text))
    }

    /// The text with all that is found replaced.
    pub(crate) fn replace_all(&self, text: &str, to: &str, work: &Work) -> Result<String, String> {
        let regex = self.look(text, work)?;
        bounded(text, to)?;
        let mut out = String::new();
        let mut end = 0;
        for found in regex.captures_iter(text) {
            work.spend(LOOK)?;
            let whole = found.get(0).map_or(end..end, |m| m.range());
            out.push_str(text.get(end..whole.start).unwrap_or_default());
            found.expand(to, &mut out);
            end = whole.end;
            if out.len() > MOST_REPLACED {
                return Err(too_long());
            }
        }
        out.push_str(text.get(end..).unwrap_or_default());
        Ok(out)
    }

    /// The replacement, with what was found in the text; the text itself if nothing is.
    pub(crate) fn expand(&self, text: &str, to: &str, work: &Work) -> Result<String, String> {
        let regex = self.look(text, work)?;
        bounded(text, to)?;
        let Some(found) = regex.captures(text) else {
            return Ok(text.to_owned());
        };
        let mut out = String::new();
        found.expand(to, &mut out);
        Ok(out)
    }
}

/// Refuses a replacement that would be too long if each group it names were the whole text.
fn bounded(text: &str, to: &str) -> Result<(), String> {
    let groups = to.bytes().filter(|byte| *byte == b'$').count();
    if groups.saturating_mul(text.len()).saturating_add(to.len()) > MOST_REPLACED {
        return Err(too_long());
    }
    Ok(())
}

fn too_long() -> String {
    format!("what a rule replaces would be too long: at most {MOST_REPLACED} bytes are written")
}
