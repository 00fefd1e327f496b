//! Resolves a tag or digest to a descriptor, and fetches the document of a descriptor.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oci::{Descriptor, Digest, media_type};

use crate::access::Purpose;
use crate::client::Repository;
use crate::error::Error;
use crate::host::Host;
use crate::request::{HostRequest, HostResponse, RequestTarget};
use crate::retry::{self, Backoff, with_retries};
use crate::transport::body_within;

/// The largest document accepted from a registry.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// Media types in the `Accept` header of a resolution.
const MANIFEST_TYPES: [&str; 4] = [
    media_type::DOCKER_MANIFEST,
    media_type::DOCKER_INDEX,
    media_type::OCI_MANIFEST,
    media_type::OCI_INDEX,
];

impl Repository {
    /// Resolves a digest or, without one, a tag (`latest` by default) to a descriptor, mirrors first.
    ///
    /// For a digest only existence, type and size are taken from the registry; the bytes are verified when they are fetched.
    pub async fn resolve(
        &self,
        tag: Option<&str>,
        digest: Option<&Digest>,
    ) -> Result<Descriptor, Error> {
        let object = digest.map_or_else(|| tag.unwrap_or("latest").to_owned(), Digest::to_string);
        // As the user wrote it: a digest is shown with the tag before it.
        let mut display_name = self.name().to_string();
        if let Some(tag) = tag.filter(|_| digest.is_some()) {
            display_name.push_str(&format!(":{tag}"));
        }
        display_name.push(if digest.is_some() { '@' } else { ':' });
        display_name.push_str(&object);
        let mut paths = vec![format!("manifests/{object}")];
        if digest.is_some() {
            paths.push(format!("blobs/{object}"));
        }
        // Of all errors, the one of the furthest step is returned.
        let mut furthest_error: Option<(u8, Error)> = None;
        let mut record = |rank: u8, error: Error| {
            if furthest_error
                .as_ref()
                .is_none_or(|(worst_rank, _)| *worst_rank < rank)
            {
                furthest_error = Some((rank, error));
            }
            rank
        };
        for path in &paths {
            let mut rank = 0;
            let mut has_timed_out = false;
            for (at, host) in self.hosts().iter().enumerate() {
                let is_last_host = at + 1 == self.hosts().len();
                match self
                    .resolve_on(host, path, digest, is_last_host, &display_name)
                    .await
                {
                    Ok(desc) => return Ok(desc),
                    Err(error) => {
                        tracing::debug!(host = %host.authority, %error, is_last_host, "not resolved here");
                        has_timed_out |= error.is_silence();
                        rank = rank.max(record(furthest(&error), error.denied("pull")));
                    }
                }
            }
            if rank > 2 || has_timed_out {
                break;
            }
        }
        Err(furthest_error.map_or(Error::NoHosts { doing: "resolve" }, |(_, error)| error))
    }

