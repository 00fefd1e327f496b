//! One run of one test binary: its surroundings, its watch, its end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::causes::Causes;
use crate::outcome::{Outcome, Outcomes, parse_line};
use crate::paths::{self, Module};
use crate::process::{Error, at, find, need};
use crate::suite::Suite;

use super::login::Login;

/// Marks every process of a run, so that its end finds those that the suite left behind.
pub(super) const RUN_VARIABLE: &str = "RBUILD_CONFORMANCE_RUN";

/// Where the suites look for keys and signatures; without it they skip what needs them.
const SIGNED_SOURCES: &str = "BUILDKIT_TEST_SIGN_FIXTURES";

/// How long keys and signatures are used again: their subkeys expire after a year.
const FIXTURES_VALID_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Seconds that a test process may say nothing, after the time that a test's daemon has.
const MAX_SILENT_SECONDS: u64 = 20;

/// What to run and how long.
pub(super) struct Run<'a> {
    pub(super) suite: &'a Suite,
    pub(super) module: &'a Module,
    pub(super) daemon: &'a Path,
    /// What is called buildctl; the real one unless it is ours.
    pub(super) client: Option<&'a Path>,
    /// With the worker oci-rootless.
    pub(super) rootless: bool,
    pub(super) pattern: String,
    pub(super) parallel: usize,
    pub(super) timeout: u64,
    pub(super) test_timeout: u64,
}

/// What came of it.
pub(super) struct Finished {
    pub(super) outcomes: Outcomes,
    pub(super) causes: Causes,
    pub(super) log: PathBuf,
    pub(super) seconds: u64,
    /// The suite did not come to its own end.
    pub(super) cut: bool,
    /// We ended it, because it took too long.
    pub(super) timed_out: bool,
}

impl Finished {
    /// Begins with nothing and an empty log; `tests` are the names of the suite's tests. A run of chosen tests, of
    /// which there may be several at a time, has a log of its own.
    pub(super) fn new(suite: &Suite, tests: &Outcomes, chosen: bool) -> Result<Self, Error> {
        let dir = paths::cache().join("logs");
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        let log = dir.join(if chosen {
            format!("{}-{}.log", suite.name, std::process::id())
        } else {
            format!("{}.log", suite.name)
        });
        File::create(&log).map_err(at("creating", &log))?;
        Ok(Self {
            outcomes: Outcomes::new(),
            causes: Causes::new(tests.clone()),
            log,
            seconds: 0,
            cut: false,
            timed_out: false,
        })
    }
}

impl Finished {
    /// Says how far it is, for people who wait.
    pub(super) fn tell(&self, suite: &str, seconds: u64) {
        let count = |outcome| self.outcomes.values().filter(|o| **o == outcome).count();
        eprintln!(
            "{suite}: {} s, {} passed, {} failed",
            self.seconds + seconds,
            count(Outcome::Pass),
            count(Outcome::Fail)
        );
    }
}

