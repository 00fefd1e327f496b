//! Asks the clients of a build for logins, tokens, secrets and ssh agents.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use oci::SessionId;
use registry::{CredentialError, Credentials, Login, Token, TokenRequest};
use session::{Group, SessionError, Ssh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::error::SourceError;

/// How long a client may take to answer for a login.
const AUTH_TIMEOUT: Duration = Duration::from_secs(60);

/// Logins and tokens from the sessions of a build.
#[derive(Debug, Clone)]
pub struct SessionCredentials {
    sessions: Group,
    salt: Arc<[u8]>,
}

impl SessionCredentials {
    /// Makes credentials of these sessions. The salt for token authorities is new in every process: the keys that clients
    /// derive from it end with the process.
    #[must_use]
    pub fn new(sessions: Group) -> Self {
        Self {
            sessions,
            salt: salt(),
        }
    }
}

fn salt() -> Arc<[u8]> {
    static SALT: std::sync::LazyLock<Arc<[u8]>> = std::sync::LazyLock::new(|| {
        let mut bytes = [0_u8; 32];
        let mut filled = 0;
        while let Some(room) = bytes.get_mut(filled..).filter(|r| !r.is_empty()) {
            // getrandom fails only where the kernel has no source, and then nothing here is safe.
            filled += rustix::rand::getrandom(room, rustix::rand::GetRandomFlags::empty())
                .expect("the kernel has a random source");
        }
        Arc::from(bytes)
    });
    SALT.clone()
}

/// A client did not answer for logins or tokens.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
struct CredentialCallError {
    doing: &'static str,
    source: SessionError,
}

/// Waits for `ask` up to [`AUTH_TIMEOUT`]; `None` if there is no session to ask.
async fn ask_in_time<T>(
    doing: &'static str,
    ask: impl Future<Output = Result<T, SessionError>>,
) -> Result<Option<T>, CredentialError> {
    match tokio::time::timeout(AUTH_TIMEOUT, ask).await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        // Without sessions the request goes on without a login.
        Ok(Err(SessionError::NoSessions)) => Ok(None),
        Ok(Err(source)) => Err(CredentialError::new(CredentialCallError { doing, source })),
        // The dropped error says only that the time is over; the sentence is BuildKit's.
        Err(_) => Err(CredentialError::new(format!(
            "{doing}: context deadline exceeded"
        ))),
    }
}

#[async_trait]
impl Credentials for SessionCredentials {
    fn principal(&self) -> String {
        self.sessions.ids().join(",")
    }

    async fn login(&self, host: &str) -> Result<Option<Login>, CredentialError> {
        let ask = self.sessions.any(|session| {
            let host = host.to_owned();
            async move {
                match session.credentials(&host).await {
                    // A client that does not serve logins counts as one without any.
                    Err(e) if e.is_absent() => Ok(None),
                    result => result,
                }
            }
        });
        let login = ask_in_time("resolving credentials from session", ask)
            .await?
            .flatten();
        Ok(login
            .filter(|l| !l.secret.is_empty())
            .map(|l| Login::new(l.username, l.secret)))
    }

    async fn issues_tokens(&self, host: &str) -> Result<bool, CredentialError> {
        let ask = self.sessions.any(|session| {
            let (host, salt) = (host.to_owned(), self.salt.clone());
            async move {
                match session.token_authority(&host, &salt).await {
                    // Old clients do not serve this call, others have no authority for this host.
                    Err(e) if e.is_absent() || e.code() == session::error::code::UNAVAILABLE => {
                        Ok(None)
                    }
                    result => result,
                }
            }
        });
        Ok(ask_in_time("getting token authority from session", ask)
            .await?
            .flatten()
            .is_some_and(|key| key.len() == 32))
    }

    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CredentialError> {
        let ask = self.sessions.any(|session| {
            let TokenRequest {
                client_id,
                host,
                realm,
                service,
                scopes,
            } = request.clone();
            async move {
                session
                    .fetch_token(session::TokenRequest {
                        client_id,
                        host,
                        realm,
                        service,
                        scopes,
                    })
                    .await
            }
        });
        let doing = "fetching auth token from session";
        let source = SessionError::NoSessions;
        let token = ask_in_time(doing, ask)
            .await?
            .ok_or_else(|| CredentialError::new(CredentialCallError { doing, source }))?;
        let seconds = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        let issued_at: Option<SystemTime> =
            seconds(token.issued_at).and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s)));
        Ok(Token {
            token: token.token,
            expires_in: seconds(token.expires_in).unwrap_or(0),
            issued_at,
        })
    }
}

