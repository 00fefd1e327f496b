//! The trait of what runs git, and the implementation that runs it as a process of the host.
//!
//! git reads what hostile servers send, so it gets no more than a call names: its arguments and environment, the folders it works
//! in and the files it reads, and the network only where it has to reach a remote. The daemon runs it in a container.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Takes the output of git in chunks, as it comes.
pub type GitOutput = Box<dyn FnMut(Bytes) + Send>;

/// One call of git. `Debug` shows neither arguments nor environment: they may hold secrets.
#[derive(Clone, Default)]
pub struct GitCall {
    /// The arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, one of `folders` or below one; `/` when there is none.
    pub dir: PathBuf,
    /// Folders that git reads and writes, at these paths.
    pub folders: Vec<PathBuf>,
    /// Files and sockets that git uses, at these paths.
    pub files: Vec<PathBuf>,
    /// Whether git has to reach a remote.
    pub network: bool,
}

impl fmt::Debug for GitCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GitCall")
            .field("folders", &self.folders)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Runs git.
#[async_trait]
pub trait GitRunner: fmt::Debug + Send + Sync {
    /// Runs git to its end and returns its exit code, 127 if there is no git, 128 and the signal's number if it was killed. All
    /// output was handed over when this returns. Dropping the future kills git and what it started.
    async fn run(&self, call: GitCall, stdout: GitOutput, stderr: GitOutput) -> io::Result<i32>;
}

/// A shell of one line sets the file mode mask, which a process cannot give its child otherwise.
pub const SHELL: [&str; 4] = ["/bin/sh", "-c", "umask 0022; exec git \"$@\"", "git"];

/// Runs git as an ordinary process of the host: for tests, and where there are no containers.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostGit;

#[async_trait]
impl GitRunner for HostGit {
    async fn run(&self, call: GitCall, stdout: GitOutput, stderr: GitOutput) -> io::Result<i32> {
        let [shell, shell_args @ ..] = SHELL;
        let mut command = Command::new(shell);
        command
            .args(shell_args)
            .args(call.args)
            .current_dir(call.dir)
            .env_clear()
            .envs(call.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let group = ProcessGroup(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
        );
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, err, status) = tokio::join!(pump(out, stdout), pump(err, stderr), child.wait());
        out?;
        err?;
        let status = status?;
        group.disarm();
        let signal = || std::os::unix::process::ExitStatusExt::signal(&status);
        Ok(status
            .code()
            .unwrap_or_else(|| signal().unwrap_or_default().saturating_add(128)))
    }
}

async fn pump(pipe: Option<impl AsyncRead + Unpin>, mut output: GitOutput) -> io::Result<()> {
    let Some(mut pipe) = pipe else {
        return Ok(());
    };
    let mut chunk = vec![0; 16 << 10];
    loop {
        let n = pipe.read(&mut chunk).await?;
        if n == 0 {
            return Ok(());
        }
        output(Bytes::copy_from_slice(chunk.get(..n).unwrap_or_default()));
    }
}

/// Kills git and the helpers it started when the future is dropped.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// Leaves the group alone: git has ended.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _killed = kill_process_group(group, Signal::KILL);
        }
    }
}
