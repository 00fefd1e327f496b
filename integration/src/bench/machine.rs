//! What the figures depend on: the machine, the programs, the hour.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::paths::{self, Module};
use crate::process::{Error, output};

/// Facts of a run.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) processor: String,
    pub(super) memory: u64,
    pub(super) kernel: String,
    pub(super) file_system: String,
    /// Load average of the last minute, before we began.
    pub(super) load: f64,
    pub(super) ours: String,
    pub(super) commit: String,
    /// The profile that our daemon was built with.
    pub(super) profile: String,
    pub(super) theirs: String,
    pub(super) runc: String,
    pub(super) date: String,
}

impl Machine {
    /// Looks around.
    pub(super) fn look(
        daemon: &Path,
        profile: Option<&str>,
        module: &Module,
    ) -> Result<Self, Error> {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let say = |program: &str, args: &[&str]| {
            output(Command::new(program).args(args)).unwrap_or_default()
        };
        let cache = paths::cache().display().to_string();
        let mut commit = say_in_source(&["rev-parse", "--short=12", "HEAD"]);
        if !say_in_source(&["status", "--porcelain", "--untracked-files=no"]).is_empty() {
            commit.push_str(" and changes");
        }
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: value(&read("/proc/cpuinfo"), "model name"),
            memory: value(&read("/proc/meminfo"), "MemTotal")
                .split(' ')
                .next()
                .and_then(|kb| kb.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: say("stat", &["-f", "-c", "%T", &cache]).trim().to_owned(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            ours: output(Command::new(daemon).arg("--version"))?
                .trim()
                .to_owned(),
            commit,
            profile: profile.map_or_else(|| profile_of(daemon), str::to_owned),
            theirs: format!("BuildKit {}", module.version),
            runc: say("runc", &["--version"])
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
            date: say("date", &["-u", "+%Y-%m-%d"]).trim().to_owned(),
        })
    }

    /// Returns the facts for the JSON file.
    pub(super) fn json(&self) -> Value {
        json!({
            "cores": self.cores,
            "processor": self.processor,
            "memory": self.memory,
            "kernel": self.kernel,
            "file_system": self.file_system,
            "load_average_at_start": self.load,
            "rbuild": {"version": self.ours, "commit": self.commit, "profile": self.profile},
            "buildkit": {"version": self.theirs, "runc": self.runc},
            "date": self.date,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, commit {}, profile {}; {} with {}; {} cores ({}), {:.0} GB, Linux {}, {}; load average {:.2} at the start; {}",
            self.ours,
            self.commit,
            self.profile,
            self.theirs,
            self.runc,
            self.cores,
            self.processor,
            // Precise enough up to petabytes.
            self.memory as f64 / 1e9,
            self.kernel,
            self.file_system,
            self.load,
            self.date
        )
    }
}

/// Returns how many bytes are free for us where `dir` is.
pub(super) fn free_space(dir: &Path) -> Result<u64, Error> {
    let text = output(Command::new("df").args(["-B1", "--output=avail"]).arg(dir))?;
    let bytes = text
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok());
    bytes.ok_or(Error::Output {
        what: "df",
        problem: text,
    })
}

fn say_in_source(args: &[&str]) -> String {
    output(
        Command::new("git")
            .arg("-C")
            .arg(paths::source())
            .args(args),
    )
    .unwrap_or_default()
    .trim()
    .to_owned()
}

/// Returns the value of the first `key : value` line.
fn value(text: &str, key: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// Cargo puts a profile's programs into a folder of its name; `dev` has the folder `debug`.
fn profile_of(daemon: &Path) -> String {
    let folder = daemon.parent().and_then(Path::file_name);
    match folder.and_then(|name| name.to_str()) {
        Some("debug") => "dev".to_owned(),
        Some("release") => "release".to_owned(),
        _ => "not known".to_owned(),
    }
}
