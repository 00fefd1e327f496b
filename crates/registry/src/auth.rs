//! Authorization: challenges, logins, tokens.
//!
//! The authorization for a host is kept for one repository, one kind of access, and one principal (the sessions that may
//! answer), so that a token never serves a client that could not have had it.
//! DIFFERS: the reference also links a session to another session's token when that session proves the same token
//! authority or presents the same login; here each principal fetches its own.

pub(crate) mod challenge;
pub(crate) mod scope;
pub(crate) mod token;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::access::Access;
use crate::auth::challenge::{Challenge, Scheme};
use crate::auth::scope::Scopes;
use crate::auth::token::Bearer;
use crate::credentials::{Credentials, Login};
use crate::error::Error;
use crate::host::Host;
use crate::waiting::WaitObserver;

/// How long an authorization is kept after its last use.
const UNUSED_TIMEOUT: Duration = Duration::from_secs(600);
/// Authorizations that are kept, of all hosts together.
const MAX_AUTHORIZATIONS: usize = 4096;

/// The key of a kept authorization: who may use it, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AuthKey {
    pub(crate) repository: String,
    pub(crate) access: Access,
    pub(crate) principal: String,
    pub(crate) host: String,
}

/// All authorizations of a client.
#[derive(Debug, Default)]
pub(crate) struct AuthPool {
    entries: Mutex<HashMap<AuthKey, KeptAuthorization>>,
}

#[derive(Debug)]
struct KeptAuthorization {
    method: Arc<AuthMethod>,
    used: Instant,
}

/// The kind of authorization that a host demands.
pub(crate) enum AuthMethod {
    Basic(Login),
    Bearer(Box<Bearer>),
}

impl std::fmt::Debug for AuthMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "Basic(***)",
            Self::Bearer(_) => "Bearer(***)",
        })
    }
}

/// What to do after the status 401.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AfterChallenge {
    Retry,
    GiveUp,
}

impl AuthPool {
    fn get(&self, key: &AuthKey) -> Option<Arc<AuthMethod>> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(key)?;
        entry.used = task::clock::monotonic();
        Some(entry.method.clone())
    }

    fn set(&self, key: AuthKey, method: AuthMethod) {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| entry.used.elapsed() < UNUSED_TIMEOUT);
        if entries.len() >= MAX_AUTHORIZATIONS {
            entries.clear();
        }
        entries.insert(
            key,
            KeptAuthorization {
                method: Arc::new(method),
                used: task::clock::monotonic(),
            },
        );
    }

    fn remove(&self, key: &AuthKey) {
        self.entries.lock().remove(key);
    }

    /// The `Authorization` header for a request to `host`, if the host has demanded one before.
    pub(crate) async fn header(
        &self,
        key: &AuthKey,
        (host, observer): (&Host, Option<&WaitObserver>),
        credentials: &dyn Credentials,
        scopes: &[String],
    ) -> Result<Option<HeaderValue>, Error> {
        let Some(method) = self.get(key) else {
            return Ok(None);
        };
        let text = match &*method {
            AuthMethod::Basic(login) => login.basic(),
            AuthMethod::Bearer(bearer) => {
                let token = bearer.token((host, observer), credentials, scopes);
                let token = token.await.map_err(|e| Error::Authorize {
                    source: Box::new(e),
                })?;
                format!("Bearer {token}")
            }
        };
        // The dropped error says only that a byte is invalid.
        let mut value = HeaderValue::from_str(&text).map_err(|_| Error::TokenAnswer {
            source: "token or login cannot be a header value".into(),
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Reads the challenges of a response with status 401. `authorized` says whether the refused request had a header.
    pub(crate) async fn challenged(
        &self,
        key: &AuthKey,
        host: &Host,
        headers: &http::HeaderMap,
        credentials: &dyn Credentials,
        authorized: bool,
    ) -> Result<AfterChallenge, Error> {
        let ask = |source| Error::Credentials {
            host: host.authority.clone(),
            source,
        };
        for challenge in challenge::parse(headers) {
            match challenge.scheme {
                Scheme::Bearer => {
                    let mut method = self.get(key);
                    let mut earlier_scopes = Scopes::default();
                    if let (true, Some(error)) = (authorized, challenge.param("error")) {
                        self.remove(key);
                        if let Some(AuthMethod::Bearer(bearer)) = method.as_deref() {
                            earlier_scopes = bearer.scopes.clone();
                        }
                        method = None;
                        // The refused token had these scopes: a new one would be refused as well.
                        if error == "insufficient_scope"
                            && earlier_scopes
                                .contains(&Scopes::parse([challenge.param("scope").unwrap_or("")]))
                        {
                            return Err(Error::InvalidAuthorization {
                                message: format!("server message: {error}: "),
                            });
                        }
                    }
                    if method.is_some() {
                        return Ok(AfterChallenge::Retry);
                    }
                    let fetched_by_client = credentials
                        .issues_tokens(&host.authority)
                        .await
                        .map_err(ask)?;
                    let login = if fetched_by_client {
                        None
                    } else {
                        credentials.login(&host.authority).await.map_err(ask)?
                    };
                    let bearer =
                        Bearer::new(host, &challenge, earlier_scopes, login, fetched_by_client)?;
                    self.set(key.clone(), AuthMethod::Bearer(Box::new(bearer)));
                    return Ok(AfterChallenge::Retry);
                }
                Scheme::Basic => {
                    let Some(login) = credentials.login(&host.authority).await.map_err(ask)? else {
                        continue;
                    };
                    if login.username.is_empty() || login.secret().is_empty() {
                        continue;
                    }
                    if authorized
                        && matches!(self.get(key).as_deref(), Some(AuthMethod::Basic(sent)) if *sent == login)
                    {
                        self.remove(key);
                        return Ok(AfterChallenge::GiveUp);
                    }
                    self.set(key.clone(), AuthMethod::Basic(login));
                    return Ok(AfterChallenge::Retry);
                }
            }
        }
        Ok(AfterChallenge::GiveUp)
    }
}

/// Checks that a login bound to an https host does not travel in the clear, whoever would send it.
fn may_send_login(host: &Host, challenge: &Challenge, realm: &reqwest::Url) -> Result<(), Error> {
    let safe = realm.scheme() == "https" || host.scheme() == "http";
    if safe {
        return Ok(());
    }
    Err(Error::TokenAnswer {
        source: format!(
            "refusing to send the login for {} to the unencrypted realm {} named by its {} challenge",
            host.authority,
            realm.host_str().unwrap_or_default(),
            challenge.scheme.name()
        )
        .into(),
    })
}
