//! One request to one host: authorization, redirects, quick retries.

use std::time::Duration;

use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::address::{host_of, without_query};
use crate::auth::{AfterChallenge, AuthKey};
use crate::client::Repository;
use crate::error::{Cause, Error};
use crate::host::Host;
use crate::transport::{silent, status_error, transport_error};
use crate::waiting::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, TRIES_BUDGET, UploadProgress, waiting};

/// How often one request is sent to one host.
const MAX_ATTEMPTS: u32 = 5;
/// How many redirects of one request are followed.
const MAX_REDIRECTS: u32 = 10;
/// The pause before a request whose connection broke is sent again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Makes the body once for each try.
pub(crate) type BodyMaker<'a> =
    dyn Fn() -> BoxFuture<'a, Result<reqwest::Body, Error>> + Send + Sync + 'a;

/// One request, as it is sent to any of the hosts.
pub(crate) struct HostRequest<'a> {
    pub(crate) method: Method,
    pub(crate) target: RequestTarget,
    pub(crate) headers: HeaderMap,
    pub(crate) scopes: Vec<String>,
    pub(crate) body: Option<&'a BodyMaker<'a>>,
    /// Counts the bytes of the body that were sent, which decides how long to wait.
    pub(crate) upload: Option<&'a UploadProgress>,
    /// Whether this host is the last that will be tried; quick retries are for it only.
    pub(crate) is_last_host: bool,
}

/// The address of a request on a host.
pub(crate) enum RequestTarget {
    /// Below the repository on the host.
    Path {
        path: String,
        query: Vec<(&'static str, String)>,
    },
    /// A location that the host gave; with authorization only if it is on the host itself.
    Location(reqwest::Url),
}

impl RequestTarget {
    pub(crate) fn path(path: impl Into<String>) -> Self {
        Self::Path {
            path: path.into(),
            query: Vec::new(),
        }
    }
}

/// The response of a host, with the address of the request, without query.
#[derive(Debug)]
pub(crate) struct HostResponse {
    pub(crate) http: reqwest::Response,
    pub(crate) url: String,
    pub(crate) method: Method,
    /// Whether it came from the host's own origin, with no other one in between.
    is_from_origin: bool,
}

impl HostResponse {
    pub(crate) fn status(&self) -> StatusCode {
        self.http.status()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.http.headers().get(name).and_then(|v| v.to_str().ok())
    }

    /// The length the host announced.
    pub(crate) fn length(&self) -> Option<u64> {
        // The body of a HEAD answer is empty, so the library's own figure would be zero.
        self.header("content-length").and_then(|v| v.parse().ok())
    }

    pub(crate) async fn into_error(self) -> Error {
        if self.status() == StatusCode::NOT_FOUND {
            return Error::ContentNotFound { url: self.url };
        }
        status_error(self.method, self.url, self.http).await
    }
}

impl Repository {
    /// Sends a request and returns the last response, whatever its status.
    pub(crate) async fn send(
        &self,
        host: &Host,
        mut call: HostRequest<'_>,
    ) -> Result<HostResponse, Error> {
        let key = self.auth_key(host);
        let mut server_error = None;
        let mut attempts = 0;
        let mut waited = Duration::ZERO;
        loop {
            attempts += 1;
            let url = self.url(host, &call.target)?;
            let address = without_query(&url);
            let authorization_header = if host.is_origin_of(&url) {
                self.authorization(host, &key, &call.scopes).await?
            } else {
                None
            };
            let authorized = authorization_header.is_some();
            let start = Instant::now();
            let response = self.once(host, &call, url, authorization_header).await;
            waited += start.elapsed();
            let response = match response {
                Ok(response) => response,
                Err(error) => {
                    if is_no_tls(&error, host) && host.fall_back() {
                        continue;
                    }
                    let may_retry = call.is_last_host
                        && attempts < MAX_ATTEMPTS
                        && waited < TRIES_BUDGET
                        && matches!(&error, Error::Transport { source, .. } if source.is_transient());
                    if !may_retry {
                        return Err(error);
                    }
                    task::clock::sleep(RECONNECT_PAUSE).await;
                    continue;
                }
            };
            let status = response.status();
            let retry = match status {
                // Only the host itself may ask for a login or name a token server, not a host that it redirects to.
                StatusCode::UNAUTHORIZED if response.is_from_origin => {
                    let credentials = self.credentials();
                    let headers = response.http.headers();
                    self.client()
                        .auth()
                        .challenged(&key, host, headers, credentials, authorized)
                        .await?
                        == AfterChallenge::Retry
                }
                StatusCode::METHOD_NOT_ALLOWED
                    if call.method == Method::HEAD && address.contains("/manifests/") =>
                {
                    call.method = Method::GET;
                    true
                }
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                    response.header("retry-after").is_none()
                }
                StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => {
                    let is_repeated = server_error == Some(status);
                    server_error = Some(status);
                    call.is_last_host && !is_repeated
                }
                _ => false,
            };
            if !retry || attempts >= MAX_ATTEMPTS || waited >= TRIES_BUDGET {
                return Ok(response);
            }
        }
    }

    async fn authorization(
        &self,
        host: &Host,
        key: &AuthKey,
        scopes: &[String],
    ) -> Result<Option<HeaderValue>, Error> {
        self.client()
            .auth()
            .header(key, (host, self.observer()), self.credentials(), scopes)
            .await
    }

