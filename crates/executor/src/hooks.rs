//! Hooks of CDI devices: programs that run for a container at points of its life, as the OCI runtime specification has them.
//!
//! | hook | when | where | a failure |
//! |---|---|---|---|
//! | `prestart`, `createRuntime`, `createContainer` | the container's tree stands, its process has not been started | host | ends the start |
//! | `startContainer` | right before the process | container, with the rights of the process | ends the start |
//! | `poststart` | the process has been started | host | is logged |
//! | `poststop` | the container is gone | host | is logged |
//!
//! Each gets the container's state as JSON on its standard input, an environment of its own and [`MAX_HOOK_TIME`] at most. The state names
//! a bundle, whose `config.json` says where the container's root is.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::error::{ExecError, HookError};
use crate::injection::{Hook, HookPlan};
use crate::spec::ContainerId;

/// The longest that a hook may run, whatever its file says.
const MAX_HOOK_TIME: Duration = Duration::from_secs(60);
/// Bytes of a hook's standard error that its failure shows.
const MAX_STDERR_BYTES: u64 = 2 << 10;
/// Where bundles are made; the second where the first cannot be written.
const BUNDLE_PLACES: [&str; 2] = ["/run", "/tmp"];
/// The version of the specification that the state has.
const OCI_VERSION: &str = "1.2.0";

// DIFFERS: `createContainer` hooks run in the namespaces of the host: a container has nothing of the host's files at any time. They find the
// container's tree, with all of its mounts, where the bundle says.
const BEFORE_START: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

/// The hooks of one container. Dropped, it runs those for a container that is gone, if its start came so far.
#[derive(Debug)]
pub(crate) struct Hooks {
    hooks: Vec<Hook>,
    id: String,
    bundle: PathBuf,
    /// Whether the container has been made, so that its end is one for `poststop`.
    is_created: bool,
}

impl Hooks {
    /// The hooks of the container with this id; none if there are none.
    pub(crate) fn new(hooks: Vec<Hook>, id: &ContainerId) -> Result<Option<Self>, ExecError> {
        let Some(first) = hooks.first().cloned() else {
            return Ok(None);
        };
        let bundle = make_bundle(id);
        let bundle = bundle.map_err(|source| failed(&first, HookError::Bundle { source }))?;
        Ok(Some(Self {
            hooks,
            id: id.to_string(),
            bundle,
            is_created: false,
        }))
    }

    fn named<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a Hook> {
        let is_named = move |hook: &&Hook| names.contains(&hook.hook_name.as_str());
        self.hooks.iter().filter(is_named)
    }

    fn state(&self, status: &str, pid: Option<u32>) -> String {
        let mut state = json!({
            "ociVersion": OCI_VERSION, "id": self.id, "status": status, "bundle": self.bundle,
        });
        if let (Some(pid), Some(state)) = (pid, state.as_object_mut()) {
            state.insert("pid".into(), pid.into());
        }
        state.to_string()
    }

    /// Takes note that the container has been made.
    pub(crate) fn set_created(&mut self) {
        self.is_created = true;
    }

    /// Whether there are hooks to be run when the container's tree stands.
    pub(crate) fn precede_start(&self) -> bool {
        self.named(&BEFORE_START).next().is_some()
    }

    /// The hooks that the container runs itself.
    pub(crate) fn in_container(&self) -> Vec<HookPlan> {
        // Its own process is the first one of the container.
        let state = self.state("created", Some(1));
        let hooks = self.named(&["startContainer"]);
        hooks
            .map(|hook| HookPlan {
                path: hook.path.clone(),
                args: hook.args.clone(),
                env: hook.env.clone(),
                seconds: limit_of(hook).as_secs(),
                state: state.clone(),
            })
            .collect()
    }

    /// Runs the hooks for a container whose tree stands and whose process has not been started.
    pub(crate) async fn run_before_start(&self, pidfd: impl AsFd) -> Result<(), ExecError> {
        let written = pid_of(pidfd).and_then(|pid| {
            self.describe(pid)?;
            Ok(pid)
        });
        for name in BEFORE_START {
            for hook in self.named(&[name]) {
                let pid = match &written {
                    Ok(pid) => *pid,
                    Err(error) => {
                        let source = io::Error::new(error.kind(), error.to_string());
                        return Err(failed(hook, HookError::Bundle { source }));
                    }
                };
                let state = self.state("created", Some(pid));
                run(hook, state)
                    .await
                    .map_err(|error| failed(hook, error))?;
            }
        }
        Ok(())
    }

