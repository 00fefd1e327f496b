//! Calls git: nothing of the host's configuration, no prompts, no hooks, no local transports, and no secret among the arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use progress::Writer;
use tokio::sync::watch;

use crate::error::SourceError;
use crate::git::auth::GitAuth;
use crate::git::error::GitRefusal;
use crate::git::redirect;
use crate::git::runner::{GitCall, GitOutput, GitRunner};
use crate::git::url::is_commit;

/// What git sees of the host; the daemon reads it from its settings.
#[derive(Debug, Clone)]
pub struct GitConfig {
    /// Runs the calls of git.
    pub runner: Arc<dyn GitRunner>,
    /// `PATH` of the calls.
    pub path: OsString,
    /// Variables such as `HTTPS_PROXY`, set for calls that reach a remote.
    pub proxy_env: Vec<(String, OsString)>,
    /// A folder in which repositories are mounted while git works in them.
    pub scratch: PathBuf,
}

/// Bytes that are kept of each output stream of a call.
const MAX_OUTPUT_BYTES: usize = 16 << 20;

/// How long a remote may take to list its references.
const LIST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a transfer may go without output.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a transfer may take that is not over http, where git watches the pace itself.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Settings of every call. Without configuration of system and user, git has its own defaults beside them.
const SETTINGS: [&str; 14] = [
    // Only URLs on the command line may be file://: those of the kept repositories.
    "protocol.allow=never",
    "protocol.file.allow=user",
    "protocol.git.allow=always",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "init.defaultBranch=master",
    // Work in the background would be killed when the call ends.
    "gc.autoDetach=false",
    "maintenance.autoDetach=false",
    "http.followRedirects=initial",
    // Bytes per second, on average over so many seconds. A server's progress messages alone are more.
    "http.lowSpeedLimit=16",
    "http.lowSpeedTime=120",
];

/// The settings of a call of git.
#[derive(Debug, Clone)]
pub(crate) struct GitCli {
    config: Arc<GitConfig>,
    progress: Writer,
    git_dir: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    /// Folders that the calls may read and write.
    folders: Vec<PathBuf>,
    auth: Arc<GitAuth>,
    advice: bool,
    ssh_socket: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    /// Where git writes the packets that it exchanges with a remote.
    packets: Option<PathBuf>,
}

/// How a call of git ended.
struct GitExit {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl GitCli {
    pub(crate) fn new(
        config: Arc<GitConfig>,
        progress: Writer,
        auth: GitAuth,
        advice: bool,
    ) -> Self {
        Self {
            config,
            progress,
            git_dir: None,
            work_tree: None,
            folders: Vec::new(),
            auth: Arc::new(auth),
            advice,
            ssh_socket: None,
            known_hosts: None,
            packets: None,
        }
    }

    pub(crate) fn git_dir(&self, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            git_dir: Some(dir.clone()),
            ..self.beside(dir)
        }
    }

