//! Lists the manifests that refer to another: signatures, attestations, SBOMs.

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oci::{Descriptor, Digest, Index, media_type};

use crate::access::Purpose;
use crate::client::Repository;
use crate::error::Error;
use crate::request::{HostRequest, RequestTarget};
use crate::resolve::MAX_MANIFEST_SIZE;
use crate::transport::body_within;

/// The annotation that says what kind of statement a referrer holds.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

impl Repository {
    /// Lists the manifests whose subject is `subject`, optionally of one artifact type and, where some are given, with one of
    /// `predicate_types` in their annotations; none is an empty list.
    ///
    /// Registries without the referrers API are asked for the fallback tag `sha256-<hex>`. Those with it are told the filters, which they
    /// may ignore.
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        predicate_types: &[&str],
    ) -> Result<Vec<Descriptor>, Error> {
        let Some(host) = self.hosts().last() else {
            return Err(Error::NoHosts { doing: "pull" });
        };
        let filter = artifact_type.map(|kind| ("artifactType", kind.to_owned()));
        let predicates = predicate_types
            .iter()
            .map(|kind| ("predicateType", (*kind).to_owned()));
        let fallback = format!("manifests/{}-{}", subject.algorithm(), subject.hex());
        let targets = [
            RequestTarget::Path {
                path: format!("referrers/{subject}"),
                query: filter.into_iter().chain(predicates).collect(),
            },
            RequestTarget::path(fallback),
        ];
        for target in targets {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(media_type::OCI_INDEX));
            let scopes = vec![self.scope(Purpose::Pull)];
            let call = HostRequest {
                method: Method::GET,
                target,
                headers,
                scopes,
                body: None,
                upload: None,
                is_last_host: true,
            };
            let response = self.send(host, call).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::BAD_REQUEST => continue,
                _ => return Err(response.into_error().await.denied("pull")),
            }
            let limit = usize::try_from(MAX_MANIFEST_SIZE).unwrap_or(usize::MAX);
            let body = body_within(
                response.http,
                limit,
                &response.method,
                &response.url,
                self.observer(),
            )
            .await?;
            let index: Index = gostd::json::from_slice(&body).map_err(|e| Error::Decode {
                what: "referrers index",
                source: e.into(),
            })?;
            let is_of_types = |d: &Descriptor| {
                let predicate = d.annotations.get(PREDICATE_TYPE).map(String::as_str);
                artifact_type.is_none_or(|kind| d.artifact_type == kind)
                    && (predicate_types.is_empty()
                        || predicate.is_some_and(|kind| predicate_types.contains(&kind)))
            };
            return Ok(index.manifests.into_iter().filter(is_of_types).collect());
        }
        Ok(Vec::new())
    }
}
