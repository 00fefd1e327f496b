//! Running suites against a daemon and comparing what passes with the committed lists.
//!
//! A list only grows, and says what is: a test on it that does not pass is lost, one that passes and is not on it is new, and
//! either fails the run. `--bless` adds what is new.

mod login;
mod run;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::outcome::{Outcome, Outcomes, passed, read_list};
use crate::paths::{self, Module};
use crate::process::{Error, at};
use crate::suite::{SUITES, Suite};

/// One of how many tests a sample takes.
const SAMPLE_ONE_OF: usize = 10;
/// How many tests a test process is given, and those of them that remain without an answer, and those of them.
const BATCHES: [usize; 3] = [32, 6, 1];

/// What to run and what to do with the result.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Suite to run; all when not given.
    #[arg(long, value_parser = ["buildctl", "dockerfile", "client"])]
    suite: Vec<String>,
    /// Run only tests whose name matches, e.g. `TestAddChecksum$`.
    #[arg(long, value_name = "REGEX")]
    run: Option<String>,
    /// Run only the tests that a file names, one a line; `FAIL: ` and the like before a name is ignored.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Run every tenth of the tests that the reference passes.
    #[arg(long)]
    sample: bool,
    /// Add newly passing tests to the committed lists (with --reference: write the reference's lists).
    #[arg(long)]
    bless: bool,
    /// Run the reference's daemon instead of ours.
    #[arg(long)]
    reference: bool,
    /// Our daemon; otherwise the one beside this program.
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Our one program, rbuild, under both of the names that the suites call: buildkitd and buildctl.
    #[arg(long, conflicts_with_all = ["reference", "daemon"])]
    one_program: bool,
    /// Run the suites' worker oci-rootless: the daemon under rootlesskit, as an ordinary user.
    #[arg(long)]
    rootless: bool,
    /// Tests at a time.
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Seconds after which a suite is ended.
    #[arg(long, default_value_t = 2400)]
    timeout: u64,
    /// Seconds after which the daemon of one test is ended, so that the test fails and others run on.
    #[arg(long, default_value_t = 180)]
    test_timeout: u64,
}

/// Runs the suites; `false` when what passes is not what is listed.
pub(crate) fn run(options: &Options) -> Result<bool, Error> {
    let module = Module::find()?;
    let daemon = daemon(options, &module)?;
    let mut good = true;
    for suite in SUITES {
        if options.suite.is_empty() || options.suite.iter().any(|name| name == suite.name) {
            good &= run_suite(options, suite, &module, &daemon)?;
        }
    }
    Ok(good)
}

fn daemon(options: &Options, module: &Module) -> Result<PathBuf, Error> {
    let file = if options.reference {
        module.tools().join("buildkitd")
    } else if let Some(file) = &options.daemon {
        std::path::absolute(file).map_err(at("resolving", file))?
    } else {
        let name = if options.one_program {
            "rbuild"
        } else {
            "rbuildd"
        };
        std::env::current_exe()
            .unwrap_or_default()
            .with_file_name(name)
    };
    if file.is_file() {
        return Ok(file);
    }
    let remedy = if options.reference {
        "run `rbuild-integration setup`"
    } else {
        "run `cargo build -p rbuild-daemon -p rbuild-cli`, or name one with --daemon"
    };
    Err(Error::Missing {
        what: file.display().to_string(),
        remedy: remedy.to_owned(),
    })
}

