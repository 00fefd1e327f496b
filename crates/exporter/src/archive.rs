//! The archive of an image: an OCI layout as one tar, names sorted, every header as Go's writer makes it.

use std::fs::File;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use registry::{BlobSource, FileSource};
use store::LayerBlob;

use crate::error::{ExportError, ExportResultError};

/// Headers and contents of a tar fill whole blocks.
const BLOCK_BYTES: usize = 512;
/// The largest size that eleven octal digits hold.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// One entry of the archive.
#[derive(Debug)]
pub(crate) struct ArchiveEntry {
    name: String,
    content: EntryContent,
}

#[derive(Debug)]
enum EntryContent {
    Folder,
    Bytes { mode: u32, bytes: Bytes },
    Layer(Box<LayerBlob>),
}

impl ArchiveEntry {
    /// A folder; the name ends with a slash.
    pub(crate) fn folder(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            content: EntryContent::Folder,
        }
    }

    /// A file in memory.
    pub(crate) fn file(name: impl Into<String>, mode: u32, bytes: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            content: EntryContent::Bytes {
                mode,
                bytes: bytes.into(),
            },
        }
    }

    /// A layer, read from the store as it is sent.
    pub(crate) fn layer(name: impl Into<String>, layer: LayerBlob) -> Self {
        Self {
            name: name.into(),
            content: EntryContent::Layer(Box::new(layer)),
        }
    }
}

/// The archive's bytes: entries by name, each name once.
pub(crate) fn stream(
    mut entries: Vec<ArchiveEntry>,
) -> impl Stream<Item = Result<Bytes, ExportError>> + Send {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.dedup_by(|a, b| a.name == b.name);
    let trailer = Bytes::from(vec![0; 2 * BLOCK_BYTES]);
    futures::stream::iter(entries)
        .then(entry)
        .try_flatten()
        .chain(futures::stream::once(async move { Ok(trailer) }))
}

type Chunks = futures::stream::BoxStream<'static, Result<Bytes, ExportError>>;

async fn entry(entry: ArchiveEntry) -> Result<Chunks, ExportError> {
    let (mode, size, body): (u32, u64, Chunks) = match entry.content {
        EntryContent::Folder => (0o755, 0, futures::stream::empty().boxed()),
        EntryContent::Bytes { mode, bytes } => {
            let size = bytes.len() as u64;
            (
                mode,
                size,
                futures::stream::once(async move { Ok(bytes) }).boxed(),
            )
        }
        EntryContent::Layer(layer) => {
            let file: File = layer.open().await?;
            let size = layer.descriptor.len();
            let name = entry.name.clone();
            let chunks = FileSource(Arc::new(file))
                .open()
                .await
                .map_err(|e| ExportError::io(format!("read {name}"), e))?;
            (
                0o444,
                size,
                exactly(
                    chunks.map_err(move |e| ExportError::io(format!("read {name}"), e)),
                    size,
                )
                .boxed(),
            )
        }
    };
    let header = header(&entry.name, mode, size);
    let padding = usize::try_from(size % BLOCK_BYTES as u64).unwrap_or(0);
    let padding = Bytes::from(vec![
        0;
        if padding == 0 {
            0
        } else {
            BLOCK_BYTES - padding
        }
    ]);
    let head = futures::stream::once(async move { Ok(header) });
    Ok(head
        .chain(body)
        .chain(futures::stream::once(async move { Ok(padding) }))
        .boxed())
}

/// Passes the chunks on; fails where they are not `expected` bytes together, as the header said.
fn exactly(
    chunks: impl Stream<Item = Result<Bytes, ExportError>> + Send + 'static,
    expected: u64,
) -> impl Stream<Item = Result<Bytes, ExportError>> + Send {
    let end = futures::stream::once(async { Ok(Bytes::new()) }).map(|b| (b, true));
    chunks
        .map(|c| (c, false))
        .chain(end)
        .scan(0_u64, move |received, (chunk, last)| {
            let checked = chunk.and_then(|chunk| {
                *received += chunk.len() as u64;
                let wrong = *received > expected || (last && *received != expected);
                if wrong {
                    let (received, expected) = (*received, expected);
                    Err(ExportResultError::LayerSize { received, expected }.into())
                } else {
                    Ok(chunk)
                }
            });
            futures::future::ready(Some(checked))
        })
}

/// The header of an entry, with a pax header before it where the size does not fit.
fn header(name: &str, mode: u32, size: u64) -> Bytes {
    let mut out = BytesMut::new();
    if size > MAX_OCTAL {
        let record = pax_record("size", &size.to_string());
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let pax_name = if folder.is_empty() {
            format!("PaxHeaders.0/{file}")
        } else {
            format!("{folder}/PaxHeaders.0/{file}")
        };
        out.put(&block(&pax_name, 0, record.len() as u64, b'x')[..]);
        out.put(record.as_bytes());
        out.put_bytes(0, (BLOCK_BYTES - record.len() % BLOCK_BYTES) % BLOCK_BYTES);
    }
    let kind = if name.ends_with('/') { b'5' } else { b'0' };
    out.put(&block(name, mode, if size > MAX_OCTAL { 0 } else { size }, kind)[..]);
    out.freeze()
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn pax_record(key: &str, value: &str) -> String {
    let without_digits = key.len() + value.len() + 3;
    let mut length = without_digits + without_digits.to_string().len();
    length = without_digits + length.to_string().len();
    format!("{length} {key}={value}\n")
}

fn block(name: &str, mode: u32, size: u64, kind: u8) -> [u8; BLOCK_BYTES] {
    let mut out = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in out.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, name.as_bytes().get(..100).unwrap_or(name.as_bytes()));
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000");
    put(337, b"0000000");
    let sum: u32 = out.iter().map(|b| u32::from(*b)).sum();
    let text = format!("{sum:06o}\0 ");
    for (to, from) in out.iter_mut().skip(148).zip(text.bytes()) {
        *to = from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{ArchiveEntry, pax_record, stream};
    use futures::TryStreamExt;

    #[tokio::test]
    async fn other_programs_can_read_the_archive() {
        let entries = vec![
            ArchiveEntry::file("oci-layout", 0o444, "{}"),
            ArchiveEntry::folder("blobs/"),
            ArchiveEntry::file("index.json", 0o644, vec![b'x'; 513]),
            ArchiveEntry::file("index.json", 0o644, "twice"),
        ];
        let bytes: Vec<u8> = stream(entries)
            .try_fold(Vec::new(), |mut archive, chunk| async move {
                archive.extend(chunk);
                Ok(archive)
            })
            .await
            .unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.tar");
        std::fs::write(&file, bytes).unwrap();
        let listed = std::process::Command::new("tar")
            .arg("-tvf")
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        let members: Vec<_> = lines
            .iter()
            .map(|l| (l[0], l[2], *l.last().unwrap()))
            .collect();
        assert_eq!(
            members,
            [
                ("drwxr-xr-x", "0", "blobs/"),
                ("-rw-r--r--", "513", "index.json"),
                ("-r--r--r--", "2", "oci-layout")
            ]
        );
    }

    #[test]
    fn a_pax_record_counts_its_own_length() {
        assert_eq!(pax_record("size", "8589934592"), "19 size=8589934592\n");
        assert_eq!(pax_record("k", "12"), "7 k=12\n");
    }
}
