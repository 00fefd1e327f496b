//! `docker-image://`: images of registries.
//!
//! Resolving asks the registry for the root document (once for identical concurrent questions), then follows it to the
//! manifest and config of one platform. A reference with a digest that its repository has shown before asks nobody.
//! Layers become lazy records of the store: a snapshot costs no download, whoever mounts it pays.

pub mod attestations;
mod documents;
pub(crate) mod key;
mod provider;
pub mod spec;
pub(crate) mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, Platform};
use registry::{Access, Client, Repository};
use store::{ImmutableRef, LayerDesc, RecordType, Store};

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::image::documents::DocumentCache;
use crate::image::provider::RegistryLayers;
use crate::image::spec::Spec;
use crate::image::walk::{Fetch, ImageDocuments, ImageLayer, select};
use crate::manager::{CacheKey, Source, SourceInstance};
use crate::session_credentials::SessionCredentials;

/// How a reference is resolved. All modes ask the registry: the daemon has no image store that could be preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolveMode {
    /// The daemon's default, which is the registry.
    #[default]
    Default,
    /// From the registry.
    ForcePull,
    /// From the local image store if it has one.
    PreferLocal,
}

impl ResolveMode {
    /// Reads the attribute's value.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        match text {
            "" | "default" => Ok(Self::Default),
            "pull" => Ok(Self::ForcePull),
            "local" => Ok(Self::PreferLocal),
            other => Err(SourceError::Attribute {
                name: "image.resolvemode",
                source: cause(format!("invalid resolvemode: {other}")),
            }),
        }
    }
}

/// A resolved image and its config.
#[derive(Debug, Clone)]
pub struct ResolvedConfig {
    /// The reference that was resolved.
    pub reference: String,
    /// The digest of the root document.
    pub digest: Digest,
    /// The config, byte for byte.
    pub config: Bytes,
}

/// The source of `docker-image://`.
#[derive(Debug, Clone)]
pub struct ImageSource {
    inner: Arc<ImageSourceInner>,
}

#[derive(Debug)]
struct ImageSourceInner {
    store: Arc<Store>,
    client: Client,
    documents: DocumentCache,
    flights: task::Flight<String, Result<Arc<ImageDocuments>, SourceError>>,
}

impl ImageSource {
    /// Makes the source.
    #[must_use]
    pub fn new(store: Arc<Store>, client: Client) -> Self {
        Self {
            inner: Arc::new(ImageSourceInner {
                store,
                client,
                documents: DocumentCache::default(),
                flights: task::Flight::new(),
            }),
        }
    }

    /// Resolves a normalized reference to the digest of its root and the config for `platform` (the host's by default).
    pub async fn resolve_config(
        &self,
        reference: &str,
        platform: Option<&Platform>,
        mode: ResolveMode,
        ctx: &Context,
    ) -> Result<ResolvedConfig, SourceError> {
        let _ = mode;
        let spec = Spec::parse(reference)?;
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let image = self.pull(&spec, &platform, ctx).await?;
        Ok(ResolvedConfig {
            reference: reference.to_owned(),
            digest: image.root.digest.clone(),
            config: image.config_bytes.clone(),
        })
    }

    fn repository(&self, spec: &Spec, ctx: &Context) -> Result<Repository, SourceError> {
        let credentials = Arc::new(SessionCredentials::new(ctx.sessions.clone()));
        Ok(self
            .inner
            .client
            .repository(spec.repository(), Access::PULL, credentials)?
            .with_observer(ctx.wait_observer()))
    }

    /// The provider of blobs from a reference's repository.
    pub(crate) fn blobs_of(
        &self,
        spec: &Spec,
        ctx: &Context,
    ) -> Result<Arc<dyn store::BlobProvider>, SourceError> {
        let repository = self.repository(spec, ctx)?;
        Ok(Arc::new(RegistryLayers::new(
            repository,
            ctx.progress.clone(),
        )))
    }

    /// The documents of an image. Concurrent calls for the same image share one fetch.
    async fn pull(
        &self,
        spec: &Spec,
        platform: &Platform,
        ctx: &Context,
    ) -> Result<Arc<ImageDocuments>, SourceError> {
        let repository = self.repository(spec, ctx)?;
        let (source, spec, platform) = (self.clone(), spec.clone(), platform.clone());
        let key = format!(
            "{spec} {} {:?} {:?}",
            platform.format(),
            platform.os_version,
            ctx.sessions.ids()
        );
        self.inner
            .flights
            .run(key, move || async move {
                source
                    .pull_now(&repository, &spec, &platform)
                    .await
                    .map(Arc::new)
            })
            .await
    }

