//! `Auth`: logins of registries, from docker's configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use serde::Deserialize;
use services::auth::auth_server::Auth;
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Status};

const DOCKER_HUB: &str = "registry-1.docker.io";
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What docker's configuration says about logins.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// Why the configuration is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path of the configuration file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The file is not the JSON of docker's configuration.
    #[error("cannot parse {}: {source}", path.display())]
    Parse {
        /// The path of the configuration file.
        path: PathBuf,
        /// The place in the file and what is wrong there.
        source: gostd::json::DecodeError,
    },
}

impl ConfigError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Read { source, .. } => oci::ErrorKind::of_io(source),
            Self::Parse { .. } => oci::ErrorKind::Invalid,
        }
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerConfig")
            .field("hosts", &self.auths.keys())
            .finish_non_exhaustive()
    }
}

impl DockerConfig {
    /// Reads a `config.json`; a missing file is an empty configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read(path) {
            Ok(json) => gostd::json::from_start(&json).map_err(|source| ConfigError::Parse {
                path: path.to_owned(),
                source,
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    fn helper(&self, key: &str) -> Option<&str> {
        let name = self.helpers.get(key).unwrap_or(&self.store);
        (!name.is_empty()).then_some(name)
    }

    fn stored(&self, key: &str) -> Option<CredentialsResponse> {
        let host = bare(key);
        let entry = self.auths.get(key).or_else(|| {
            let same_host = self.auths.iter().find(|(k, _)| bare(k) == host);
            same_host.map(|(_, entry)| entry)
        })?;
        if !entry.identitytoken.is_empty() {
            return Some(CredentialsResponse {
                username: String::new(),
                secret: entry.identitytoken.clone(),
            });
        }
        if entry.auth.is_empty() {
            return Some(CredentialsResponse {
                username: entry.username.clone(),
                secret: entry.password.clone(),
            });
        }
        let text = String::from_utf8(STANDARD.decode(&entry.auth).ok()?).ok()?;
        let (username, secret) = text.split_once(':')?;
        Some(CredentialsResponse {
            username: username.to_owned(),
            secret: secret.trim_end_matches('\0').to_owned(),
        })
    }
}

// Keys are hosts or URLs.
fn bare(key: &str) -> &str {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    key.split('/').next().unwrap_or(key)
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Asks a helper for the login of a host; one that has none answers with an empty login.
pub(crate) async fn ask_program(program: &str, key: &str) -> Result<CredentialsResponse, Status> {
    let failed = |e: io::Error| Status::unknown(format!("{program}: {e}"));
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(key.as_bytes()).await {
            // What a helper says counts, also when it reads no host.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(failed)?,
        }
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("credentials not found") {
            return Ok(CredentialsResponse::default());
        }
        return Err(Status::unknown(format!("{program}: {}", text.trim())));
    }
    let answer: HelperAnswer = gostd::json::from_start(&output.stdout)
        .map_err(|e| Status::unknown(format!("{program}: {e}")))?;
    Ok(if answer.username == "<token>" {
        CredentialsResponse {
            username: String::new(),
            secret: answer.secret,
        }
    } else {
        CredentialsResponse {
            username: answer.username,
            secret: answer.secret,
        }
    })
}

/// The service that answers the daemon's requests for logins.
#[derive(Debug)]
pub(crate) struct Logins {
    config: Arc<DockerConfig>,
}

impl Logins {
    pub(crate) fn new(config: Arc<DockerConfig>) -> Self {
        Self { config }
    }
}

#[tonic::async_trait]
impl Auth for Logins {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let key = if host == DOCKER_HUB {
            DOCKER_HUB_KEY
        } else {
            host.as_str()
        };
        let answer = match self.config.helper(key) {
            Some(helper) => ask_program(&format!("docker-credential-{helper}"), key).await?,
            None => self.config.stored(key).unwrap_or_default(),
        };
        Ok(Response::new(answer))
    }

    // The daemon fetches tokens itself with what it got above; these methods are not listed.
    async fn fetch_token(
        &self,
        _request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("tokens are fetched by the daemon"))
    }

    async fn get_token_authority(
        &self,
        _request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("client side tokens disabled"))
    }

    async fn verify_token_authority(
        &self,
        _request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("client side tokens disabled"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_under_hosts_and_urls() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"https://r.example/v2/":{"username":"u","password":"p"},"t.example":{"identitytoken":"tok"}}}"#;
        let config: DockerConfig = gostd::json::from_start(json.as_bytes()).unwrap();
        let login = |key: &str| config.stored(key).map(|c| (c.username, c.secret));
        assert_eq!(login(DOCKER_HUB_KEY), Some(("a".into(), "b".into())));
        assert_eq!(login("r.example"), Some(("u".into(), "p".into())));
        assert_eq!(login("t.example"), Some((String::new(), "tok".into())));
        assert_eq!(login("other"), None);
    }

    #[test]
    fn what_docker_reads_as_its_configuration_is_read() {
        let json = r#"{"auths":{"a.example":null,"b.example":{"auth":null,"username":"x","UserName":"u","password":"p"}},
            "credHelpers":null,"credsStore":null,"HttpHeaders":{"x":1}} {"auths":"#;
        let config: DockerConfig = gostd::json::from_start(json.as_bytes()).unwrap();
        let login = |key: &str| config.stored(key).map(|c| (c.username, c.secret));
        assert_eq!(login("a.example"), Some((String::new(), String::new())));
        assert_eq!(login("b.example"), Some(("u".into(), "p".into())));
        assert_eq!(config.helper("a.example"), None);
    }
}