    /// One try, redirects included. The authorization goes to the host's own origin only, and no further once that was left.
    async fn once(
        &self,
        host: &Host,
        call: &HostRequest<'_>,
        mut url: reqwest::Url,
        authorization: Option<HeaderValue>,
    ) -> Result<HostResponse, Error> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut is_from_origin = true;
        let mut redirects = 0;
        loop {
            let address = without_query(&url);
            is_from_origin &= host.is_origin_of(&url);
            let mut request = host
                .client
                .request(call.method.clone(), url.clone())
                .headers(call.headers.clone());
            if let Some(authorization) = authorization.as_ref().filter(|_| is_from_origin) {
                request = request.header(AUTHORIZATION, authorization.clone());
            }
            if let Some(body) = call.body {
                request = request.body(body().await?);
            }
            let sending = async {
                match call.upload {
                    Some(upload) => {
                        let result = upload.watch(request.send()).await;
                        result.map_err(|source| Error::Slow {
                            host: host_of(&url),
                            url: address.clone(),
                            source,
                        })
                    }
                    None => timeout_at(deadline, request.send())
                        .await
                        // The dropped error says only that the time is over.
                        .map_err(|_| silent(&call.method, &url, ANSWER_TIMEOUT)),
                }
            };
            let response = waiting(self.observer(), &host_of(&url), sending)
                .await?
                .map_err(|e| transport_error(&call.method, &address, e))?;
            let follow = call.method == Method::GET || call.method == Method::HEAD;
            if !(follow
                && response.status().is_redirection()
                && response.headers().contains_key(LOCATION))
            {
                return Ok(HostResponse {
                    http: response,
                    url: address,
                    method: call.method.clone(),
                    is_from_origin,
                });
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(Error::Location {
                    location: address,
                    source: "stopped after 10 redirects".into(),
                });
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default();
            url = join(host, &url, location)?;
        }
    }

    fn url(&self, host: &Host, target: &RequestTarget) -> Result<reqwest::Url, Error> {
        let (path, query) = match target {
            RequestTarget::Location(url) => return Ok(url.clone()),
            RequestTarget::Path { path, query } => (path, query),
        };
        let text = format!(
            "{}://{}{}/{}/{path}",
            host.scheme(),
            host.authority,
            host.path,
            self.name().path
        );
        let mut url =
            // The sentence is the reference's, which does not say what is wrong with the name.
            reqwest::Url::parse(&text).map_err(|_| Error::BadName { name: text.clone() })?;
        let namespace = &self.name().domain;
        if !query.is_empty() || host.is_proxy_of(namespace) {
            let mut pairs = url.query_pairs_mut();
            for (name, value) in query {
                pairs.append_pair(name, value);
            }
            if host.is_proxy_of(namespace) {
                pairs.append_pair("ns", namespace);
            }
        }
        Ok(url)
    }
}

/// Resolves a location against the address it came from; only http and https are followed, and never from TLS to none, unless
/// the configuration lets the host do without TLS.
pub(crate) fn join(
    host: &Host,
    base: &reqwest::Url,
    location: &str,
) -> Result<reqwest::Url, Error> {
    let bad = |source: Cause| Error::Location {
        location: location.split('?').next().unwrap_or_default().to_owned(),
        source,
    };
    let mut url = base.join(location).map_err(|e| bad(e.into()))?;
    if base.scheme() == "https"
        && url.scheme() == "http"
        && url.host() == base.host()
        && url.port().is_none()
    {
        // A registry behind a proxy that ends TLS often does not know that it is spoken to over TLS.
        let _port = url.set_port(base.port());
        let _scheme = url.set_scheme("https");
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(format!("scheme {}", url.scheme()).into()));
    }
    // DIFFERS: the reference follows; a tag could then be answered by whoever is on the way.
    if base.scheme() == "https" && url.scheme() == "http" && !host.may_be_plain() {
        return Err(bad(format!(
            "{} leaves TLS with it; set http and insecure for the registry if that is meant",
            host_of(base)
        )
        .into()));
    }
    Ok(url)
}

fn is_no_tls(error: &Error, host: &Host) -> bool {
    if let Error::Silent {
        waited, host: at, ..
    } = error
    {
        // A firewall that drops what goes to the port of TLS.
        return *waited == CONNECT_TIMEOUT && *at == host.authority && !host.has_port();
    }
    let Error::Transport { source, url, .. } = error else {
        return false;
    };
    // What a host says that was redirected to is no reason to speak plainly to this one.
    if !reqwest::Url::parse(url).is_ok_and(|url| host.is_origin_of(&url)) {
        return false;
    }
    source.is_not_tls() || (source.is_connect() && !host.has_port())
}

#[cfg(test)]
mod tests {
    use super::join;
    use crate::config::{Config, HostConfig};
    use crate::host::hosts_of;

    #[test]
    fn a_redirect_leaves_tls_only_where_the_configuration_does() {
        let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let base = reqwest::Url::parse("https://r.example/v2/a").unwrap();
        for (http, insecure, location, follows) in [
            (None, None, "http://r.example/x", true),
            (None, None, "http://r.example:80/x", true),
            (None, None, "http://r.example:8080/x", false),
            (None, None, "http://cdn.example/x", false),
            (Some(false), Some(true), "http://cdn.example/x", false),
            (Some(true), Some(true), "http://cdn.example/x", true),
            (None, None, "https://cdn.example/x", true),
            (None, None, "/x", true),
            (None, None, "file:///etc/passwd", false),
        ] {
            let mut config = Config::new("t");
            let settings = HostConfig {
                plain_http: http,
                insecure,
                ..HostConfig::default()
            };
            config.hosts.insert("r.example".into(), settings);
            let hosts = hosts_of(&config, "r.example").unwrap();
            let joined = join(&hosts[0], &base, location);
            assert_eq!(joined.is_ok(), follows, "{http:?} {insecure:?} {location}");
            if let Ok(url) = joined
                && http.is_none()
            {
                assert_eq!(url.scheme(), "https", "{location}");
            }
        }
    }
}