impl Run<'_> {
    /// Runs the suite to its end or to the time limit.
    pub(super) fn go(&self, finished: &mut Finished) -> Result<(), Error> {
        let binary = self.module.tools().join(self.suite.binary());
        if !binary.is_file() {
            return Err(Error::Missing {
                what: binary.display().to_string(),
                remedy: "run `rbuild-integration setup`".to_owned(),
            });
        }
        if !paths::mirror().join("data").is_dir() {
            return Err(Error::Missing {
                what: "the mirror of images".to_owned(),
                remedy: "run `rbuild-integration images`".to_owned(),
            });
        }
        // Sockets lie in here, and the name of a socket must be short.
        let scratch = std::env::temp_dir().join(format!("rbc{}", std::process::id()));
        let scratch = Scratch::new(scratch)?;
        let path = self.programs(&scratch.dir)?;
        let signed = self.signed_sources(&scratch)?;
        let log = finished.log.clone();
        let mut log_file = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .map_err(at("opening", &log))?;

        let (reader, writer) = std::io::pipe().map_err(at("making a pipe for", &binary))?;
        let tmp = scratch.dir.join("t");
        fs::create_dir_all(&tmp).map_err(at("making", &tmp))?;
        let start = |source| Error::Start {
            program: binary.display().to_string(),
            source,
        };
        let started = Instant::now();
        let login = self
            .rootless
            .then(|| Login::new(&scratch.dir))
            .transpose()?;
        let mut command = match &login {
            Some(login) => login.command(&binary),
            None => Command::new(&binary),
        };
        let mut child = command
            .args([
                "-test.v",
                "-test.timeout=0",
                "-test.run",
                &self.pattern,
                "-test.skip",
                self.suite.skip,
            ])
            .arg(format!("-test.parallel={}", self.parallel))
            .current_dir(self.module.dir.join(self.suite.package))
            .env("PATH", path)
            .env("TMPDIR", &tmp)
            .env("FRONTEND_BUILTIN_ONLY", "1")
            .env("BUILDKIT_REGISTRY_MIRROR_DIR", paths::mirror())
            .envs(signed.map(|dir| (SIGNED_SOURCES, dir)))
            .env(RUN_VARIABLE, &scratch.mark)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(start)?)
            .stderr(writer)
            .spawn()
            .map_err(start)?;
        // It holds the writing end, too.
        drop(command);

        let (sender, lines) = mpsc::sync_channel::<String>(1024);
        let pump = std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if sender
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    return;
                }
                line.clear();
            }
        });

        finished.cut = false;
        let mut looked = Instant::now();
        let mut heard = Instant::now();
        let mut reported = Instant::now();
        loop {
            match lines.recv_timeout(Duration::from_secs(2)) {
                Ok(line) => {
                    heard = Instant::now();
                    log_file
                        .write_all(line.as_bytes())
                        .map_err(at("writing", &log))?;
                    finished.causes.line(&line);
                    if let Some((name, outcome)) = parse_line(&line) {
                        // A test's own result comes after its subtests' and is the one that counts.
                        if finished.causes.is_test(name) {
                            finished.outcomes.insert(name.to_owned(), outcome);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if child.try_wait().map_err(start)?.is_some()
                && looked.elapsed() > Duration::from_secs(2)
            {
                // A daemon left behind may hold the pipe open.
                scratch.kill(|_| true);
            }
            if looked.elapsed() > Duration::from_secs(5) {
                looked = Instant::now();
                scratch.kill(|process| process.is_daemon && process.age > self.test_timeout);
                let is_over = finished.seconds + started.elapsed().as_secs() > self.timeout;
                if is_over && !finished.timed_out {
                    finished.timed_out = true;
                    scratch.kill(|_| true);
                }
                // Some tests wait for ever for a daemon that is gone.
                if heard.elapsed().as_secs() > self.test_timeout + MAX_SILENT_SECONDS {
                    scratch.kill(|_| true);
                }
            }
            if reported.elapsed() > Duration::from_secs(30) {
                reported = Instant::now();
                finished.tell(self.suite.name, started.elapsed().as_secs());
            }
        }
        pump.join().expect("the pump only reads and sends");
        let status = child.wait().map_err(start)?;
        // 0 and 1 are a suite's own ends: all passed, some failed.
        finished.cut = !matches!(status.code(), Some(0 | 1));
        finished.seconds += started.elapsed().as_secs();
        Ok(())
    }

    /// Makes the keys and signatures of the tests of signed sources, with BuildKit's own scripts, unless they were made within
    /// [`FIXTURES_VALID_FOR`]. Only one suite has such tests.
    fn signed_sources(&self, scratch: &Scratch) -> Result<Option<PathBuf>, Error> {
        if self.suite.name != "client" {
            return Ok(None);
        }
        let dir = self.module.tools().join("signed");
        let stamp = dir.join("made");
        let since = |file: fs::Metadata| file.modified().ok()?.elapsed().ok();
        let age = fs::metadata(&stamp).ok().and_then(since);
        if age.is_some_and(|age| age < FIXTURES_VALID_FOR) {
            return Ok(Some(dir));
        }
        need("gpg")?;
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(at("removing", &dir))?;
        }
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        for name in ["gen_gpg_test_env.sh", "gen_ssh_test_env.sh"] {
            for user in ["user1", "user2"] {
                let script = self.module.dir.join("hack/fixtures").join(name);
                // The agent that gpg leaves behind ends with the run.
                let output = Command::new("sh")
                    .arg(&script)
                    .arg(user)
                    .env(SIGNED_SOURCES, &dir)
                    .env(RUN_VARIABLE, &scratch.mark)
                    .stdin(Stdio::null())
                    .output()
                    .map_err(at("running", &script))?;
                if !output.status.success() {
                    return Err(Error::Output {
                        what: name,
                        problem: String::from_utf8_lossy(&output.stderr).into_owned(),
                    });
                }
            }
        }
        fs::write(&stamp, "").map_err(at("writing", &stamp))?;
        Ok(Some(dir))
    }

    /// Makes the folder of programs under the names that the suite calls, and returns a `PATH` with it first.
    fn programs(&self, scratch: &Path) -> Result<std::ffi::OsString, Error> {
        let bin = scratch.join("bin");
        fs::create_dir_all(&bin).map_err(at("making", &bin))?;
        let tools = self.module.tools();
        let daemon = if self.rootless {
            // Where it lies the user may not look.
            let copy = scratch.join("buildkitd");
            fs::copy(self.daemon, &copy).map_err(at("copying", self.daemon))?;
            copy
        } else {
            self.daemon.to_owned()
        };
        let mut links = vec![
            ("buildkitd", daemon),
            (
                "buildctl",
                self.client
                    .map_or_else(|| tools.join("buildctl"), Path::to_owned),
            ),
            ("buildx", tools.join("buildx")),
            ("registry", need("docker-registry")?),
        ];
        links.extend(find("runc").map(|runc| ("runc", runc)));
        for (name, target) in links {
            symlink(&target, bin.join(name)).map_err(at("linking", &target))?;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(bin).chain(std::env::split_paths(&path));
        std::env::join_paths(all).map_err(|error| Error::Output {
            what: "PATH",
            problem: error.to_string(),
        })
    }
}

/// A run's folder; dropping it ends what still runs and takes everything away.
struct Scratch {
    dir: PathBuf,
    mark: String,
}

/// What we look at before ending a process.
struct Process {
    is_daemon: bool,
    age: u64,
}

impl Scratch {
    fn new(dir: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        let mark = dir.display().to_string();
        Ok(Self { dir, mark })
    }

    /// Ends those processes of this run that `which` wants ended.
    fn kill(&self, which: impl Fn(&Process) -> bool) {
        let want = format!("{RUN_VARIABLE}={}", self.mark);
        let Ok(entries) = fs::read_dir("/proc") else {
            return;
        };
        for entry in entries.flatten() {
            let dir = entry.path();
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            let Ok(environment) = fs::read(dir.join("environ")) else {
                continue;
            };
            if pid == std::process::id()
                || !environment
                    .split(|b| *b == 0)
                    .any(|entry| entry == want.as_bytes())
            {
                continue;
            }
            let arguments = fs::read(dir.join("cmdline")).unwrap_or_default();
            let program = arguments.split(|b| *b == 0).next().unwrap_or_default();
            let process = Process {
                is_daemon: program.ends_with(b"buildkitd"),
                age: age(&dir).unwrap_or(0),
            };
            if which(&process) {
                let _gone_already = Command::new("kill")
                    .args(["-9", &pid.to_string()])
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.kill(|_| true);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for point in mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1))
        {
            if Path::new(point).starts_with(&self.dir) {
                let _busy = Command::new("umount")
                    .args(["-l", point])
                    .stderr(Stdio::null())
                    .status();
            }
        }
        let _left = fs::remove_dir_all(&self.dir);
    }
}

/// Returns how many seconds ago the process of a `/proc` folder started.
fn age(dir: &Path) -> Option<u64> {
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    // After the name, which may hold anything, come numbers; the 20th of them is the start in hundredths of a second.
    let ticks: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: u64 = uptime.split('.').next()?.parse().ok()?;
    Some(uptime.saturating_sub(ticks / 100))
}
