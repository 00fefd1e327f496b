//! Attestations of an image in its repository: the attestation manifest beside the image's in the index, and its signature.
//!
//! ```text
//!  index ─┬─► the image's manifest (of the platform) ◄─ attestation manifest of a hardened image, which refers to it ─┐
//!         └─► attestation manifest, which names the image's ─┬─────────────────────────────────────────────────────────┘
//!                                                            ├─► statements, of the requested predicate types
//!                                                            └─◄ signature manifest, which refers to it ─► its layers
//! ```
//!
//! The index of a Docker Hardened Image lists no attestations: each is a referrer of the image's manifest.
//!
//! Facts: `ResolveSignatureChain` of moby/policy-helpers, `source/containerimage` of BuildKit v0.34.2.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use oci::{Descriptor, Digest, Index, Manifest, Platform, media_type};
use registry::{PREDICATE_TYPE, Repository};

use super::ImageSource;
use super::spec::Spec;
use super::walk::Fetch;
use super::walk::decode;
use crate::context::Context;
use crate::error::{SourceError, cause};

const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const TITLE: &str = "org.opencontainers.image.title";
/// What every entry of a hardened image's index has, and how its title begins.
const HARDENED_BUILD_ID: &str = "com.docker.dhi.build.id";
const HARDENED_TITLE_PREFIX: &str = "dhi/";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const SLSA_PROVENANCE: [&str; 2] = [
    "https://slsa.dev/provenance/v0.2",
    "https://slsa.dev/provenance/v1",
];
const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const COSIGN_SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// The largest statement or signature that is read.
const MAX_BLOB_BYTES: u64 = 8 << 20;
/// The most bytes that are read for one image.
const MAX_TOTAL_BYTES: usize = 12 << 20;

/// The attestation of an image and the documents that lead to it.
#[derive(Debug, Clone)]
pub struct AttestationChain {
    /// The index that the reference names.
    pub root: Digest,
    /// The image's manifest.
    pub image_manifest: Digest,
    /// The manifest whose layers are the statements about the image.
    pub attestation_manifest: Option<Digest>,
    /// The manifest of the signature of the attestation manifest.
    pub signature_manifest: Option<Digest>,
    /// All documents and statements that were read, with their descriptors, by digest.
    pub blobs: BTreeMap<String, (Descriptor, Bytes)>,
}

impl ImageSource {
    /// Follows a reference to the statements about its image for `platform`, and reads those of the given predicate types.
    /// `None` if the reference names no index: only there is an attestation manifest beside the image's.
    pub async fn attestation_chain(
        &self,
        reference: &str,
        platform: Option<&Platform>,
        predicate_types: &[String],
        ctx: &Context,
    ) -> Result<Option<AttestationChain>, SourceError> {
        let spec = Spec::parse(reference)?;
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let repository = self.repository(&spec, ctx)?;
        let root = self.root(&repository, &spec).await?;
        if root.media_type != media_type::OCI_INDEX {
            return Ok(None);
        }
        let mut reader = AttestationReader {
            source: self,
            repository: &repository,
            blobs: BTreeMap::new(),
            size: 0,
        };
        let index: Index = decode("index", &root, &reader.document(&root).await?)?;
        let image = image_of(&index, &platform).ok_or_else(|| SourceError::Document {
            what: "index",
            digest: root.digest.clone(),
            source: cause(format!(
                "no manifest for platform {}: not found",
                platform.format()
            )),
        })?;
        let about = |entry: &&Descriptor| {
            let note = |key: &str| entry.annotations.get(key).map(String::as_str);
            note(REFERENCE_TYPE) == Some("attestation-manifest")
                && note(REFERENCE_DIGEST) == Some(image.digest.as_str())
        };
        let mut chain = AttestationChain {
            root: root.digest.clone(),
            image_manifest: image.digest.clone(),
            attestation_manifest: None,
            signature_manifest: None,
            blobs: BTreeMap::new(),
        };
        let attestation = if is_hardened(&index) {
            Some(provenance_of(&repository, &image.digest).await?)
        } else {
            index.manifests.iter().find(about).cloned()
        };
        if let Some(attestation) = &attestation {
            chain.attestation_manifest = Some(attestation.digest.clone());
            let bytes = reader.document(attestation).await?;
            let manifest: Manifest = decode("attestation manifest", attestation, &bytes)?;
            let signatures = repository.referrers(&attestation.digest, None, &[]).await?;
            let of_kind = |kind: &str| signatures.iter().find(|s| s.artifact_type == kind);
            if let Some(signature) = of_kind(SIGSTORE_BUNDLE).or_else(|| of_kind(COSIGN_SIGNATURE))
            {
                chain.signature_manifest = Some(signature.digest.clone());
                let bytes = reader.document(signature).await?;
                let manifest: Manifest = decode("signature manifest", signature, &bytes)?;
                for layer in &manifest.layers {
                    reader.blob(layer).await?;
                }
            }
            for layer in &manifest.layers {
                let kind = layer.annotations.get(PREDICATE_TYPE);
                if kind.is_some_and(|kind| predicate_types.contains(kind)) {
                    reader.blob(layer).await?;
                }
            }
        }
        chain.blobs = reader.blobs;
        Ok(Some(chain))
    }
}

