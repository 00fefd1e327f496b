//! Secrets and SSH agents that steps get from connected clients.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use llb::pb;
use session::{CallError, SessionError, Ssh};
use solver::OpCtx;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::{BuildDomain, OpFailure, Parts};

/// Connections of one mount to the client's agent at a time.
const MAX_AGENT_CONNECTIONS: usize = 64;

/// Asks the clients for a secret; nothing if none has it.
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

/// The bytes of a secret as the value of an environment variable. The error names the secret and does not show it.
pub fn secret_text(id: &str, bytes: Vec<u8>) -> Result<String, OpFailure> {
    if bytes.contains(&0) {
        return Err(OpFailure::SecretZeroByte { id: id.to_owned() });
    }
    // The error holds the bytes of the secret, so it must not be kept.
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
    /// Opens the socket's place, to be mounted.
    pub fn place(&self) -> Result<OwnedFd, OpFailure> {
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
            tracing::debug!(%error, "an agent's socket is left behind");
        }
    }
}

/// Makes a socket for the agent that a mount asks for; nothing if there is none and the mount can do without.
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
                tracing::debug!(
                    "a step has too many connections to an agent, a further one is closed"
                );
                continue;
            }
            let session = std::sync::Arc::clone(&session);
            let id = forwarded.clone();
            connections.push(task::spawn("ssh connection", async move {
                match session.forward_ssh(&id).await {
                    Ok(duplex) => pump(stream, duplex).await,
                    Err(error) => tracing::debug!(%error, "the client's agent cannot be reached"),
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

/// Makes a socket in a folder of its own below `agents`, with the owner and the permissions that the mount asks for. They hold in
/// the container, which has the socket mounted; on this host the folders let nobody but root come to it.
fn listen(agents: &Path, options: &pb::SshOpt) -> io::Result<(PathBuf, UnixListener)> {
    let mut private = DirBuilder::new();
    private.mode(0o700).recursive(true).create(agents)?;
    // One that is there may be an older version's.
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
    std::os::unix::fs::lchown(&path, Some(options.uid), Some(options.gid))?;
    Ok((dir, listener))
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
    fn a_secret_that_is_no_text_is_named_and_not_shown() {
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
        // As an older version left it.
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
