//! Pushes: a blob that the registry has is not sent; else it is mounted from another repository, or sent in one stream.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oci::{Descriptor, media_type};

use crate::access::Purpose;
use crate::client::Repository;
use crate::error::Error;
use crate::host::{Host, Role};
use crate::request::{HostRequest, HostResponse, RequestTarget, join};
use crate::resolve::accept;
use crate::retry::with_retries;
use crate::waiting::UploadProgress;

/// The bytes of an upload, in chunks.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The bytes of a blob to push; opened once for each try.
#[async_trait::async_trait]
pub trait BlobSource: Send + Sync {
    /// Opens the blob at its beginning.
    async fn open(&self) -> io::Result<ByteStream>;
}

/// The outcome of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// The repository had it already.
    Existed,
    /// The registry mounted it from another of its repositories.
    Mounted(String),
    /// Its bytes were sent.
    Sent,
}

/// Bytes in memory.
#[derive(Debug, Clone)]
pub struct BytesSource(pub Bytes);

#[async_trait::async_trait]
impl BlobSource for BytesSource {
    async fn open(&self) -> io::Result<ByteStream> {
        Ok(Box::pin(futures::stream::iter([Ok(self.0.clone())])))
    }
}

/// An open file, read from its beginning without moving its offset.
#[derive(Debug, Clone)]
pub struct FileSource(pub Arc<File>);

/// How much of a file is read at a time.
const CHUNK_BYTES: usize = 256 << 10;

#[async_trait::async_trait]
impl BlobSource for FileSource {
    async fn open(&self) -> io::Result<ByteStream> {
        let file = self.0.clone();
        let chunks = futures::stream::try_unfold(0_u64, move |at| {
            let file = file.clone();
            async move {
                let chunk = task::blocking("read blob", move || {
                    let mut buffer = vec![0; CHUNK_BYTES];
                    let mut filled = 0;
                    while filled < buffer.len() {
                        let Some(room) = buffer.get_mut(filled..) else {
                            break;
                        };
                        match file.read_at(room, at.saturating_add(filled as u64)) {
                            Ok(0) => break,
                            Ok(n) => filled += n,
                            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                            Err(e) => return Err(e),
                        }
                    }
                    buffer.truncate(filled);
                    Ok(Bytes::from(buffer))
                })
                .await?;
                let next = at.saturating_add(chunk.len() as u64);
                Ok((!chunk.is_empty()).then_some((chunk, next)))
            }
        });
        Ok(Box::pin(chunks))
    }
}

impl fmt::Debug for dyn BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobSource")
    }
}

/// Called with the number of bytes of the blob that this try has sent so far.
pub type SentFn = Arc<dyn Fn(u64) + Send + Sync>;

impl Repository {
    /// Pushes a blob unless it is there. `mount_from` names repositories of the same registry that have it.
    pub async fn push_blob(
        &self,
        desc: &Descriptor,
        source: Arc<dyn BlobSource>,
        mount_from: &[String],
        sent: SentFn,
    ) -> Result<Pushed, Error> {
        let host = self.push_host()?;
        let _permit = self
            .client()
            .limits()
            .acquire(&self.name().domain, &desc.media_type)
            .await;
        with_retries!(self.observer(), {
            let path = format!("blobs/{}", desc.digest);
            if self.exists(host, &path, desc, None).await? {
                return Ok(Pushed::Existed);
            }
            for from in mount_from.iter().filter(|from| **from != self.name().path) {
                if let Some(pushed) = self.mount(host, desc, from).await? {
                    return Ok(pushed);
                }
            }
            self.upload(host, desc, source.clone(), sent.clone()).await
        })
        .map_err(|e| e.denied("push"))
    }

    /// Pushes a manifest or index under a tag, or under its digest alone.
    pub async fn push_manifest(
        &self,
        desc: &Descriptor,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<Pushed, Error> {
        let host = self.push_host()?;
        let _permit = self
            .client()
            .limits()
            .acquire(&self.name().domain, &desc.media_type)
            .await;
        let object = tag.map_or_else(|| desc.digest.to_string(), str::to_owned);
        let path = format!("manifests/{object}");
        with_retries!(self.observer(), {
            if self.exists(host, &path, desc, tag).await? {
                return Ok(Pushed::Existed);
            }
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, header(&desc.media_type)?);
            let body = || futures::future::ready(Ok(reqwest::Body::from(bytes.clone()))).boxed();
            let scopes = vec![self.scope(Purpose::Push)];
            // A document is small, and then the registry may check all that it refers to: the longer limit counts.
            let upload = UploadProgress::new(0);
            let call = HostRequest {
                method: Method::PUT,
                target: RequestTarget::path(&path),
                headers,
                scopes,
                body: Some(&body),
                upload: Some(&upload),
                is_last_host: true,
            };
            let response = self.send(host, call).await?;
            accepted(response).await
        })
        .map_err(|e| e.denied("push"))
    }

    fn push_host(&self) -> Result<&Host, Error> {
        self.hosts()
            .iter()
            .find(|h| h.role == Role::Own)
            .map(|h| &**h)
            .ok_or(Error::NoHosts { doing: "push" })
    }

