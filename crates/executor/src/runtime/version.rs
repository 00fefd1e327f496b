//! Which versions of an OCI runtime may run steps: those without a known way out of a container (P5).
//!
//! | runtime | since                             | what older ones let a step do                                             |
//! |---------|-----------------------------------|---------------------------------------------------------------------------|
//! | runc    | 1.2.8, 1.3.3, 1.4.0-rc.3, 1.5     | CVE-2025-31133, -52565, -52881: write to procfs through masked paths and  |
//! |         |                                   | `/dev/console`, shown with an ordinary Dockerfile; the line of 1.1 has no |
//! |         |                                   | release with the fixes (1.1.14 has those of CVE-2024-45310 and before)    |
//! | crun    | 1.4.4                             | CVE-2022-27650: inheritable capabilities                                  |
//!
//! crun was found not to be open to what runc fixed in 2025 (containers/crun#1906). Its later advisories are of handlers and calls that
//! we do not use (CVE-2025-24965: krun; CVE-2026-30892: `exec --user`), or need a container whose `/dev` is not freshly mounted
//! (CVE-2026-88264, CVE-2026-88265), which ours is. The same holds for runc's CVE-2026-41579 (`/dev` as a link, which we refuse to
//! mount on) and CVE-2026-119101 (restoring checkpoints).
//!
//! Distributions put fixes into versions that keep their number, and nothing in `--version` tells whether they did: such a version is
//! accepted when the configuration names it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How much of the output of `--version` is read.
const MAX_OUTPUT_BYTES: usize = 16 << 10;

/// Why steps are not run with a runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnfitRuntime {
    /// The program could not be started, or did not end by itself.
    #[error("cannot run `{} --version`: {source}", program.display())]
    Run {
        /// The runtime's program.
        program: PathBuf,
        /// Why it could not be run.
        source: io::Error,
    },
    /// The output of `--version` has no version.
    #[error("`{} --version` tells no version: {line:?}", program.display())]
    Unknown {
        /// The runtime's program.
        program: PathBuf,
        /// The first line of that output.
        line: String,
    },
    /// The version has a fault by which a step can get out of its container.
    #[error(
        "{} is {name} {version}, which lets a step out of its container ({advisories}): install {name} {fixed} or later, leave \
        worker.oci.binary out to run steps with the built-in launcher, or, if your distribution has put the fixes into this version, \
        name it in worker.oci.acceptedBinaryVersions = [\"{accept}\"]",
        program.display()
    )]
    Old {
        /// The runtime's program.
        program: PathBuf,
        /// `runc` or `crun`.
        name: &'static str,
        /// The version, as the program tells it.
        version: String,
        /// The most exact name of the version, as the configuration may name it.
        accept: String,
        /// The first versions without the fault.
        fixed: &'static str,
        /// The advisories of the faults.
        advisories: &'static str,
    },
}

impl UnfitRuntime {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Run { source, .. } => oci::ErrorKind::of_host(source),
            Self::Unknown { .. } | Self::Old { .. } => oci::ErrorKind::Unsupported,
        }
    }
}

// DIFFERS: BuildKit runs whatever it is given.
/// Asks the program for its version and checks it. A version that `accepted` names is taken as it is, and so is a runtime of which
/// nothing is known.
pub(super) fn check(program: &Path, accepted: &[String]) -> Result<(), UnfitRuntime> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|source| UnfitRuntime::Run {
            program: program.to_owned(),
            source,
        })?;
    let text = output
        .stdout
        .get(..MAX_OUTPUT_BYTES)
        .unwrap_or(&output.stdout);
    check_text(program, &String::from_utf8_lossy(text), accepted)
}

fn check_text(program: &Path, text: &str, accepted: &[String]) -> Result<(), UnfitRuntime> {
    let first = text.lines().next().unwrap_or_default();
    let of = |name: &str| first.strip_prefix(name)?.strip_prefix(" version ");
    let (name, version) = match (of("runc"), of("crun")) {
        (Some(version), _) => ("runc", version.trim()),
        (None, Some(version)) => ("crun", version.trim()),
        (None, None) if first.is_empty() => {
            return Err(UnfitRuntime::Unknown {
                program: program.to_owned(),
                line: String::new(),
            });
        }
        (None, None) => {
            tracing::info!(program = %program.display(), line = first, "nothing is known of faults of this OCI runtime");
            return Ok(());
        }
    };
    // Debian's builds tell the package's version there.
    let commit = text
        .lines()
        .find_map(|line| line.strip_prefix("commit: "))
        .map_or("", str::trim);
    let is_accepted = |name: &String| !name.is_empty() && (name == version || name == commit);
    if accepted.iter().any(is_accepted) {
        tracing::warn!(program = %program.display(), version, "this version of the OCI runtime is accepted because the configuration names it");
        return Ok(());
    }
    let Some(parsed) = Version::parse(version) else {
        return Err(UnfitRuntime::Unknown {
            program: program.to_owned(),
            line: first.chars().take(200).collect(),
        });
    };
    let (fit, fixed, advisories) = match name {
        "runc" => (
            parsed.is_fit_runc(),
            "1.2.8, 1.3.3, 1.4.0-rc.3",
            "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
        ),
        _ => (
            parsed >= Version::release(1, 4, 4),
            "1.4.4",
            "CVE-2022-27650",
        ),
    };
    if fit {
        return Ok(());
    }
    let is_package = commit.starts_with(version) && commit != version;
    Err(UnfitRuntime::Old {
        program: program.to_owned(),
        name,
        version: version.to_owned(),
        accept: if is_package { commit } else { version }.to_owned(),
        fixed,
        advisories,
    })
}

