//! Bearer tokens: from the client, or from the realm with or without a login.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http::Method;
use serde::Deserialize;

use crate::address::host_of;
use crate::auth::challenge::Challenge;
use crate::auth::may_send_login;
use crate::auth::scope::Scopes;
use crate::credentials::{Credentials, Login, Token, TokenRequest};
use crate::error::{Cause, Error, Wrapped};
use crate::host::Host;
use crate::retry::with_retries;
use crate::transport::{body_within, silent, status_error, transport_error};
use crate::waiting::{ANSWER_TIMEOUT, WaitObserver, waiting};

const CLIENT_ID: &str = "buildkit-client";
/// The life of a token whose server names none.
const DEFAULT_EXPIRY_SECONDS: u64 = 60;
/// The largest document of a token server that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Tokens that are kept for one host, by scopes.
const MAX_TOKENS: usize = 256;

/// How tokens of one host are fetched, and the tokens fetched so far.
pub(crate) struct Bearer {
    realm: reqwest::Url,
    service: String,
    pub(crate) scopes: Scopes,
    login: Option<Login>,
    fetched_by_client: bool,
    /// Locked while a token is fetched, so that requests that need the same token wait for it.
    tokens: tokio::sync::Mutex<HashMap<String, CachedToken>>,
}

#[derive(Clone)]
struct CachedToken {
    token: String,
    expires: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenDocument {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: i64,
}

impl Bearer {
    pub(crate) fn new(
        host: &Host,
        challenge: &Challenge,
        mut scopes: Scopes,
        login: Option<Login>,
        fetched_by_client: bool,
    ) -> Result<Self, Error> {
        let bad = |source: Cause| Error::TokenAnswer { source };
        let realm = challenge
            .param("realm")
            .ok_or_else(|| bad("no realm specified for token auth challenge".into()))?;
        let realm = reqwest::Url::parse(realm)
            .map_err(|e| bad(Wrapped::cause("invalid token auth challenge realm", e)))?;
        if !matches!(realm.scheme(), "http" | "https") {
            return Err(bad(format!(
                "invalid token auth challenge realm: scheme {}",
                realm.scheme()
            )
            .into()));
        }
        let login = login.filter(|l| !l.secret().is_empty());
        if login.is_some() || fetched_by_client {
            may_send_login(host, challenge, &realm)?;
        }
        scopes.merge(&Scopes::parse([challenge
            .param("scope")
            .unwrap_or_default()]));
        let service = challenge.param("service").unwrap_or_default().to_owned();
        Ok(Self {
            realm,
            service,
            scopes,
            login,
            fetched_by_client,
            tokens: tokio::sync::Mutex::default(),
        })
    }

    /// Returns a token for the `further` scopes on top of those of the challenge, from the cache or fetched.
    pub(crate) async fn token(
        &self,
        (host, observer): (&Host, Option<&WaitObserver>),
        credentials: &dyn Credentials,
        further: &[String],
    ) -> Result<String, Error> {
        let mut scopes = self.scopes.clone();
        scopes.merge(&Scopes::parse(further.iter().map(String::as_str)));
        let scopes = scopes.normalized();
        let key = scopes.join(" ");
        let mut tokens = self.tokens.lock().await;
        if let Some(cached) = tokens.get(&key)
            && cached
                .expires
                .is_none_or(|at| at > task::clock::monotonic())
        {
            return Ok(cached.token.clone());
        }
        let fresh = self.fetch((host, observer), credentials, &scopes).await?;
        let cached = CachedToken {
            token: fresh.token.clone(),
            expires: expiry(&fresh),
        };
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(key, cached);
        Ok(fresh.token)
    }

