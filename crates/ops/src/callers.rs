//! Secrets and SSH agents that connected clients give to steps.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use llb::pb;
use session::{CallError, SessionError, Ssh};
use solver::OpCtx;
use sys::userns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::{BuildDomain, OpFailure, Parts};

/// Limit on simultaneous connections of one mount to the client's agent.
const MAX_AGENT_CONNECTIONS: usize = 64;

/// Gets a secret from the clients; none if no client has it.
pub async fn secret(
    parts: &Parts,
    ctx: &OpCtx<BuildDomain>,
    id: &str,
) -> Result<Option<Vec<u8>>, OpFailure> {
    let id = id.to_owned();
    let answer = parts
        .group(ctx)
        .any(|session| {
            let id = id.clone();
            async move { session.secret(&id).await }
        })
        .await;
    match answer {
        Ok(secret) => Ok(secret.map(|secret| secret.expose().to_vec())),
        Err(SessionError::Call(CallError::Unsupported { .. })) => Ok(None),
        Err(error) => Err(OpFailure::Session(Box::new(error))),
    }
}

/// The bytes of a secret as the value of an environment variable. The error names the secret without its bytes.
pub fn secret_text(id: &str, bytes: Vec<u8>) -> Result<String, OpFailure> {
    if bytes.contains(&0) {
        return Err(OpFailure::SecretZeroByte { id: id.to_owned() });
    }
    // The error holds the bytes of the secret, so it is dropped.
    String::from_utf8(bytes).map_err(|_| OpFailure::SecretNotText { id: id.to_owned() })
}

/// A client's agent as a socket on this host. Dropping it ends the forwarding and removes the socket.
#[derive(Debug)]
pub struct SshSocket {
    dir: PathBuf,
    id: String,
    _accept: task::Task<()>,
}

impl SshSocket {
    /// Opens the socket's path, to be mounted.
    pub fn open_path(&self) -> Result<OwnedFd, OpFailure> {
        use rustix::fs::{Mode, OFlags};
        rustix::fs::open(
            self.dir.join("agent"),
            OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )
        .map_err(|e| OpFailure::SshSocket {
            id: self.id.clone(),
            source: e.into(),
        })
    }
}

impl Drop for SshSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::debug!(%error, "failed to remove an agent's socket");
        }
    }
}

/// Creates a socket for the agent of a mount; none if no client forwards the agent and the mount is optional.
pub async fn ssh(
    parts: &Parts,
    ctx: &OpCtx<BuildDomain>,
    options: &pb::SshOpt,
) -> Result<Option<SshSocket>, OpFailure> {
    let id = options.id.clone();
    let group = parts.group(ctx);
    let session_with_agent = group
        .any(|session| {
            let id = id.clone();
            let session: std::sync::Arc<dyn Ssh> = session;
            async move { session.check_ssh(&id).await.map(|()| session) }
        })
        .await;
    let session = match session_with_agent {
        Ok(session) => session,
        Err(_) if options.optional => return Ok(None),
        Err(SessionError::Call(CallError::Unsupported { .. })) => {
            return Err(OpFailure::NoSshKey { id });
        }
        Err(error) => return Err(OpFailure::Session(Box::new(error))),
    };
    let failed = |source| OpFailure::SshSocket {
        id: options.id.clone(),
        source,
    };
    let (dir, listener) = listen(&parts.store.root().join("agents"), options).map_err(failed)?;
    let forwarded = options.id.clone();
    let accept = task::spawn("ssh agent", async move {
        // Connections end with the socket: the handles are dropped with this task.
        let mut connections = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.retain(|c: &task::Task<()>| !c.is_finished());
            if connections.len() >= MAX_AGENT_CONNECTIONS {
                tracing::debug!("connection to an SSH agent refused: the step has too many");
                continue;
            }
            let session = std::sync::Arc::clone(&session);
            let id = forwarded.clone();
            connections.push(task::spawn("ssh connection", async move {
                match session.forward_ssh(&id).await {
                    Ok(duplex) => pump(stream, duplex).await,
                    Err(error) => {
                        tracing::debug!(%error, "failed to connect to the client's SSH agent")
                    }
                }
            }));
        }
    });
    Ok(Some(SshSocket {
        dir,
        id: options.id.clone(),
        _accept: accept,
    }))
}

/// Creates a socket in a folder of its own below `agents`, with the mount's owner and permissions. These apply
/// in the container, which has the socket mounted; on this host the folder is closed to all but root.
fn listen(agents: &Path, options: &pb::SshOpt) -> io::Result<(PathBuf, UnixListener)> {
    let mut private = DirBuilder::new();
    private.mode(0o700).recursive(true).create(agents)?;
    // The folder may exist with an older version's permissions.
    std::fs::set_permissions(agents, Permissions::from_mode(0o700))?;
    let dir = agents.join(executor::ContainerId::random().as_str());
    private.recursive(false).create(&dir)?;
    let path = dir.join("agent");
    let listener = UnixListener::bind(&path)?;
    let mode = if options.mode == 0 {
        0o600
    } else {
        options.mode & 0o777
    };
    std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
    set_owner(&path, options.uid, options.gid)?;
    Ok((dir, listener))
}