/// Major, minor, patch, and the number of the release candidate; a release comes after its candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32, u32, u32);

impl Version {
    const fn release(major: u32, minor: u32, patch: u32) -> Self {
        Self(major, minor, patch, u32::MAX)
    }

    /// Reads `1.2.3`, `1.2.3-rc.4`, `1.2.3-rc4`; what a distribution appends (`+ds1`, `-0ubuntu1~24.04`) says nothing.
    fn parse(text: &str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (numbers, suffix) = text.split_at(end);
        let mut numbers = numbers.split('.').filter(|number| !number.is_empty());
        let mut number = || numbers.next()?.parse().ok();
        let (major, minor) = (number()?, number()?);
        let patch = number().unwrap_or(0);
        let candidate = suffix
            .strip_prefix("-rc")
            .or_else(|| suffix.strip_prefix("~rc"))
            .map_or(Some(u32::MAX), |suffix| {
                let suffix = suffix.trim_start_matches('.');
                let digits = suffix.find(|c: char| !c.is_ascii_digit());
                suffix.get(..digits.unwrap_or(suffix.len()))?.parse().ok()
            })?;
        Some(Self(major, minor, patch, candidate))
    }

    fn is_fit_runc(self) -> bool {
        let fixed = match (self.0, self.1) {
            (1, 2) => Self::release(1, 2, 8),
            (1, 3) => Self::release(1, 3, 3),
            _ => Self(1, 4, 0, 3),
        };
        self >= fixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_with_a_known_way_out_are_refused_unless_named() {
        let debian = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\n";
        for (text, accepted, fit) in [
            (debian, "", false),
            (debian, "1.1.5", false),
            (debian, "1.1.5+ds1", true),
            (debian, "1.1.5+ds1-1+deb12u1", true),
            (
                "runc version 1.1.11\ncommit: v1.1.11-0-g4bccb38c\n",
                "",
                false,
            ),
            ("runc version 1.1.14\n", "", false),
            ("runc version 1.2.0-rc.3\n", "", false),
            ("runc version 1.2.7\n", "", false),
            ("runc version 1.2.8-rc.1\n", "", false),
            ("runc version 1.2.8\n", "", true),
            ("runc version 1.3.2+dev\n", "", false),
            ("runc version 1.3.3-0ubuntu1~24.04.3\n", "", true),
            ("runc version 1.4.0-rc.2\n", "", false),
            ("runc version 1.4.0-rc.3\n", "", true),
            ("runc version 1.4.0~rc2\n", "", false),
            ("runc version 1.4.0\n", "", true),
            ("runc version 1.5.0-rc.1\n", "", true),
            ("runc version 2.0.0\n", "", true),
            ("runc version 0.1.1\n", "", false),
            ("runc version unknown\n", "", false),
            ("runc version unknown\n", "unknown", true),
            ("crun version 1.4.3\n", "", false),
            (
                "crun version 1.8.1\ncommit: f8a096be\nrundir: /run/crun\n",
                "",
                true,
            ),
            ("crun version 1.14.1.0.0.0.12-6b2a\n", "", true),
            ("crun version 0.17\n", "", false),
            (
                "runsc version release-20240422.0\nspec: 1.1.0-rc.1\n",
                "",
                true,
            ),
            ("", "", false),
        ] {
            let accepted = [accepted.to_owned()];
            let result = check_text(Path::new("/usr/sbin/x"), text, &accepted);
            assert_eq!(result.is_ok(), fit, "{text:?} {accepted:?} {result:?}");
        }
        let error = check_text(Path::new("/usr/sbin/runc"), debian, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/usr/sbin/runc is runc 1.1.5+ds1, which lets a step out of its container (CVE-2025-31133, CVE-2025-52565, \
            CVE-2025-52881): install runc 1.2.8, 1.3.3, 1.4.0-rc.3 or later, leave worker.oci.binary out to run steps with the built-in \
            launcher, or, if your distribution has put the fixes into this version, name it in \
            worker.oci.acceptedBinaryVersions = [\"1.1.5+ds1-1+deb12u1\"]"
        );
    }

    #[test]
    fn a_runtime_that_is_not_there_is_an_error_at_start() {
        let missing = check(Path::new("/nonexistent/runc"), &[]).unwrap_err();
        assert!(matches!(missing, UnfitRuntime::Run { .. }));
    }
}
