//! One daemon of a round: started in an empty state directory, looked at, ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::figures::Side;
use crate::paths;
use crate::process::{Error, at};
use crate::wire;

/// How long a daemon may take to start or to end.
const START_OR_END_TIMEOUT: Duration = Duration::from_secs(30);

/// A program to start.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) side: Side,
    pub(super) file: PathBuf,
}

/// A daemon that serves.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) side: Side,
    /// Where `buildctl` reaches it.
    pub(super) address: String,
    /// From exec to the first answer.
    pub(super) served_after: Duration,
    child: Child,
    dir: PathBuf,
    run: PathBuf,
}

/// Resident memory of a daemon and its helpers, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    pub(super) now: f64,
    pub(super) peak: f64,
}

impl Memory {
    /// Returns the larger of both figures.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            now: self.now.max(other.now),
            peak: self.peak.max(other.peak),
        }
    }
}

impl Daemon {
    /// Starts `program` in the new folder `dir` and waits for its first answer.
    pub(super) fn start(program: &Program, dir: &Path, registry: u16) -> Result<Self, Error> {
        let (side, dir) = (program.side, dir.to_owned());
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        // The name of a socket must be short.
        let run = std::env::temp_dir().join(format!("rbb{}-{}", std::process::id(), side.name()));
        fs::create_dir_all(&run).map_err(at("making", &run))?;
        let config = dir.join("daemon.toml");
        fs::write(&config, configuration(registry)).map_err(at("writing", &config))?;
        let socket = run.join("s");
        let address = format!("unix://{}", socket.display());

        let logs = paths::cache().join("logs");
        fs::create_dir_all(&logs).map_err(at("making", &logs))?;
        let log = logs.join(format!("bench-{}.log", side.name()));
        let log_file = File::create(&log).map_err(at("creating", &log))?;
        let mut command = Command::new(&program.file);
        command
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(dir.join("state"))
            .arg("--addr")
            .arg(&address)
            .arg("--otel-socket-path")
            .arg(run.join("otel"))
            .env("PATH", path_of_system_programs()?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        let start = Instant::now();
        let child = command.spawn().map_err(|source| Error::Start {
            program: program.file.display().to_string(),
            source,
        })?;
        let mut daemon = Self {
            side,
            address,
            served_after: Duration::ZERO,
            child,
            dir,
            run,
        };
        while let Err(error) = wire::list_workers(&socket) {
            let ended = daemon.child.try_wait().ok().flatten();
            if ended.is_some() || start.elapsed() > START_OR_END_TIMEOUT {
                return Err(Error::Failed {
                    program: program.file.display().to_string(),
                    status: ended.map_or("does not serve".to_owned(), |status| status.to_string()),
                    output: format!(": {error}; see {}", log.display()),
                });
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        daemon.served_after = start.elapsed();
        Ok(daemon)
    }

    /// Bytes of the program's file.
    pub(super) fn size(&self) -> Result<f64, Error> {
        let file = PathBuf::from(format!("/proc/{}/exe", self.child.id()));
        let metadata = fs::metadata(&file).map_err(at("reading", &file))?;
        let kilobytes = u32::try_from(metadata.len() / 1024).unwrap_or(u32::MAX);
        Ok(f64::from(kilobytes) * 1024.0)
    }

    /// Reads the resident memory of the daemon and of all processes that it keeps.
    pub(super) fn memory(&self) -> Result<Memory, Error> {
        let mut memory = Memory::default();
        for pid in family(self.child.id()) {
            let file = PathBuf::from(format!("/proc/{pid}/status"));
            // A helper may have ended meanwhile; the daemon itself may not.
            let status = match fs::read_to_string(&file) {
                Err(source) if pid == self.child.id() => return Err(at("reading", &file)(source)),
                status => status.unwrap_or_default(),
            };
            memory.now += kilobytes(&status, "VmRSS:") * 1024.0;
            memory.peak += kilobytes(&status, "VmHWM:") * 1024.0;
        }
        Ok(memory)
    }

    /// Ends the daemon. Its state stays.
    pub(super) fn stop(mut self) -> Result<(), Error> {
        let pid = self.child.id().to_string();
        let _gone_already = Command::new("kill").args(["-TERM", &pid]).status();
        let start = Instant::now();
        while start.elapsed() < START_OR_END_TIMEOUT {
            let ended = self.child.try_wait().map_err(|source| Error::Start {
                program: self.side.name().to_owned(),
                source,
            })?;
            if ended.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} does not end when told to, it is killed", self.side);
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
        unmount_below(&self.dir);
        let _left = fs::remove_dir_all(&self.run);
    }
}

/// The same for both: the reference's best choices, no garbage collection in the middle, the local images.
fn configuration(registry: u16) -> String {
    format!(
        "[worker.oci]\n  enabled = true\n  snapshotter = \"overlayfs\"\n  gc = false\n\
         [worker.containerd]\n  enabled = false\n\
         [registry.\"docker.io\"]\n  mirrors = [\"localhost:{registry}\"]\n\
         [registry.\"localhost:{registry}\"]\n  http = true\n"
    )
}

/// An unprivileged `PATH` may lack the folder that `runc` is in.
fn path_of_system_programs() -> Result<std::ffi::OsString, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    std::env::join_paths(all).map_err(|error| Error::Output {
        what: "PATH",
        problem: error.to_string(),
    })
}

/// Returns a process and all that descend from it.
fn family(head: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name, which may hold anything: the state, the parent.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect();
    let mut family = vec![head];
    let mut looked = 0;
    while let Some(&member) = family.get(looked) {
        looked += 1;
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == member)
                .map(|(pid, _)| pid),
        );
    }
    family
}

fn kilobytes(status: &str, key: &str) -> f64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}

/// Detaches whatever is still mounted in a folder.
pub(super) fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| Path::new(point).starts_with(dir))
    {
        let _busy = Command::new("umount")
            .args(["-l", point])
            .stderr(Stdio::null())
            .status();
    }
}