    /// Writes down where the container's root is.
    fn describe(&self, pid: u32) -> io::Result<()> {
        let config = json!({
            "ociVersion": OCI_VERSION,
            "root": { "path": format!("/proc/{pid}/root") },
            "annotations": {},
        });
        std::fs::write(self.bundle.join("config.json"), config.to_string())
    }

    /// Runs the hooks for a process that has been started.
    pub(crate) async fn run_after_start(&self, pidfd: impl AsFd) {
        let pid = pid_of(pidfd).ok();
        let state = self.state("running", pid);
        for hook in self.named(&["poststart"]) {
            log_failure(hook, run(hook, state.clone()).await);
        }
    }

    /// Runs the hooks for a container that is gone.
    pub(crate) async fn run_after_stop(mut self) {
        for (hook, state) in self.after_stop() {
            log_failure(&hook, run(&hook, state).await);
        }
    }

    fn after_stop(&mut self) -> Vec<(Hook, String)> {
        if !std::mem::take(&mut self.is_created) {
            return Vec::new();
        }
        let state = self.state("stopped", None);
        let hooks = self.named(&["poststop"]);
        hooks.map(|hook| (hook.clone(), state.clone())).collect()
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let after_stop = self.after_stop();
        let bundle = std::mem::take(&mut self.bundle);
        if after_stop.is_empty() {
            remove(&bundle);
            return;
        }
        // The container is being killed: whoever wanted it is gone.
        task::spawn("hooks of a stopped container", async move {
            for (hook, state) in after_stop {
                log_failure(&hook, run(&hook, state).await);
            }
            remove(&bundle);
        })
        .detach();
    }
}

fn failed(hook: &Hook, source: HookError) -> ExecError {
    ExecError::Hook {
        name: hook.hook_name.clone(),
        hook: hook.path.clone(),
        source,
    }
}

fn log_failure(hook: &Hook, outcome: Result<(), HookError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, hook = hook.path, name = hook.hook_name, "a hook of a CDI device failed");
    }
}