    async fn pull_now(
        &self,
        repository: &Repository,
        spec: &Spec,
        platform: &Platform,
    ) -> Result<ImageDocuments, SourceError> {
        let root = self.root(repository, spec).await?;
        select(&self.caching_fetch(repository), root, platform).await
    }

    /// The descriptor of the document that a reference names.
    async fn root(&self, repository: &Repository, spec: &Spec) -> Result<Descriptor, SourceError> {
        let authority = repository.name().to_string();
        match spec
            .digest
            .as_ref()
            .and_then(|d| self.remembered_root(&authority, d))
        {
            Some(desc) => Ok(desc),
            None => Ok(repository
                .resolve(spec.tag.as_deref(), spec.digest.as_ref())
                .await?),
        }
    }

    /// A fetcher of a repository's documents that keeps them in the cache.
    fn caching_fetch<'a>(&'a self, repository: &'a Repository) -> CachingFetch<'a> {
        CachingFetch {
            documents: &self.inner.documents,
            repository,
            authority: repository.name().to_string(),
        }
    }
}

/// Metadata of the topmost layer of an image: `<repository>@<root>`.
const META_IMAGE: &str = "image.source";
/// Metadata beside it: the image's documents.
const META_DOCUMENTS: &str = "image.documents";

impl ImageSource {
    /// The root document of a digest that this repository has served before, to this process or an earlier one.
    fn remembered_root(&self, authority: &str, digest: &Digest) -> Option<Descriptor> {
        if let Some((desc, _)) = self.inner.documents.get(authority, digest) {
            return Some(desc);
        }
        let name = format!("{authority}@{digest}");
        for id in self
            .inner
            .store
            .find_meta(META_IMAGE, name.as_bytes())
            .ok()?
        {
            let Ok(Some(bytes)) = self.inner.store.meta(&id, META_DOCUMENTS) else {
                continue;
            };
            let Ok(documents) = serde_json::from_slice::<Vec<(Descriptor, String)>>(&bytes) else {
                continue;
            };
            for (desc, text) in documents {
                // Documents from disk are checked like those from a registry.
                if Digest::sha256(&text) == desc.digest {
                    self.inner
                        .documents
                        .put(authority, &desc, Bytes::from(text));
                }
            }
        }
        self.inner
            .documents
            .get(authority, digest)
            .map(|(desc, _)| desc)
    }

    /// Stores the documents of an image beside its topmost layer, so that they are deleted with it.
    fn remember(
        &self,
        spec: &Spec,
        image: &ImageDocuments,
        top: &ImmutableRef,
    ) -> Result<(), SourceError> {
        let documents: Option<Vec<(&Descriptor, &str)>> = image
            .documents
            .iter()
            .map(|(d, b)| Some((d, std::str::from_utf8(b).ok()?)))
            .collect();
        let Some(documents) = documents else {
            return Ok(());
        };
        let bytes = serde_json::to_vec(&documents).unwrap_or_default();
        let name = format!("{}@{}", spec.repository(), image.root.digest);
        if top.meta(META_IMAGE)?.as_deref() != Some(name.as_bytes()) {
            top.set_meta(META_DOCUMENTS, &bytes)?;
            top.set_meta(META_IMAGE, name.as_bytes())?;
        }
        Ok(())
    }
}

struct CachingFetch<'a> {
    documents: &'a DocumentCache,
    repository: &'a Repository,
    authority: String,
}

#[async_trait]
impl Fetch for CachingFetch<'_> {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, SourceError> {
        if let Some((_, body)) = self.documents.get(&self.authority, &desc.digest) {
            return Ok(body);
        }
        let body = self.repository.manifest(desc).await?;
        self.documents.put(&self.authority, desc, body.clone());
        Ok(body)
    }
}

impl Source for ImageSource {
    fn schemes(&self) -> &'static [&'static str] {
        &["docker-image"]
    }

    fn resolve(
        &self,
        _scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError> {
        let mut instance = ImageInstance {
            source: self.clone(),
            spec: Spec::parse(reference)?,
            platform: platform.cloned().unwrap_or_else(Platform::host),
            record_type: RecordType::Regular,
            limit: None,
            checksum: None,
            pulled: tokio::sync::OnceCell::new(),
        };
        for (name, value) in attrs {
            match name.as_str() {
                "image.resolvemode" => {
                    ResolveMode::parse(value)?;
                }
                "image.recordtype" => instance.record_type = record_type(value)?,
                "image.layerlimit" => instance.limit = Some(layer_limit(value)?),
                "image.checksum" => {
                    let digest = Digest::parse(value);
                    let what = "image checksum";
                    instance.checksum = Some(digest.map_err(|source| SourceError::Digest {
                        what,
                        text: value.clone(),
                        source,
                    })?);
                }
                _ => {}
            }
        }
        Ok(Arc::new(instance))
    }
}

