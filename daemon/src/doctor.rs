//! `rbuild doctor`: what of the kernel, the container and the host is missing for builds, the line that mends it, and what is used instead.
//!
//! [`facts`] looks, once and at everything; [`checks`] has one row for each precondition, a pure function of the facts.

mod checks;
mod facts;

use std::fmt::Write as _;

pub use checks::{CHECKS, Check};
pub use facts::{Cgroups, Facts, Helper, Trial, proc_warning};

/// Whether a precondition of builds is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is met.
    Good,
    /// It is not met, and builds run without it.
    Missing,
    /// It is not met, and no build can run.
    Fatal,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Missing => "missing",
            Self::Fatal => "FATAL",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the precondition is met.
    pub state: State,
    /// What was found on this machine, as people read it.
    pub observation: String,
    /// What builds use instead where it is missing; empty if nothing is.
    pub instead: String,
    /// The line or the setting that mends it.
    pub remedy: String,
}

impl Finding {
    fn good(observation: impl Into<String>) -> Self {
        Self {
            state: State::Good,
            observation: observation.into(),
            instead: String::new(),
            remedy: String::new(),
        }
    }

    fn missing(observation: impl Into<String>, instead: &str, remedy: impl Into<String>) -> Self {
        Self {
            state: State::Missing,
            observation: observation.into(),
            instead: instead.to_owned(),
            remedy: remedy.into(),
        }
    }

    fn fatal(observation: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state: State::Fatal,
            ..Self::missing(observation, "", remedy)
        }
    }
}

/// The results of all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Each check that applies here, by its name, in the order of the table.
    pub findings: Vec<(&'static str, Finding)>,
}

impl Report {
    /// Runs every check on the facts.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let judge = |check: &Check| Some((check.name, (check.judge)(facts)?));
        Self {
            findings: CHECKS.iter().filter_map(judge).collect(),
        }
    }

    /// Whether a build can run.
    #[must_use]
    pub fn can_build(&self) -> bool {
        let fatal = |(_, finding): &(_, Finding)| finding.state == State::Fatal;
        !self.findings.iter().any(fatal)
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, finding) in &self.findings {
            let state = finding.state.word();
            let _ = writeln!(text, "{state:<8} {name:<22} {}", finding.observation);
            for (label, words) in [("instead", &finding.instead), ("mend it", &finding.remedy)] {
                if !words.is_empty() {
                    let _ = writeln!(text, "{:<8} {label:>22} {words}", "");
                }
            }
        }
        let missing = |(_, finding): &&(_, Finding)| finding.state == State::Missing;
        let count = self.findings.iter().filter(missing).count();
        let _ = match (self.can_build(), count) {
            (false, _) => writeln!(text, "No build can run here."),
            (true, 0) => writeln!(text, "Builds run here with everything."),
            (true, 1) => writeln!(text, "Builds run here; one thing is missing."),
            (true, count) => writeln!(text, "Builds run here; {count} things are missing."),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_missing_what_is_used_instead_and_what_mends_it() {
        let report = Report {
            findings: vec![
                ("overlay", Finding::good("works")),
                (
                    "tun",
                    Finding::missing("no /dev/net/tun", "the host's network", "modprobe tun"),
                ),
            ],
        };
        assert!(report.can_build());
        assert_eq!(
            report.text(),
            "ok       overlay                works\n\
             missing  tun                    no /dev/net/tun\n                        \
             instead the host's network\n                        \
             mend it modprobe tun\n\
             Builds run here; one thing is missing.\n"
        );
        let fatal = Report {
            findings: vec![("overlay", Finding::fatal("EPERM", "another kernel"))],
        };
        assert!(!fatal.can_build());
        assert!(fatal.text().ends_with("No build can run here.\n"));
    }
}