    async fn fetch(
        &self,
        at: (&Host, Option<&WaitObserver>),
        credentials: &dyn Credentials,
        scopes: &[String],
    ) -> Result<Token, Error> {
        let (host, _) = at;
        if self.fetched_by_client {
            let request = TokenRequest {
                client_id: CLIENT_ID.into(),
                host: host.authority.clone(),
                realm: self.realm.to_string(),
                service: self.service.clone(),
                scopes: scopes.to_vec(),
            };
            return credentials
                .fetch_token(request)
                .await
                .map_err(|source| Error::Credentials {
                    host: host.authority.clone(),
                    source,
                });
        }
        let Some(login) = &self.login else {
            return with_retries!(at.1, self.get(at, scopes, None).await).map_err(|e| {
                Error::Token {
                    kind: "anonymous",
                    source: Box::new(e),
                }
            });
        };
        let oauth = |e| Error::Token {
            kind: "oauth",
            source: Box::new(e),
        };
        // GET comes first because Docker Hub knows no POST; some others know no GET.
        match with_retries!(at.1, self.get(at, scopes, Some(login)).await) {
            Ok(token) => Ok(token),
            Err(Error::Status { status, .. })
                if status == 404
                    || status == 401
                    || (status == 405 && !login.username.is_empty()) =>
            {
                with_retries!(at.1, self.post(at, scopes, login).await).map_err(oauth)
            }
            Err(e) => Err(oauth(e)),
        }
    }

    async fn get(
        &self,
        (host, observer): (&Host, Option<&WaitObserver>),
        scopes: &[String],
        login: Option<&Login>,
    ) -> Result<Token, Error> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if !self.service.is_empty() {
                query.append_pair("service", &self.service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
        }
        let mut request = host.client.get(url.clone());
        if let Some(login) = login {
            request = request.header(http::header::AUTHORIZATION, login.basic());
        }
        request_token(request, Method::GET, &url, observer).await
    }

    async fn post(
        &self,
        (host, observer): (&Host, Option<&WaitObserver>),
        scopes: &[String],
        login: &Login,
    ) -> Result<Token, Error> {
        let mut form = reqwest::Url::parse("form:x").expect("a constant URL parses");
        {
            let mut fields = form.query_pairs_mut();
            if !scopes.is_empty() {
                fields.append_pair("scope", &scopes.join(" "));
            }
            fields
                .append_pair("service", &self.service)
                .append_pair("client_id", CLIENT_ID);
            if login.username.is_empty() {
                fields
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("refresh_token", login.secret());
            } else {
                fields
                    .append_pair("grant_type", "password")
                    .append_pair("username", &login.username)
                    .append_pair("password", login.secret());
            }
        }
        let request = host
            .client
            .post(self.realm.clone())
            .header(
                http::header::CONTENT_TYPE,
                "application/x-www-form-urlencoded; charset=utf-8",
            )
            .body(form.query().unwrap_or_default().to_owned());
        request_token(request, Method::POST, &self.realm, observer).await
    }
}

async fn request_token(
    request: reqwest::RequestBuilder,
    method: Method,
    url: &reqwest::Url,
    observer: Option<&WaitObserver>,
) -> Result<Token, Error> {
    // The query holds only scopes, which a user needs to see when a token is refused.
    let address = url.to_string();
    let sending = tokio::time::timeout(ANSWER_TIMEOUT, request.send());
    let response = waiting(observer, &host_of(url), sending)
        .await
        // The dropped error says only that the time is over.
        .map_err(|_| silent(&method, url, ANSWER_TIMEOUT))?
        .map_err(|e| transport_error(&method, &address, e))?;
    if !response.status().is_success() {
        return Err(status_error(method, address, response).await);
    }
    let body = body_within(response, MAX_ANSWER_BYTES, &method, &address, observer).await?;
    let document: TokenDocument =
        gostd::json::from_start(&body).map_err(|e| Error::TokenAnswer {
            source: Wrapped::cause("unable to decode token response", e),
        })?;
    let token = if document.access_token.is_empty() {
        document.token
    } else {
        document.access_token
    };
    if token.is_empty() {
        return Err(Error::TokenAnswer {
            source: "authorization server did not include a token in the response".into(),
        });
    }
    Ok(Token {
        token,
        expires_in: u64::try_from(document.expires_in).unwrap_or(0),
        issued_at: None,
    })
}

/// The moment after which a token is not used any more: nine tenths of its life. A token that arrives dead is kept,
/// as with the reference, because its clock may be wrong; a refusal drops it.
fn expiry(token: &Token) -> Option<Instant> {
    let life = if token.expires_in == 0 {
        DEFAULT_EXPIRY_SECONDS
    } else {
        token.expires_in
    };
    let usable = Duration::from_secs(life.min(86_400 * 365)).mul_f64(0.9);
    let age = token
        .issued_at
        .and_then(|at| task::clock::wall().duration_since(at).ok())
        .unwrap_or_default();
    usable
        .checked_sub(age)
        .and_then(|remaining| task::clock::monotonic().checked_add(remaining))
}