fn run_suite(
    options: &Options,
    suite: &Suite,
    module: &Module,
    daemon: &std::path::Path,
) -> Result<bool, Error> {
    let lists = paths::source().join("conformance");
    let kind = if options.rootless { "rootless-" } else { "" };
    let ours_file = lists.join(format!("{kind}{}.txt", suite.name));
    let reference_file = lists.join(format!("reference-{kind}{}.txt", suite.name));
    let (ours, reference) = (read_list(&ours_file)?, read_list(&reference_file)?);

    let selected: Option<BTreeSet<String>> = if let Some(file) = &options.list {
        // A list may name tests of several suites; only this suite's are run here.
        let tests: BTreeSet<String> = read_list(file)?
            .into_keys()
            .filter(|name| reference.is_empty() || reference.contains_key(name))
            .collect();
        if tests.is_empty() {
            return Ok(true);
        }
        Some(tests)
    } else if options.sample {
        Some(
            passed(&reference)
                .into_iter()
                .step_by(SAMPLE_ONE_OF)
                .map(str::to_owned)
                .collect(),
        )
    } else {
        None
    };

    let whole = selected.is_none() && options.run.is_none();
    let mut run = run::Run {
        suite,
        module,
        daemon,
        client: options.one_program.then_some(daemon),
        rootless: options.rootless,
        pattern: pattern(worker(options), options.run.as_deref(), selected.as_ref()),
        parallel: options.parallel,
        timeout: options.timeout,
        test_timeout: options.test_timeout,
    };
    let expected = if options.reference && options.bless {
        Outcomes::new()
    } else {
        reference.clone()
    };
    let mut result = run::Finished::new(suite, &expected, options.run.is_some())?;
    if options.run.is_some() || expected.is_empty() {
        run.go(&mut result)?;
    } else {
        let names = expected
            .keys()
            .filter(|name| {
                selected
                    .as_ref()
                    .is_none_or(|selected| selected.contains(*name))
            })
            .cloned()
            .collect();
        in_batches(&mut run, names, &mut result)?;
    }
    // Some of the reference's tests race with themselves: one that is about to be lost is asked once more.
    let doubtful: BTreeSet<String> = passed(&ours)
        .into_iter()
        .filter(|name| result.outcomes.get(*name) == Some(&Outcome::Fail))
        .map(str::to_owned)
        .collect();
    if !doubtful.is_empty() && !options.reference && !result.timed_out {
        eprintln!("{}: asking {} tests once more", suite.name, doubtful.len());
        for name in &doubtful {
            result.outcomes.remove(name);
        }
        in_batches(&mut run, doubtful, &mut result)?;
    }
    if let Some(selected) = &selected {
        result.outcomes.retain(|name, _| selected.contains(name));
    }
    // Of a whole run, a test that is not mentioned at all has not passed; of a choice, only what was chosen counts.
    let expected: BTreeSet<&str> = passed(&ours)
        .into_iter()
        .filter(|name| {
            whole
                || result.outcomes.contains_key(*name)
                || selected.as_ref().is_some_and(|c| c.contains(*name))
        })
        .collect();
    let now = passed(&result.outcomes);
    let compared = Compared::new(&now, &expected, &ours, &reference);
    print!(
        "{}",
        report(
            suite,
            &result,
            &compared,
            &reference,
            options.reference,
            whole
        )
    );

    if options.bless && options.reference && whole {
        write_list(&reference_file, &result.outcomes)?;
    } else if options.bless && !options.reference {
        let mut list = ours.clone();
        list.extend(now.iter().map(|name| ((*name).to_owned(), Outcome::Pass)));
        write_list(&ours_file, &list)?;
    }
    let as_listed = compared.lost.is_empty() && (compared.new.is_empty() || options.bless);
    Ok(options.reference || as_listed)
}

/// Runs tests a few at a time: one that panics or hangs takes its test process with it, and only those beside it
/// have to be run again, in ever smaller company.
fn in_batches(
    run: &mut run::Run<'_>,
    names: BTreeSet<String>,
    result: &mut run::Finished,
) -> Result<(), Error> {
    let mut unanswered_tests: Vec<String> = names.into_iter().collect();
    for size in BATCHES {
        let mut again = Vec::new();
        for batch in unanswered_tests.chunks(size) {
            let worker = if run.rootless { ROOTLESS } else { ROOTFUL };
            run.pattern = pattern(worker, None, Some(&batch.iter().cloned().collect()));
            run.go(result)?;
            if result.timed_out {
                return Ok(());
            }
            // What a process that ended by itself did not mention, it does not run, like a test of another platform.
            if result.cut {
                let unanswered = |name: &&String| !result.outcomes.contains_key(*name);
                again.extend(batch.iter().filter(unanswered).cloned());
            }
            result.tell(run.suite.name, 0);
        }
        unanswered_tests = again;
    }
    // Alone, and still without an answer.
    for name in unanswered_tests {
        result.outcomes.insert(name, Outcome::Fail);
    }
    result.cut = false;
    Ok(())
}

/// Names put beside names.
struct Compared<'a> {
    passed_by_both: usize,
    new: Vec<&'a str>,
    lost: Vec<&'a str>,
}

impl<'a> Compared<'a> {
    fn new(
        now: &BTreeSet<&'a str>,
        expected: &BTreeSet<&'a str>,
        ours: &Outcomes,
        reference: &Outcomes,
    ) -> Self {
        Self {
            passed_by_both: now
                .iter()
                .filter(|name| reference.get(**name) == Some(&Outcome::Pass))
                .count(),
            new: now
                .iter()
                .copied()
                .filter(|name| ours.get(*name) != Some(&Outcome::Pass))
                .collect(),
            lost: expected.difference(now).copied().collect(),
        }
    }
}

