//! From a tag or digest to a descriptor, and from a descriptor to a document.

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oci::{Descriptor, Digest, media_type};

use crate::access::Purpose;
use crate::client::Repository;
use crate::error::Error;
use crate::host::Host;
use crate::request::{Answer, Call, Target};
use crate::retry::{self, Backoff, with_retries};
use crate::transport::body_within;

/// The largest document accepted from a registry.
pub const MAX_MANIFEST_SIZE: u64 = 4 << 20;

/// The document types asked for when resolving.
const MANIFEST_TYPES: [&str; 4] = [
    media_type::DOCKER_MANIFEST,
    media_type::DOCKER_INDEX,
    media_type::OCI_MANIFEST,
    media_type::OCI_INDEX,
];

impl Repository {
    /// Resolves a digest or, without one, a tag (`latest` by default) to a descriptor, mirrors first.
    ///
    /// With a digest nothing is believed but its existence, type and size; the bytes are verified when they are fetched.
    pub async fn resolve(
        &self,
        tag: Option<&str>,
        digest: Option<&Digest>,
    ) -> Result<Descriptor, Error> {
        let object = digest.map_or_else(|| tag.unwrap_or("latest").to_owned(), Digest::to_string);
        // The user's own words: a digest is told with the tag that stood before it.
        let mut shown = self.name().to_string();
        if let Some(tag) = tag.filter(|_| digest.is_some()) {
            shown.push_str(&format!(":{tag}"));
        }
        shown.push(if digest.is_some() { '@' } else { ':' });
        shown.push_str(&object);
        let mut paths = vec![format!("manifests/{object}")];
        if digest.is_some() {
            paths.push(format!("blobs/{object}"));
        }
        // The error that came furthest is the one worth telling.
        let mut worst: Option<(u8, Error)> = None;
        let mut note = |rank: u8, error: Error| {
            if worst
                .as_ref()
                .is_none_or(|(worst_rank, _)| *worst_rank < rank)
            {
                worst = Some((rank, error));
            }
            rank
        };
        for path in &paths {
            let mut rank = 0;
            let mut silent = false;
            for (at, host) in self.hosts().iter().enumerate() {
                let last = at + 1 == self.hosts().len();
                match self.resolve_on(host, path, digest, last, &shown).await {
                    Ok(desc) => return Ok(desc),
                    Err(error) => {
                        tracing::debug!(host = %host.authority, %error, last, "not resolved here");
                        silent |= error.is_silence();
                        rank = rank.max(note(furthest(&error), error.denied("pull")));
                    }
                }
            }
            if rank > 2 || silent {
                break;
            }
        }
        Err(worst.map_or(Error::NoHosts { doing: "resolve" }, |(_, error)| error))
    }

    async fn resolve_on(
        &self,
        host: &Host,
        path: &str,
        digest: Option<&Digest>,
        last: bool,
        shown: &str,
    ) -> Result<Descriptor, Error> {
        // Who asks for patience by name gets it; other refusals are the next host's turn at once.
        let mut backoff = Backoff::new();
        let head = loop {
            let head = self.ask(host, Method::HEAD, path, last).await?;
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
                name: shown.to_owned(),
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
            let body = match body_within(
                get.response,
                limit,
                &get.method,
                &get.url,
                self.observer(),
            )
            .await
            {
                Err(Error::SizeMismatch { actual, .. }) => {
                    return Err(Error::ManifestTooLarge {
                        size: actual,
                        name: shown.to_owned(),
                    });
                }
                result => result?,
            };
            size = Some(body.len() as u64);
            root_digest = root_digest.or_else(|| Some(Digest::sha256(&body)));
        }
        let (Some(digest), Some(size)) = (root_digest, size) else {
            return Err(Error::NotFound {
                name: shown.to_owned(),
            });
        };
        if media_type == media_type::DOCKER_SCHEMA1 {
            return Err(Error::Schema1);
        }
        if size > MAX_MANIFEST_SIZE {
            return Err(Error::ManifestTooLarge {
                size,
                name: shown.to_owned(),
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
            let mut failed = None;
            for kind in kinds {
                for (at, host) in self.hosts().iter().enumerate() {
                    let last = at + 1 == self.hosts().len();
                    match self
                        .document(host, &format!("{kind}/{}", desc.digest), desc, last)
                        .await
                    {
                        Ok(body) => return Ok(body),
                        Err(error) => {
                            // "Not found" hides no real failure.
                            if failed.as_ref().is_none_or(Error::is_not_found)
                                || !error.is_not_found()
                            {
                                failed = Some(error);
                            }
                        }
                    }
                }
                // Documents of old registries may be served as blobs, but only ones that are not there as manifests.
                if failed.as_ref().is_some_and(|e| !e.is_not_found()) {
                    break;
                }
            }
            Err(failed
                .unwrap_or(Error::NoHosts { doing: "pull" })
                .denied("pull"))
        })
    }

    async fn document(
        &self,
        host: &Host,
        path: &str,
        desc: &Descriptor,
        last: bool,
    ) -> Result<Bytes, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept(&desc.media_type));
        let scopes = vec![self.scope(Purpose::Pull)];
        let call = Call {
            method: Method::GET,
            target: Target::path(path),
            headers,
            scopes,
            body: None,
            upload: None,
            last,
        };
        let answer = self.send(host, call).await?;
        if answer.status() != StatusCode::OK {
            return Err(answer.into_error().await);
        }
        let (url, method) = (answer.url, answer.method);
        let limit = usize::try_from(desc.len()).unwrap_or(usize::MAX);
        let body = body_within(answer.response, limit, &method, &url, self.observer()).await?;
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
        last: bool,
    ) -> Result<Answer, Error> {
        let mut headers = HeaderMap::new();
        let accept = format!("{}, */*", MANIFEST_TYPES.join(", "));
        headers.insert(
            ACCEPT,
            HeaderValue::from_str(&accept).expect("media types are header values"),
        );
        let scopes = vec![self.scope(Purpose::Pull)];
        self.send(
            host,
            Call {
                method,
                target: Target::path(path),
                headers,
                scopes,
                body: None,
                upload: None,
                last,
            },
        )
        .await
    }
}

/// How far a resolution came before it failed.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what failed before an answer came ranks lowest, whatever it was"
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

fn manifest_type(answer: &Answer) -> String {
    let text = answer.header("content-type").unwrap_or_default();
    let media_type_name = text.split(';').next().unwrap_or_default().trim();
    // Some registries name no type at all for the oldest manifests.
    if media_type_name == "text/plain" {
        media_type::DOCKER_SCHEMA1.to_owned()
    } else {
        media_type_name.to_owned()
    }
}
