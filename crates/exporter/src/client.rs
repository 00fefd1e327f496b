//! What exporters ask of the client that receives the result.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use metrics::Transfer;
use oci::Descriptor;
use registry::{BlobSource, BytesSource, FileSource};
use session::diffcopy::{CallSide, SendOptions, send};
use session::error::code;
use session::{BlobWrite, ByteSink, CallError, ContentStore, FileSend, Session, TransferShare};

use crate::error::ExportError;
use crate::manager::ExportContext;
use crate::tree::{ExportTree, MergedTrees};
use crate::writer::WrittenImage;

/// The client that asked for the export.
pub(crate) async fn client(ctx: &ExportContext) -> Result<Arc<dyn Session>, ExportError> {
    ctx.sessions.first().await.map_err(ExportError::session)
}

/// A file that is streamed to the client. A client that has the file already may say so; the rest is then dropped.
#[derive(Debug)]
pub(crate) struct ClientFile {
    sink: Option<ByteSink>,
    /// The transfers of this client: how many there may be, and for how long nothing may move.
    pub(crate) share: Arc<TransferShare>,
}

fn exists_already(error: &CallError) -> bool {
    error.code() == code::ALREADY_EXISTS
}

impl ClientFile {
    pub(crate) async fn open(
        ctx: &ExportContext,
        id: usize,
        meta: &BTreeMap<String, String>,
    ) -> Result<Self, ExportError> {
        let client: Arc<dyn FileSend> = client(ctx).await?;
        let sink = client
            .send_file(id, meta)
            .await
            .map_err(ExportError::session)?;
        Ok(Self {
            sink: Some(sink),
            share: ctx.sessions.share(client.id()),
        })
    }

    /// Whether the client still wants bytes.
    pub(crate) fn is_open(&self) -> bool {
        self.sink.is_some()
    }

    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), ExportError> {
        let Some(sink) = &mut self.sink else {
            return Ok(());
        };
        let length = chunk.len() as u64;
        match self.share.within(sink.write(chunk)).await {
            Some(Ok(())) => {
                metrics::TRANSFERRED.add(Transfer::ToClient, length);
                Ok(())
            }
            Some(Err(error)) if exists_already(&error) => {
                self.sink = None;
                Ok(())
            }
            Some(result) => result.map_err(ExportError::session),
            None => Err(stalled(&self.share)),
        }
    }

    pub(crate) async fn finish(self) -> Result<(), ExportError> {
        let Some(sink) = self.sink else { return Ok(()) };
        match self.share.within(sink.finish()).await {
            Some(Err(error)) if exists_already(&error) => Ok(()),
            Some(result) => result.map_err(ExportError::session),
            None => Err(stalled(&self.share)),
        }
    }
}

fn stalled(share: &TransferShare) -> ExportError {
    let seconds = share.idle().map_or(0, |idle| idle.as_secs());
    ExportError::session(format!(
        "the client stopped taking the exported file: nothing moved for {seconds} seconds"
    ))
}

/// Sends trees into the client's folder: each on a stream of its own, or merged on one stream, after which the client
/// deletes what was not listed.
pub(crate) async fn send_trees(
    ctx: &ExportContext,
    id: usize,
    trees: Vec<ExportTree>,
    merged: bool,
) -> Result<(), ExportError> {
    let client = client(ctx).await?;
    let parts: Vec<Vec<ExportTree>> = if merged {
        vec![trees]
    } else {
        trees.into_iter().map(|t| vec![t]).collect()
    };
    let sends = parts.into_iter().map(|part| {
        let label = match part.as_slice() {
            [tree] if !merged && tree.folder.is_some() => format!("copying files {}", tree.id),
            _ => "copying files".to_owned(),
        };
        let status = Arc::new(ctx.progress.status(label, "transferring"));
        let client = client.clone();
        async move {
            let bytes_status = status.clone();
            let bytes_sent = metrics::TRANSFERRED.follow(Transfer::ToClient);
            let progress: Arc<dyn Fn(u64) + Send + Sync> = Arc::new(move |bytes| {
                bytes_sent.reach(bytes);
                bytes_status.set(i64::try_from(bytes).unwrap_or(i64::MAX), 0);
            });
            let stream = client
                .send_tree(id, merged)
                .await
                .map_err(ExportError::session)?;
            let options = SendOptions {
                name: "exported files".to_owned(),
                side: CallSide::Caller,
                share: ctx.sessions.share(client.id()),
                progress: Some(progress),
            };
            send(stream, Arc::new(MergedTrees(part)), options)
                .await
                .map_err(ExportError::session)?;
            drop(status);
            Ok::<_, ExportError>(())
        }
    });
    futures::future::try_join_all(sends).await?;
    Ok(())
}

/// Layers that are written into the client's content store side by side.
const MAX_WRITES_AT_ONCE: usize = 4;
/// The name under which the client offers its content store for exports.
const EXPORT_STORE: &str = "export";

/// Copies an image into the client's content store: layers and configs first, then what points at them.
pub(crate) async fn copy_image(
    ctx: &ExportContext,
    image: &WrittenImage,
) -> Result<(), ExportError> {
    let client = client(ctx).await?;
    let mut blobs = Vec::new();
    for layer in image.layers.values() {
        let (client, layer) = (client.clone(), layer.clone());
        blobs.push(Box::pin(async move {
            let file = layer.open().await?;
            write(&*client, &layer.descriptor, &FileSource(Arc::new(file))).await
        })
            as futures::future::BoxFuture<'_, Result<(), ExportError>>);
    }
    let mut writes = futures::stream::iter(blobs).buffer_unordered(MAX_WRITES_AT_ONCE);
    while let Some(result) = writes.next().await {
        result?;
    }
    for (desc, bytes) in &image.documents {
        write(&*client, desc, &BytesSource(bytes.clone())).await?;
    }
    Ok(())
}

async fn write(
    client: &dyn ContentStore,
    desc: &Descriptor,
    source: &dyn BlobSource,
) -> Result<(), ExportError> {
    let digest = desc.digest.clone();
    let failed = move |error| CallError::read(digest.to_string(), error);
    let bytes = source
        .open()
        .await
        .map_err(|e| ExportError::io(format!("read {}", desc.digest), e))?;
    let blob = BlobWrite {
        digest: desc.digest.clone(),
        size: desc.len(),
        labels: BTreeMap::new(),
    };
    client
        .content_write(EXPORT_STORE, blob, bytes.map_err(failed).boxed())
        .await
        .map_err(ExportError::session)?;
    metrics::TRANSFERRED.add(Transfer::ToClient, desc.len());
    Ok(())
}
