//! Runs git: nothing of the host's configuration, no prompts, no local transports, one process group that dies with us.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use progress::Writer;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::error::SourceError;
use crate::git::url::is_commit;

/// What git may know of the host; read by the daemon.
#[derive(Debug, Clone, Default)]
pub struct GitConfig {
    /// Where programs are found.
    pub path: OsString,
    /// The proxy settings to pass on.
    pub proxy_env: Vec<(String, OsString)>,
    /// A folder of ours in which repositories are mounted while git works in them.
    pub scratch: PathBuf,
}

const MAX_OUTPUT: usize = 16 << 20;

/// One way of calling git.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    config: std::sync::Arc<GitConfig>,
    progress: Writer,
    git_dir: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    /// `-c` settings that hold credentials.
    auth: Vec<String>,
    advice: bool,
    ssh_socket: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
}

impl Git {
    pub(crate) fn new(
        config: std::sync::Arc<GitConfig>,
        progress: Writer,
        auth: Vec<String>,
        advice: bool,
    ) -> Self {
        Self {
            config,
            progress,
            git_dir: None,
            work_tree: None,
            auth,
            advice,
            ssh_socket: None,
            known_hosts: None,
        }
    }

    pub(crate) fn git_dir(&self, dir: impl Into<PathBuf>) -> Self {
        Self {
            git_dir: Some(dir.into()),
            ..self.clone()
        }
    }

    pub(crate) fn work_tree(&self, dir: impl Into<PathBuf>) -> Self {
        Self {
            work_tree: Some(dir.into()),
            ..self.clone()
        }
    }

    pub(crate) fn ssh(&self, socket: Option<PathBuf>, known_hosts: Option<PathBuf>) -> Self {
        Self {
            ssh_socket: socket,
            known_hosts,
            ..self.clone()
        }
    }

    /// Runs a command and returns what it wrote; `doing` names it in the error.
    pub(crate) async fn run(&self, doing: &str, args: &[&str]) -> Result<String, SourceError> {
        let output = self.read(doing, args).await?;
        String::from_utf8(output).map_err(|_| SourceError::GitAnswer {
            reason: format!("{doing}: output is not text"),
        })
    }

    /// As [`Self::run`], for output that need not be text.
    pub(crate) async fn read(&self, doing: &str, args: &[&str]) -> Result<Vec<u8>, SourceError> {
        let mut args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        loop {
            let (ok, status, stdout, stderr) = self.once(&args).await?;
            if ok {
                return Ok(stdout);
            }
            // Servers that know no shallow clones, or hand out no commits by name, get the long way.
            if (stderr.contains("--depth") || stderr.contains("shallow"))
                && args.iter().any(|a| a == "--depth=1")
            {
                args.retain(|a| a != "--depth=1");
                continue;
            }
            let by_commit = args.len() > 2
                && args.first().is_some_and(|a| a == "fetch")
                && args.last().is_some_and(|a| is_commit(a));
            if (stderr.contains("not our ref") || stderr.contains("unadvertised object"))
                && by_commit
            {
                args.pop();
                continue;
            }
            return Err(SourceError::Git {
                context: doing.to_owned(),
                stderr,
                status,
            });
        }
    }

    async fn once(&self, args: &[String]) -> Result<(bool, String, Vec<u8>, String), SourceError> {
        // A shell of one line sets the file mode mask, which a process cannot give its child otherwise.
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            "umask 0022; exec \"$@\"",
            "sh",
            "git",
            "-c",
            "protocol.file.allow=user",
        ]);
        if !self.advice {
            command.args(["-c", "advice.detachedHead=false"]);
        }
        if let Some(dir) = &self.work_tree {
            command.arg("--work-tree").arg(dir);
        }
        if let Some(dir) = &self.git_dir {
            command.arg("--git-dir").arg(dir);
        }
        command.args(&self.auth).args(args);
        command.current_dir(
            self.work_tree
                .as_deref()
                .or(self.git_dir.as_deref())
                .unwrap_or_else(|| Path::new("/")),
        );
        command
            .env_clear()
            .env("PATH", &self.config.path)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C");
        command.env("GIT_ADVICE", if self.advice { "1" } else { "0" });
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_SSH_COMMAND", self.ssh_command());
        command.envs(self.config.proxy_env.iter().map(|(k, v)| (k, v)));
        if let Some(socket) = &self.ssh_socket {
            command.env("SSH_AUTH_SOCK", socket);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|e| SourceError::io("start git", e))?;
        let group = Group(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
        );
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr, status) = tokio::join!(
            collect(out, &self.progress, 1),
            collect(err, &self.progress, 2),
            child.wait()
        );
        let status = status.map_err(|e| SourceError::io("wait for git", e))?;
        group.done();
        let io = |e| SourceError::io("read from git", e);
        let stderr = String::from_utf8_lossy(&stderr.map_err(io)?).into_owned();
        let code = status
            .code()
            .map_or_else(|| "signal".to_owned(), |c| c.to_string());
        if code == "127" {
            return Err(SourceError::io(
                "find git binary",
                std::io::Error::other(stderr),
            ));
        }
        Ok((status.success(), code, stdout.map_err(io)?, stderr))
    }

    fn ssh_command(&self) -> OsString {
        let mut out = OsString::from("ssh -F /dev/null");
        match &self.known_hosts {
            Some(file) => {
                out.push(" -o UserKnownHostsFile=");
                out.push(file);
            }
            None => out.push(" -o StrictHostKeyChecking=no"),
        }
        out
    }
}

async fn collect(
    pipe: Option<impl AsyncRead + Unpin>,
    progress: &Writer,
    stream: i64,
) -> std::io::Result<Vec<u8>> {
    let Some(mut pipe) = pipe else {
        return Ok(Vec::new());
    };
    let mut out = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        let n = pipe.read(&mut chunk).await?;
        if n == 0 {
            return Ok(out);
        }
        let got = chunk.get(..n).unwrap_or_default();
        progress.log(stream, Bytes::copy_from_slice(got));
        let room = MAX_OUTPUT.saturating_sub(out.len());
        out.extend(got.iter().take(room));
    }
}

/// Kills git and the helpers it started when the future is dropped.
struct Group(Option<Pid>);

impl Group {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _killed = kill_process_group(group, Signal::KILL);
        }
    }
}
