//! A daemon on a state folder of its own, and builds on it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::progress::Progress;
use super::rig::{
    CLIENT_TIMEOUT, Ran, Rig, Running, Trouble, Verdict, ensure, failed, path_of_system_programs,
    within,
};
use crate::process::{Error, at};

/// How a daemon differs from the usual one.
#[derive(Debug, Clone, Default)]
pub(super) struct Setting {
    /// Where the state lies, if not in the case's folder.
    pub(super) root: Option<PathBuf>,
    /// Ports of registries on the loopback interface that speak plain http.
    pub(super) http: Vec<u16>,
    /// More arguments.
    pub(super) args: Vec<String>,
    /// More of its environment.
    pub(super) env: Vec<(String, String)>,
    /// Keys of the table of its worker.
    pub(super) worker: String,
    /// Keys of its configuration that stand in no table.
    pub(super) first: String,
    /// More tables of its configuration.
    pub(super) tables: String,
    /// Part of the names of its files, when a case has several daemons.
    pub(super) name: &'static str,
    /// Another program than the one that the cases are about.
    pub(super) program: Option<PathBuf>,
}

/// A daemon that serves.
#[derive(Debug)]
pub(super) struct Daemon<'a> {
    pub(super) rig: &'a Rig<'a>,
    pub(super) address: String,
    pub(super) socket: PathBuf,
    pub(super) root: PathBuf,
    setting: Setting,
    child: Child,
}

impl<'a> Daemon<'a> {
    /// Starts one with nothing in its state folder.
    pub(super) fn start(rig: &'a Rig<'a>) -> Result<Self, Trouble> {
        Self::with(rig, Setting::default())
    }

    /// Starts one that is set up as `setting` says.
    pub(super) fn with(rig: &'a Rig<'a>, setting: Setting) -> Result<Self, Trouble> {
        let root = setting
            .root
            .clone()
            .unwrap_or_else(|| rig.dir.join(format!("state{}", setting.name)));
        let socket = rig.run.join(format!("s{}", setting.name));
        let child = spawn(rig, &setting, &root, &socket)?;
        let mut daemon = Self {
            rig,
            address: format!("unix://{}", socket.display()),
            socket,
            root,
            setting,
            child,
        };
        daemon.serve()?;
        Ok(daemon)
    }