    async fn exists(
        &self,
        host: &Host,
        path: &str,
        desc: &Descriptor,
        tag: Option<&str>,
    ) -> Result<bool, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept(&desc.media_type));
        let scopes = vec![self.scope(Purpose::Push)];
        let call = HostRequest {
            method: Method::HEAD,
            target: RequestTarget::path(path),
            headers,
            scopes,
            body: None,
            upload: None,
            is_last_host: true,
        };
        let response = match self.send(host, call).await {
            // Some registries refuse the request but take the push.
            Err(Error::InvalidAuthorization { .. }) => return Ok(false),
            result => result?,
        };
        match response.status() {
            StatusCode::OK if tag.is_none() => Ok(true),
            StatusCode::OK => {
                Ok(response.header("docker-content-digest") == Some(desc.digest.as_str()))
            }
            StatusCode::NOT_FOUND => Ok(false),
            StatusCode::FORBIDDEN => {
                let mut headers = HeaderMap::new();
                headers.insert(ACCEPT, accept(&desc.media_type));
                let scopes = vec![self.scope(Purpose::Push)];
                let call = HostRequest {
                    method: Method::GET,
                    target: RequestTarget::path(path),
                    headers,
                    scopes,
                    body: None,
                    upload: None,
                    is_last_host: true,
                };
                let get = self.send(host, call).await?;
                Err(if get.status().is_success() {
                    response.into_error().await
                } else {
                    get.into_error().await
                })
            }
            _ => Err(response.into_error().await),
        }
    }

    /// Asks the registry to mount a blob from the repository `from`. `None` means that it must be sent.
    async fn mount(
        &self,
        host: &Host,
        desc: &Descriptor,
        from: &str,
    ) -> Result<Option<Pushed>, Error> {
        let target = RequestTarget::Path {
            path: "blobs/uploads/".into(),
            query: vec![
                ("mount", desc.digest.to_string()),
                ("from", from.to_owned()),
            ],
        };
        let scopes = vec![self.scope(Purpose::Push), format!("repository:{from}:pull")];
        let call = HostRequest {
            method: Method::POST,
            target,
            headers: empty_body(),
            scopes,
            body: None,
            upload: None,
            is_last_host: true,
        };
        // A repository that this login cannot read must not fail the push: then the bytes are sent.
        match self.send(host, call).await {
            Ok(response) if response.status() == StatusCode::CREATED => {
                Ok(Some(Pushed::Mounted(from.to_owned())))
            }
            Ok(_) | Err(Error::InvalidAuthorization { .. } | Error::Authorize { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn upload(
        &self,
        host: &Host,
        desc: &Descriptor,
        source: Arc<dyn BlobSource>,
        sent: SentFn,
    ) -> Result<Pushed, Error> {
        let scopes = vec![self.scope(Purpose::Push)];
        let call = HostRequest {
            method: Method::POST,
            target: RequestTarget::path("blobs/uploads/"),
            headers: empty_body(),
            scopes: scopes.clone(),
            body: None,
            upload: None,
            is_last_host: true,
        };
        let response = self.send(host, call).await?;
        match response.status() {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {}
            StatusCode::CREATED => return Ok(Pushed::Existed),
            _ => return Err(response.into_error().await),
        }
        let mut location = upload_location(host, &response)?;
        location
            .query_pairs_mut()
            .append_pair("digest", desc.digest.as_str());
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(CONTENT_LENGTH, HeaderValue::from(desc.len()));
        let upload = UploadProgress::new(desc.len());
        let body = || {
            let (source, sent, digest) = (source.clone(), sent.clone(), desc.digest.clone());
            let upload = Arc::clone(&upload);
            upload.restart();
            async move {
                let stream = source
                    .open()
                    .await
                    .map_err(|source| Error::Source { digest, source })?;
                let mut total = 0_u64;
                let counted = stream.inspect(move |chunk| {
                    if let Ok(chunk) = chunk {
                        total = total.saturating_add(chunk.len() as u64);
                        upload.add(chunk.len() as u64);
                        metrics::TRANSFERRED.add(metrics::Transfer::ToRegistry, chunk.len() as u64);
                        sent(total);
                    }
                });
                Ok(reqwest::Body::wrap_stream(counted))
            }
            .boxed()
        };
        let call = HostRequest {
            method: Method::PUT,
            target: RequestTarget::Location(location),
            headers,
            scopes,
            body: Some(&body),
            upload: Some(&upload),
            is_last_host: false,
        };
        accepted(self.send(host, call).await?).await
    }
}

async fn accepted(response: HostResponse) -> Result<Pushed, Error> {
    match response.status() {
        StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
            Ok(Pushed::Sent)
        }
        _ => {
            Err(crate::transport::status_error(response.method, response.url, response.http).await)
        }
    }
}

fn upload_location(host: &Host, response: &HostResponse) -> Result<reqwest::Url, Error> {
    let malformed = |reason: &str| Error::Location {
        location: response.url.clone(),
        source: reason.into(),
    };
    let text = response
        .header("location")
        .ok_or_else(|| malformed("the upload has no location"))?;
    let base = response.http.url();
    // Some registries answer `host/path` without a scheme.
    let bare = !text.starts_with('/') && !text.contains("://");
    if bare {
        return join(host, base, &format!("{}://{text}", base.scheme()));
    }
    join(host, base, text)
}

fn empty_body() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    headers
}

fn header(text: &str) -> Result<HeaderValue, Error> {
    // The dropped error says only that it is not a header value.
    HeaderValue::from_str(text).map_err(|_| Error::Decode {
        what: "media type",
        source: "not a header value".into(),
    })
}

/// Whether a push skips the blob because it may not be distributed.
#[must_use]
pub fn is_skipped(desc: &Descriptor) -> bool {
    media_type::is_nondistributable(&desc.media_type)
}