    async fn resolve_on(
        &self,
        host: &Host,
        path: &str,
        digest: Option<&Digest>,
        is_last_host: bool,
        display_name: &str,
    ) -> Result<Descriptor, Error> {
        // A host that names a time to wait gets it; after other refusals the next host is asked at once.
        let mut backoff = Backoff::new();
        let head = loop {
            let head = self.ask(host, Method::HEAD, path, is_last_host).await?;
            let asks_for_patience = head.status() == StatusCode::TOO_MANY_REQUESTS
                && head.header("retry-after").is_some();
            if !asks_for_patience {
                break head;
            }
            retry::wait(&mut backoff, head.into_error().await, self.observer()).await?;
        };
        let status = head.status();
        if status == StatusCode::NOT_FOUND {
            return Err(Error::NotFound {
                name: display_name.to_owned(),
            });
        }
        if status == StatusCode::FORBIDDEN && head.method == Method::HEAD {
            // The answer to a HEAD has no body; the reason is in the body.
            let get = self.ask(host, Method::GET, path, false).await?;
            return Err(if get.status().is_success() {
                head.into_error().await
            } else {
                get.into_error().await
            });
        }
        if !status.is_success() {
            return Err(head.into_error().await);
        }
        let mut media_type = manifest_type(&head);
        let mut size = head.length();
        let mut root_digest = digest.cloned();
        if root_digest.is_none()
            && let (Some(text), Some(_)) = (head.header("docker-content-digest"), size)
        {
            // The sentence is the reference's, which does not say what is wrong with it.
            root_digest = Some(Digest::parse(text).map_err(|_| Error::BadDigest {
                text: text.chars().take(200).collect(),
            })?);
        }
        if root_digest.is_none() || size.is_none() {
            let get = self.ask(host, Method::GET, path, true).await?;
            if !get.status().is_success() {
                return Err(get.into_error().await);
            }
            media_type = manifest_type(&get);
            let limit = usize::try_from(MAX_MANIFEST_SIZE).unwrap_or(usize::MAX);
            let body =
                match body_within(get.http, limit, &get.method, &get.url, self.observer()).await {
                    Err(Error::SizeMismatch { actual, .. }) => {
                        return Err(Error::ManifestTooLarge {
                            size: actual,
                            name: display_name.to_owned(),
                        });
                    }
                    result => result?,
                };
            size = Some(body.len() as u64);
            root_digest = root_digest.or_else(|| Some(Digest::sha256(&body)));
        }
        let (Some(digest), Some(size)) = (root_digest, size) else {
            return Err(Error::NotFound {
                name: display_name.to_owned(),
            });
        };
        if media_type == media_type::DOCKER_SCHEMA1 {
            return Err(Error::Schema1);
        }
        if size > MAX_MANIFEST_SIZE {
            return Err(Error::ManifestTooLarge {
                size,
                name: display_name.to_owned(),
            });
        }
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// Fetches a manifest, index or config, verified against its descriptor.
    pub async fn manifest(&self, desc: &Descriptor) -> Result<Bytes, Error> {
        if desc.len() > MAX_MANIFEST_SIZE {
            return Err(Error::ManifestTooLarge {
                size: desc.len(),
                name: format!("{}@{}", self.name(), desc.digest),
            });
        }
        let _permit = self
            .client()
            .limits()
            .acquire(&self.name().domain, &desc.media_type)
            .await;
        let is_manifest =
            media_type::is_manifest(&desc.media_type) || media_type::is_index(&desc.media_type);
        let kinds: &[&str] = if is_manifest {
            &["manifests", "blobs"]
        } else {
            &["blobs"]
        };
        with_retries!(self.observer(), {
            let mut first_error = None;
            for kind in kinds {
                for (at, host) in self.hosts().iter().enumerate() {
                    let is_last_host = at + 1 == self.hosts().len();
                    match self
                        .document(host, &format!("{kind}/{}", desc.digest), desc, is_last_host)
                        .await
                    {
                        Ok(body) => return Ok(body),
                        Err(error) => {
                            // "Not found" hides no real failure.
                            if first_error.as_ref().is_none_or(Error::is_not_found)
                                || !error.is_not_found()
                            {
                                first_error = Some(error);
                            }
                        }
                    }
                }
                // Documents of old registries may be served as blobs, but only ones that are not there as manifests.
                if first_error.as_ref().is_some_and(|e| !e.is_not_found()) {
                    break;
                }
            }
            Err(first_error
                .unwrap_or(Error::NoHosts { doing: "pull" })
                .denied("pull"))
        })
    }

    async fn document(
        &self,
        host: &Host,
        path: &str,
        desc: &Descriptor,
        is_last_host: bool,
    ) -> Result<Bytes, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept(&desc.media_type));
        let scopes = vec![self.scope(Purpose::Pull)];
        let call = HostRequest {
            method: Method::GET,
            target: RequestTarget::path(path),
            headers,
            scopes,
            body: None,
            upload: None,
            is_last_host,
        };
        let response = self.send(host, call).await?;
        if response.status() != StatusCode::OK {
            return Err(response.into_error().await);
        }
        let (url, method) = (response.url, response.method);
        let limit = usize::try_from(desc.len()).unwrap_or(usize::MAX);
        let body = body_within(response.http, limit, &method, &url, self.observer()).await?;
        if body.len() as u64 != desc.len() {
            return Err(Error::SizeMismatch {
                url,
                expected: desc.len(),
                actual: body.len() as u64,
            });
        }
        verify(&desc.digest, &body, url)?;
        Ok(body)
    }

    async fn ask(
        &self,
        host: &Host,
        method: Method,
        path: &str,
        is_last_host: bool,
    ) -> Result<HostResponse, Error> {
        let mut headers = HeaderMap::new();
        let accept = format!("{}, */*", MANIFEST_TYPES.join(", "));
        headers.insert(
            ACCEPT,
            HeaderValue::from_str(&accept).expect("media types are header values"),
        );
        let scopes = vec![self.scope(Purpose::Pull)];
        self.send(
            host,
            HostRequest {
                method,
                target: RequestTarget::path(path),
                headers,
                scopes,
                body: None,
                upload: None,
                is_last_host,
            },
        )
        .await
    }
}

/// How far a resolution came before it failed; greater is further.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "errors without a response rank lowest, whatever they are"
)]
fn furthest(error: &Error) -> u8 {
    match error {
        Error::NotFound { .. } => 2,
        Error::Status { .. } => 3,
        Error::ManifestTooLarge { .. } | Error::Schema1 | Error::BadDigest { .. } => 4,
        _ => 1,
    }
}

/// Checks bytes in memory against a digest.
pub(crate) fn verify(expected: &Digest, bytes: &[u8], url: String) -> Result<(), Error> {
    let actual = Digest::sha256(bytes);
    // Only sha256 can be checked; another algorithm never matches and so is never believed.
    if actual == *expected {
        Ok(())
    } else {
        Err(Error::DigestMismatch {
            url,
            expected: expected.clone(),
            actual,
        })
    }
}

/// The `Accept` value that prefers one type.
pub(crate) fn accept(media_type: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("{media_type}, */*"))
        .unwrap_or_else(|_| HeaderValue::from_static("*/*"))
}

fn manifest_type(response: &HostResponse) -> String {
    let text = response.header("content-type").unwrap_or_default();
    let media_type_name = text.split(';').next().unwrap_or_default().trim();
    // Some registries name no type at all for the oldest manifests.
    if media_type_name == "text/plain" {
        media_type::DOCKER_SCHEMA1.to_owned()
    } else {
        media_type_name.to_owned()
    }
}
