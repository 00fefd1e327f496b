//! What all cases share, and the folder and helpers of one.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::paths::{self, Module};
use crate::process::{Error, at, need};
use crate::serve::Registry;

/// How long a client may take before it counts as hung.
pub(super) const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// How a case ended.
pub(super) type Verdict = Result<(), Trouble>;

/// Why a case did not pass.
#[derive(Debug)]
pub(super) enum Trouble {
    Failed(String),
    /// Our client fares otherwise on the reference's daemon than the reference's client.
    Crossed(String),
    Skipped(String),
}

impl Trouble {
    /// Says what the trouble is about.
    pub(super) fn about(self, what: &str) -> Self {
        match self {
            Self::Failed(why) => Self::Failed(format!("{what}: {why}")),
            Self::Crossed(why) => Self::Crossed(format!("{what}: {why}")),
            Self::Skipped(why) => Self::Skipped(why),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Missing { what, remedy } => {
                Self::Skipped(format!("{what} is missing: {remedy}"))
            }
            error @ (Error::Io { .. }
            | Error::Start { .. }
            | Error::Failed { .. }
            | Error::Output { .. }) => Self::Failed(error.to_string()),
        }
    }
}

/// Fails a case.
pub(super) fn failed<T>(why: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Failed(why.into()))
}

/// Fails a case unless `holds`.
pub(super) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { failed(why()) }
}

/// Whether a client ended by itself with an exit code that is not 0.
pub(super) fn refused_by(ran: &Ran, what: &str) -> Verdict {
    ensure(ran.code.is_some_and(|code| code != 0), || {
        format!(
            "{what}: a non-zero exit code was expected, got {}",
            ran.tail()
        )
    })
}

/// Waits until `holds`, at most for `time`; returns whether it came to hold.
pub(super) fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > time {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Programs and the registry with the stand-in images.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) reference: bool,
    /// Our client builds, on the reference's daemon.
    pub(super) crossed: bool,
    pub(super) daemon: PathBuf,
    pub(super) rbuild: PathBuf,
    tools: PathBuf,
    pub(super) mirror: Registry,
    work: PathBuf,
    keep: bool,
}

impl Lab {
    /// Finds everything or says what is missing.
    pub(super) fn open(
        reference: bool,
        crossed: bool,
        daemon: Option<PathBuf>,
        client: Option<PathBuf>,
        keep: bool,
    ) -> Result<Self, Error> {
        let tools = Module::find()?.tools();
        let beside = |name: &str| {
            std::env::current_exe()
                .unwrap_or_default()
                .with_file_name(name)
        };
        let ours = daemon.unwrap_or_else(|| beside("rbuildd"));
        let lab = Self {
            reference: reference || crossed,
            crossed,
            daemon: if reference || crossed {
                tools.join("buildkitd")
            } else {
                ours
            },
            rbuild: client.unwrap_or_else(|| beside("rbuild")),
            mirror: Registry::start(0)?,
            work: paths::cache().join(format!("cases-{}", std::process::id())),
            tools,
            keep,
        };
        for (program, remedy) in [
            (&lab.daemon, "run `cargo build -p rbuild-daemon`"),
            (&lab.rbuild, "run `cargo build -p rbuild-cli`"),
            (&lab.buildctl(), "run `rbuild-integration setup`"),
        ] {
            if !program.is_file() {
                return Err(Error::Missing {
                    what: program.display().to_string(),
                    remedy: remedy.to_owned(),
                });
            }
        }
        fs::create_dir_all(&lab.work).map_err(at("making", &lab.work))?;
        Ok(lab)
    }

    pub(super) fn buildctl(&self) -> PathBuf {
        self.tools.join("buildctl")
    }

    /// The reference's daemon.
    pub(super) fn buildkitd(&self) -> PathBuf {
        self.tools.join("buildkitd")
    }

    pub(super) fn buildx(&self) -> PathBuf {
        self.tools.join("buildx")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Fails when a folder was kept, which is meant.
        let _kept = fs::remove_dir(&self.work);
    }
}

/// The place of one case.
#[derive(Debug)]
pub(super) struct Rig<'a> {
    pub(super) lab: &'a Lab,
    /// For files of any kind; on a real disk.
    pub(super) dir: PathBuf,
    /// For sockets, whose names must be short.
    pub(super) run: PathBuf,
}

impl<'a> Rig<'a> {
    pub(super) fn new(lab: &'a Lab, number: usize) -> Result<Self, Error> {
        let dir = lab.work.join(number.to_string());
        let run = std::env::temp_dir().join(format!("rbc{}-{number}", std::process::id()));
        for folder in [&dir, &run] {
            fs::create_dir_all(folder).map_err(at("making", folder))?;
        }
        Ok(Self { lab, dir, run })
    }

    /// Takes the folders away; a kept one is named.
    pub(super) fn end(self, verdict: &Verdict) {
        let _left = fs::remove_dir_all(&self.run);
        if self.lab.keep && matches!(verdict, Err(Trouble::Failed(_) | Trouble::Crossed(_))) {
            eprintln!("kept: {}", self.dir.display());
            return;
        }
        unmount_below(&self.dir);
        let _left = fs::remove_dir_all(&self.dir);
    }

