//! `http://` and `https://`: one file by URL.
//!
//! Without a checksum the key is known only after a download: the file is kept with its ETag, and later the server is
//! asked whether it changed. With a checksum the key is known at once and the file is downloaded when it is needed.

mod body;
mod date;
mod etag;
mod key;
pub(crate) mod name;
mod save;
mod signature;
mod suffix;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use oci::{Digest, Platform};
use parking_lot::Mutex;
use registry::ANSWER_TIMEOUT;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH,
};
use reqwest::{Method, StatusCode};
use store::{ImmutableRef, RefId, Store};

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::http::body::DownloadBody;
use crate::http::key::{HeaderField, http_key};
use crate::http::name::file_name;
use crate::http::signature::RequiredFileSignature;
use crate::manager::{CacheKey, Facts, Source, SourceInstance};

pub use suffix::suffixed;

/// Metadata keys of a record that holds a downloaded file.
const META_URL: &str = "http.url";
const META_CHECKSUM: &str = "http.checksum";
const META_ETAG: &str = "http.etag";
const META_FILENAME: &str = "http.filename";
const META_MODIFIED: &str = "http.modtime";

const MAX_REDIRECTS: usize = 10;

/// The host that stands for the client's own uploads (a tarball on its standard input).
const UPLOAD_HOST: &str = "buildkit-session";

/// The source of `http://` and `https://`.
#[derive(Debug, Clone)]
pub struct HttpSource {
    inner: Arc<HttpSourceInner>,
}

#[derive(Debug)]
struct HttpSourceInner {
    store: Arc<Store>,
    client: reqwest::Client,
    /// For servers on this machine, which a proxy cannot reach.
    local_client: reqwest::Client,
}

impl HttpSource {
    /// Makes the source.
    pub fn new(store: Arc<Store>, user_agent: impl Into<String>) -> Result<Self, SourceError> {
        let user_agent = user_agent.into();
        let build = |is_local: bool| {
            let builder = reqwest::Client::builder()
                .user_agent(user_agent.clone())
                .connect_timeout(Duration::from_secs(20))
                .redirect(reqwest::redirect::Policy::custom(follow));
            let builder = if is_local {
                builder.no_proxy()
            } else {
                builder
            };
            builder
                .build()
                .map_err(|e| SourceError::io("set up the http client", std::io::Error::other(e)))
        };
        let (client, local_client) = (build(false)?, build(true)?);
        Ok(Self {
            inner: Arc::new(HttpSourceInner {
                store,
                client,
                local_client,
            }),
        })
    }
}

/// Follows redirects as the library does, which takes authorization along to the same host and port only, but never to the same
/// host in the clear.
fn follow(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let in_the_clear = attempt.previous().last().is_some_and(|from| {
        from.scheme() == "https"
            && attempt.url().scheme() == "http"
            && from.host_str() == attempt.url().host_str()
    });
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("stopped after 10 redirects");
    }
    if in_the_clear {
        return attempt.error("the server redirects to itself without TLS");
    }
    attempt.follow()
}

/// An identifier and its attributes, parsed.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpIdentifier {
    url: String,
    checksum: Option<Digest>,
    filename: String,
    perm: i64,
    uid: i64,
    gid: i64,
    auth_header_secret: String,
    header: Vec<HeaderField>,
    verify: Option<RequiredFileSignature>,
}

/// A downloaded file.
#[derive(Debug, Clone)]
struct Download {
    digest: Digest,
    filename: String,
    modified: Option<i64>,
    id: RefId,
    /// Protects the record until the build holds it.
    _held: ImmutableRef,
}

