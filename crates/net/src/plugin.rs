//! One call of a program of CNI: its environment, its configuration and its answer.
//!
//! | it gets | by |
//! |---|---|
//! | what to do, for which container, namespace and interface | `CNI_COMMAND`, `CNI_CONTAINERID`, `CNI_NETNS`, `CNI_IFNAME`, `CNI_ARGS` |
//! | where the programs are that it calls itself | `CNI_PATH` |
//! | its configuration | standard input, as JSON |
//!
//! It answers on standard output: with its result, or with what is wrong, both JSON. The rules are those of version 1.0 of the
//! specification, section 2. The administrator chose the programs; they run as the daemon's user and with its environment.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};
use serde::Deserialize;
use serde_json::Value;

use crate::link::INSIDE;

/// How long a program may work. Usually it takes less than a second; one that waits for a lock of iptables takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most that is read of an answer.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// The most that is told of what a program wrote when it failed without a word of CNI.
const MAX_COMPLAINT_CHARS: usize = 500;

/// What a program is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Add,
    Delete,
}

impl Order {
    const fn word(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Delete => "DEL",
        }
    }
}

/// For whom the programs of one network are called.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// The file of its namespace; none if that is gone.
    pub(crate) namespace: Option<PathBuf>,
    /// `KEY=VALUE` with `;` between them.
    pub(crate) arguments: String,
    /// Where the programs are.
    pub(crate) folders: Vec<PathBuf>,
}

/// Why a program of CNI did not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// It is in none of the folders.
    #[error(
        "the CNI plugin `{plugin}` is not in {}: install it, or name its folder in worker.oci.cniBinaryPath",
        list(folders)
    )]
    Missing {
        /// The type that the configuration names.
        plugin: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// The system did not start it.
    #[error("cannot run the CNI plugin `{plugin}`: {source}")]
    Start {
        /// Its name.
        plugin: String,
        /// Why.
        source: io::Error,
    },
    /// It did not end.
    #[error("the CNI plugin `{plugin}` did not end within {} seconds of its {order}", TIMEOUT.as_secs())]
    Late {
        /// Its name.
        plugin: String,
        /// What it should do.
        order: &'static str,
    },
    /// It says that it cannot.
    #[error("the CNI plugin `{plugin}` fails to {order}: {message} (code {code})")]
    Refused {
        /// Its name.
        plugin: String,
        /// What it should do.
        order: &'static str,
        /// What it says.
        message: String,
        /// The specification's number for it.
        code: u32,
    },
    /// It ended without a word of CNI.
    #[error("the CNI plugin `{plugin}` ended with {status} on {order}: {complaint}")]
    Broken {
        /// Its name.
        plugin: String,
        /// What it should do.
        order: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        complaint: String,
    },
    /// Its result is none.
    #[error("the CNI plugin `{plugin}` answers with no result: {source}")]
    Answer {
        /// Its name.
        plugin: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl PluginError {
    pub(crate) fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Start { source, .. } => ErrorKind::of_host(source),
            Self::Late { .. } => ErrorKind::Unavailable,
            Self::Refused { .. } | Self::Broken { .. } | Self::Answer { .. } => ErrorKind::System,
        }
    }
}

fn list(folders: &[PathBuf]) -> String {
    let names: Vec<_> = folders.iter().map(|it| it.display().to_string()).collect();
    names.join(" or ")
}

/// What a program says when it cannot.
#[derive(Deserialize)]
struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

/// Runs a program until it ends, in the network namespace of the calling thread. Blocks. The result of [`Order::Delete`] is null.
pub(crate) fn call(
    plugin: &str,
    order: Order,
    container: &Container,
    config: &Value,
) -> Result<Value, PluginError> {
    let program = locate(plugin, &container.folders)?;
    let failed = |source| PluginError::Start {
        plugin: plugin.to_owned(),
        source,
    };
    let (status, answer, complaint) =
        run(&program, order, container, &config.to_string()).map_err(failed)?;
    let Some(status) = status else {
        return Err(PluginError::Late {
            plugin: plugin.to_owned(),
            order: order.word(),
        });
    };
    if !status.success() {
        return Err(refusal(plugin, order, status, &answer, &complaint));
    }
    match order {
        Order::Delete => Ok(Value::Null),
        Order::Add => serde_json::from_str(&answer).map_err(|source| PluginError::Answer {
            plugin: plugin.to_owned(),
            source,
        }),
    }
}

fn locate(plugin: &str, folders: &[PathBuf]) -> Result<PathBuf, PluginError> {
    let paths = folders.iter().map(|folder| folder.join(plugin));
    paths
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| PluginError::Missing {
            plugin: plugin.to_owned(),
            folders: folders.to_vec(),
        })
}