    pub(crate) fn work_tree(&self, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            work_tree: Some(dir.clone()),
            ..self.beside(dir)
        }
    }

    /// Adds a folder that the calls may read and write.
    pub(crate) fn beside(&self, dir: impl Into<PathBuf>) -> Self {
        let mut out = self.clone();
        let dir = dir.into();
        if !out.folders.iter().any(|folder| dir.starts_with(folder)) {
            out.folders.retain(|folder| !folder.starts_with(&dir));
            out.folders.push(dir);
        }
        out
    }

    /// Writes to `file`, which is in one of the folders, the packets of git's own protocol (`GIT_TRACE_PACKET`, git(1)).
    pub(crate) fn packets(&self, file: impl Into<PathBuf>) -> Self {
        Self {
            packets: Some(file.into()),
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

    /// Runs a command and returns its standard output; `doing` begins the error.
    pub(crate) async fn run(&self, doing: &str, args: &[&str]) -> Result<String, SourceError> {
        let output = self.read(doing, args).await?;
        // The dropped error holds the output, which may be large.
        String::from_utf8(output).map_err(|_| {
            let doing = doing.to_owned();
            GitRefusal::OutputNotText { doing }.into()
        })
    }

    /// As [`Self::run`], for output that need not be text.
    pub(crate) async fn read(&self, doing: &str, args: &[&str]) -> Result<Vec<u8>, SourceError> {
        let mut args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let mut redirects = 0;
        loop {
            let GitExit {
                code,
                stdout,
                stderr,
            } = self.once(doing, &args).await?;
            if code == 0 {
                return Ok(stdout);
            }
            // Some servers have no shallow clones, or give out no commits by name: then everything is fetched.
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
            if self.auth.has_header()
                && redirect::is_refused_in(&stderr)
                && redirects < redirect::MAX_REDIRECTS
            {
                redirects += 1;
                redirect::follow(&self.auth, doing).await?;
                continue;
            }
            let stderr = self.auth.with_hint(stderr);
            return Err(SourceError::Git {
                context: doing.to_owned(),
                stderr,
                status: code.to_string(),
            });
        }
    }

    fn call(&self, args: &[String]) -> GitCall {
        let mut all_args: Vec<OsString> = Vec::new();
        let mut set = |setting: &str| all_args.extend(["-c".into(), setting.into()]);
        SETTINGS.into_iter().for_each(&mut set);
        if !self.advice {
            set("advice.detachedHead=false");
        }
        if let Some(dir) = &self.work_tree {
            all_args.extend(["--work-tree".into(), dir.into()]);
        }
        if let Some(dir) = &self.git_dir {
            all_args.extend(["--git-dir".into(), dir.into()]);
        }
        all_args.extend(args.iter().map(OsString::from));
        let network = is_remote(args);
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), self.config.path.clone()),
            ("GIT_TERMINAL_PROMPT".into(), "0".into()),
            ("LC_ALL".into(), "C".into()),
            (
                "GIT_ADVICE".into(),
                if self.advice { "1" } else { "0" }.into(),
            ),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
            ("HOME".into(), "/dev/null".into()),
            ("GIT_CONFIG_GLOBAL".into(), "/dev/null".into()),
        ];
        if let Some(file) = &self.packets {
            env.push(("GIT_TRACE_PACKET".into(), file.into()));
        }
        let mut files = Vec::new();
        if network {
            env.push(("GIT_SSH_COMMAND".into(), self.ssh_command()));
            let proxy = self.config.proxy_env.iter();
            env.extend(proxy.map(|(k, v)| (k.into(), v.clone())));
            if let Some(socket) = &self.ssh_socket {
                env.push(("SSH_AUTH_SOCK".into(), socket.into()));
                files.push(socket.clone());
            }
            files.extend(self.known_hosts.clone());
            // Every user of the host can read the arguments of a process, only its own user the environment.
            let settings = self.auth.settings();
            env.push(("GIT_CONFIG_COUNT".into(), settings.len().to_string().into()));
            for (at, (key, value)) in settings.into_iter().enumerate() {
                env.push((format!("GIT_CONFIG_KEY_{at}").into(), key.into()));
                env.push((format!("GIT_CONFIG_VALUE_{at}").into(), value.into()));
            }
        }
        let dir = self.work_tree.as_deref().or(self.git_dir.as_deref());
        GitCall {
            args: all_args,
            env,
            dir: dir.unwrap_or(Path::new("/")).to_owned(),
            folders: self.folders.clone(),
            files,
            network,
        }
    }

    async fn once(&self, doing: &str, args: &[String]) -> Result<GitExit, SourceError> {
        let call = self.call(args);
        let network = call.network;
        let (activity_sender, mut activity) = watch::channel(());
        let activity_sender = Arc::new(activity_sender);
        let collect = |stream: i64| {
            let bytes = Arc::<Mutex<Vec<u8>>>::default();
            let (captured, progress) = (Arc::clone(&bytes), self.progress.clone());
            let activity_sender = Arc::clone(&activity_sender);
            let mut lines = ProgressFilter::default();
            let output: GitOutput = Box::new(move |chunk: Bytes| {
                let mut captured = captured.lock();
                let room = MAX_OUTPUT_BYTES.saturating_sub(captured.len());
                captured.extend(chunk.iter().take(room));
                progress.log(stream, lines.complete_lines(&chunk));
                activity_sender.send_replace(());
            });
            (bytes, output)
        };
        let (stdout, to_stdout) = collect(1);
        let (stderr, to_stderr) = collect(2);
        let running = self.config.runner.run(call, to_stdout, to_stderr);
        let limits = limits(args, self.auth.is_http());
        let silence = async {
            let Some((silence, _)) = limits.filter(|_| network) else {
                return std::future::pending().await;
            };
            while let Ok(Ok(())) = tokio::time::timeout(silence, activity.changed()).await {}
            silence
        };
        let total = async {
            let Some((_, total)) = limits.filter(|_| network) else {
                return std::future::pending().await;
            };
            task::clock::sleep(total).await;
            total
        };
        let host = self.auth.host();
        let observer = {
            let progress = self.progress.clone();
            registry::WaitObserver::new(move |host| {
                Box::new(progress.status(format!("waiting for {host}"), "waiting"))
            })
        };
        let ended = async {
            tokio::select! {
                biased;
                ended = running => ended.map_err(|e| SourceError::io("run git", e)),
                waited = silence => Err(GitRefusal::Silent {
                    doing: doing.to_owned(),
                    host: host.to_owned(),
                    waited,
                }.into()),
                waited = total => Err(GitRefusal::TooLong {
                    doing: doing.to_owned(),
                    host: host.to_owned(),
                    waited,
                }.into()),
            }
        };
        let code = registry::waiting(Some(&observer).filter(|_| network), host, ended).await?;
        let mut lines = ProgressFilter::default();
        let mut complete = lines.complete_lines(&stderr.lock());
        complete.append(&mut lines.unfinished);
        let stderr = String::from_utf8_lossy(&complete).into_owned();
        if code == 127 {
            return Err(SourceError::io(
                "find git binary",
                std::io::Error::other(stderr),
            ));
        }
        let stdout = std::mem::take(&mut *stdout.lock());
        Ok(GitExit {
            code,
            stdout,
            stderr,
        })
    }

    fn ssh_command(&self) -> OsString {
        let mut out = OsString::from(
            "ssh -F /dev/null -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
        );
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

/// Drops from an output the lines that a terminal would overwrite: counts that end with a carriage return.
#[derive(Default)]
struct ProgressFilter {
    /// The beginning of a line whose end has not come.
    unfinished: Vec<u8>,
}

/// A longer line is passed on in parts.
const MAX_LINE_BYTES: usize = 8 << 10;

impl ProgressFilter {
    /// Takes more output, and returns the lines that are complete.
    fn complete_lines(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in chunk {
            if self.unfinished.last() == Some(&b'\r') && *byte != b'\n' {
                self.unfinished.clear();
            }
            self.unfinished.push(*byte);
            if *byte == b'\n' || self.unfinished.len() >= MAX_LINE_BYTES {
                out.append(&mut self.unfinished);
            }
        }
        out
    }
}

/// Whether a command has to reach a remote: one that names a local path does not.
fn is_remote(args: &[String]) -> bool {
    let command = args.first().map(String::as_str);
    let is_local = |a: &String| a.starts_with('/') || a.starts_with("file://");
    match command {
        Some("ls-remote" | "fetch") => !args.iter().any(is_local),
        Some("submodule") => true,
        _ => false,
    }
}

/// How long a command may go without output, and how long it may take.
fn limits(args: &[String], is_http: bool) -> Option<(Duration, Duration)> {
    match args.first().map(String::as_str) {
        Some("ls-remote") => Some((LIST_TIMEOUT, LIST_TIMEOUT)),
        // git itself gives up slow transfers over http, see `SETTINGS`.
        Some("fetch" | "submodule") if is_http => None,
        Some("fetch") => Some((SILENCE_TIMEOUT, TRANSFER_TIMEOUT)),
        // Submodules are cloned without output.
        Some("submodule") => Some((TRANSFER_TIMEOUT, TRANSFER_TIMEOUT)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_not_shown_one_by_one() {
        let text = b"remote: Counting: 1%\rremote: Counting: 99%\rremote: done.\nplain\r\n\nrest";
        for size in [1, 2, 7, 100] {
            let mut lines = ProgressFilter::default();
            let mut out = Vec::new();
            for chunk in text.chunks(size) {
                out.extend(lines.complete_lines(chunk));
            }
            assert_eq!(out, b"remote: done.\nplain\r\n\n", "{size}");
            assert_eq!(lines.unfinished, b"rest");
        }
        let mut lines = ProgressFilter::default();
        assert_eq!(
            lines.complete_lines(&[b'x'; MAX_LINE_BYTES + 1]).len(),
            MAX_LINE_BYTES
        );
    }

    #[test]
    fn what_may_reach_a_remote_has_limits_and_what_stays_here_has_none() {
        let args = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        for (words, remote) in [
            (&["ls-remote", "--", "https://h/r"][..], true),
            (&["ls-remote", "--", "/tmp/bundle"], false),
            (&["fetch", "--", "origin", "main"], true),
            (&["fetch", "--", "file:///tmp/r", "main"], false),
            (&["submodule", "update"], true),
            (&["checkout", "main"], false),
            (&[], false),
        ] {
            assert_eq!(is_remote(&args(words)), remote, "{words:?}");
        }
        for (command, is_http, expected) in [
            ("ls-remote", true, Some((120, 120))),
            ("ls-remote", false, Some((120, 120))),
            ("fetch", true, None),
            ("fetch", false, Some((180, 3600))),
            ("submodule", true, None),
            ("submodule", false, Some((3600, 3600))),
            ("checkout", false, None),
        ] {
            let limits = limits(&args(&[command]), is_http);
            let seconds = limits.map(|(silence, total)| (silence.as_secs(), total.as_secs()));
            assert_eq!(seconds, expected, "{command} {is_http}");
        }
    }

    /// Never runs anything.
    #[derive(Debug)]
    struct NoGit;

    #[async_trait::async_trait]
    impl GitRunner for NoGit {
        async fn run(&self, _: GitCall, _: GitOutput, _: GitOutput) -> std::io::Result<i32> {
            Err(std::io::Error::from_raw_os_error(24))
        }
    }

    fn git() -> GitCli {
        let config = GitConfig {
            runner: Arc::new(NoGit),
            path: "/bin".into(),
            proxy_env: vec![("HTTPS_PROXY".into(), "http://proxy".into())],
            scratch: "/scratch".into(),
        };
        GitCli::new(Arc::new(config), Writer::null(), GitAuth::none(), false)
    }

    #[test]
    fn a_call_sees_the_folders_it_works_in_and_the_network_only_if_it_needs_that() {
        let git = git()
            .git_dir("/a/b")
            .work_tree("/w")
            .ssh(Some("/agent".into()), Some("/known".into()));
        let args = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let fetch = git.call(&args(&["fetch", "--", "origin"]));
        let names = |call: &GitCall| {
            let mut names: Vec<String> = call
                .env
                .iter()
                .map(|(name, _)| name.to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert!(fetch.network);
        assert_eq!(fetch.dir, Path::new("/w"));
        assert_eq!(fetch.folders, [Path::new("/a/b"), Path::new("/w")]);
        assert_eq!(fetch.files, [Path::new("/agent"), Path::new("/known")]);
        for name in ["HTTPS_PROXY", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND"] {
            assert!(names(&fetch).iter().any(|own| own == name), "{name}");
        }
        let checkout = git.call(&args(&["checkout", "main"]));
        assert!(!checkout.network && checkout.files.is_empty());
        for name in [
            "HTTPS_PROXY",
            "SSH_AUTH_SOCK",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
        ] {
            assert!(!names(&checkout).iter().any(|own| own == name), "{name}");
        }
        // A folder inside of another one is seen with it.
        let nested = git.beside("/a").beside("/a/c").call(&args(&["checkout"]));
        assert_eq!(nested.folders, [Path::new("/w"), Path::new("/a")]);
    }

    #[tokio::test]
    async fn a_git_that_cannot_be_run_is_an_error_of_the_host() {
        let error = git().run("reading", &["cat-file"]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to run git: Too many open files (os error 24)"
        );
        assert_eq!(error.kind(), oci::ErrorKind::Exhausted);
    }
}