/// A secret from the first session that has it.
pub(crate) async fn secret(sessions: &Group, name: &str) -> Result<Option<Bytes>, SourceError> {
    let mut failed = None;
    for id in sessions.ids() {
        match secret_of(sessions, id, name).await {
            Ok(Some(secret)) => return Ok(Some(secret)),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(None),
    }
}

/// A secret of one session.
pub(crate) async fn secret_of(
    sessions: &Group,
    id: &SessionId,
    name: &str,
) -> Result<Option<Bytes>, SourceError> {
    let secret = match sessions.named(id).await {
        Ok(session) => session.secret(name).await.map_err(SessionError::from),
        Err(error) => Err(error),
    };
    match secret {
        Ok(secret) => Ok(secret.map(|secret| secret.expose().clone())),
        Err(SessionError::Call(error)) if error.is_absent() => Ok(None),
        Err(error) => Err(SourceError::session(error)),
    }
}

/// A socket on this machine that forwards to an ssh agent of a client. It is deleted on drop.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    path: PathBuf,
    _server: task::Task<()>,
}

impl AgentSocket {
    /// Opens the agent `id` of the first session that has it.
    pub(crate) async fn open(
        sessions: &Group,
        id: &str,
        scratch: &Path,
    ) -> Result<Self, SourceError> {
        let mut owner = None;
        let mut failed =
            SourceError::session(format!("no SSH key {id:?} forwarded from the client"));
        for name in sessions.ids() {
            let Ok(session) = sessions.named(name).await else {
                continue;
            };
            match session.check_ssh(id).await {
                Ok(()) => {
                    owner = Some(session);
                    break;
                }
                Err(error) if error.code() == session::error::code::UNIMPLEMENTED => {}
                Err(error) => failed = SourceError::session(error),
            }
        }
        let Some(session) = owner else {
            return Err(failed);
        };
        std::fs::create_dir_all(scratch)
            .map_err(|e| SourceError::io("make the git scratch folder", e))?;
        let path = scratch.join(crate::scratch::unique("ssh"));
        let listener =
            UnixListener::bind(&path).map_err(|e| SourceError::io("listen for ssh", e))?;
        let mode = rustix::fs::Mode::from_raw_mode(0o700);
        rustix::fs::chmod(&path, mode).map_err(|e| SourceError::io("protect the ssh socket", e))?;
        let id = id.to_owned();
        let server = task::spawn("ssh agent", async move {
            let mut connections = futures::stream::FuturesUnordered::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        // git makes one connection at a time: more than a few are not from git.
                        if let Ok((stream, _)) = accepted && connections.len() < 16 {
                            connections.push(forward(stream, session.clone(), id.clone()));
                        }
                    }
                    Some(()) = connections.next() => {}
                }
            }
        });
        Ok(Self {
            path,
            _server: server,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

async fn forward(stream: UnixStream, session: Arc<dyn Ssh>, id: String) {
    let mut agent = match session.forward_ssh(&id).await {
        Ok(agent) => agent,
        Err(error) => {
            tracing::debug!(%error, "ssh agent of the client does not answer");
            return;
        }
    };
    let (mut read, mut write) = stream.into_split();
    let outgoing = agent.outgoing;
    let to_agent = async {
        let mut chunk = vec![0; 16 << 10];
        while let Ok(n) = read.read(&mut chunk).await {
            let bytes = Bytes::copy_from_slice(chunk.get(..n).unwrap_or_default());
            if n == 0 || outgoing.send(bytes).await.is_err() {
                break;
            }
        }
        drop(outgoing);
    };
    let from_agent = async {
        while let Some(Ok(bytes)) = agent.incoming.next().await {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _closed = write.shutdown().await;
    };
    tokio::join!(to_agent, from_agent);
}