/// How it ended (none if it did not in time), and what it wrote.
fn run(
    program: &Path,
    order: Order,
    container: &Container,
    config: &str,
) -> io::Result<(Option<ExitStatus>, String, String)> {
    // Files without a name in the place of pipes: a program that writes much waits for nobody.
    let [mut input, mut output, mut errors] =
        [memory("input")?, memory("output")?, memory("errors")?];
    input.write_all(config.as_bytes())?;
    input.rewind()?;
    let namespace = container.namespace.as_deref().unwrap_or(Path::new(""));
    let folders: Vec<_> = container.folders.iter().map(|it| it.as_os_str()).collect();
    let mut child = Command::new(program)
        .env("CNI_COMMAND", order.word())
        .env("CNI_CONTAINERID", &container.id)
        .env("CNI_NETNS", namespace)
        .env("CNI_IFNAME", INSIDE)
        .env("CNI_ARGS", &container.arguments)
        .env("CNI_PATH", folders.join(&OsString::from(":")))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(errors.try_clone()?))
        .spawn()?;
    let status = wait(&mut child, TIMEOUT);
    if !matches!(status, Ok(Some(_))) {
        child.kill()?;
        child.wait()?;
    }
    Ok((status?, text(&mut output)?, text(&mut errors)?))
}

fn memory(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(
        format!("cni {name}"),
        MemfdFlags::CLOEXEC,
    )?))
}

fn text(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for the end of a program, at most so long.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let process = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = task::clock::monotonic() + timeout;
    loop {
        let left = deadline.saturating_duration_since(task::clock::monotonic());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ends = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut ends, Some(&left)) {
            Ok(0) => return Ok(None),
            Ok(_) => return child.wait().map(Some),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn refusal(
    plugin: &str,
    order: Order,
    status: ExitStatus,
    answer: &str,
    complaint: &str,
) -> PluginError {
    let plugin = plugin.to_owned();
    let order = order.word();
    if let Ok(Refusal { code, msg, details }) = serde_json::from_str(answer) {
        let between = if details.is_empty() { "" } else { "; " };
        return PluginError::Refused {
            plugin,
            order,
            message: format!("{msg}{between}{details}"),
            code,
        };
    }
    let said = [complaint, answer].map(str::trim);
    let words = said.into_iter().find(|text| !text.is_empty());
    let words = words.unwrap_or("it wrote nothing");
    PluginError::Broken {
        plugin,
        order,
        status,
        complaint: words.chars().take(MAX_COMPLAINT_CHARS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_waited_for_only_so_long() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        assert!(
            wait(&mut child, Duration::from_millis(20))
                .unwrap()
                .is_none()
        );
        child.kill().unwrap();
        let ended = wait(&mut child, Duration::from_secs(100)).unwrap().unwrap();
        assert!(!ended.success());
    }

    #[test]
    fn a_program_that_is_nowhere_is_told_with_where_it_was_looked_for() {
        let container = Container {
            id: "c".into(),
            namespace: None,
            arguments: String::new(),
            folders: vec!["/opt/none".into(), "/usr/lib/none".into()],
        };
        let error = call("bridge", Order::Add, &container, &Value::Null).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the CNI plugin `bridge` is not in /opt/none or /usr/lib/none: install it, or name its folder in worker.oci.cniBinaryPath"
        );
        assert_eq!(error.kind(), oci::ErrorKind::NotFound);
    }

    #[test]
    fn what_a_program_says_when_it_fails_is_told() {
        use std::os::unix::process::ExitStatusExt as _;
        let told = |answer: &str, complaint: &str| {
            let status = ExitStatus::from_raw(1 << 8);
            refusal("p", Order::Delete, status, answer, complaint).to_string()
        };
        for (answer, complaint, expected) in [
            (
                r#"{"code":11,"msg":"try later"}"#,
                "noise",
                "fails to DEL: try later (code 11)",
            ),
            (
                r#"{"code":4,"msg":"a","details":"b"}"#,
                "",
                "fails to DEL: a; b (code 4)",
            ),
            (
                "not json",
                "panic: x\n",
                "ended with exit status: 1 on DEL: panic: x",
            ),
            ("not json", "", "ended with exit status: 1 on DEL: not json"),
            (
                "",
                " ",
                "ended with exit status: 1 on DEL: it wrote nothing",
            ),
        ] {
            assert_eq!(
                told(answer, complaint),
                format!("the CNI plugin `p` {expected}")
            );
        }
        let long = told("", &"x".repeat(5000));
        assert!(long.len() < 600, "{}", long.len());
    }
}
