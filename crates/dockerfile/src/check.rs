//! The rules that look at more than one instruction, or at what lowering knows.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use oci::platform::Platform;
use pattern::PatternMatcher;
use regex::Regex;

use crate::instruction::{Origin, Pair, Stage};
use crate::lint::{Finding, Linter, rule};
use crate::shell::{Env, Word};
use crate::suggest::{nearest, nearest_in_order};
use crate::syntax::{EmptyContinuation, Range};

/// Complains about empty lines in continued ones.
pub fn empty_continuations(continuations: &[EmptyContinuation], linter: &Linter) {
    for empty in continuations {
        linter.report(Finding::NoEmptyContinuation, &[empty.range]);
    }
}

/// Complains about stage names that another stage has or that are reserved.
pub fn stage_names(stages: &[Stage], linter: &Linter) {
    let mut names = HashSet::new();
    for stage in stages.iter().filter(|stage| !stage.name.is_empty()) {
        if matches!(stage.name.as_str(), "context" | "scratch") {
            linter.report(
                Finding::ReservedStageName {
                    name: stage.name.clone(),
                },
                &stage.origin.ranges,
            );
        }
        if !names.insert(stage.name.as_str()) {
            linter.report(
                Finding::DuplicateStageName {
                    name: stage.name.clone(),
                },
                &stage.origin.ranges,
            );
        }
    }
}

/// Complains about instructions in another case than most of the file.
pub fn instruction_casing(stages: &[Stage], linter: &Linter) {
    let is_lower = |name: &str| name == name.to_lowercase();
    let is_upper = |name: &str| name == name.to_uppercase();
    let origins = || {
        stages.iter().flat_map(|stage| {
            std::iter::once(&stage.origin)
                .chain(stage.commands.iter().map(|command| &command.origin))
        })
    };
    let lower = origins().filter(|origin| is_lower(&origin.name)).count();
    let upper = origins()
        .filter(|origin| is_upper(&origin.name) && !is_lower(&origin.name))
        .count();
    for origin in origins() {
        let case = match lower > upper {
            true if !is_lower(&origin.name) => "lowercase",
            false if !is_upper(&origin.name) => "uppercase",
            true | false => continue,
        };
        linter.report(
            Finding::ConsistentInstructionCasing {
                name: origin.name.clone(),
                case,
            },
            &origin.ranges,
        );
    }
}

/// Complains about variables that were used and that neither the stage nor the client sets.
///
/// `known` are names that count as set whatever the environment says: build arguments and the predefined ones.
pub fn undefined_vars(
    unmatched: &BTreeSet<String>,
    env: &dyn Env,
    is_known: impl Fn(&str) -> bool,
    ranges: &[Range],
    linter: &Linter,
) {
    for name in unmatched.iter().filter(|name| !is_known(name)) {
        let near = linter
            .suggests(&rule::UNDEFINED_VAR)
            .then(|| nearest_in_order(name, env.keys()))
            .flatten();
        linter.report(
            Finding::UndefinedVar {
                name: name.clone(),
                near,
            },
            ranges,
        );
    }
}

/// Complains about arguments in a `FROM` that no `ARG` in front of the first stage declares.
pub fn undefined_from_args(
    declared: &BTreeSet<String>,
    unmatched: &BTreeSet<String>,
    ranges: &[Range],
    linter: &Linter,
) {
    for arg in unmatched.iter().filter(|arg| !declared.contains(*arg)) {
        let near = linter
            .suggests(&rule::UNDEFINED_ARG_IN_FROM)
            .then(|| nearest(arg, declared.iter().map(String::as_str), true))
            .flatten();
        linter.report(
            Finding::UndefinedArgInFrom {
                arg: arg.clone(),
                near,
            },
            ranges,
        );
    }
}

/// Complains about `FROM --platform=$TARGETPLATFORM`, which is the default. `flag` is the flag as written.
pub fn redundant_platform(
    flag: &str,
    expanded: &Word,
    env: &dyn Env,
    ranges: &[Range],
    linter: &Linter,
) {
    const TARGET: &str = "TARGETPLATFORM";
    let alone = expanded.unmatched.is_empty()
        && expanded.matched.len() == 1
        && expanded.matched.contains(TARGET);
    if alone && env.get(TARGET).unwrap_or_default() == expanded.result {
        linter.report(
            Finding::RedundantTargetPlatform {
                variable: flag.to_owned(),
            },
            ranges,
        );
    }
}