fn report(
    suite: &Suite,
    result: &run::Finished,
    compared: &Compared<'_>,
    reference: &Outcomes,
    is_reference: bool,
    whole: bool,
) -> String {
    let mut out = String::new();
    let count = |outcome| result.outcomes.values().filter(|o| **o == outcome).count();
    let failed = || {
        result
            .outcomes
            .iter()
            .filter(|(_, o)| **o == Outcome::Fail)
            .map(|(name, _)| name.as_str())
    };
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!(
        "== {} ({}{})",
        suite.name,
        humane(result.seconds),
        if result.cut { ", cut short" } else { "" }
    ));
    let ranking = result.causes.ranking(failed());
    for (count, cause, example) in ranking.iter().take(25) {
        line(format!("{count:>4} × {cause}   e.g. {example}"));
    }
    if !ranking.is_empty() && result.outcomes.len() <= 60 {
        for name in failed() {
            line(format!(
                "FAIL {name}: {}",
                result.causes.of(name).unwrap_or("(no error text)")
            ));
        }
    }
    if is_reference {
        for (name, outcome) in &result.outcomes {
            if let Some(before) = reference.get(name).filter(|before| *before != outcome) {
                line(format!("{} was {}: {name}", outcome.word(), before.word()));
            }
        }
    } else {
        for name in &compared.lost {
            line(format!(
                "LOST {name}: {}",
                result.causes.of(name).unwrap_or("did not run to its end")
            ));
        }
        for name in &compared.new {
            line(format!(
                "NEW {name}: passes, and is not on the list; --bless adds it"
            ));
        }
    }
    let reference_passes = reference
        .iter()
        .filter(|(name, o)| **o == Outcome::Pass && (whole || result.outcomes.contains_key(*name)))
        .count();
    line(format!("log: {}", result.log.display()));
    let _ = writeln!(
        out,
        "{}: {} passed, {} failed, {} skipped; {} of the {} that the reference passes; new {}, lost {}",
        suite.name,
        count(Outcome::Pass),
        count(Outcome::Fail),
        count(Outcome::Skip),
        compared.passed_by_both,
        reference_passes,
        compared.new.len(),
        compared.lost.len()
    );
    out
}

fn humane(seconds: u64) -> String {
    format!("{} min {} s", seconds / 60, seconds % 60)
}

fn write_list(file: &std::path::Path, outcomes: &Outcomes) -> Result<(), Error> {
    let mut lines: Vec<(Outcome, &str)> = outcomes
        .iter()
        .map(|(name, o)| (*o, name.as_str()))
        .collect();
    lines.sort_unstable();
    let text: String = lines
        .iter()
        .map(|(outcome, name)| format!("{}: {name}\n", outcome.word()))
        .collect();
    fs::write(file, text).map_err(at("writing", file))
}

/// Makes the pattern of tests to run: its levels are matched each by itself, so a choice may run a little more.
fn pattern(worker: &str, run: Option<&str>, selected: Option<&BTreeSet<String>>) -> String {
    let Some(selected) = selected else {
        return format!("/{}/worker={worker}$", run.unwrap_or(".*"));
    };
    let level = |index: usize| -> String {
        let names: BTreeSet<&str> = selected
            .iter()
            .filter_map(|name| name.split('/').nth(index))
            .collect();
        names.into_iter().collect::<Vec<_>>().join("|")
    };
    format!("^({})$/^({})$/^worker={worker}$", level(0), level(1))
}

/// The suites' names of their workers.
const ROOTFUL: &str = "oci";
const ROOTLESS: &str = "oci-rootless";

fn worker(options: &Options) -> &'static str {
    if options.rootless { ROOTLESS } else { ROOTFUL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_becomes_a_pattern_of_levels() {
        let selected = [
            "T/A/worker=oci",
            "T/B/worker=oci/frontend=builtin",
            "U/C/worker=oci",
        ]
        .map(str::to_owned)
        .into();
        assert_eq!(
            pattern(ROOTFUL, None, Some(&selected)),
            "^(T|U)$/^(A|B|C)$/^worker=oci$"
        );
        assert_eq!(pattern(ROOTFUL, Some("TestX"), None), "/TestX/worker=oci$");
        assert_eq!(pattern(ROOTLESS, None, None), "/.*/worker=oci-rootless$");
    }
}