    fn serve(&mut self) -> Verdict {
        let start = Instant::now();
        while let Err(error) = crate::wire::list_workers(&self.socket) {
            let status = self.child.try_wait().ok().flatten();
            if status.is_some() || start.elapsed() > Duration::from_secs(30) {
                return failed(format!(
                    "the daemon does not serve ({status:?}): {error}\n{}",
                    self.log_tail()
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the end of the log.
    pub(super) fn log_tail(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        let from = bytes.len().saturating_sub(2000);
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }

    fn log(&self) -> PathBuf {
        self.rig
            .dir
            .join(format!("daemon{}.log", self.setting.name))
    }

    /// Ends the daemon and starts it again on the same state; `hard` kills it without a word.
    pub(super) fn restart(&mut self, hard: bool) -> Verdict {
        self.end(hard);
        self.child = spawn(self.rig, &self.setting, &self.root, &self.socket)?;
        self.serve()
    }

    fn end(&mut self, hard: bool) {
        if hard {
            let _gone_already = self.child.kill();
        } else {
            let pid = self.child.id().to_string();
            let _gone_already = Command::new("kill").args(["-TERM", &pid]).status();
            if !within(Duration::from_secs(15), || {
                self.child.try_wait().is_ok_and(|status| status.is_some())
            }) {
                let _gone_already = self.child.kill();
            }
        }
        let _reaped = self.child.wait();
    }

    /// Whether it still runs.
    pub(super) fn alive(&mut self) -> Verdict {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            status => failed(format!("the daemon ended: {status:?}\n{}", self.log_tail())),
        }
    }

    /// The most memory that it had, in bytes.
    pub(super) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(u64::MAX / 1024);
        peak * 1024
    }

    /// Whether its memory never was above this many bytes.
    pub(super) fn memory_below(&self, limit: u64) -> Verdict {
        let peak = self.peak_memory();
        ensure(peak < limit, || {
            format!("the daemon had {} MB of memory", peak >> 20)
        })
    }

    /// Runs `buildctl` on it.
    pub(super) fn buildctl(&self, args: &[&str]) -> Result<Ran, Error> {
        self.rig.run(self.client().args(args))
    }

    fn client(&self) -> Command {
        let mut command = Command::new(self.rig.lab.buildctl());
        command.arg("--addr").arg(&self.address);
        command
    }

    /// The command that builds `context` with the client that the cases are about.
    pub(super) fn build_command(&self, context: &Path, args: &[&str]) -> Command {
        if self.rig.lab.crossed {
            return self.rbuild_command(context, args);
        }
        let mut command = self.client();
        command
            .args([
                "build",
                "--frontend",
                "dockerfile.v0",
                "--progress=rawjson",
                "--local",
            ])
            .arg(format!("context={}", context.display()))
            .arg("--local")
            .arg(format!("dockerfile={}", context.display()))
            .args(args);
        command
    }

    /// The command that builds `context` with our client; flags of `buildctl` are turned into its own.
    pub(super) fn rbuild_command(&self, context: &Path, args: &[&str]) -> Command {
        self.rbuild_telling("rawjson", context, args)
    }

    fn rbuild_telling(&self, progress: &str, context: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.rig.lab.rbuild);
        command
            .env_remove("RBUILD_HOST")
            .env_remove("BUILDKIT_HOST")
            .arg("--addr")
            .arg(&self.address)
            .args(["build", "--progress", progress])
            .arg(context);
        for arg in args {
            command.arg(match *arg {
                "--import-cache" => "--cache-from",
                "--export-cache" => "--cache-to",
                other => other,
            });
        }
        command
    }

    /// Builds `context` and waits.
    pub(super) fn build(&self, context: &Path, args: &[&str]) -> Result<Built, Error> {
        let ran = self.rig.run(&mut self.build_command(context, args))?;
        Ok(Built::of(ran))
    }

    /// Begins to build `context`.
    pub(super) fn begin(&self, context: &Path, args: &[&str]) -> Result<Running, Error> {
        Running::start(&self.rig.dir, &mut self.build_command(context, args))
    }

    /// Builds `context` into the OCI archive `name`, which must work.
    pub(super) fn archive(&self, context: &Path, name: &str) -> Result<PathBuf, Trouble> {
        let file = self.rig.dir.join(name);
        let output = format!("type=oci,dest={}", file.display());
        self.build(context, &["--output", &output])?
            .success("a build")?;
        Ok(file)
    }

    /// The same with our client, whatever the cases are about.
    pub(super) fn rbuild_archive(&self, context: &Path, name: &str) -> Result<PathBuf, Trouble> {
        let file = self.rig.dir.join(name);
        let output = format!("type=oci,dest={}", file.display());
        let mut command = self.rbuild_command(context, &["--output", &output]);
        self.rig
            .run(&mut command)?
            .success("a build of our client")?;
        Ok(file)
    }

    /// Builds something small that must work: the daemon goes on.
    pub(super) fn goes_on(&mut self) -> Verdict {
        self.alive()?;
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let text = format!("FROM busybox\nRUN echo good {number} > /good\nCOPY Dockerfile /\n");
        let context = self.rig.context("good", &[("Dockerfile", &text)])?;
        let built = self.build(&context, &[])?;
        ensure(built.ok(), || {
            format!(
                "afterwards a good build fails: {}\n{}",
                built.tail(),
                self.log_tail()
            )
        })
    }

    /// Builds what must not build; the client's exit code is not 0, its words name all of `words`, and the daemon goes on.
    pub(super) fn refuses(&mut self, context: &Path, args: &[&str], words: &[&str]) -> Verdict {
        let mut command = if self.rig.lab.crossed {
            // Our client shows the lines of the file to people only.
            self.rbuild_telling("plain", context, args)
        } else {
            self.build_command(context, args)
        };
        let ran = self.rig.run(&mut command)?;
        refused(&ran, words)?;
        self.goes_on()
    }
}

/// Whether a client ended by itself with an exit code that is not 0 and its words have all of `words`.
pub(super) fn refused(ran: &Ran, words: &[&str]) -> Verdict {
    ensure(ran.code.is_some_and(|code| code != 0), || {
        format!("a non-zero exit code was expected, got {}", ran.tail())
    })?;
    let text = spoken(ran);
    let unsaid: Vec<&&str> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure(unsaid.is_empty(), || {
        format!("the error does not say {unsaid:?}; it says: {text}")
    })
}

/// The words that a client wrote, progress left out.
fn spoken(ran: &Ran) -> String {
    let lines: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| !line.starts_with('{'))
        .collect();
    lines.join("\n")
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.end(false);
        super::rig::unmount_below(&self.root);
    }
}