impl Source for HttpSource {
    fn schemes(&self) -> &'static [&'static str] {
        &["http", "https"]
    }

    fn resolve(
        &self,
        scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        _platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError> {
        let mut id = HttpIdentifier {
            url: format!("{scheme}://{reference}"),
            ..HttpIdentifier::default()
        };
        let mut verify = RequiredFileSignature::default();
        for (name, value) in attrs {
            match name.as_str() {
                "http.checksum" => {
                    let digest = Digest::parse(value);
                    let what = "http checksum";
                    id.checksum = Some(digest.map_err(|source| SourceError::Digest {
                        what,
                        text: value.clone(),
                        source,
                    })?);
                }
                "http.filename" => id.filename = value.clone(),
                "http.perm" => id.perm = go_int("http.perm", value)?,
                "http.uid" => id.uid = go_int("http.uid", value)?,
                "http.gid" => id.gid = go_int("http.gid", value)?,
                "http.authheadersecret" => id.auth_header_secret = value.clone(),
                "http.sig.pubkey" => verify.public_keys.clone_from(value),
                "http.sig.signature" => verify.signature.clone_from(value),
                other => {
                    // Others are dropped in silence, as with the reference.
                    let name = match other
                        .strip_prefix("http.header.")
                        .map(str::to_ascii_lowercase)
                        .as_deref()
                    {
                        Some("accept") => "Accept",
                        Some("user-agent") => "User-Agent",
                        _ => continue,
                    };
                    id.header.push(HeaderField {
                        name: name.into(),
                        value: value.clone(),
                    });
                }
            }
        }
        id.header.sort_by(|a, b| a.name.cmp(&b.name));
        id.verify = verify.complete()?;
        Ok(Arc::new(HttpInstance {
            source: self.clone(),
            id,
            downloaded: Mutex::new(None),
        }))
    }
}

/// Reads an integer as Go does with base 0: `0x`, `0o`, `0b`, a leading zero for octal, underscores.
fn go_int(name: &'static str, text: &str) -> Result<i64, SourceError> {
    let bad = || SourceError::Attribute {
        name,
        source: cause(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        )),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase().replace('_', "");
    let (radix, digits) = match (lower.get(..2), lower.as_str()) {
        (Some("0x"), all) => (16, all.get(2..).unwrap_or_default()),
        (Some("0o"), all) => (8, all.get(2..).unwrap_or_default()),
        (Some("0b"), all) => (2, all.get(2..).unwrap_or_default()),
        (Some(two), all) if two.starts_with('0') => (8, all.get(1..).unwrap_or_default()),
        (_, all) => (10, all),
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return Err(bad());
    }
    // BuildKit shows Go's sentence, whatever is wrong with the digits.
    let value = i64::from_str_radix(digits, radix).map_err(|_| bad())?;
    Ok(if negative { -value } else { value })
}

#[derive(Debug)]
struct HttpInstance {
    source: HttpSource,
    id: HttpIdentifier,
    /// The file, once it was downloaded or found in the store.
    downloaded: Mutex<Option<Download>>,
}

impl HttpInstance {
    /// The address without credentials, for messages.
    fn display_url(&self) -> String {
        oci::address::redact(&self.id.url)
    }

    /// The key by which downloads of this address are kept. It stays in the store.
    fn url_key(&self) -> Digest {
        let HttpIdentifier {
            url,
            filename,
            perm,
            uid,
            gid,
            auth_header_secret,
            header,
            ..
        } = &self.id;
        Digest::sha256(format!(
            "{:?}",
            (url, filename, perm, uid, gid, auth_header_secret, header)
        ))
    }

