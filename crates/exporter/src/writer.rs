//! Writes the documents of an image: layers first, then config and manifest of each platform, then the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use gostd::Timestamp;
use oci::{Descriptor, Digest, Platform, media_type};
use store::{ImmutableRef, LayerBlob, Lease, Store};

use crate::config::{ConfigRootFs, LayerFacts, Patch, default_config, patch};
use crate::documents::{
    IN_TOTO_TYPE, IndexDocument, ManifestDocument, config_type, manifest_type, pretty,
    public_annotations,
};
use crate::error::{ExportError, ExportResultError};
use crate::manager::{About, ExportContext, ExportSource};
use crate::options::ImageOptions;
use crate::platforms::PlatformEntry;

/// An image whose documents are in the store.
#[derive(Debug)]
pub(crate) struct WrittenImage {
    /// The index, or the manifest of the only platform.
    pub(crate) root: Descriptor,
    /// The config of the only platform.
    pub(crate) config: Option<Digest>,
    /// Every document with its bytes, children before parents, the root last.
    pub(crate) documents: Vec<(Descriptor, Bytes)>,
    /// Every layer by digest, as the manifests name them.
    pub(crate) layers: HashMap<Digest, LayerBlob>,
    /// Protects the documents from collection until the build record does.
    pub(crate) lease: Lease,
}

/// Writes the documents of one image; see [`commit`].
struct ImageWriter<'a> {
    store: &'a Arc<Store>,
    ctx: &'a ExportContext,
    source: &'a ExportSource,
    options: &'a ImageOptions,
    image: WrittenImage,
}

/// The platform that an attestation manifest has in the index: clients that look for theirs skip it.
fn unknown_platform() -> Platform {
    Platform {
        architecture: "unknown".into(),
        os: "unknown".into(),
        ..Platform::default()
    }
}

/// The annotation of a layer with the time that its files were held down to.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// The diff ids of the base image, by its config: its layers are not rewritten.
fn base_layers(config: Option<&[u8]>) -> Result<Vec<Digest>, ExportError> {
    #[derive(serde::Deserialize)]
    struct BaseConfig {
        #[serde(default)]
        rootfs: Option<BaseRootFs>,
    }
    #[derive(serde::Deserialize)]
    struct BaseRootFs {
        #[serde(default)]
        diff_ids: Vec<Digest>,
    }
    let Some(config) = config.filter(|c| !c.is_empty()) else {
        return Ok(Vec::new());
    };
    let config: BaseConfig = gostd::json::from_slice(config)
        .map_err(|e| ExportError::malformed("failed to unmarshal base image config", e))?;
    Ok(config.rootfs.map(|r| r.diff_ids).unwrap_or_default())
}

/// Writes the image; nothing is sent anywhere.
pub(crate) async fn commit(
    store: &Arc<Store>,
    ctx: &ExportContext,
    source: &ExportSource,
    options: &ImageOptions,
) -> Result<WrittenImage, ExportError> {
    if source.is_map() && !source.metadata.contains_key("refs.platforms") {
        return Err(ExportResultError::NoPlatformMap.into());
    }
    let platforms = source.platforms()?;
    let on_demand = options.inline_attestations;
    let attested = |p: &PlatformEntry| {
        source
            .attester
            .as_ref()
            .is_some_and(|a| a.attests(&p.id, on_demand))
    };
    let is_index = source.is_map() || platforms.iter().any(attested);
    check_annotations(source, options)?;
    let empty = Descriptor::new("", Digest::sha256(b""), 0);
    let lease = store.lease();
    let image = WrittenImage {
        root: empty,
        config: None,
        documents: Vec::new(),
        layers: HashMap::new(),
        lease,
    };
    let writer = ImageWriter {
        store,
        ctx,
        source,
        options,
        image,
    };
    if is_index {
        writer.index(&platforms).await
    } else {
        writer.single(&platforms).await
    }
}

