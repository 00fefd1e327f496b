//! `type=tar`: the files of a result as one tar.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fstree::walk::Filter;
use tokio::sync::mpsc;

use crate::client::ClientFile;
use crate::error::ExportError;
use crate::manager::{ExportContext, ExportSource, Exporter, ExporterInstance};
use crate::platforms::folder_name;
use crate::tree::{self, ExportTree, TreeOptions, TreeOutput, open};

/// Exports trees as one tar.
#[derive(Debug, Clone, Copy, Default)]
pub struct TarExporter;

impl Exporter for TarExporter {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        tree::resolve::<Self>(id, attrs)
    }
}

#[async_trait]
impl TreeOutput for TarExporter {
    const KIND: &'static str = "tar";
    const NAME: &'static str = "exporting to client tarball";

    async fn send(
        ctx: &ExportContext,
        id: usize,
        source: &ExportSource,
        options: &TreeOptions,
    ) -> Result<(), ExportError> {
        let mut trees = open(source, options).await?;
        // The tar has folders where there are several platforms, whatever `platform-split` says.
        for tree in &mut trees {
            tree.folder = source.is_map().then(|| folder_name(&tree.id));
        }
        let mut sink = ClientFile::open(ctx, id, &BTreeMap::new()).await?;
        let _status = ctx.progress.status("sending tarball", "");
        // The writer waits for the client: it may be this many chunks ahead.
        let (to, mut from) = mpsc::channel(MAX_CHUNKS_AHEAD);
        // A thread of its own: a slow client would hold one that other work waits for.
        let permit = sink.share.permit().await;
        let writing = task::thread("export tar", move || {
            let _permit = permit;
            write(&trees, ChannelWriter::new(to))
        })
        .map_err(|e| ExportError::io("start a thread", e))?;
        // Owns the receiver: when the client fails, it is dropped and the writer ends with an error.
        let sending = async move {
            while let Some(chunk) = from.recv().await {
                sink.write(chunk).await?;
            }
            Ok::<_, ExportError>(sink)
        };
        let (tar_result, send_result) = tokio::join!(writing, sending);
        let sink = send_result?;
        tar_result?;
        sink.finish().await?;
        Ok(())
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ExportError {
    ExportError::io("write tar", io::Error::other(error))
}

fn write(trees: &[ExportTree], out: ChannelWriter) -> Result<(), ExportError> {
    let mut order: Vec<&ExportTree> = trees.iter().collect();
    order.sort_by(|a, b| a.folder.cmp(&b.folder));
    let mut tar = layer::tar::Writer::new(out);
    for tree in order {
        let prefix = match &tree.folder {
            Some(folder) => format!("{folder}/"),
            None => String::new(),
        };
        if let Some(stat) = tree.folder_stat() {
            let mut header = plain_header(&prefix, &stat);
            header.kind = layer::tar::EntryKind::Dir;
            header.mode = 0o755;
            tar.append(&header).map_err(failed)?;
        }
        if let Some(root) = &tree.root {
            let epoch = tree.nanos();
            let is_replaced =
                |stat: &fstree::Stat| tree.extra.iter().any(|e| e.stat.path == stat.path);
            let mut edit = |stat: &mut fstree::Stat| {
                stat.mod_time = epoch.unwrap_or(stat.mod_time);
                !is_replaced(stat)
            };
            layer::write_tree_to(root, &Filter::default(), &mut tar, &prefix, &mut edit)
                .map_err(failed)?;
        }
        for extra in &tree.extra {
            let name = format!("{prefix}{}", extra.stat.path.display());
            let mut header = plain_header(&name, &extra.stat);
            header.size = extra.bytes.len() as u64;
            tar.append(&header).map_err(failed)?;
            tar.write_all(&extra.bytes).map_err(failed)?;
        }
    }
    let mut out = tar.finish().map_err(failed)?;
    out.flush().map_err(failed)
}

/// The header of a file, or of a folder when the caller says so.
fn plain_header(name: &str, stat: &fstree::Stat) -> layer::tar::Header {
    layer::tar::Header {
        name: name.as_bytes().to_vec(),
        kind: layer::tar::EntryKind::File,
        mode: stat.mode & 0o777,
        mtime: stat.mod_time.div_euclid(1_000_000_000),
        ..layer::tar::Header::default()
    }
}

/// Sends what is written to an asynchronous reader, in chunks.
struct ChannelWriter {
    to: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

/// Size of a chunk.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks between the thread that writes the tar and the client.
const MAX_CHUNKS_AHEAD: usize = 8;

impl ChannelWriter {
    fn new(to: mpsc::Sender<Bytes>) -> Self {
        Self {
            to,
            buffer: Vec::with_capacity(CHUNK_BYTES),
        }
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        // The error of a closed channel is the chunk itself.
        self.to
            .blocking_send(Bytes::from(chunk))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