    async fn headers(&self, ctx: &Context) -> Result<HeaderMap, SourceError> {
        let mut out = HeaderMap::new();
        // Servers may name other ETags for other encodings: every request asks for the same.
        out.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let bad = |what: &str| SourceError::session(format!("{what} is not a valid header value"));
        for field in &self.id.header {
            // The dropped errors here say only that a name or value is invalid, and values may be secret.
            let name =
                HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad("header name"))?;
            out.insert(
                name,
                HeaderValue::from_str(&field.value).map_err(|_| bad("header"))?,
            );
        }
        let host = reqwest::Url::parse(&self.id.url)
            .ok()
            .and_then(|u| u.host_str().map(str::to_owned))
            .unwrap_or_default();
        let secret_name = &self.id.auth_header_secret;
        let secrets = if secret_name.is_empty() {
            vec![
                (format!("HTTP_AUTH_HEADER_{host}"), false),
                (format!("HTTP_AUTH_TOKEN_{host}"), true),
            ]
        } else {
            vec![(secret_name.clone(), false)]
        };
        for (name, is_token) in secrets {
            let secret = match crate::session_credentials::secret(&ctx.sessions, &name).await {
                Ok(secret) => secret,
                Err(error) if !secret_name.is_empty() => {
                    return Err(SourceError::Secret {
                        name: secret_name.clone(),
                        source: Box::new(error),
                    });
                }
                Err(_) => None,
            };
            let Some(secret) = secret else {
                if secret_name.is_empty() {
                    continue;
                }
                return Err(SourceError::Secret {
                    name: secret_name.clone(),
                    source: Box::new(SourceError::NoSecret {
                        name: secret_name.clone(),
                    }),
                });
            };
            let prefix: &[u8] = if is_token { b"Bearer " } else { b"" };
            let mut value = HeaderValue::from_bytes(&[prefix, &secret[..]].concat())
                .map_err(|_| bad("secret"))?;
            value.set_sensitive(true);
            out.insert(AUTHORIZATION, value);
        }
        Ok(out)
    }

    async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        ctx: &Context,
    ) -> Result<reqwest::Response, SourceError> {
        let url = reqwest::Url::parse(&self.id.url).map_err(|e| SourceError::Reference {
            reference: self.display_url(),
            source: cause(e),
        })?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        let client = if is_local {
            &self.source.inner.local_client
        } else {
            &self.source.inner.client
        };
        let method_name = if method == Method::HEAD {
            "Head"
        } else {
            "Get"
        };
        let host = host.to_owned();
        let sending = client.request(method, url).headers(headers).send();
        let sending = tokio::time::timeout(ANSWER_TIMEOUT, sending);
        registry::waiting(Some(&ctx.wait_observer()), &host, sending)
            .await
            // The dropped error says only that the time is over.
            .map_err(|_| SourceError::Http {
                method: method_name,
                url: self.display_url(),
                source: cause(format!(
                    "{host} did not answer within {}s",
                    ANSWER_TIMEOUT.as_secs()
                )),
            })?
            .map_err(|e| self.failed(method_name, e))
    }

    fn failed(&self, method: &'static str, error: reqwest::Error) -> SourceError {
        SourceError::Http {
            method,
            url: self.display_url(),
            source: cause(registry::ConnectionError::from(error)),
        }
    }

    /// Gets the file: the kept one if the server says that it did not change, else by a download.
    async fn find(&self, ctx: &Context) -> Result<Download, SourceError> {
        if let Some(download) = self.downloaded.lock().clone() {
            return Ok(download);
        }
        if let Some(target) = self.upload_target() {
            let session = ctx.sessions.first().await.map_err(SourceError::session)?;
            let share = ctx.sessions.share(session.id());
            let opened = share.open("Pull", session.upload(target)).await;
            let body = DownloadBody::Upload(opened.map_err(SourceError::session)?);
            let download = self.save(body, &HeaderMap::new(), ctx).await?;
            return self.checked(download);
        }
        let memory_key = format!("http:{}", self.url_key());
        if let Some(download) = ctx.recall::<Download>(&memory_key) {
            return self.checked((*download).clone());
        }
        let download = self.checked(self.ask_server(ctx).await?)?;
        ctx.remember(&memory_key, &Arc::new(download.clone()));
        Ok(download)
    }

    /// Asks the server whether a kept file is still current; downloads it if none is.
    async fn ask_server(&self, ctx: &Context) -> Result<Download, SourceError> {
        let headers = self.headers(ctx).await?;
        let store = &self.source.inner.store;
        let mut records: Vec<(String, Download)> = Vec::new();
        for id in store.find_meta(META_URL, self.url_key().as_str().as_bytes())? {
            if let Some(entry) = self.kept_download(&id)? {
                records.push(entry);
            }
        }
        if records.is_empty() {
            return self.download(headers, ctx).await;
        }
        let if_changed = |etags: &[&str]| {
            let mut conditional = headers.clone();
            if let Ok(value) = HeaderValue::from_str(&etags.join(", ")) {
                conditional.insert(IF_NONE_MATCH, value);
            }
            conditional
        };
        let etags: Vec<&str> = records.iter().map(|(e, _)| e.as_str()).collect();
        let conditional = if_changed(&etags);
        // Servers that ignore the condition still name the ETag, and a HEAD costs no content.
        if let Ok(response) = self.send(Method::HEAD, conditional.clone(), ctx).await
            && let Some(download) = self.unchanged(&response, &records)
        {
            return Ok(download);
        }
        let response = self.send(Method::GET, conditional, ctx).await?;
        if let Some(download) = self.unchanged(&response, &records) {
            return Ok(download);
        }
        if response.status() != StatusCode::NOT_MODIFIED {
            return self.accept(response, ctx).await;
        }
        // "Not modified", but which of them? The last one is asked for alone.
        if let [.., (etag, download)] = records.as_slice()
            && records.len() > 1
            && etag_of(response.headers()).is_none()
        {
            let response = self.send(Method::GET, if_changed(&[etag]), ctx).await?;
            if response.status() != StatusCode::NOT_MODIFIED {
                return self.accept(response, ctx).await;
            }
            if etag_of(response.headers()).is_none() {
                return Ok(self.renamed(download, response.headers()));
            }
        }
        // It names an ETag that is not kept: the content is downloaded.
        self.download(headers, ctx).await
    }

    /// The kept file that a response calls current.
    fn unchanged(
        &self,
        response: &reqwest::Response,
        records: &[(String, Download)],
    ) -> Option<Download> {
        let etag_named = etag_of(response.headers());
        let is_current: &dyn Fn(&str) -> bool = match (response.status(), &etag_named) {
            (StatusCode::OK, Some(named)) => &move |etag| etag == named,
            // A server that compared speaks of what it was asked about, whatever a proxy made of the name.
            (StatusCode::NOT_MODIFIED, Some(named)) => &move |etag| etag::is_same(etag, named),
            (StatusCode::NOT_MODIFIED, None) if records.len() == 1 => &|_| true,
            _ => return None,
        };
        let exact = |named: &String| records.iter().find(|(etag, _)| etag == named);
        let (_, download) = etag_named
            .as_ref()
            .and_then(exact)
            .or_else(|| records.iter().find(|(etag, _)| is_current(etag)))?;
        Some(self.renamed(download, response.headers()))
    }

    /// A kept file under the name in a response. "Not modified" need not repeat the name: then the file keeps its own.
    fn renamed(&self, download: &Download, headers: &HeaderMap) -> Download {
        let filename = match disposition(headers) {
            None if self.id.filename.is_empty() => download.filename.clone(),
            named => file_name(&self.id.url, &self.id.filename, named),
        };
        Download {
            filename,
            ..download.clone()
        }
    }

    /// Downloads the content without a condition.
    async fn download(&self, headers: HeaderMap, ctx: &Context) -> Result<Download, SourceError> {
        let response = self.send(Method::GET, headers, ctx).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Err(SourceError::Http {
                method: "Get",
                url: self.display_url(),
                source: cause(
                    "the server answers \"304 Not Modified\" to a request without condition",
                ),
            });
        }
        self.accept(response, ctx).await
    }

    async fn accept(
        &self,
        response: reqwest::Response,
        ctx: &Context,
    ) -> Result<Download, SourceError> {
        let status = response.status().as_u16();
        if !(200..400).contains(&status) {
            return Err(SourceError::HttpStatus { status });
        }
        let headers = response.headers().clone();
        self.save(DownloadBody::Answer(response), &headers, ctx)
            .await
    }

    /// The upload of the client that the address names, if it names one.
    fn upload_target(&self) -> Option<session::UploadTarget> {
        let url = reqwest::Url::parse(&self.id.url).ok()?;
        let host = url.host_str().filter(|h| *h == UPLOAD_HOST)?;
        Some(session::UploadTarget {
            host: host.to_owned(),
            path: url.path().to_owned(),
        })
    }

    /// A record of the store as a download with its ETag; `None` if the record lacks metadata.
    fn kept_download(&self, id: &RefId) -> Result<Option<(String, Download)>, SourceError> {
        let store = &self.source.inner.store;
        let text = |key: &str| -> Result<Option<String>, SourceError> {
            Ok(store
                .meta(id, key)?
                .and_then(|bytes| String::from_utf8(bytes).ok()))
        };
        let (Some(etag), Some(digest)) = (text(META_ETAG)?, text(META_CHECKSUM)?) else {
            return Ok(None);
        };
        let (Ok(digest), Ok(reference)) = (Digest::parse(&digest), store.get(id)) else {
            return Ok(None);
        };
        let modified = text(META_MODIFIED)?.and_then(|t| date::parse(&t));
        let filename = text(META_FILENAME)?
            .unwrap_or_else(|| file_name(&self.id.url, &self.id.filename, None));
        Ok(Some((
            etag,
            Download {
                digest,
                filename,
                modified,
                id: id.clone(),
                _held: reference,
            },
        )))
    }

    /// Checks the demanded signature, for which the file is downloaded. It is not in the key.
    async fn check_signature(&self, ctx: &Context) -> Result<(), SourceError> {
        let Some(verify) = self.id.verify.clone() else {
            return Ok(());
        };
        let download = self.find(ctx).await?;
        let file = self.source.inner.store.get(&download.id)?;
        *self.downloaded.lock() = Some(download);
        task::blocking("signature", move || verify.check(&file.root()?)).await
    }

    fn checked(&self, download: Download) -> Result<Download, SourceError> {
        match &self.id.checksum {
            Some(expected) if *expected != download.digest => Err(SourceError::HttpDigest {
                url: self.display_url(),
                expected: expected.clone(),
                actual: download.digest,
            }),
            _ => Ok(download),
        }
    }
}

