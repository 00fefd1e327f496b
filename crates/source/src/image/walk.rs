//! Follows a root document to the manifest, config and layers for one platform.

use bytes::Bytes;
use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, media_type};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{SourceError, cause};

/// The image for one platform, without its layers' bytes.
#[derive(Debug, Clone)]
pub(crate) struct ImageDocuments {
    /// The root document: an index or the manifest itself.
    pub(crate) root: Descriptor,
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// The config, byte for byte.
    pub(crate) config_bytes: Bytes,
    /// All documents with their descriptors, root first.
    pub(crate) documents: Vec<(Descriptor, Bytes)>,
}

/// One layer: its blob and the digest of its uncompressed bytes.
#[derive(Debug, Clone)]
pub(crate) struct ImageLayer {
    /// The blob.
    pub(crate) descriptor: Descriptor,
    /// The digest of the uncompressed bytes.
    pub(crate) diff_id: Digest,
}

/// Fetches one document by its descriptor.
#[async_trait::async_trait]
pub(crate) trait Fetch: Send + Sync {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, SourceError>;
}

const MAX_INDEX_DEPTH: usize = 4;

/// Follows indexes to the best manifest for `platform`.
pub(crate) async fn select(
    fetch: &dyn Fetch,
    root: Descriptor,
    platform: &Platform,
) -> Result<ImageDocuments, SourceError> {
    let matcher = platform.matcher();
    let mut documents = Vec::new();
    let mut desc = root.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        let body = fetch.document(&desc).await?;
        let kind = detect(&desc, &body)?;
        documents.push((desc.clone(), body.clone()));
        if media_type::is_index(&kind) {
            let index: Index = decode("index", &desc, &body)?;
            let mut best: Option<(usize, Descriptor)> = None;
            for entry in index.manifests {
                // What names no platform comes after all that match.
                let rank = match &entry.platform {
                    Some(p) => matcher.rank(p),
                    None => Some(usize::MAX),
                };
                if let Some(rank) = rank
                    && best.as_ref().is_none_or(|(best_rank, _)| rank < *best_rank)
                {
                    best = Some((rank, entry));
                }
            }
            desc = best.ok_or(SourceError::Platform { digest: None })?.1;
            continue;
        }
        let manifest: Manifest = decode("manifest", &desc, &body)?;
        let config_bytes = fetch.document(&manifest.config).await?;
        if desc.digest != root.digest && desc.platform.is_none() {
            let config: ImageConfig = decode("config", &manifest.config, &config_bytes)?;
            if !matcher.matches(&config.platform) {
                return Err(SourceError::Platform {
                    digest: Some(root.digest),
                });
            }
        }
        documents.push((manifest.config.clone(), config_bytes.clone()));
        return Ok(ImageDocuments {
            root,
            manifest,
            config_bytes,
            documents,
        });
    }
    let source = cause(format!(
        "more than {MAX_INDEX_DEPTH} indexes inside each other"
    ));
    Err(SourceError::Document {
        what: "index",
        digest: root.digest,
        source,
    })
}

impl ImageDocuments {
    /// The layers, base first.
    pub(crate) fn layers(&self) -> Result<Vec<ImageLayer>, SourceError> {
        #[derive(Deserialize)]
        struct OnlyRootfs {
            #[serde(default)]
            rootfs: oci::RootFs,
        }
        let config: OnlyRootfs = decode("config", &self.manifest.config, &self.config_bytes)?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() > oci::image::MAX_LAYERS {
            let source = cause(format!(
                "more than {} layers: {}",
                oci::image::MAX_LAYERS,
                diff_ids.len()
            ));
            return Err(SourceError::Document {
                what: "config",
                digest: self.manifest.config.digest.clone(),
                source,
            });
        }
        if diff_ids.len() != self.manifest.layers.len() {
            let source = cause(format!(
                "mismatched image rootfs and manifest layers {} {}",
                diff_ids.len(),
                self.manifest.layers.len()
            ));
            return Err(SourceError::Document {
                what: "config",
                digest: self.manifest.config.digest.clone(),
                source,
            });
        }
        Ok(self
            .manifest
            .layers
            .iter()
            .zip(diff_ids)
            .map(|(descriptor, diff_id)| ImageLayer {
                descriptor: descriptor.clone(),
                diff_id,
            })
            .collect())
    }
}

/// Reads a JSON document; `what` is named in the error.
pub(super) fn decode<T: DeserializeOwned>(
    what: &'static str,
    desc: &Descriptor,
    body: &[u8],
) -> Result<T, SourceError> {
    gostd::json::from_slice(body).map_err(|e| SourceError::Document {
        what,
        digest: desc.digest.clone(),
        source: cause(e),
    })
}

#[derive(Deserialize)]
struct DocumentMembers {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

fn detect(desc: &Descriptor, body: &[u8]) -> Result<String, SourceError> {
    if desc.media_type == media_type::DOCKER_SCHEMA1 {
        return Err(registry::Error::Schema1.into());
    }
    if media_type::is_manifest(&desc.media_type) || media_type::is_index(&desc.media_type) {
        // A document that is both could be read as one image here and as another elsewhere.
        let members: DocumentMembers = decode("manifest", desc, body)?;
        let is_manifest = members.config.is_some() || members.layers.is_some();
        if is_manifest && members.manifests.is_some() {
            let source = cause(UnknownDocument::Ambiguous);
            return Err(SourceError::Document {
                what: "manifest",
                digest: desc.digest.clone(),
                source,
            });
        }
        return Ok(desc.media_type.clone());
    }
    manifest_type(body).map_err(|error| SourceError::Document {
        what: "manifest",
        digest: desc.digest.clone(),
        source: cause(error),
    })
}

/// Why a document is neither an index nor a manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownDocument {
    #[error(transparent)]
    Json(#[from] gostd::json::DecodeError),
    #[error("invalid ambiguous manifest and manifest list")]
    Ambiguous,
    #[error("mediaType in manifest does not match manifest contents")]
    OtherType,
}

/// The media type of a document by its content, for stores that keep no types.
pub(crate) fn manifest_type(body: &[u8]) -> Result<String, UnknownDocument> {
    let members: DocumentMembers = gostd::json::from_slice(body)?;
    let is_manifest = members.config.is_some() || members.layers.is_some();
    if is_manifest && members.manifests.is_some() {
        return Err(UnknownDocument::Ambiguous);
    }
    let by_members = if is_manifest {
        media_type::DOCKER_MANIFEST
    } else {
        media_type::DOCKER_INDEX
    };
    match members.media_type {
        Some(t) if media_type::is_manifest(&t) || media_type::is_index(&t) => {
            if media_type::is_manifest(&t) == is_manifest {
                Ok(t)
            } else {
                Err(UnknownDocument::OtherType)
            }
        }
        _ => Ok(by_members.to_owned()),
    }
}
