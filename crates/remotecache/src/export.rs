//! Exports results: packs their layers and writes layers and documents to a place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use gostd::Timestamp;
use oci::{Descriptor, Digest, Index, Manifest, media_type};
use progress::Writer;
use solver::export::{self, ExportMode, RecordResult};
use solver::{KeyInfo, OpCtx};
use store::{CompressionAttributes, LayerBlob, StoreError};

use crate::CacheDomain;
use crate::attrs::{Documents, MediaTypes, RootKind};
use crate::caches::{CacheExporter, ExportTarget};
use crate::chains::{ChainResult, RecordChains};
use crate::error::CacheError;
use crate::format::CONFIG_TYPE;
use crate::import::{CREATED_AT, UNCOMPRESSED};
use crate::place::{DocumentRole, Place};

/// Results whose layers are packed at the same time; packing a layer uses all cores.
const MAX_RESULTS_AT_ONCE: usize = 3;
/// Layers that are written at the same time.
const MAX_BLOBS_AT_ONCE: usize = 8;

/// Key of the answer with the descriptor of the root.
const ANSWER_KEY: &str = "cache.manifest";

/// Records to be written. They hold their layers in the store.
#[derive(Debug, Default)]
pub struct CacheRecords {
    pub(crate) chains: RecordChains,
    blobs: HashMap<Digest, LayerBlob>,
}

/// Which results are exported, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExportOptions {
    pub(crate) mode: ExportMode,
    pub(crate) compression: CompressionAttributes,
    pub(crate) form: LayerForm,
}

/// Which form of a layer is exported, if it has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerForm {
    /// The form that images get.
    OfImages,
    /// The form with the requested compression, if one was requested.
    AsCompressed,
}

type ResultLayers = Option<Vec<LayerBlob>>;

impl CacheExporter {
    /// Adds the records of a result with these keys. `ctx` is the context of its vertex.
    pub async fn gather<D: CacheDomain>(
        &self,
        to: &mut CacheRecords,
        keys: &[KeyInfo<D>],
        ctx: &OpCtx<D>,
    ) -> Result<(), CacheError> {
        let compression = match &self.target {
            ExportTarget::Inline => CompressionAttributes::default(),
            ExportTarget::Place { compression, .. } => *compression,
        };
        let options = ExportOptions {
            mode: self.mode,
            compression,
            form: LayerForm::AsCompressed,
        };
        to.add(keys, options, ctx).await
    }

    /// Writes the records, and returns the answer for the client.
    pub async fn finish(
        &self,
        records: &CacheRecords,
        progress: &Writer,
    ) -> Result<BTreeMap<String, String>, CacheError> {
        let ExportTarget::Place {
            place, documents, ..
        } = &self.target
        else {
            return Ok(BTreeMap::new());
        };
        let (config, blobs) = records.chains.config();
        if config.layers.is_empty() {
            tracing::warn!("no record of the build has layers: no cache is written");
            drop(progress.status("skipping cache export for empty result", ""));
            return Ok(BTreeMap::new());
        }
        if documents.root == RootKind::Manifest && documents.media_types == MediaTypes::Docker {
            return Err(CacheError::records(
                "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
            ));
        }
        let mut layers = Vec::with_capacity(config.layers.len());
        for layer in &config.layers {
            let descriptor = blobs.get(&layer.blob);
            let descriptor = descriptor
                .ok_or_else(|| CacheError::records(format!("missing blob {}", layer.blob)))?;
            layers.push(Descriptor::clone(descriptor));
        }
        records.write_layers(&**place, &layers, progress).await?;
        let bytes = gostd::json::to_vec(&config);
        let config = Descriptor::of_bytes(CONFIG_TYPE, &bytes);
        {
            let _status = progress.status(format!("writing config {}", config.digest), "");
            place
                .put_document(&config, bytes.into(), DocumentRole::Config)
                .await
                .map_err(CacheError::write("config"))?;
        }
        let (root, bytes) = root(layers, config, *documents);
        let what = if documents.root == RootKind::Manifest {
            "image manifest"
        } else {
            "manifest"
        };
        let _status = progress.status(format!("writing cache {what} {}", root.digest), "");
        place
            .put_document(&root, bytes, DocumentRole::Root)
            .await
            .map_err(CacheError::write("manifest"))?;
        let answer = String::from_utf8_lossy(&gostd::json::to_vec(&root)).into_owned();
        Ok([(ANSWER_KEY.to_owned(), answer)].into())
    }
}