/// Complains about `FROM --platform=linux/amd64`, unless the stage's name says that it is about that platform.
pub fn constant_platform(stage: &str, expanded: &Word, ranges: &[Range], linter: &Linter) {
    if !expanded.matched.is_empty() || !expanded.unmatched.is_empty() {
        return;
    }
    let Ok(platform) = Platform::parse(&expanded.result) else {
        return;
    };
    if stage.contains(platform.os.as_str()) || stage.contains(platform.architecture.as_str()) {
        return;
    }
    linter.report(
        Finding::FromPlatformFlagConstDisallowed {
            platform: expanded.result.clone(),
        },
        ranges,
    );
}

/// Complains about an image for another platform.
pub fn base_image_platform(
    image: &str,
    expected: &Platform,
    actual: &Platform,
    ranges: &[Range],
    linter: &Linter,
) {
    if expected.os == actual.os && expected.architecture == actual.architecture {
        return;
    }
    linter.report(
        Finding::InvalidBaseImagePlatform {
            image: image.to_owned(),
            expected: expected.normalize().to_string(),
            actual: actual.normalize().to_string(),
        },
        ranges,
    );
}

/// Remembers the last `CMD`, `ENTRYPOINT` or `HEALTHCHECK` of a stage, of which only the last one takes effect.
#[derive(Debug, Clone, Default)]
pub struct UsedOnce {
    before: Option<Vec<Range>>,
}

impl UsedOnce {
    /// Complains about the earlier instruction, which is the one that is ignored.
    pub fn mark(&mut self, origin: &Origin, linter: &Linter) {
        if let Some(before) = self.before.replace(origin.ranges.clone()) {
            linter.report(
                Finding::MultipleInstructionsDisallowed {
                    instruction: origin.name.clone(),
                },
                &before,
            );
        }
    }
}

/// Complains about each pair written as `key value`.
pub fn legacy_pairs(origin: &Origin, pairs: &[Pair], linter: &Linter) {
    for _ in pairs.iter().filter(|pair| pair.no_delim) {
        linter.report(
            Finding::LegacyKeyValueFormat {
                instruction: origin.name.clone(),
            },
            &origin.ranges,
        );
    }
}

/// Complains about a variable that sounds like a secret. `instruction` is `ARG` or `ENV`.
pub fn secret_name(instruction: &'static str, name: &str, ranges: &[Range], linter: &Linter) {
    if is_secret_name(name) {
        linter.report(
            Finding::SecretsUsedInArgOrEnv {
                instruction,
                name: name.to_owned(),
            },
            ranges,
        );
    }
}

/// Returns whether a name has a word that means a secret and none that says it is not one.
pub fn is_secret_name(name: &str) -> bool {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("(?i)(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)").expect("the pattern is well formed")
    });
    static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("(?i)(?:_|^)(?:public|file|version)(?:_|$)").expect("the pattern is well formed")
    });
    SECRET.is_match(name) && !HARMLESS.is_match(name)
}

/// Complains about stages whose base has no valid name without build arguments.
///
/// `expand` expands a base name with the defaults of the arguments in front of the first stage; when it fails, the
/// build will fail in the same way, so there is no finding.
pub fn default_base_names(
    stages: &[Stage],
    mut expand: impl FnMut(&str) -> Option<String>,
    linter: &Linter,
) {
    for stage in stages {
        let Some(name) = expand(&stage.base_name) else {
            return;
        };
        if name.parse::<oci::reference::Reference>().is_err() {
            linter.report(
                Finding::InvalidDefaultArgInFrom {
                    base: stage.base_name.clone(),
                },
                &stage.origin.ranges,
            );
        }
    }
}

/// Complains about a source of `COPY` or `ADD` that the ignore file excludes. `command` is `Copy` or `Add`.
///
/// There is no finding when the ignore file has `!` patterns: an excluded directory may hold files that are not.
pub fn ignored_source(
    command: &'static str,
    source: &str,
    ignore: Option<&PatternMatcher>,
    ranges: &[Range],
    linter: &Linter,
) {
    let Some(ignore) = ignore.filter(|ignore| !ignore.exclusions()) else {
        return;
    };
    let source = gostd::path::clean(source);
    // The context's root counts as excluded only when everything in it is.
    if matches!(source.as_str(), "." | "/")
        && !ignore
            .patterns()
            .iter()
            .any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*"))
    {
        return;
    }
    if ignore.matches_or_parent_matches(&source) {
        linter.report(
            Finding::CopyIgnoredFile {
                command,
                file: source,
            },
            ranges,
        );
    }
}

#[cfg(test)]
mod tests;
