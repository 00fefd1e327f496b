//! Which credentials git gets, and for which host.
//!
//! | credentials                             | go to                                                                              |
//! |-----------------------------------------|------------------------------------------------------------------------------------|
//! | secret `<name>.<host>`                  | that host                                                                          |
//! | user and password in the address        | the host of the address                                                            |
//! | a secret that the source names itself   | the host of the address                                                            |
//! | secret `GIT_AUTH_TOKEN`, `GIT_AUTH_HEADER` | the host of the build's own git context; `github.com` when its context is none of git |
//!
//! DIFFERS: the reference sends `GIT_AUTH_TOKEN` to whatever host a source names, so that a Dockerfile with an `ADD` of its own
//! host gets it.

use base64::Engine as _;
use llb::git_url::GitRef;
use parking_lot::Mutex;

use crate::context::Context;
use crate::git::GitIdentifier;
use crate::git::url;
use crate::session_credentials::{secret, secret_of};

/// Secrets that git sources ask for without naming them.
const COMMON_SECRETS: [&str; 2] = ["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"];
/// The host that a common secret is for when the build's context is not a repository.
const COMMON_HOST: &str = "github.com";

/// Credentials for one remote.
#[derive(Default)]
pub(crate) struct GitAuth {
    /// The remote, without credentials.
    remote: String,
    host: String,
    /// The value of the `Authorization` header.
    header: Option<String>,
    /// The prefix of the addresses that get the header.
    scope: String,
    /// The remote's new address on the same host, after a redirect.
    moved: Mutex<Option<String>>,
    /// The name of a common secret that is for another host.
    withheld: Option<String>,
}

impl std::fmt::Debug for GitAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitAuth")
            .field("host", &self.host)
            .field("has_header", &self.header.is_some())
            .finish_non_exhaustive()
    }
}

impl GitAuth {
    /// Asks the sessions of a build. Without a session, or a secret for the remote, there is no header.
    pub(super) async fn ask(id: &GitIdentifier, ctx: &Context) -> Self {
        let mut out = Self {
            remote: id.address.clone(),
            host: id.host.clone(),
            scope: scope_of(&id.address),
            ..Self::default()
        };
        if !out.is_http() {
            return out;
        }
        let (header, token) = (&id.auth_header_secret, &id.auth_token_secret);
        let names = [
            (header, format!("{header}.{}", id.host), false),
            (token, format!("{token}.{}", id.host), true),
            (header, header.clone(), false),
            (token, token.clone(), true),
        ];
        for (attribute, name, is_token) in names {
            if attribute.is_empty() {
                continue;
            }
            let secret_value = if COMMON_SECRETS.contains(&name.as_str()) {
                let mut secret_value = None;
                for session in ctx.sessions.ids() {
                    let Ok(Some(secret)) = secret_of(&ctx.sessions, session, &name).await else {
                        continue;
                    };
                    if is_for(ctx, session, &id.address) {
                        secret_value = Some(secret);
                        break;
                    }
                    out.withheld = Some(name.clone());
                }
                secret_value
            } else {
                secret(&ctx.sessions, &name).await.ok().flatten()
            };
            if let Some(secret_value) = secret_value {
                out.header = Some(if is_token {
                    basic(&[b"x-access-token:", &secret_value[..]].concat())
                } else {
                    String::from_utf8_lossy(&secret_value).into_owned()
                });
                return out;
            }
        }
        if let Some(user) = &id.user {
            out.header = Some(basic(user));
            // Submodules that are named by relative addresses had them as well.
            out.scope = origin_of(&id.address).unwrap_or(out.scope);
        }
        out
    }

    /// No credentials and no remote, for calls that stay on this machine.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// Whether the remote is spoken to over http.
    pub(crate) fn is_http(&self) -> bool {
        ["http://", "https://"]
            .iter()
            .any(|scheme| self.remote.starts_with(scheme))
    }

    /// The remote's host.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The header's value.
    pub(super) fn header(&self) -> Option<&str> {
        self.header.as_deref()
    }

