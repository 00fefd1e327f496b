//! The trait of what holds logins: in the daemon, the client's session.

use base64::Engine as _;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A user name and its secret for one host.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; empty when the secret is a refresh token.
    pub username: String,
    secret: String,
}

impl Login {
    /// Makes a login.
    pub fn new(username: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            secret: secret.into(),
        }
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    pub(crate) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.secret);
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        )
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .field("secret", &"***")
            .finish()
    }
}

/// A request for a token, to a client that fetches tokens itself.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The OAuth client id, `buildkit-client`.
    pub client_id: String,
    /// The registry host that sent the challenge.
    pub host: String,
    /// The URL of the token server.
    pub realm: String,
    /// The service that the challenge named.
    pub service: String,
    /// The scopes of the token, as `repository:name:pull,push`.
    pub scopes: Vec<String>,
}

/// A bearer token.
#[derive(Clone)]
pub struct Token {
    /// The opaque text.
    pub token: String,
    /// Seconds from issue to expiry; zero means the default of 60.
    pub expires_in: u64,
    /// When it was issued, if the server says.
    pub issued_at: Option<SystemTime>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// The holder of the credentials could not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", oci::error::chain(source.as_ref()))]
pub struct CredentialError {
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl CredentialError {
    /// Wraps the holder's error, or a sentence if there is none.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: Arc::from(source.into()),
        }
    }
}

/// Holds the logins of one build.
#[async_trait::async_trait]
pub trait Credentials: fmt::Debug + Send + Sync {
    /// Identifies the holder: tokens are kept for, and shared by, equal principals only.
    fn principal(&self) -> String;

    /// Returns the login for exactly `host` (`host[:port]`), if there is one.
    async fn login(&self, host: &str) -> Result<Option<Login>, CredentialError>;

    /// Returns whether the client fetches the tokens for `host` itself and keeps the login to itself.
    async fn issues_tokens(&self, host: &str) -> Result<bool, CredentialError>;

    /// Fetches a token; only called after `issues_tokens` returned true for the host.
    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CredentialError>;
}

/// No credentials: every request is anonymous.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait::async_trait]
impl Credentials for Anonymous {
    fn principal(&self) -> String {
        String::new()
    }
    async fn login(&self, _host: &str) -> Result<Option<Login>, CredentialError> {
        Ok(None)
    }
    async fn issues_tokens(&self, _host: &str) -> Result<bool, CredentialError> {
        Ok(false)
    }
    async fn fetch_token(&self, _request: TokenRequest) -> Result<Token, CredentialError> {
        Err(CredentialError::new("no session answers for tokens"))
    }
}

/// One login for one host, for tests and tools.
#[derive(Debug, Clone)]
pub struct StaticLogin {
    /// The host that the login is for.
    pub host: String,
    /// The login.
    pub login: Login,
}

#[async_trait::async_trait]
impl Credentials for StaticLogin {
    fn principal(&self) -> String {
        format!("static:{}:{}", self.host, self.login.username)
    }
    async fn login(&self, host: &str) -> Result<Option<Login>, CredentialError> {
        Ok((host == self.host).then(|| self.login.clone()))
    }
    async fn issues_tokens(&self, _host: &str) -> Result<bool, CredentialError> {
        Ok(false)
    }
    async fn fetch_token(&self, _request: TokenRequest) -> Result<Token, CredentialError> {
        Err(CredentialError::new("a static login issues no tokens"))
    }
}