fn spawn(rig: &Rig<'_>, setting: &Setting, root: &Path, socket: &Path) -> Result<Child, Trouble> {
    let port = rig.lab.mirror.port;
    let (first, worker) = (&setting.first, &setting.worker);
    let mut text = format!(
        "{first}[worker.oci]\n  enabled = true\n  snapshotter = \"overlayfs\"\n  gc = false\n{worker}\
         [worker.containerd]\n  enabled = false\n\
         [registry.\"docker.io\"]\n  mirrors = [\"localhost:{port}\"]\n"
    );
    for port in setting.http.iter().chain([&port]) {
        let _never = write!(text, "[registry.\"localhost:{port}\"]\n  http = true\n");
    }
    text.push_str(&setting.tables);
    let config = rig.dir.join(format!("daemon{}.toml", setting.name));
    fs::write(&config, text).map_err(at("writing", &config))?;
    let log = rig.dir.join(format!("daemon{}.log", setting.name));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(at("creating", &log))?;
    let program = setting.program.as_ref().unwrap_or(&rig.lab.daemon);
    let child = Command::new(program)
        .arg("--config")
        .arg(&config)
        .arg("--root")
        .arg(root)
        .arg("--addr")
        .arg(format!("unix://{}", socket.display()))
        .arg("--otel-socket-path")
        .arg(rig.run.join(format!("o{}", setting.name)))
        .args(&setting.args)
        .env("PATH", path_of_system_programs())
        .envs(setting.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|source| Error::Start {
            program: program.display().to_string(),
            source,
        })?;
    Ok(child)
}

/// A build that ended.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) ran: Ran,
    pub(super) progress: Progress,
}

impl Built {
    pub(super) fn of(ran: Ran) -> Self {
        let progress = Progress::read(&ran.err);
        Self { ran, progress }
    }

    /// Waits for a build that was begun.
    pub(super) fn wait(running: Running) -> Result<Self, Error> {
        running.wait(CLIENT_TIMEOUT).map(Self::of)
    }

    pub(super) fn ok(&self) -> bool {
        self.ran.ok()
    }

    /// How it ended, its errors and the last output of its steps.
    pub(super) fn tail(&self) -> String {
        let logs = &self.progress.logs;
        let from = logs.char_indices().rev().nth(1500).map_or(0, |(at, _)| at);
        format!(
            "{}\n{}",
            self.ran.tail(),
            logs.get(from..).unwrap_or_default()
        )
    }

    pub(super) fn success(self, what: &str) -> Result<Self, Trouble> {
        if self.ok() {
            return Ok(self);
        }
        failed(format!("{what}: {}", self.tail()))
    }
}