fn check_annotations(source: &ExportSource, options: &ImageOptions) -> Result<(), ExportError> {
    for (platform, annotations) in options.annotations.iter() {
        if !platform.is_empty() && source.find(platform).is_err() {
            return Err(ExportResultError::AnnotationPlatform {
                platform: platform.to_owned(),
            }
            .into());
        }
        let needs_oci = annotations.index.len()
            + annotations.index_descriptor.len()
            + annotations.manifest_descriptor.len()
            > 0;
        if needs_oci && !options.is_oci() {
            return Err(ExportResultError::AnnotationsNeedOciTypes.into());
        }
    }
    Ok(())
}

impl ImageWriter<'_> {
    async fn single(mut self, platforms: &[PlatformEntry]) -> Result<WrittenImage, ExportError> {
        let [platform] = platforms else {
            return Err(ExportResultError::NotMultiPlatform.into());
        };
        let annotations = self.options.annotations.of(None);
        if !annotations.index.is_empty() || !annotations.index_descriptor.is_empty() {
            return Err(ExportResultError::IndexAnnotations.into());
        }
        let reference = self.source.find(&platform.id)?;
        let layers = self.layers(&[(platform, reference)]).await?;
        let layers = layers.into_iter().next().unwrap_or_default();
        let (mut desc, config) = self.manifest(platform, layers, annotations).await?;
        desc.platform = Some(platform.platform.clone());
        self.image.root = desc;
        self.image.config = Some(config);
        Ok(self.image)
    }

    async fn index(mut self, platforms: &[PlatformEntry]) -> Result<WrittenImage, ExportError> {
        if !self.options.is_oci() && self.source.attester.is_some() {
            return Err(ExportResultError::AttestationsNeedOciTypes.into());
        }
        let mut refs = Vec::with_capacity(platforms.len());
        for platform in platforms {
            refs.push((platform, self.source.find(&platform.id)?));
        }
        let layers = self.layers(&refs).await?;
        let mut entries = Vec::new();
        let mut attestations = Vec::new();
        for (platform, layers) in platforms.iter().zip(layers) {
            let annotations = self.options.annotations.of(Some(&platform.platform));
            let (mut desc, _config) = self.manifest(platform, layers.clone(), annotations).await?;
            desc.platform = Some(platform.platform.clone());
            if let Some(attestation) = self.attestation(platform, &desc, &layers).await? {
                attestations.push(attestation);
            }
            entries.push(desc);
        }
        entries.extend(attestations);
        let annotations = self.options.annotations.of(None);
        let index = IndexDocument::new(self.options.is_oci(), &entries, annotations.index);
        let bytes = pretty(&index);
        let mut desc = Descriptor::of_bytes(index.media_type(), &bytes);
        desc.annotations = annotations.index_descriptor;
        let _status = self
            .ctx
            .progress
            .status(format!("exporting manifest list {}", desc.digest), "");
        self.add_document(desc.clone(), bytes)?;
        self.image.root = desc;
        Ok(self.image)
    }

    /// Makes the layers of all results side by side.
    async fn layers(
        &self,
        refs: &[(&PlatformEntry, Option<&ImmutableRef>)],
    ) -> Result<Vec<Vec<LayerBlob>>, ExportError> {
        let _status = self.ctx.progress.status("exporting layers", "");
        let of_platforms = refs
            .iter()
            .map(|(platform, reference)| self.layers_of(platform, *reference));
        futures::future::try_join_all(of_platforms).await
    }

    async fn layers_of(
        &self,
        platform: &PlatformEntry,
        reference: Option<&ImmutableRef>,
    ) -> Result<Vec<LayerBlob>, ExportError> {
        let Some(reference) = reference else {
            return Ok(Vec::new());
        };
        let id = Some(platform.id.as_str());
        let compression = self.options.compression;
        let base = self.source.meta("containerimage.base.config", id);
        let base = base.filter(|config| !config.is_empty());
        let base_layers: BTreeSet<Digest> = base_layers(base)?.into_iter().collect();
        let epoch = if self.options.rewrite_timestamp {
            self.options.epoch.of(self.source, id)?
        } else {
            None
        };
        let Some(epoch) = epoch else {
            if self.options.rewrite_timestamp {
                tracing::warn!(
                    "rewrite-timestamp is specified, but no source-date-epoch was found"
                );
            }
            if self.options.compression_named {
                let base_layers = base.is_some().then_some(&base_layers);
                return Ok(reference.blobs_as_asked(compression, base_layers).await?);
            }
            return Ok(reference.blobs(compression).await?);
        };
        let seconds = epoch.seconds();
        let _status = self.ctx.progress.status(
            format!("rewriting layers with source-date-epoch {seconds} ({epoch})"),
            "",
        );
        let mut layers = reference
            .blobs_not_after(compression, seconds, &base_layers)
            .await?;
        for layer in &mut layers {
            if !base_layers.contains(&layer.diff_id) {
                let annotations = &mut layer.descriptor.annotations;
                annotations.insert(REWRITTEN.to_owned(), seconds.to_string());
            }
        }
        Ok(layers)
    }

    async fn manifest(
        &mut self,
        platform: &PlatformEntry,
        layers: Vec<LayerBlob>,
        annotations: crate::annotations::Annotations,
    ) -> Result<(Descriptor, Digest), ExportError> {
        let id = Some(platform.id.as_str());
        let oci = self.options.is_oci();
        let facts: Vec<LayerFacts> = layers
            .iter()
            .map(|l| LayerFacts {
                diff_id: l.diff_id.clone(),
                // Every layer of this daemon has a description; one that lacks it is no reason to fail.
                description: if l.description.is_empty() {
                    "created by buildkit".into()
                } else {
                    l.description.clone()
                },
                created: Some(Timestamp::from(l.created)),
            })
            .collect();
        let inline = match &self.ctx.inline_cache {
            Some(cache) => cache.entry(id).await?,
            None => None,
        };
        let config = self
            .source
            .meta("containerimage.config", id)
            .filter(|c| !c.is_empty());
        let default = if config.is_none() {
            default_config()
        } else {
            Vec::new()
        };
        let config = patch(
            config.unwrap_or(&default),
            &Patch {
                layers: &facts,
                epoch: self.options.epoch.of(self.source, id)?,
                base: self
                    .source
                    .meta("containerimage.base.config", id)
                    .filter(|c| !c.is_empty()),
                inline_cache: inline.as_deref(),
            },
        )?;
        let config_desc = Descriptor::of_bytes(config_type(oci), &config);
        let mut descriptors = Vec::with_capacity(layers.len());
        for layer in layers {
            descriptors.push(self.layer_descriptor(&layer.descriptor));
            self.image
                .layers
                .insert(layer.descriptor.digest.clone(), layer);
        }
        let manifest = pretty(&ManifestDocument::image(
            oci,
            config_desc.clone(),
            descriptors,
            annotations.manifest,
        ));
        let mut desc = Descriptor::of_bytes(manifest_type(oci), &manifest);
        desc.annotations = annotations.manifest_descriptor;
        {
            let _status = self
                .ctx
                .progress
                .status(format!("exporting manifest {}", desc.digest), "");
            let _config = self
                .ctx
                .progress
                .status(format!("exporting config {}", config_desc.digest), "");
            self.add_document(config_desc.clone(), config)?;
            self.add_document(desc.clone(), manifest)?;
        }
        Ok((desc, config_desc.digest))
    }

    /// The layer's descriptor as it stands in a manifest.
    fn layer_descriptor(&self, desc: &Descriptor) -> Descriptor {
        let oci = self.options.is_oci();
        let family = if oci {
            media_type::layer_to_oci(&desc.media_type)
        } else {
            media_type::layer_to_docker(&desc.media_type)
        };
        let kind = if self.options.prefer_nondist_layers {
            family
        } else {
            distributable(family)
        };
        let mut out = Descriptor::new(kind, desc.digest.clone(), desc.len());
        if self.options.prefer_nondist_layers && media_type::is_nondistributable(kind) {
            out.urls = desc.urls.clone();
        }
        out.annotations = public_annotations(oci, &desc.annotations);
        out
    }

    async fn attestation(
        &mut self,
        platform: &PlatformEntry,
        manifest: &Descriptor,
        layers: &[LayerBlob],
    ) -> Result<Option<Descriptor>, ExportError> {
        let Some(attester) = self.source.attester.clone() else {
            return Ok(None);
        };
        if !attester.attests(&platform.id, true) {
            return Ok(None);
        }
        let names: Vec<String> = self
            .options
            .name
            .split(',')
            .filter(|n| !n.is_empty())
            .map(str::to_owned)
            .collect();
        let statements = attester
            .statements(
                &platform.id,
                About::Image {
                    platform,
                    manifest,
                    names: &names,
                    layers,
                },
            )
            .await?;
        let mut layers = Vec::with_capacity(statements.len());
        let mut diff_ids = Vec::with_capacity(statements.len());
        for statement in statements {
            let mut desc = Descriptor::of_bytes(IN_TOTO_TYPE, &statement.bytes);
            diff_ids.push(desc.digest.clone());
            self.add_document(desc.clone(), statement.bytes)?;
            desc.annotations
                .insert("in-toto.io/predicate-type".into(), statement.predicate_type);
            layers.push(desc);
        }
        let artifact = self.options.is_artifact();
        let config = if artifact {
            b"{}".to_vec()
        } else {
            attestation_config(&diff_ids)
        };
        let mut config_desc = Descriptor::of_bytes(
            if artifact {
                media_type::OCI_EMPTY
            } else {
                media_type::OCI_CONFIG
            },
            &config,
        );
        self.add_document(config_desc.clone(), config)?;
        if artifact {
            config_desc.data = Some("e30=".into());
        }
        let bytes = pretty(&ManifestDocument::attestation(
            artifact,
            config_desc,
            layers,
            manifest,
        ));
        let mut desc = Descriptor::of_bytes(media_type::OCI_MANIFEST, &bytes);
        let _status = self.ctx.progress.status(
            format!("exporting attestation manifest {}", desc.digest),
            "",
        );
        self.add_document(desc.clone(), bytes)?;
        desc.platform = Some(unknown_platform());
        desc.annotations = BTreeMap::from([
            (
                "vnd.docker.reference.digest".to_owned(),
                manifest.digest.to_string(),
            ),
            (
                "vnd.docker.reference.type".to_owned(),
                "attestation-manifest".to_owned(),
            ),
        ]);
        Ok(Some(desc))
    }

    fn add_document(&mut self, desc: Descriptor, bytes: Vec<u8>) -> Result<(), ExportError> {
        self.store.put_blob(&self.image.lease, &bytes)?;
        self.image.documents.push((desc, Bytes::from(bytes)));
        Ok(())
    }
}

/// The config of an attestation manifest that is not an OCI artifact: its layers are the statements.
fn attestation_config(diff_ids: &[Digest]) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct AttestationConfig<'a> {
        #[serde(flatten)]
        platform: Platform,
        config: BTreeMap<String, String>,
        rootfs: ConfigRootFs<'a>,
    }
    let config = AttestationConfig {
        platform: unknown_platform(),
        config: BTreeMap::new(),
        rootfs: ConfigRootFs::new(diff_ids.iter().collect()),
    };
    gostd::json::to_vec(&config)
}

/// The media type of a layer that may be distributed.
fn distributable(media_type: &str) -> &str {
    match media_type {
        media_type::OCI_LAYER_NONDIST => media_type::OCI_LAYER,
        media_type::OCI_LAYER_NONDIST_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_NONDIST_ZSTD => media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_LAYER_FOREIGN => media_type::DOCKER_LAYER,
        media_type::DOCKER_LAYER_FOREIGN_GZIP => media_type::DOCKER_LAYER_GZIP,
        other => other,
    }
}
