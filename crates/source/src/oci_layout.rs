//! `oci-layout://`: images in a content store that the client keeps.
//!
//! The same walk as for a registry, over the client's content service. References must carry a digest: the client resolves
//! tags in its own layout. Layers are lazy; to mount them a session is needed that has the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use oci::{Descriptor, Digest, Platform, SessionId};
use progress::Writer;
use session::{ContentStore, Group, SessionError};
use store::{BlobProvider, BlobSink, FetchError, ImmutableRef, RecordType, Shown, Store};

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::image::key::image_key;
use crate::image::spec::Spec;
use crate::image::walk::{
    Fetch, ImageDocuments, ImageLayer, UnknownDocument, manifest_type, select,
};
use crate::image::{ResolvedConfig, import, layer_limit, limited};
use crate::manager::{CacheKey, Source, SourceInstance};

/// The largest manifest or config that is read.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// The source of `oci-layout://`.
#[derive(Debug, Clone)]
pub struct OciLayoutSource {
    store: Arc<Store>,
}

/// A content store of a client.
#[derive(Debug, Clone, Default)]
pub struct LayoutStore {
    /// The session; if empty, any of the build's.
    pub session: SessionId,
    /// The name of the store; if empty, that of the reference.
    pub store: String,
}

impl OciLayoutSource {
    /// Makes the source.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Resolves a reference with a digest to the config for `platform` (the host's by default).
    pub async fn resolve_config(
        &self,
        reference: &str,
        platform: Option<&Platform>,
        layout: &LayoutStore,
        ctx: &Context,
    ) -> Result<ResolvedConfig, SourceError> {
        let spec = Spec::parse(reference)?;
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let image = ClientLayout::new(&spec, layout, &ctx.sessions)
            .pull(&spec, &platform)
            .await?;
        Ok(ResolvedConfig {
            reference: reference.to_owned(),
            digest: image.root.digest.clone(),
            config: image.config_bytes,
        })
    }
}

impl Source for OciLayoutSource {
    fn schemes(&self) -> &'static [&'static str] {
        &["oci-layout"]
    }

    fn resolve(
        &self,
        _scheme: &str,
        reference: &str,
        attrs: &BTreeMap<String, String>,
        platform: Option<&Platform>,
    ) -> Result<Arc<dyn SourceInstance>, SourceError> {
        let mut layout = LayoutStore::default();
        let mut limit = None;
        for (name, value) in attrs {
            match name.as_str() {
                "oci.session" => layout.session = value.as_str().into(),
                "oci.store" => layout.store = value.clone(),
                "oci.layerlimit" => limit = Some(layer_limit(value)?),
                _ => {}
            }
        }
        Ok(Arc::new(OciLayoutInstance {
            source: self.clone(),
            spec: Spec::parse(reference)?,
            layout,
            platform: platform.cloned().unwrap_or_else(Platform::host),
            limit,
            pulled: tokio::sync::OnceCell::new(),
        }))
    }
}

/// A store of a client, open for reading.
#[derive(Debug, Clone)]
struct ClientLayout {
    sessions: Group,
    session: SessionId,
    store: String,
}

impl ClientLayout {
    fn new(spec: &Spec, layout: &LayoutStore, sessions: &Group) -> Self {
        let name = if layout.store.is_empty() {
            format!("{}/{}", spec.host, spec.path)
        } else {
            layout.store.clone()
        };
        Self {
            sessions: sessions.clone(),
            session: layout.session.clone(),
            store: format!("oci:{name}"),
        }
    }

    async fn session(&self) -> Result<Arc<dyn ContentStore>, SessionError> {
        Ok(if self.session.is_empty() {
            self.sessions.first().await?
        } else {
            self.sessions.named(&self.session).await?
        })
    }

    async fn read(&self, desc: &Descriptor) -> Result<Bytes, SourceError> {
        let session = self.session().await.map_err(SourceError::session)?;
        let reading = session.content_read(&self.store, &desc.digest, 0, 0);
        let share = self.sessions.share(session.id());
        let opened = share.open("Read", reading).await;
        let mut bytes = opened.map_err(SourceError::session)?;
        let mut out = BytesMut::new();
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(SourceError::session)?;
            if (out.len() as u64).saturating_add(chunk.len() as u64) > MAX_DOCUMENT_BYTES {
                let source = cause(format!("larger than {MAX_DOCUMENT_BYTES} bytes"));
                return Err(SourceError::Document {
                    what: "document",
                    digest: desc.digest.clone(),
                    source,
                });
            }
            out.extend_from_slice(&chunk);
        }
        if Digest::sha256(&out) != desc.digest {
            let source = cause("the client sent other bytes than those of the digest");
            return Err(SourceError::Document {
                what: "document",
                digest: desc.digest.clone(),
                source,
            });
        }
        Ok(out.freeze())
    }

    async fn pull(&self, spec: &Spec, platform: &Platform) -> Result<ImageDocuments, SourceError> {
        let Some(digest) = &spec.digest else {
            let source = cause(format!("reference {:?} must have digest", spec.to_string()));
            return Err(SourceError::Reference {
                reference: spec.to_string(),
                source,
            });
        };
        // The client's store keeps no media types: the content tells.
        let body = self.read(&Descriptor::new("", digest.clone(), 0)).await?;
        let kind = manifest_type(&body).map_err(|e| SourceError::Reference {
            reference: spec.to_string(),
            source: cause(UnknownRoot {
                reference: spec.to_string(),
                source: e,
            }),
        })?;
        let root = Descriptor::new(kind, digest.clone(), body.len() as u64);
        select(self, root, platform).await
    }
}