fn record_type(text: &str) -> Result<RecordType, SourceError> {
    match text {
        "" | "regular" => Ok(RecordType::Regular),
        "internal" => Ok(RecordType::Internal),
        "frontend" => Ok(RecordType::Frontend),
        other => Err(SourceError::Attribute {
            name: "image.recordtype",
            source: cause(format!("invalid record type {other}")),
        }),
    }
}

pub(crate) fn layer_limit(text: &str) -> Result<usize, SourceError> {
    match text.parse() {
        Ok(limit) if limit > 0 => Ok(limit),
        _ => Err(SourceError::Attribute {
            name: "layerlimit",
            source: cause(format!("invalid layer limit {text}")),
        }),
    }
}

#[derive(Debug)]
struct ImageInstance {
    source: ImageSource,
    spec: Spec,
    platform: Platform,
    record_type: RecordType,
    limit: Option<usize>,
    checksum: Option<Digest>,
    /// The image that the key names; the snapshot must be of the same.
    pulled: tokio::sync::OnceCell<Arc<ImageDocuments>>,
}

impl ImageInstance {
    async fn pulled(&self, ctx: &Context) -> Result<&Arc<ImageDocuments>, SourceError> {
        self.pulled
            .get_or_try_init(|| async {
                let _status = ctx.progress.status(format!("resolve {}", self.spec), "");
                let image = self.source.pull(&self.spec, &self.platform, ctx).await?;
                match &self.checksum {
                    Some(expected) if *expected != image.root.digest => {
                        Err(SourceError::ImageChecksum {
                            reference: self.spec.to_string(),
                            expected: expected.clone(),
                            actual: image.root.digest.clone(),
                        })
                    }
                    _ => Ok(image),
                }
            })
            .await
    }

    fn layers(&self, image: &ImageDocuments) -> Result<Vec<ImageLayer>, SourceError> {
        limited(image.layers()?, self.limit)
    }

    fn provider(&self, ctx: &Context) -> Result<Arc<RegistryLayers>, SourceError> {
        let repository = self.source.repository(&self.spec, ctx)?;
        Ok(Arc::new(RegistryLayers::new(
            repository,
            ctx.progress.clone(),
        )))
    }
}

pub(crate) fn limited(
    mut layers: Vec<ImageLayer>,
    limit: Option<usize>,
) -> Result<Vec<ImageLayer>, SourceError> {
    if let Some(limit) = limit {
        if limit > layers.len() {
            return Err(SourceError::LayerLimit {
                limit,
                layers: layers.len(),
            });
        }
        layers.truncate(limit);
    }
    Ok(layers)
}

#[async_trait]
impl SourceInstance for ImageInstance {
    async fn cache_key(&self, ctx: &Context, _index: usize) -> Result<CacheKey, SourceError> {
        let image = self.pulled(ctx).await?;
        let layers = self.layers(image)?;
        let key = key::image_key(&image.root.digest, &self.platform, self.limit);
        let provider = self.provider(ctx)?;
        let mut out = CacheKey::new(key.to_string(), image.root.digest.to_string());
        out.layers = layers
            .into_iter()
            .map(|l| (l.descriptor.digest, provider.clone() as _))
            .collect();
        Ok(out)
    }

    async fn snapshot(&self, ctx: &Context) -> Result<Option<ImmutableRef>, SourceError> {
        let image = self.pulled(ctx).await?;
        let provider = self.provider(ctx)?;
        let top = import(
            &self.source.inner.store,
            &self.layers(image)?,
            &self.spec,
            &self.record_type,
            &(provider as _),
        )?;
        if let Some(top) = &top {
            self.source.remember(&self.spec, image, top)?;
        }
        Ok(top)
    }
}

/// Stacks the layers of an image as lazy records.
pub(crate) fn import(
    store: &Arc<Store>,
    layers: &[ImageLayer],
    spec: &Spec,
    record_type: &RecordType,
    provider: &Arc<dyn store::BlobProvider>,
) -> Result<Option<ImmutableRef>, SourceError> {
    let mut top: Option<ImmutableRef> = None;
    for layer in layers {
        let mut desc = LayerDesc::new(
            layer.descriptor.clone(),
            layer.diff_id.clone(),
            format!("pulled from {spec}"),
        );
        desc.record_type = record_type.clone();
        top = Some(store.import_layer(top.as_ref(), desc, provider.clone())?);
    }
    Ok(top)
}

#[cfg(test)]
mod tests;