/// Gives the socket its owner. A daemon with one id cannot do that for others: the socket stays its own, as files of other owners in
/// images do, and every user of a step is that id.
fn set_owner(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let outcome = std::os::unix::fs::lchown(path, Some(uid), Some(gid));
    if outcome.is_err() && has_one_other_id(uid, gid) {
        tracing::debug!(
            uid,
            gid,
            "this daemon has one user id: the socket of an SSH agent stays its own"
        );
        return Ok(());
    }
    outcome
}

fn has_one_other_id(uid: u32, gid: u32) -> bool {
    userns::is_nested() && userns::has_one_id() && !userns::has_ids(uid, gid)
}

async fn pump(stream: UnixStream, duplex: session::Duplex) {
    let (mut from_step, mut to_step) = stream.into_split();
    let session::Duplex {
        mut incoming,
        outgoing,
    } = duplex;
    let up = async move {
        let mut buffer = vec![0_u8; 32 << 10];
        while let Ok(n) = from_step.read(&mut buffer).await {
            let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else {
                break;
            };
            if outgoing
                .send(bytes::Bytes::copy_from_slice(chunk))
                .await
                .is_err()
            {
                break;
            }
        }
    };
    let down = async move {
        while let Some(Ok(chunk)) = incoming.next().await {
            if to_step.write_all(&chunk).await.is_err() {
                break;
            }
        }
    };
    futures::join!(up, down);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_not_text_is_named_and_not_shown() {
        for (bytes, want) in [
            (
                b"hunter2\0more".to_vec(),
                "secret `token` has a zero byte and cannot be an environment variable; mount it as a file",
            ),
            (
                b"hunter2\xff".to_vec(),
                "secret `token` is not valid UTF-8 and cannot be an environment variable; mount it as a file",
            ),
        ] {
            let error = secret_text("token", bytes).unwrap_err();
            assert_eq!(error.to_string(), want);
            assert!(!format!("{error:?}").contains("hunter2"));
        }
        assert_eq!(
            secret_text("token", b"hunter2".to_vec()).unwrap(),
            "hunter2"
        );
    }

    /// Runs itself in a user namespace that has one id.
    #[test]
    fn a_daemon_with_one_id_keeps_the_socket_of_an_agent_for_another_user() {
        let file = tempfile::NamedTempFile::new().unwrap();
        if userns::is_nested() && userns::has_one_id() {
            set_owner(file.path(), 1000, 1000).unwrap();
            set_owner(file.path(), 0, 0).unwrap();
            set_owner(Path::new("/none"), 0, 0).unwrap_err();
            return;
        }
        let test =
            "callers::tests::a_daemon_with_one_id_keeps_the_socket_of_an_agent_for_another_user";
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user"])
            .arg(program)
            .args(["--exact", test])
            .output();
        let Some(output) = output.ok().filter(|o| !o.stdout.is_empty()) else {
            testkit::skip::skip("no user namespace can be created");
            return;
        };
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(report.contains("1 passed"), "{report}");
    }

    #[tokio::test]
    async fn a_forwarded_agent_is_closed_to_other_users_of_the_host_whatever_the_mode() {
        use std::os::unix::process::CommandExt as _;
        if !rustix::process::geteuid().is_root() {
            testkit::skip::skip("needs root");
            return;
        }
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o755)).unwrap();
        let agents = state.path().join("agents");
        // The folder as an older version created it.
        std::fs::create_dir(&agents).unwrap();
        std::fs::set_permissions(&agents, Permissions::from_mode(0o755)).unwrap();
        for (mode, uid) in [
            (0, 0),
            (0o600, 65534),
            (0o660, 0),
            (0o777, 0),
            (0o777, 65534),
        ] {
            let options = pb::SshOpt {
                mode,
                uid,
                ..pb::SshOpt::default()
            };
            let (dir, _listener) = listen(&agents, &options).unwrap();
            let socket = dir.join("agent");
            let reaches = |user: u32| {
                let mut test = std::process::Command::new("test");
                test.arg("-S").arg(&socket).uid(user).gid(user);
                test.status().unwrap().success()
            };
            assert!(reaches(0), "{mode:o} {uid}");
            assert!(!reaches(65534), "{mode:o} {uid}");
            let expected_mode = if mode == 0 { 0o600 } else { mode };
            let actual_mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777;
            assert_eq!(
                actual_mode, expected_mode,
                "the mode holds in the container"
            );
        }
    }
}