fn etag_of(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(ETAG)?.to_str().ok()?;
    let strong = text.strip_prefix("W/").unwrap_or(text);
    (!strong.is_empty()).then(|| strong.to_owned())
}

fn disposition(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_DISPOSITION)?.to_str().ok()
}

#[async_trait]
impl SourceInstance for HttpInstance {
    async fn cache_key(&self, ctx: &Context, _index: usize) -> Result<CacheKey, SourceError> {
        self.check_signature(ctx).await?;
        if let Some(checksum) = &self.id.checksum {
            let filename = file_name(&self.id.url, &self.id.filename, None);
            return Ok(CacheKey::new(
                http_key(&self.id, &filename, checksum, None).to_string(),
                checksum.to_string(),
            ));
        }
        let download = self.find(ctx).await?;
        let key = http_key(
            &self.id,
            &download.filename,
            &download.digest,
            download.modified,
        );
        let pin = download.digest.to_string();
        *self.downloaded.lock() = Some(download);
        Ok(CacheKey::new(key.to_string(), pin))
    }

    async fn facts(&self, ctx: &Context, _objects: bool) -> Result<Facts, SourceError> {
        self.check_signature(ctx).await?;
        if let Some(checksum) = &self.id.checksum {
            return Ok(Facts::Http {
                digest: checksum.clone(),
                filename: file_name(&self.id.url, &self.id.filename, None),
                modified: None,
            });
        }
        let download = self.find(ctx).await?;
        Ok(Facts::Http {
            digest: download.digest,
            filename: download.filename,
            modified: download.modified,
        })
    }

    async fn snapshot(&self, ctx: &Context) -> Result<Option<ImmutableRef>, SourceError> {
        let download = self.find(ctx).await?;
        Ok(Some(self.source.inner.store.get(&download.id)?))
    }
}