/// A document of the client's store is neither an index nor a manifest.
#[derive(Debug, thiserror::Error)]
#[error("reference {reference:?} contains neither an index nor a manifest: {source}")]
struct UnknownRoot {
    reference: String,
    source: UnknownDocument,
}

#[async_trait]
impl Fetch for ClientLayout {
    async fn document(&self, desc: &Descriptor) -> Result<Bytes, SourceError> {
        self.read(desc).await
    }
}

/// Fetches layers from the client.
#[derive(Debug)]
struct LayoutLayers {
    layout: ClientLayout,
    progress: Writer,
}

#[async_trait]
impl BlobProvider for LayoutLayers {
    async fn fetch(&self, desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError> {
        let _busy = self.progress.work();
        let status = self.progress.status(desc.digest.as_str(), "downloading");
        let session = self.layout.session().await?;
        let reading = session.content_read(&self.layout.store, &desc.digest, 0, 0);
        let share = self.layout.sessions.share(session.id());
        let mut bytes = share.open("Read", reading).await?;
        let mut current = 0_i64;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            current = current.saturating_add(i64::try_from(chunk.len()).unwrap_or(i64::MAX));
            if desc.size >= 0 && current > desc.size {
                return Err(
                    format!("content {} is larger than its descriptor says", desc.digest).into(),
                );
            }
            sink.write(chunk).await?;
            status.set(current, desc.size.max(0));
        }
        Ok(())
    }

    fn busy(&self) -> Shown {
        Box::new(self.progress.work())
    }

    fn unpacking(&self, desc: &Descriptor) -> Shown {
        Box::new(
            self.progress
                .status(format!("extracting {}", desc.digest), "extracting"),
        )
    }
}

#[derive(Debug)]
struct OciLayoutInstance {
    source: OciLayoutSource,
    spec: Spec,
    layout: LayoutStore,
    platform: Platform,
    limit: Option<usize>,
    /// The image that the key names; the snapshot must be of the same.
    pulled: tokio::sync::OnceCell<ImageDocuments>,
}

impl OciLayoutInstance {
    async fn layers(&self, ctx: &Context) -> Result<(Digest, Vec<ImageLayer>), SourceError> {
        let image = self
            .pulled
            .get_or_try_init(|| async {
                let _status = ctx.progress.status(format!("resolve {}", self.spec), "");
                ClientLayout::new(&self.spec, &self.layout, &ctx.sessions)
                    .pull(&self.spec, &self.platform)
                    .await
            })
            .await?;
        Ok((
            image.root.digest.clone(),
            limited(image.layers()?, self.limit)?,
        ))
    }

    fn provider(&self, ctx: &Context) -> Arc<dyn BlobProvider> {
        provider(&self.spec, &self.layout, ctx)
    }
}

/// The provider of blobs from a client's store.
pub(crate) fn provider(spec: &Spec, layout: &LayoutStore, ctx: &Context) -> Arc<dyn BlobProvider> {
    Arc::new(LayoutLayers {
        layout: ClientLayout::new(spec, layout, &ctx.sessions),
        progress: ctx.progress.clone(),
    })
}

#[async_trait]
impl SourceInstance for OciLayoutInstance {
    async fn cache_key(&self, ctx: &Context, _index: usize) -> Result<CacheKey, SourceError> {
        let (root, layers) = self.layers(ctx).await?;
        let mut out = CacheKey::new(
            image_key(&root, &self.platform, self.limit).to_string(),
            root.to_string(),
        );
        let provider = self.provider(ctx);
        out.layers = layers
            .into_iter()
            .map(|l| (l.descriptor.digest, provider.clone()))
            .collect();
        Ok(out)
    }

    async fn snapshot(&self, ctx: &Context) -> Result<Option<ImmutableRef>, SourceError> {
        let (_, layers) = self.layers(ctx).await?;
        import(
            &self.source.store,
            &layers,
            &self.spec,
            &RecordType::Regular,
            &self.provider(ctx),
        )
    }
}
