//! Blobs as verified streams that survive broken connections.

use bytes::Bytes;
use http::header::{ACCEPT, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oci::{Descriptor, Digester, media_type};

use crate::access::Purpose;
use crate::address::host_of;
use crate::client::Repository;
use crate::connection::ConnectionError;
use crate::error::Error;
use crate::limit::TransferPermit;
use crate::request::{HostRequest, HostResponse, RequestTarget};
use crate::resolve::accept;
use crate::retry::Backoff;
use crate::waiting::{BodyPace, waiting};

/// Bytes after which a broken connection is retried as often as the first one.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A download of a blob. No request is sent before the first `next`; dropping it ends the transfer.
#[derive(Debug)]
pub struct BlobStream {
    repository: Repository,
    desc: Descriptor,
    digester: Option<Digester>,
    offset: u64,
    since_open: u64,
    body: Option<BlobBody>,
    backoff: Backoff,
    permit: Option<TransferPermit>,
    is_finished: bool,
    /// Index of the first host to ask: those before it were too slow.
    first_host: usize,
}

#[derive(Debug)]
struct BlobBody {
    response: reqwest::Response,
    url: String,
    /// Bytes that the host sends again because it ignores ranges; they are dropped.
    skip: u64,
    host: String,
    /// Index of the host among those of the namespace.
    host_index: usize,
    pace: BodyPace,
}

impl Repository {
    /// Opens a blob. The stream ends only after all bytes, with the digest of the descriptor; else it fails.
    #[must_use]
    pub fn blob(&self, desc: &Descriptor) -> BlobStream {
        self.stream(desc, true)
    }

    /// Opens a blob for a reader that verifies the digest itself; the size is still checked, unless it is negative,
    /// which stands for one that nobody knows.
    #[must_use]
    pub fn blob_unverified(&self, desc: &Descriptor) -> BlobStream {
        self.stream(desc, false)
    }

    fn stream(&self, desc: &Descriptor, verify: bool) -> BlobStream {
        BlobStream {
            repository: self.clone(),
            desc: desc.clone(),
            digester: verify.then(Digester::new),
            offset: 0,
            since_open: 0,
            body: None,
            backoff: Backoff::new(),
            permit: None,
            is_finished: false,
            first_host: 0,
        }
    }
}

impl BlobStream {
    /// The next bytes, or `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.is_finished {
            if self.permit.is_none() {
                let limits = self.repository.client().limits();
                self.permit = Some(
                    limits
                        .acquire(&self.repository.name().domain, &self.desc.media_type)
                        .await,
                );
            }
            if self.body.is_none() {
                match self.open().await {
                    Ok(body) => self.body = Some(body),
                    Err(error) => {
                        self.pause(error).await?;
                        continue;
                    }
                }
                self.since_open = 0;
            }
            let Some(body) = &mut self.body else { continue };
            let BlobBody {
                response,
                host,
                pace,
                ..
            } = body;
            let reading = pace.next(response.chunk());
            let chunk = match waiting(self.repository.observer(), host, reading).await {
                Ok(chunk) => chunk,
                Err(source) => {
                    if body.host_index + 1 < self.repository.hosts().len() {
                        tracing::debug!(host, error = %source, "blob transfer goes on at the next host");
                        self.first_host = body.host_index + 1;
                        self.body = None;
                        continue;
                    }
                    let (host, url) = (body.host.clone(), body.url.clone());
                    self.pause(Error::Slow { host, url, source }).await?;
                    continue;
                }
            };
            match chunk {
                Ok(Some(mut chunk)) => {
                    metrics::TRANSFERRED.add(metrics::Transfer::FromRegistry, chunk.len() as u64);
                    let skipped = usize::try_from(body.skip)
                        .unwrap_or(usize::MAX)
                        .min(chunk.len());
                    body.skip -= skipped as u64;
                    drop(chunk.split_to(skipped));
                    if chunk.is_empty() {
                        continue;
                    }
                    let received = self.offset.saturating_add(chunk.len() as u64);
                    if received > self.desc.len() && self.desc.size >= 0 {
                        return Err(Error::SizeMismatch {
                            url: body.url.clone(),
                            expected: self.desc.len(),
                            actual: received,
                        });
                    }
                    self.offset = received;
                    self.since_open = self.since_open.saturating_add(chunk.len() as u64);
                    if self.since_open >= PROGRESS_BYTES {
                        self.backoff.reset();
                    }
                    if let Some(digester) = &mut self.digester {
                        digester.update(&chunk);
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if self.offset == self.desc.len() || self.desc.size < 0 => {
                    return self.finish();
                }
                Ok(None) => {
                    let error = self.broken(ConnectionError::Eof);
                    self.pause(error).await?;
                }
                Err(e) => {
                    let error = self.broken(e.into());
                    self.pause(error).await?;
                }
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Option<Bytes>, Error> {
        self.is_finished = true;
        self.permit = None;
        let url = self.body.take().map(|b| b.url).unwrap_or_default();
        if let Some(digester) = self.digester.take() {
            let actual = digester.finish();
            if actual != self.desc.digest {
                return Err(Error::DigestMismatch {
                    url,
                    expected: self.desc.digest.clone(),
                    actual,
                });
            }
        }
        Ok(None)
    }

    fn broken(&self, source: ConnectionError) -> Error {
        let url = self
            .body
            .as_ref()
            .map(|b| b.url.clone())
            .unwrap_or_default();
        Error::Read {
            digest: self.desc.digest.clone(),
            url,
            source,
        }
    }

    async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.body = None;
        tracing::debug!(%error, offset = self.offset, "blob transfer broke off");
        let observer = self.repository.observer();
        let waited = crate::retry::wait(&mut self.backoff, error, observer).await;
        if waited.is_err() {
            self.is_finished = true;
            self.permit = None;
        }
        waited
    }

    async fn open(&self) -> Result<BlobBody, Error> {
        let is_manifest = media_type::is_manifest(&self.desc.media_type)
            || media_type::is_index(&self.desc.media_type);
        let kinds: &[&str] = if is_manifest {
            &["manifests", "blobs"]
        } else {
            &["blobs"]
        };
        let hosts = self.repository.hosts();
        let mut first_error = None;
        for kind in kinds {
            for (at, host) in hosts.iter().enumerate().skip(self.first_host) {
                let target = RequestTarget::path(format!("{kind}/{}", self.desc.digest));
                let scopes = vec![self.repository.scope(Purpose::Pull)];
                let call = HostRequest {
                    method: Method::GET,
                    target,
                    headers: self.headers(),
                    scopes,
                    body: None,
                    upload: None,
                    is_last_host: at + 1 == hosts.len(),
                };
                let error = match self.repository.send(host, call).await {
                    Ok(response) if response.status().is_success() => {
                        match self.accept(response, at) {
                            Ok(body) => return Ok(body),
                            Err(error) => error,
                        }
                    }
                    Ok(response) => response.into_error().await,
                    Err(error) => error,
                };
                if first_error.as_ref().is_none_or(Error::is_not_found) || !error.is_not_found() {
                    first_error = Some(error);
                }
            }
            if first_error.as_ref().is_some_and(|e| !e.is_not_found()) {
                break;
            }
        }
        Err(first_error
            .unwrap_or(Error::NoHosts { doing: "pull" })
            .denied("pull"))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept(&self.desc.media_type));
        if self.offset > 0 {
            let range = format!("bytes={}-", self.offset);
            headers.insert(
                RANGE,
                HeaderValue::from_str(&range).expect("a range is a header value"),
            );
        }
        headers
    }

    fn accept(&self, response: HostResponse, host_index: usize) -> Result<BlobBody, Error> {
        let mut skip = 0;
        if self.offset > 0 {
            let starts_at_offset = response
                .header("content-range")
                .is_some_and(|r| r.starts_with(&format!("bytes {}-", self.offset)));
            if response.status() == StatusCode::PARTIAL_CONTENT && !starts_at_offset {
                return Err(Error::Decode {
                    what: "content range",
                    source: format!("unhandled content range in response from {}", response.url)
                        .into(),
                });
            }
            if !starts_at_offset {
                skip = self.offset;
            }
        }
        Ok(BlobBody {
            host: host_of(response.http.url()),
            response: response.http,
            url: response.url,
            skip,
            host_index,
            pace: BodyPace::default(),
        })
    }
}