/// The document that names the config and all layers.
fn root(
    mut layers: Vec<Descriptor>,
    config: Descriptor,
    documents: Documents,
) -> (Descriptor, Bytes) {
    if documents.media_types == MediaTypes::Docker {
        for layer in &mut layers {
            layer.media_type = media_type::layer_to_docker(&layer.media_type).to_owned();
        }
    }
    let (kind, bytes) = if documents.root == RootKind::Manifest {
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.into(),
            artifact_type: String::new(),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        (media_type::OCI_MANIFEST, gostd::json::to_vec(&manifest))
    } else {
        let kind = if documents.media_types == MediaTypes::Oci {
            media_type::OCI_INDEX
        } else {
            media_type::DOCKER_INDEX
        };
        layers.push(config);
        let index = Index {
            schema_version: 2,
            media_type: kind.into(),
            artifact_type: String::new(),
            manifests: layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        (kind, gostd::json::to_vec(&index))
    };
    (Descriptor::of_bytes(kind, &bytes), bytes.into())
}

impl CacheRecords {
    /// Adds the records of a result.
    pub(crate) async fn add<D: CacheDomain>(
        &mut self,
        keys: &[KeyInfo<D>],
        options: ExportOptions,
        ctx: &OpCtx<D>,
    ) -> Result<(), CacheError> {
        // All keys of a result lead to the same records.
        let Some(first) = keys.first().cloned() else {
            return Ok(());
        };
        let walk_options = export::ExportOptions {
            mode: options.mode,
            roots: export::RootResults::LeftOut,
            backlinks: export::Backlinks::Followed,
        };
        let walk = move || export::export(&[first], walk_options);
        let exported = task::blocking("walk cache records", walk).await?;
        let mut exports: BTreeMap<(String, String, bool), (&RecordResult<D>, bool)> =
            BTreeMap::new();
        for (at, record) in exported.records.iter().enumerate() {
            for result in &record.results {
                let top = exported.tops.contains(&at);
                let entry = exports.entry(name_of(result)).or_insert((result, top));
                entry.1 |= top;
            }
        }
        let mut making: Vec<BoxFuture<'_, Result<_, CacheError>>> =
            Vec::with_capacity(exports.len());
        for (name, (result, top)) in exports {
            making.push(Box::pin(async move {
                let layers = match layers_of(result, options, ctx).await {
                    Err(error) if !top => {
                        let result = &result.stored.id;
                        tracing::warn!(%error, result, "a result is left out of the cache");
                        None
                    }
                    layers => layers?,
                };
                Ok((name, layers))
            }));
        }
        let layers: HashMap<_, ResultLayers> = stream::iter(making)
            .buffer_unordered(MAX_RESULTS_AT_ONCE)
            .try_collect()
            .await?;
        let mut results: HashMap<usize, Vec<ChainResult>> = HashMap::new();
        for (at, record) in exported.records.iter().enumerate() {
            for result in &record.results {
                let layers = layers.get(&name_of(result)).and_then(Option::as_ref);
                let Some(layers) = layers.filter(|l| !l.is_empty()) else {
                    continue;
                };
                let layers = layers.iter().map(|layer| {
                    let digest = layer.descriptor.digest.clone();
                    self.blobs.entry(digest).or_insert_with(|| layer.clone());
                    Arc::new(describe(layer))
                });
                let layers = layers.collect();
                results.entry(at).or_default().push(ChainResult {
                    created: result.stored.created_at,
                    layers,
                });
            }
        }
        self.chains.add_exported(&exported, results)
    }

    async fn write_layers(
        &self,
        place: &dyn Place,
        layers: &[Descriptor],
        progress: &Writer,
    ) -> Result<(), CacheError> {
        let mut written = BTreeSet::new();
        let mut writes: Vec<BoxFuture<'_, Result<(), CacheError>>> = Vec::new();
        for layer in layers.iter().filter(|layer| written.insert(&layer.digest)) {
            writes.push(Box::pin(async move {
                let _status = progress.status(format!("writing layer {}", layer.digest), "");
                let blob = self.blobs.get(&layer.digest);
                let blob = blob
                    .ok_or_else(|| CacheError::records(format!("missing blob {}", layer.digest)))?;
                place
                    .put_layer(layer, blob)
                    .await
                    .map_err(CacheError::write("layer"))
            }));
        }
        stream::iter(writes)
            .buffer_unordered(MAX_BLOBS_AT_ONCE)
            .try_collect()
            .await
    }
}

fn name_of<D: CacheDomain>(result: &RecordResult<D>) -> (String, String, bool) {
    (
        result.manager.id().to_owned(),
        result.stored.id.clone(),
        result.only_with_blobs,
    )
}

/// The layers of a result, packed if necessary; none if it was pruned, is empty, or is not to be packed.
async fn layers_of<D: CacheDomain>(
    result: &RecordResult<D>,
    options: ExportOptions,
    ctx: &OpCtx<D>,
) -> Result<ResultLayers, CacheError> {
    let reference = match result.manager.results().load(&result.stored, ctx).await {
        Ok(reference) => reference,
        Err(error) => {
            tracing::debug!(%error, result = result.stored.id, "a result of a cache record was pruned");
            return Ok(None);
        }
    };
    let Some(reference) = reference else {
        return Ok(None);
    };
    let CompressionAttributes {
        compression,
        is_named,
    } = options.compression;
    let mut layers = if result.only_with_blobs {
        let Some(blobs) = reference.known_blobs()? else {
            return Ok(None);
        };
        if compression.force {
            reference.blobs(compression).await?
        } else if is_named {
            reference.blobs_as_asked(compression, None).await?
        } else {
            blobs
        }
    } else if is_named {
        reference.blobs_as_asked(compression, None).await?
    } else {
        reference.blobs(compression).await?
    };
    if options.form == LayerForm::AsCompressed && !compression.force {
        let fits = |layer: &LayerBlob| {
            layer.descriptor.media_type == compression.kind.media_type()
                || media_type::layer_to_oci(&layer.descriptor.media_type)
                    == compression.kind.media_type()
        };
        let better = layers.last().is_some_and(|top| !fits(top));
        let variant = if better {
            reference.blob_variants()?.into_iter().find(fits)
        } else {
            None
        };
        if let (Some(variant), Some(top)) = (variant, layers.last_mut())
            && has_bytes(&variant)?
        {
            *top = variant;
        }
    }
    for layer in &layers {
        if !has_bytes(layer)? {
            return Ok(None);
        }
        // A registry keeps its blobs. A client may have removed a blob, and is connected for a short time only.
        if layer.repositories().is_empty()
            && let Err(error) = layer.ensure().await
        {
            tracing::debug!(%error, result = result.stored.id, "a layer of a cache record was pruned");
            return Ok(None);
        }
    }
    Ok(Some(layers))
}

fn has_bytes(layer: &LayerBlob) -> Result<bool, StoreError> {
    Ok(layer.provider().is_some() || layer.is_local()?)
}

/// The descriptor of a layer as the documents have it.
fn describe(layer: &LayerBlob) -> Descriptor {
    let mut out = layer.descriptor.clone();
    out.media_type = distributable(media_type::layer_to_oci(&out.media_type)).to_owned();
    out.urls = Vec::new();
    out.platform = None;
    out.annotations
        .retain(|key, _| !key.starts_with("containerd.io/distribution.source."));
    out.annotations
        .insert(UNCOMPRESSED.into(), layer.diff_id.to_string());
    out.annotations.insert(
        CREATED_AT.into(),
        Timestamp::from(layer.created).to_string(),
    );
    out
}

fn distributable(media_type: &str) -> &str {
    match media_type {
        media_type::OCI_LAYER_NONDIST => media_type::OCI_LAYER,
        media_type::OCI_LAYER_NONDIST_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_NONDIST_ZSTD => media_type::OCI_LAYER_ZSTD,
        other => other,
    }
}

#[cfg(test)]
mod tests;