/// Whether an index is that of a Docker Hardened Image.
fn is_hardened(index: &Index) -> bool {
    let has_build_id = |entry: &Descriptor| {
        let id = entry.annotations.get(HARDENED_BUILD_ID);
        id.is_some_and(|id| !id.is_empty())
    };
    let title = index.annotations.get(TITLE);
    title.is_some_and(|title| title.starts_with(HARDENED_TITLE_PREFIX))
        && index.manifests.iter().all(has_build_id)
}

/// The first statement of provenance that refers to the manifest of a hardened image.
async fn provenance_of(repository: &Repository, image: &Digest) -> Result<Descriptor, SourceError> {
    let statements = repository.referrers(image, Some(IN_TOTO), &SLSA_PROVENANCE);
    let first = statements.await?.into_iter().next();
    first.ok_or_else(|| SourceError::Document {
        what: "referrers",
        digest: image.clone(),
        source: cause(format!(
            "no attestation referrers found for DHI manifest {image}"
        )),
    })
}

/// The manifest that fits the platform best; one without a platform comes last.
fn image_of<'a>(index: &'a Index, platform: &Platform) -> Option<&'a Descriptor> {
    let matcher = platform.matcher();
    let rank = |entry: &&Descriptor| match &entry.platform {
        Some(platform) => matcher.rank(platform),
        None => Some(usize::MAX),
    };
    index
        .manifests
        .iter()
        .filter(|entry| media_type::is_manifest(&entry.media_type))
        .filter_map(|entry| Some((rank(&entry)?, entry)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry)
}

/// Reads documents and blobs of a repository and keeps them, within [`MAX_TOTAL_BYTES`].
struct AttestationReader<'a> {
    source: &'a ImageSource,
    repository: &'a Repository,
    blobs: BTreeMap<String, (Descriptor, Bytes)>,
    size: usize,
}

impl AttestationReader<'_> {
    async fn document(&mut self, desc: &Descriptor) -> Result<Bytes, SourceError> {
        let bytes = self
            .source
            .caching_fetch(self.repository)
            .document(desc)
            .await?;
        self.keep(desc, bytes.clone())?;
        Ok(bytes)
    }

    async fn blob(&mut self, desc: &Descriptor) -> Result<(), SourceError> {
        if self.blobs.contains_key(desc.digest.as_str()) {
            return Ok(());
        }
        if desc.len() > MAX_BLOB_BYTES {
            return Err(too_large(desc));
        }
        let mut stream = self.repository.blob(desc);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        self.keep(desc, bytes.freeze())
    }

    fn keep(&mut self, desc: &Descriptor, bytes: Bytes) -> Result<(), SourceError> {
        self.size = self.size.saturating_add(bytes.len());
        if self.size > MAX_TOTAL_BYTES {
            return Err(too_large(desc));
        }
        self.blobs
            .insert(desc.digest.to_string(), (desc.clone(), bytes));
        Ok(())
    }
}

fn too_large(desc: &Descriptor) -> SourceError {
    SourceError::Document {
        what: "attestation",
        digest: desc.digest.clone(),
        source: cause(format!("{} bytes are too many", desc.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_of_the_platform_is_found_beside_that_of_its_statements() {
        let entry = |os: &str, architecture: &str| Descriptor {
            platform: Some(Platform {
                os: os.into(),
                architecture: architecture.into(),
                ..Platform::default()
            }),
            ..Descriptor::of_bytes(media_type::OCI_MANIFEST, architecture.as_bytes())
        };
        let entries = vec![entry("unknown", "unknown"), entry("linux", "arm64")];
        let json = serde_json::json!({"schemaVersion": 2, "manifests": entries});
        let index: Index = serde_json::from_value(json).unwrap();
        let image = |text: &str| image_of(&index, &Platform::parse(text).unwrap());
        assert_eq!(image("linux/arm64"), index.manifests.get(1));
        assert_eq!(image("linux/s390x"), None);
    }
}
