//! `type=tar`: the files of a result as one tar.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fstree::walk::Filter;
use store::CompressionSpec;
use tokio::sync::mpsc;

use crate::client::FileSink;
use crate::error::ExportError;
use crate::manager::{ExportContext, ExportSource, Exported, Exporter, ExporterInstance};
use crate::tree::{Tree, TreeOptions, open};

/// Exports trees as tar.
#[derive(Debug, Clone, Copy, Default)]
pub struct TarExporter;

#[derive(Debug)]
struct Instance {
    id: usize,
    attrs: BTreeMap<String, String>,
    options: TreeOptions,
}

impl Exporter for TarExporter {
    fn kind(&self) -> &'static str {
        "tar"
    }

    fn resolve(
        &self,
        id: usize,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        Ok(Arc::new(Instance {
            id,
            attrs: attrs.clone(),
            options: TreeOptions::load(attrs)?,
        }))
    }
}

#[async_trait]
impl ExporterInstance for Instance {
    fn id(&self) -> usize {
        self.id
    }

    fn kind(&self) -> &'static str {
        "tar"
    }

    fn name(&self) -> String {
        "exporting to client tarball".into()
    }

    fn attrs(&self) -> &BTreeMap<String, String> {
        &self.attrs
    }

    fn compression(&self) -> Option<CompressionSpec> {
        None
    }

    async fn export(
        &self,
        ctx: &ExportContext,
        source: &ExportSource,
    ) -> Result<Exported, ExportError> {
        let mut trees = open(source, &self.options).await?;
        // The tar has folders where there are several platforms, whatever `platform-split` says.
        for tree in &mut trees {
            tree.folder = source.is_map().then(|| tree.id.replace('/', "_"));
        }
        let mut sink = FileSink::open(ctx, self.id, &BTreeMap::new()).await?;
        let _status = ctx.progress.status("sending tarball", "");
        // A few chunks of head start; the disk waits for the client, not the other way round.
        let (to, mut from) = mpsc::channel(8);
        let writing = task::blocking("export tar", move || write(&trees, ChannelWriter::new(to)));
        let sending = async {
            while let Some(chunk) = from.recv().await {
                sink.write(chunk).await?;
            }
            Ok::<_, ExportError>(sink)
        };
        let (written, sent) = tokio::join!(writing, sending);
        let sink = sent?;
        written?;
        sink.finish().await?;
        Ok(Exported::default())
    }
}

fn write(trees: &[Tree], mut out: ChannelWriter) -> Result<(), ExportError> {
    let failed =
        |e: &dyn std::fmt::Display| ExportError::io("write tar", io::Error::other(e.to_string()));
    for tree in trees {
        let epoch = tree
            .epoch
            .map(|t| t.seconds().saturating_mul(1_000_000_000));
        if tree.folder.is_some() {
            return Err(ExportError::NotBuilt {
                feature: "type=tar for several platforms",
            });
        }
        let Some(root) = &tree.root else {
            out.write_all(&[0; 1024]).map_err(|e| failed(&e))?;
            continue;
        };
        let mut edit = |stat: &mut fstree::Stat| {
            if let Some(time) = epoch {
                stat.mod_time = time;
            }
            true
        };
        layer::write_tree(root, &Filter::default(), &mut out, &mut edit).map_err(|e| failed(&e))?;
    }
    out.flush().map_err(|e| failed(&e))
}

/// Hands what is written to an asynchronous reader, in chunks.
struct ChannelWriter {
    to: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

const CHUNK: usize = 128 << 10;

impl ChannelWriter {
    fn new(to: mpsc::Sender<Bytes>) -> Self {
        Self {
            to,
            buffer: Vec::with_capacity(CHUNK),
        }
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.to
            .blocking_send(Bytes::from(chunk))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
