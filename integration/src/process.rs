//! Running other programs, and what can go wrong here.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a step did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder cannot be read or written.
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A program could not be started.
    #[error("starting {program}: {source}")]
    Start { program: String, source: io::Error },
    /// A program ended with an error.
    #[error("{program} failed ({status}){output}")]
    Failed {
        program: String,
        status: String,
        output: String,
    },
    /// A prerequisite is missing.
    #[error("{what} is missing: {remedy}")]
    Missing { what: String, remedy: String },
    /// A program's output cannot be understood.
    #[error("{what}: {problem}")]
    Output { what: &'static str, problem: String },
}

/// Adds the path to an I/O error.
pub(crate) fn at<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn name(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args().take(4) {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text.chars().take(160).collect()
}

/// Runs `command` with its output shown, and waits.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|source| Error::Start {
            program: name(command),
            source,
        })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        program: name(command),
        status: status.to_string(),
        output: String::new(),
    })
}

/// Runs `command` and returns what it wrote; what it wrote to its error stream is part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: name(command),
            source,
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::Failed {
        program: name(command),
        status: output.status.to_string(),
        output: format!(": {}", text.trim_end()),
    })
}

/// Finds a program in `PATH` or in the folders of system programs, which an unprivileged `PATH` may lack.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Finds a program or says how to get it.
pub(crate) fn need(program: &str) -> Result<PathBuf, Error> {
    find(program).ok_or_else(|| Error::Missing {
        what: program.to_owned(),
        remedy: "run `rbuild-integration setup` as root, or install its Debian package".to_owned(),
    })
}

/// Whether we may do what only root may.
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|text| text.trim() == "0")
}
