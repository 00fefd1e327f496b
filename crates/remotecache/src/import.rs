//! Reads the documents of a cache into chains of records.
//!
//! A separate cache has a manifest (or an index) whose config is the cache config. Any other image may have records in
//! its config: they name its layers by index.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use oci::{Descriptor, Digest, History, Index, Manifest, RootFs, media_type};
use progress::Writer;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::chains::RecordChains;
use crate::error::CacheError;
use crate::format::{CONFIG_TYPE, CacheConfig, CacheLayer, CacheRecord};
use crate::place::Place;

/// Depth of nested indexes that are read for records in images.
const MAX_DEPTH: usize = 4;
/// Number of manifests in all indexes that are read for records in images.
const MAX_MANIFESTS: usize = 256;

/// Total size of the documents that are read for records in images.
const MAX_READ_BYTES: usize = 64 << 20;

/// Size up to which a document is decoded on the runtime's thread.
const MAX_DOCUMENT_BYTES_AT_ONCE: usize = 128 << 10;

/// Number of values in one document, about ten for each record.
const MAX_VALUES: usize = 1 << 21;

/// Annotation with the digest of a layer's uncompressed bytes.
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Annotation with the time at which a layer was created.
pub(crate) const CREATED_AT: &str = "buildkit/createdat";
/// Annotation with the step that created a layer.
pub(crate) const DESCRIPTION: &str = "buildkit/description";

/// Reads the records of the cache with this root.
pub(crate) async fn read(
    place: &dyn Place,
    root: &Descriptor,
    progress: &Writer,
) -> Result<RecordChains, CacheError> {
    let bytes = place.document(root).await?;
    let kind = kind_of(root, &bytes).await?;
    drop(progress.status(format!("inferred cache manifest type: {kind}"), ""));
    let (config, layers) = if media_type::is_index(kind) {
        let index: Index = decode_later("index", root, &bytes).await?;
        let (config, layers): (Vec<_>, Vec<_>) = index
            .manifests
            .into_iter()
            .partition(|d| d.media_type == CONFIG_TYPE);
        (config.into_iter().next_back(), layers)
    } else {
        let manifest: Manifest = decode_later("manifest", root, &bytes).await?;
        let config = Some(manifest.config).filter(|d| d.media_type == CONFIG_TYPE);
        (config, manifest.layers)
    };
    let Some(config) = config else {
        return inline(place, root, bytes).await;
    };
    let bytes = place.document(&config).await?;
    task::blocking("read cache records", move || {
        let config: CacheConfig = decode("cache config", &config, &bytes)?;
        let layers = layers
            .into_iter()
            .map(|l| (l.digest.clone(), Arc::new(l)))
            .collect();
        let mut chains = RecordChains::default();
        chains.add_config(&config, &layers)?;
        Ok(chains)
    })
    .await
}

/// Reads the records in the configs of images.
// DIFFERS: the images of an index are one cache instead of one each, so that equal records of them are merged.
async fn inline(
    place: &dyn Place,
    root: &Descriptor,
    bytes: Bytes,
) -> Result<RecordChains, CacheError> {
    let mut chains = RecordChains::default();
    // Documents are read one after the other, so that one is in memory at a time.
    let mut todo = vec![(root.clone(), Some(bytes), 0)];
    let mut visited: Vec<Digest> = vec![root.digest.clone()];
    let mut read = 0;
    let mut count = |desc: &Descriptor, bytes: &Bytes| {
        read += bytes.len();
        if read > MAX_READ_BYTES {
            let reason =
                format!("the image and those with it have more than {MAX_READ_BYTES} bytes");
            return Err(CacheError::document("index", desc, reason));
        }
        Ok(())
    };
    while let Some((desc, bytes, depth)) = todo.pop() {
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => place.document(&desc).await?,
        };
        count(&desc, &bytes)?;
        if media_type::is_index(kind_of(&desc, &bytes).await?) {
            if depth >= MAX_DEPTH {
                let reason = format!("more than {MAX_DEPTH} indexes inside each other");
                return Err(CacheError::document("index", &desc, reason));
            }
            let index: Index = decode_later("index", &desc, &bytes).await?;
            // The last document on the stack is read first.
            for entry in index.manifests.into_iter().rev() {
                if !visited.contains(&entry.digest) && visited.len() < MAX_MANIFESTS {
                    visited.push(entry.digest.clone());
                    todo.push((entry, None, depth + 1));
                }
            }
            continue;
        }
        let manifest: Manifest = decode_later("manifest", &desc, &bytes).await?;
        if manifest.layers.is_empty() {
            continue;
        }
        let config = place.document(&manifest.config).await?;
        count(&manifest.config, &config)?;
        let image: Image = decode_later("config", &manifest.config, &config).await?;
        let (added, result) = task::blocking("read cache records", move || {
            let result = image.add_to(&mut chains, &manifest);
            (chains, result)
        })
        .await;
        chains = added;
        result?;
    }
    Ok(chains)
}

