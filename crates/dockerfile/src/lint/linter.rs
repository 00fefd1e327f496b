//! The linter: it filters findings by configuration and hands them to a sink.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Finding, LintConfig, Rule};
use crate::syntax::Range;
use crate::syntax::directive::{DirectiveName, DirectiveParser};

/// A finding at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule that is violated.
    pub rule: &'static Rule,
    /// Message of the finding.
    pub message: String,
    /// Places of the finding in the file.
    pub ranges: Vec<Range>,
}

impl Warning {
    /// Returns `Rule: message (line N)`, the form in which a build shows it.
    pub fn short(&self) -> String {
        let line = self.ranges.first().map_or(0, |range| range.start.line);
        let place = if line > 0 {
            format!(" (line {line})")
        } else {
            String::new()
        };
        format!("{}: {}{place}", self.rule.name, self.message)
    }
}

type Sink = dyn Fn(Warning) + Send + Sync;

/// Most findings that are passed on. Later ones count for `error=true` all the same.
const MAX_FINDINGS: usize = 10_000;
/// Most findings that come with a suggestion.
const MAX_SUGGESTIONS: usize = 100;
/// Most ranges of all findings together; later ones tell their first line only.
const MAX_RANGES: usize = 100_000;

/// Decides which findings count and hands them to a sink.
///
/// Clones share the sink and the list of broken rules, and have their own configuration.
#[derive(Clone, Default)]
pub struct Linter {
    config: Arc<LintConfig>,
    shared: Option<Arc<FindingSink>>,
}

struct FindingSink {
    sink: Box<Sink>,
    broken: Mutex<BTreeSet<&'static str>>,
    /// How many findings were passed on, and how many ranges.
    reported: Mutex<(usize, usize)>,
}

impl fmt::Debug for Linter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linter")
            .field("config", &self.config)
            .field("has_sink", &self.shared.is_some())
            .finish_non_exhaustive()
    }
}

impl Linter {
    /// Makes a linter.
    pub fn new(config: LintConfig, sink: impl Fn(Warning) + Send + Sync + 'static) -> Self {
        let shared = FindingSink {
            sink: Box::new(sink),
            broken: Mutex::new(BTreeSet::new()),
            reported: Mutex::default(),
        };
        Self {
            config: Arc::new(config),
            shared: Some(Arc::new(shared)),
        }
    }

    /// Makes a linter that reports nothing.
    pub fn silent() -> Self {
        Self::default()
    }

    /// Returns the configuration.
    pub fn config(&self) -> &LintConfig {
        &self.config
    }

    /// Returns whether a rule runs here.
    pub fn runs(&self, rule: &Rule) -> bool {
        let lists_rule = |names: &BTreeSet<String>| names.contains(rule.name);
        let is_enabled = if rule.experimental {
            self.config.experimental_all || lists_rule(&self.config.experimental)
        } else {
            !self.config.skip_all && !lists_rule(&self.config.skip)
        };
        self.shared.is_some() && !rule.deprecated && is_enabled
    }

    /// Passes a finding on if its rule runs here.
    pub fn report(&self, finding: Finding, ranges: &[Range]) {
        let rule = finding.rule();
        let Some(shared) = self.shared.as_ref().filter(|_| self.runs(rule)) else {
            return;
        };
        shared.broken.lock().insert(rule.name);
        let ranges = {
            let (findings, all_ranges) = &mut *shared.reported.lock();
            *findings += 1;
            *all_ranges += ranges.len();
            match (*findings > MAX_FINDINGS, *all_ranges > MAX_RANGES) {
                (true, _) => return,
                (false, true) => ranges.get(..1).unwrap_or_default().to_vec(),
                (false, false) => ranges.to_vec(),
            }
        };
        (shared.sink)(Warning {
            rule,
            message: finding.to_string(),
            ranges,
        });
    }

    /// Returns whether it is worth looking for what a finding of a rule may suggest, which takes long where there is much to choose from.
    pub fn suggests(&self, rule: &Rule) -> bool {
        let findings = |shared: &Arc<FindingSink>| shared.reported.lock().0;
        self.runs(rule)
            && self
                .shared
                .as_ref()
                .is_some_and(|s| findings(s) < MAX_SUGGESTIONS)
    }

    /// Returns a linter for the instruction below these comments, which may hold a `check=…`.
    ///
    /// The first such comment counts; one that is not understood is ignored.
    pub fn with_comments(&self, comments: &[String]) -> Self {
        let config = comments.iter().find_map(|comment| {
            let directive = DirectiveParser::with_comment("", 0)
                .parse_line(comment)
                .ok()
                .flatten()?;
            (directive.name == DirectiveName::Check)
                .then(|| LintConfig::parse(directive.value.split(' ').next().unwrap_or_default()))
        });
        match config {
            Some(Ok(config)) => self.with_config(&config),
            Some(Err(_)) | None => self.clone(),
        }
    }

    /// Returns a linter that skips and runs more.
    fn with_config(&self, config: &LintConfig) -> Self {
        let mut merged = self.config.as_ref().clone();
        merged.merge(config);
        Self {
            config: Arc::new(merged),
            shared: self.shared.clone(),
        }
    }

    /// Returns the error that fails the build, if `error=true` is set and there are findings.
    // DIFFERS: the rules are named in alphabetical order; BuildKit's order changes from run to run.
    pub fn error(&self) -> Option<LintError> {
        let shared = self.shared.as_ref().filter(|_| self.config.error)?;
        let rules: Vec<&'static str> = shared.broken.lock().iter().copied().collect();
        (!rules.is_empty()).then_some(LintError { rules })
    }
}

/// Rules are violated and `error=true` is set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lint violation found for rules: {}", rules.join(", "))]
pub struct LintError {
    /// Names of the violated rules.
    pub rules: Vec<&'static str>,
}