fn make_bundle(id: &ContainerId) -> io::Result<PathBuf> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for place in BUNDLE_PLACES {
        let bundle = PathBuf::from(place).join(format!("rbuild-hooks-{id}"));
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // Not one that somebody else has made.
        match builder.create(&bundle) {
            Ok(()) => return Ok(bundle),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn remove(bundle: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(bundle) {
        tracing::debug!(%error, bundle = %bundle.display(), "the bundle of hooks stays");
    }
}

/// The number of a process in the daemon's process namespace.
fn pid_of(pidfd: impl AsFd) -> io::Result<u32> {
    let number = pidfd.as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = pid.and_then(|pid| pid.trim().parse().ok());
    pid.filter(|pid| *pid > 0)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn limit_of(hook: &Hook) -> Duration {
    let seconds = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok());
    let limit = seconds.filter(|seconds| *seconds > 0);
    limit.map_or(MAX_HOOK_TIME, |limit| {
        Duration::from_secs(limit).min(MAX_HOOK_TIME)
    })
}

/// Runs a program of the host to its end.
async fn run(hook: &Hook, state: String) -> Result<(), HookError> {
    let limit = limit_of(hook);
    let (first, rest) = match hook.args.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => (hook.path.as_str(), &[][..]),
    };
    let mut command = Command::new(&hook.path);
    command
        .arg0(first)
        .args(rest)
        .env_clear()
        .envs(hook.env.iter().filter_map(|entry| entry.split_once('=')))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    let child = command.spawn();
    let mut child = child.map_err(|source| HookError::Start { source })?;
    let group = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    let ended = tokio::select! {
        ended = finish(&mut child, state) => ended,
        () = task::clock::sleep(limit) => Err(HookError::Timeout { limit }),
    };
    if let (Err(HookError::Timeout { .. }), Some(group)) = (&ended, group) {
        // What it started, too.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        drop(child.wait().await);
    }
    ended
}

async fn finish(child: &mut Child, state: String) -> Result<(), HookError> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let tell = async move {
        if let Some(mut stdin) = stdin {
            // A hook need not read it.
            drop(stdin.write_all(state.as_bytes()).await);
        }
    };
    let listen = async move {
        let mut begin = Vec::new();
        let Some(stderr) = stderr else { return begin };
        let mut limited = stderr.take(MAX_STDERR_BYTES);
        drop(limited.read_to_end(&mut begin).await);
        // The rest is read, so that the hook does not wait for a reader.
        drop(tokio::io::copy(&mut limited.into_inner(), &mut tokio::io::sink()).await);
        begin
    };
    let wait = async {
        let ((), begin, status) = tokio::join!(tell, listen, child.wait());
        (begin, status)
    };
    let (begin, status) = wait.await;
    let status = status.map_err(|source| HookError::Start { source })?;
    if status.success() {
        return Ok(());
    }
    Err(HookError::Exit {
        status,
        stderr: String::from_utf8_lossy(&begin).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, script: &str) -> Hook {
        Hook {
            hook_name: name.into(),
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["MARK=own".into()],
            timeout: Some(5),
        }
    }

    #[tokio::test]
    async fn a_hook_gets_its_state_and_its_own_environment_only() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state");
        let script = format!(
            "{{ echo \"$MARK,$PATH_OF_DAEMON,$0\"; cat; }} > {}",
            place.display()
        );
        run(&hook("poststart", &script), "{\"id\":1}".into())
            .await
            .unwrap();
        let text = std::fs::read_to_string(&place).unwrap();
        assert_eq!(text, "own,,sh\n{\"id\":1}");
    }

    #[tokio::test]
    async fn how_a_hook_failed_is_told() {
        let error = |script: &'static str| async move {
            let outcome = run(&hook("createRuntime", script), "x".repeat(1 << 20)).await;
            outcome.unwrap_err().to_string()
        };
        assert_eq!(
            error("echo no such card >&2; exit 3").await,
            "exit status: 3: no such card"
        );
        assert_eq!(error("exit 1").await, "exit status: 1");
        let loud = error("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1").await;
        assert!(loud.len() < 3000, "{}", loud.len());
        let missing = Hook {
            path: "/nothing/here".into(),
            ..hook("createRuntime", "")
        };
        let error = run(&missing, String::new()).await.unwrap_err();
        assert!(
            error.to_string().starts_with("cannot start it: "),
            "{error}"
        );
        assert_eq!(error.kind(), oci::ErrorKind::System);
    }

    #[tokio::test]
    async fn a_hook_that_does_not_end_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("pid");
        let script = format!("sleep 100 & echo $! > {}; sleep 100", place.display());
        let endless = Hook {
            timeout: Some(1),
            ..hook("createRuntime", &script)
        };
        let error = run(&endless, String::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "it did not end within 1 s");
        let pid = std::fs::read_to_string(&place).unwrap();
        let status = format!("/proc/{}/stat", pid.trim());
        let is_gone =
            || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
        let deadline = task::clock::monotonic() + Duration::from_secs(20);
        while !is_gone() {
            assert!(task::clock::monotonic() < deadline, "{pid} still runs");
            tokio::task::yield_now().await;
        }
        for (timeout, seconds) in [
            (None, 60),
            (Some(0), 60),
            (Some(-1), 60),
            (Some(9), 9),
            (Some(99), 60),
        ] {
            let hook = Hook {
                timeout,
                ..Hook::default()
            };
            assert_eq!(limit_of(&hook).as_secs(), seconds, "{timeout:?}");
        }
    }

    #[tokio::test]
    async fn the_bundle_goes_with_the_hooks_and_a_stop_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("stops");
        let script = format!("cat >> {}", place.display());
        let id = ContainerId::random();
        let hooks = Hooks::new(vec![hook("poststop", &script)], &id);
        let mut hooks = hooks.unwrap().unwrap();
        let bundle = hooks.bundle.clone();
        assert!(bundle.is_dir());
        // Not made, so not stopped.
        assert!(hooks.after_stop().is_empty());
        hooks.is_created = true;
        hooks.run_after_stop().await;
        let text = std::fs::read_to_string(&place).unwrap();
        assert_eq!(text.matches("\"status\":\"stopped\"").count(), 1, "{text}");
        assert!(!bundle.exists());
        assert!(Hooks::new(Vec::new(), &id).unwrap().is_none());
    }
}