    /// The remote's address, after redirects on its host.
    pub(super) fn current(&self) -> String {
        let moved = self.moved.lock().clone();
        moved.unwrap_or_else(|| self.remote.clone())
    }

    /// Records that the remote has another address on its host.
    pub(super) fn move_to(&self, address: String) {
        *self.moved.lock() = Some(address);
    }

    /// Settings of git that hold secrets: they go into the environment, not among the arguments.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let Some(header) = &self.header else {
            return Vec::new();
        };
        let mut scopes = vec![self.scope.clone()];
        let mut out = Vec::new();
        if let Some(moved) = &*self.moved.lock() {
            out.push((format!("url.{moved}.insteadOf"), self.remote.clone()));
            scopes.push(scope_of(moved));
        }
        for scope in scopes {
            out.push((
                format!("http.{scope}.extraheader"),
                format!("Authorization: {header}"),
            ));
            // git would send the header wherever a redirect leads. See `redirect`.
            out.push((format!("http.{scope}.followRedirects"), "false".to_owned()));
        }
        out
    }

    /// Adds a hint to git's error output if a secret was withheld from the host.
    pub(crate) fn with_hint(&self, mut stderr: String) -> String {
        let Some(name) = self.withheld.as_ref().filter(|_| self.header.is_none()) else {
            return stderr;
        };
        if !stderr.is_empty() && !stderr.ends_with('\n') {
            stderr.push('\n');
        }
        stderr.push_str(&format!(
            "hint: the secret `{name}` is not for {host}; give it as `{name}.{host}`",
            host = self.host
        ));
        stderr
    }
}

fn basic(pair: &[u8]) -> String {
    format!(
        "basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

/// The addresses that get a token: the remote, and for GitHub all of its host, where the submodules are.
fn scope_of(remote: &str) -> String {
    ["https://github.com/", "https://www.github.com/"]
        .into_iter()
        .find(|prefix| remote.starts_with(prefix))
        .unwrap_or(remote)
        .to_owned()
}

fn origin_of(address: &str) -> Option<String> {
    let url = reqwest::Url::parse(address).ok()?;
    let is_http = matches!(url.scheme(), "http" | "https");
    is_http.then(|| format!("{}/", url.origin().ascii_serialization()))
}

/// The origin that the common secrets of a build are for: that of its context, if that is a repository.
fn origin_of_context(context: &str) -> Option<String> {
    let context = GitRef::parse(context).ok()??;
    let url = url::parse(&context.remote).ok()?;
    origin_of(&url.address()).or_else(|| {
        // The same host over https; the port is that of another protocol.
        let host = url.host.split(':').next()?;
        Some(format!("https://{host}/"))
    })
}

/// Whether a common secret of a session is for a remote.
fn is_for(ctx: &Context, session: &oci::SessionId, remote: &str) -> bool {
    let context = ctx
        .resolved_sources
        .iter()
        .find_map(|sources| sources.context_of(session))
        .and_then(origin_of_context);
    let secret_origin = context.unwrap_or_else(|| format!("https://{COMMON_HOST}/"));
    origin_of(remote).is_some_and(|origin| origin == secret_origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_secret_is_for_the_host_of_the_builds_own_repository() {
        for (context, origin) in [
            (
                "https://h.example/a/b.git#main:dir",
                Some("https://h.example/"),
            ),
            (
                "https://u:p@h.example:8443/a/b.git",
                Some("https://h.example:8443/"),
            ),
            ("http://h.example/a.git", Some("http://h.example/")),
            ("git@h.example:a/b.git", Some("https://h.example/")),
            ("ssh://git@h.example:2222/a/b", Some("https://h.example/")),
            ("git://h.example/a", Some("https://h.example/")),
            ("github.com/a/b", Some("https://github.com/")),
            ("https://h.example/context.tar.gz", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(origin_of_context(context).as_deref(), origin, "{context}");
        }
    }
}