    /// Makes a folder below the case's.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        Ok(dir)
    }

    /// Makes a build context of these files, replacing those that are there.
    pub(super) fn context(&self, name: &str, files: &[(&str, &str)]) -> Result<PathBuf, Error> {
        let dir = self.folder(name)?;
        for (path, text) in files {
            let file = dir.join(path);
            let parent = file.parent().unwrap_or(&dir);
            fs::create_dir_all(parent).map_err(at("making", parent))?;
            fs::write(&file, text).map_err(at("writing", &file))?;
        }
        Ok(dir)
    }

    /// Runs a program to its end, or kills it when its time is over.
    pub(super) fn run(&self, command: &mut Command) -> Result<Ran, Error> {
        Running::start(&self.dir, command)?.wait(CLIENT_TIMEOUT)
    }
}

/// A program that was started.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
}

/// What a program did.
#[derive(Debug, Clone)]
pub(super) struct Ran {
    /// The exit code; none when it was killed.
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
    how: String,
}

impl Running {
    /// Starts `command` with its output going to files in `dir`.
    pub(super) fn start(dir: &Path, command: &mut Command) -> Result<Self, Error> {
        Self::with_input(dir, command, Stdio::null())
    }

    /// Starts `command` as [`Self::start`] does, with something to read.
    pub(super) fn with_input(
        dir: &Path,
        command: &mut Command,
        input: Stdio,
    ) -> Result<Self, Error> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let name = command.get_program().to_string_lossy().into_owned();
        let (out, err) = (
            dir.join(format!("{number}.out")),
            dir.join(format!("{number}.err")),
        );
        let file = |path: &Path| fs::File::create(path).map_err(at("creating", path));
        let child = command
            .stdin(input)
            .stdout(file(&out)?)
            .stderr(file(&err)?)
            .spawn()
            .map_err(|source| Error::Start {
                program: name.clone(),
                source,
            })?;
        Ok(Self {
            child,
            name,
            out,
            err,
        })
    }

    /// Returns what it has written to its error stream so far.
    pub(super) fn so_far(&self) -> String {
        fs::read(&self.err).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Waits for its end; kills it when `patience` is over.
    pub(super) fn wait(mut self, patience: Duration) -> Result<Ran, Error> {
        let start = Instant::now();
        let mut how = String::new();
        let status = loop {
            let status = self.child.try_wait().map_err(|source| Error::Start {
                program: self.name.clone(),
                source,
            })?;
            if let Some(status) = status {
                break status;
            }
            if start.elapsed() > patience {
                how = format!("did not end within {patience:?} and was killed");
                let _gone_already = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if how.is_empty() {
            how = status.code().map_or_else(
                || format!("signal {:?}", status.signal()),
                |code| format!("exit code {code}"),
            );
        }
        let read = |path: &Path| {
            fs::read(path).map_or_else(
                |_| String::new(),
                |bytes| String::from_utf8_lossy(&bytes).into_owned(),
            )
        };
        Ok(Ran {
            code: status.code(),
            out: read(&self.out),
            err: read(&self.err),
            how,
        })
    }
}

impl Ran {
    pub(super) fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// How it ended and the last lines that it wrote, progress left out.
    pub(super) fn tail(&self) -> String {
        let lines: Vec<&str> = self
            .err
            .lines()
            .chain(self.out.lines())
            .filter(|line| !line.starts_with('{') && !line.trim().is_empty())
            .collect();
        let from = lines.len().saturating_sub(15);
        format!(
            "{}\n{}",
            self.how,
            lines.get(from..).unwrap_or_default().join("\n")
        )
    }

    /// Returns the text of a program that must have succeeded.
    pub(super) fn success(self, what: &str) -> Result<Self, Trouble> {
        if self.ok() {
            return Ok(self);
        }
        failed(format!("{what}: {}", self.tail()))
    }
}

/// Detaches whatever is mounted in a folder.
pub(super) fn unmount_below(dir: &Path) {
    for point in mounts_below("self", dir).into_iter().rev() {
        let _busy = Command::new("umount")
            .arg("-l")
            .arg(&point)
            .stderr(Stdio::null())
            .status();
    }
}

/// Returns the mount points of a process that lie in `dir`.
pub(super) fn mounts_below(process: &str, dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect()
}

/// Returns the processes whose command line has `marker`, this one left out.
pub(super) fn processes_with(marker: &str) -> Vec<u32> {
    let me = std::process::id();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let has_marker = line
                .windows(marker.len())
                .any(|window| window == marker.as_bytes());
            (has_marker && pid != me).then_some(pid)
        })
        .collect()
}

/// A program that must be there, with `PATH` extended to the folders of system programs.
pub(super) fn program(name: &str) -> Result<Command, Error> {
    let mut command = Command::new(need(name)?);
    command.env("PATH", path_of_system_programs());
    Ok(command)
}

/// An unprivileged `PATH` may lack the folders of system programs.
pub(super) fn path_of_system_programs() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(all).unwrap_or_default()
}
