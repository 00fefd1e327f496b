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

use crate::error::ExportError;
use crate::manager::ExportContext;

/// What to push.
#[derive(Debug, Clone)]
pub(crate) struct PushImage {
    pub(crate) root: Descriptor,
    /// Children before parents.
    pub(crate) documents: Vec<(Descriptor, Bytes)>,
    pub(crate) layers: Vec<LayerBlob>,
}

/// How to push it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PushOptions {
    pub(crate) insecure: bool,
    pub(crate) by_digest: bool,
}

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
    let begun = task::clock::monotonic();
    let pushed = push_parts(ctx, client, credentials, image, name, options).await;
    metrics::PHASE_DURATION.observe(metrics::Phase::Push, begun.elapsed());
    pushed
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
    if options.by_digest && (reference.tag.is_some() || reference.digest.is_some()) {
        return Err(ExportError::attribute(format!(
            "failed to push {name}: can't push tagged ref {reference} by digest"
        )));
    }
    let tag = if options.by_digest {
        None
    } else {
        Some(reference.tag.clone().unwrap_or_else(|| "latest".into()))
    };
    let shown = match &tag {
        Some(tag) => format!("{}:{tag}@{}", reference.name(), image.root.digest),
        None => reference.name(),
    };
    let access = Access::PUSH.insecure(options.insecure);
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
                    Blob::Layer(Box::new(layer.clone())),
                ));
            }
        }
        for (desc, bytes) in &image.documents {
            if !is_document(desc) {
                blobs.push(push_blob(
                    repository.clone(),
                    Blob::Document(Box::new(desc.clone()), bytes.clone()),
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
        .status(format!("pushing manifest for {shown}"), "");
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

enum Blob {
    Layer(Box<LayerBlob>),
    Document(Box<Descriptor>, Bytes),
}

async fn push_blob(repository: Repository, blob: Blob) -> Result<(), registry::Error> {
    let quiet: registry::SentFn = Arc::new(|_| {});
    match blob {
        Blob::Layer(layer) => {
            // Neighbours in the same registry that have the layer can hand it over.
            let prefix = format!("{}/", repository.name().domain);
            let from: Vec<String> = layer
                .repositories()
                .iter()
                .filter_map(|r| r.strip_prefix(&prefix))
                .map(str::to_owned)
                .collect();
            repository
                .push_blob(
                    &layer.descriptor,
                    Arc::new(Lazy((*layer).clone())),
                    &from,
                    quiet,
                )
                .await?;
        }
        Blob::Document(desc, bytes) => {
            repository
                .push_blob(&desc, Arc::new(BytesSource(bytes)), &[], quiet)
                .await?;
        }
    }
    Ok(())
}

/// A layer that is fetched only if the registry does not have it.
struct Lazy(LayerBlob);

#[async_trait]
impl BlobSource for Lazy {
    async fn open(&self) -> std::io::Result<ByteStream> {
        let file = self.0.open().await.map_err(std::io::Error::other)?;
        FileSource(Arc::new(file)).open().await
    }
}
