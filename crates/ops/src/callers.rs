//! What ops ask of connected clients: secrets and agents.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use futures::StreamExt as _;
use llb::pb;
use session::{CallError, SessionError};
use solver::OpCtx;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::{OpFailure, Parts};

/// Asks the clients for a secret; nothing if none has it.
pub async fn secret(parts: &Parts, ctx: &OpCtx, id: &str) -> Result<Option<Vec<u8>>, OpFailure> {
    let id = id.to_owned();
    let asked = parts
        .group(ctx)
        .any(|session| {
            let id = id.clone();
            async move { session.secret(&id).await }
        })
        .await;
    match asked {
        Ok(found) => Ok(found.map(|secret| secret.expose().to_vec())),
        Err(SessionError::Call(CallError::Unsupported { .. })) => Ok(None),
        Err(error) => Err(OpFailure::Session(Box::new(error))),
    }
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
    ctx: &OpCtx,
    options: &pb::SshOpt,
) -> Result<Option<SshSocket>, OpFailure> {
    let id = options.id.clone();
    let group = parts.group(ctx);
    let found = group
        .any(|session| {
            let id = id.clone();
            async move { session.check_ssh(&id).await.map(|()| session) }
        })
        .await;
    let session = match found {
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
    let dir = parts
        .store
        .root()
        .join("agents")
        .join(executor::ContainerId::random().as_str());
    std::fs::create_dir_all(&dir).map_err(failed)?;
    let path = dir.join("agent");
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let mode = if options.mode == 0 {
        0o600
    } else {
        options.mode & 0o777
    };
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
    std::os::unix::fs::lchown(&path, Some(options.uid), Some(options.gid)).map_err(failed)?;
    let forwarded = options.id.clone();
    let accept = task::spawn("ssh agent", async move {
        // Connections end with the socket: the handles are dropped with this task.
        let mut connections = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.retain(|c: &task::Task<()>| !c.is_finished());
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