/// The part of an image config that is read.
#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default, rename = "moby.buildkit.cache.v0")]
    cache: Option<String>,
    #[serde(default)]
    history: Vec<History>,
}

impl Image {
    fn add_to(self, chains: &mut RecordChains, manifest: &Manifest) -> Result<(), CacheError> {
        let Some(cache) = self.cache else {
            return Ok(());
        };
        if self.rootfs.diff_ids.len() != manifest.layers.len() {
            tracing::warn!(config = %manifest.config.digest, "image whose layers and config do not match");
            return Ok(());
        }
        const CONTEXT: &str = "cache records of image";
        let desc = &manifest.config;
        let cache = base64::engine::general_purpose::STANDARD
            .decode(cache)
            .map_err(|e| CacheError::document(CONTEXT, desc, e))?;
        let records: Option<Vec<CacheRecord>> = gostd::json::from_slice_with(&cache, MAX_VALUES)
            .map_err(|e| CacheError::document(CONTEXT, desc, e))?;
        let mut config = CacheConfig {
            layers: Vec::new(),
            records: records.unwrap_or_default(),
        };
        let mut described = HashMap::new();
        let mut steps = self.history.into_iter().filter(|h| !h.empty_layer);
        let layers = manifest.layers.iter().zip(self.rootfs.diff_ids);
        for (parent, (layer, diff_id)) in (-1..).zip(layers) {
            let mut layer = layer.clone();
            let step = steps.next().unwrap_or_default();
            if let Some(created) = step.created {
                layer.annotations.insert(CREATED_AT.into(), created);
            }
            if !step.created_by.is_empty() {
                layer
                    .annotations
                    .insert(DESCRIPTION.into(), step.created_by);
            }
            layer
                .annotations
                .insert(UNCOMPRESSED.into(), diff_id.to_string());
            config.layers.push(CacheLayer {
                blob: layer.digest.clone(),
                parent,
                annotations: None,
            });
            described.insert(layer.digest.clone(), Arc::new(layer));
        }
        chains.add_config(&config, &described)
    }
}

fn decode<T: DeserializeOwned>(
    what: &'static str,
    desc: &Descriptor,
    bytes: &[u8],
) -> Result<T, CacheError> {
    gostd::json::from_slice_with(bytes, MAX_VALUES).map_err(|e| CacheError::document(what, desc, e))
}

/// As [`decode`], off the runtime's thread if the document is large.
async fn decode_later<T: DeserializeOwned + Send + 'static>(
    what: &'static str,
    desc: &Descriptor,
    bytes: &Bytes,
) -> Result<T, CacheError> {
    if bytes.len() < MAX_DOCUMENT_BYTES_AT_ONCE {
        return decode(what, desc, bytes);
    }
    let (desc, bytes) = (desc.clone(), bytes.clone());
    task::blocking("read cache document", move || decode(what, &desc, &bytes)).await
}

/// The type of a document by its content: folders have no media types, and ambiguous documents are refused.
async fn kind_of(desc: &Descriptor, bytes: &Bytes) -> Result<&'static str, CacheError> {
    #[derive(Deserialize)]
    struct Shape {
        #[serde(default, rename = "mediaType")]
        media_type: String,
        config: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape = decode_later("manifest", desc, bytes).await?;
    let is_manifest = shape.config.is_some() || shape.layers.is_some();
    if is_manifest && shape.manifests.is_some() {
        let reason = "invalid ambiguous manifest and manifest list";
        return Err(CacheError::document("manifest", desc, reason));
    }
    let media_types = [
        media_type::OCI_MANIFEST,
        media_type::DOCKER_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_INDEX,
    ];
    let known_type = media_types.into_iter().find(|k| *k == shape.media_type);
    match known_type {
        Some(known_type) if media_type::is_manifest(known_type) != is_manifest => {
            let reason = "mediaType in manifest does not match manifest contents";
            Err(CacheError::document("manifest", desc, reason))
        }
        Some(known_type) => Ok(known_type),
        None if is_manifest => Ok(media_type::DOCKER_MANIFEST),
        None => Ok(media_type::DOCKER_INDEX),
    }
}

#[cfg(test)]
mod tests;
