//! Pushes an image that is in the store: layers and configs side by side, then manifests, children first.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use oci::{Descriptor, Reference, media_type};
use registry::{
    Access, BlobSource, ByteStream, BytesSource, Client, Credentials, FileSource, Repository,
};
use store::LayerBlob;

use crate::error::{ExportAttributeError, ExportError};
use crate::manager::ExportContext;

/// An image to push.
#[derive(Debug, Clone)]
pub(crate) struct PushImage {
    pub(crate) root: Descriptor,
    /// Children before parents.
    pub(crate) documents: Vec<(Descriptor, Bytes)>,
    pub(crate) layers: Vec<LayerBlob>,
}

/// How to push it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PushOptions {
    pub(crate) transport: PushTransport,
    pub(crate) target: PushTarget,
}

/// How the registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PushTransport {
    /// As the daemon's configuration of the registry says.
    #[default]
    AsConfigured,
    /// Certificates are not checked, and plain HTTP is taken where there is no TLS.
    Insecure,
}

/// The name of the root document in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PushTarget {
    /// The tag of the name, `latest` if it has none.
    #[default]
    Tag,
    /// Its digest alone.
    Digest,
}

/// Blobs of one image that are pushed side by side.
const MAX_PUSHES_AT_ONCE: usize = 16;

/// Pushes under one name.
pub(crate) async fn push(
    ctx: &ExportContext,
    client: &Client,
    credentials: Arc<dyn Credentials>,
    image: &PushImage,
    name: &str,
    options: PushOptions,
) -> Result<(), ExportError> {
    let start = task::clock::monotonic();
    let result = push_parts(ctx, client, credentials, image, name, options).await;
    metrics::PHASE_DURATION.observe(metrics::Phase::Push, start.elapsed());
    result
}

async fn push_parts(
    ctx: &ExportContext,
    client: &Client,
    credentials: Arc<dyn Credentials>,
    image: &PushImage,
    name: &str,
    options: PushOptions,
) -> Result<(), ExportError> {
    let failed = |e: registry::Error| ExportError::Push {
        name: name.to_owned(),
        source: Arc::new(e),
    };
    let bad = |e: oci::ReferenceError| {
        failed(registry::Error::BadName {
            name: format!("{name}: {e}"),
        })
    };
    let reference = Reference::parse(name).map_err(bad)?;
    let tag = match options.target {
        PushTarget::Digest if reference.tag.is_some() || reference.digest.is_some() => {
            let name = name.to_owned();
            return Err(ExportAttributeError::TaggedPushByDigest { name, reference }.into());
        }
        PushTarget::Digest => None,
        PushTarget::Tag => Some(reference.tag.clone().unwrap_or_else(|| "latest".into())),
    };
    let display_name = match &tag {
        Some(tag) => format!("{}:{tag}@{}", reference.name(), image.root.digest),
        None => reference.name(),
    };
    let access = Access::PUSH.insecure(options.transport == PushTransport::Insecure);
    let progress = ctx.progress.clone();
    let observer = registry::WaitObserver::new(move |host| {
        Box::new(progress.status(format!("waiting for {host}"), "waiting"))
    });
    let repository = client
        .repository(&reference, access, credentials)
        .map_err(failed)?
        .with_observer(observer);
    {
        let _status = ctx.progress.status("pushing layers", "");
        let mut blobs = Vec::new();
        for layer in &image.layers {
            if !registry::is_skipped(&layer.descriptor) {
                blobs.push(push_blob(
                    repository.clone(),
                    PushBlob::Layer(Box::new(layer.clone())),
                ));
            }
        }
        for (desc, bytes) in &image.documents {
            if !is_document(desc) {
                blobs.push(push_blob(
                    repository.clone(),
                    PushBlob::Document(Box::new(desc.clone()), bytes.clone()),
                ));
            }
        }
        let mut pushes = futures::stream::iter(blobs).buffer_unordered(MAX_PUSHES_AT_ONCE);
        while let Some(pushed) = pushes.next().await {
            pushed.map_err(failed)?;
        }
    }
    let _status = ctx
        .progress
        .status(format!("pushing manifest for {display_name}"), "");
    for (desc, bytes) in image.documents.iter().filter(|(d, _)| is_document(d)) {
        let tag = if desc.digest == image.root.digest {
            tag.as_deref()
        } else {
            None
        };
        repository
            .push_manifest(desc, bytes.clone(), tag)
            .await
            .map_err(failed)?;
    }
    Ok(())
}

fn is_document(desc: &Descriptor) -> bool {
    media_type::is_manifest(&desc.media_type) || media_type::is_index(&desc.media_type)
}

enum PushBlob {
    Layer(Box<LayerBlob>),
    Document(Box<Descriptor>, Bytes),
}

async fn push_blob(repository: Repository, blob: PushBlob) -> Result<(), registry::Error> {
    let unobserved: registry::SentFn = Arc::new(|_| {});
    match blob {
        PushBlob::Layer(layer) => {
            // Other repositories of the same registry that have the layer: it is mounted from there and not uploaded.
            let prefix = format!("{}/", repository.name().domain);
            let mount_from: Vec<String> = layer
                .repositories()
                .iter()
                .filter_map(|r| r.strip_prefix(&prefix))
                .map(str::to_owned)
                .collect();
            repository
                .push_blob(
                    &layer.descriptor,
                    Arc::new(LazyLayer((*layer).clone())),
                    &mount_from,
                    unobserved,
                )
                .await?;
        }
        PushBlob::Document(desc, bytes) => {
            repository
                .push_blob(&desc, Arc::new(BytesSource(bytes)), &[], unobserved)
                .await?;
        }
    }
    Ok(())
}

/// A layer that is fetched only if the registry does not have it.
struct LazyLayer(LayerBlob);

#[async_trait]
impl BlobSource for LazyLayer {
    async fn open(&self) -> std::io::Result<ByteStream> {
        let file = self.0.open().await.map_err(std::io::Error::other)?;
        FileSource(Arc::new(file)).open().await
    }
}
