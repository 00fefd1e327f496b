//! The archive of an image: an OCI layout as one tar, names sorted, every header as Go's writer makes it.

use std::fs::File;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use registry::{BlobSource, FileSource};
use store::LayerBlob;

use crate::error::ExportError;

const BLOCK_BYTES: usize = 512;
/// The largest size that eleven octal digits hold.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// One entry of the archive.
#[derive(Debug)]
pub(crate) struct Entry {
    name: String,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Folder,
    Bytes { mode: u32, bytes: Bytes },
    Layer(Box<LayerBlob>),
}

impl Entry {
    /// A folder; the name ends with a slash.
    pub(crate) fn folder(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            body: Body::Folder,
        }
    }

    /// A file in memory.
    pub(crate) fn file(name: impl Into<String>, mode: u32, bytes: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            body: Body::Bytes {
                mode,
                bytes: bytes.into(),
            },
        }
    }

    /// A layer, read from the store as it is sent.
    pub(crate) fn layer(name: impl Into<String>, layer: LayerBlob) -> Self {
        Self {
            name: name.into(),
            body: Body::Layer(Box::new(layer)),
        }
    }
}

/// The archive's bytes: entries by name, each name once.
pub(crate) fn stream(
    mut entries: Vec<Entry>,
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

async fn entry(entry: Entry) -> Result<Chunks, ExportError> {
    let (mode, size, body): (u32, u64, Chunks) = match entry.body {
        Body::Folder => (0o755, 0, futures::stream::empty().boxed()),
        Body::Bytes { mode, bytes } => {
            let size = bytes.len() as u64;
            (
                mode,
                size,
                futures::stream::once(async move { Ok(bytes) }).boxed(),
            )
        }
        Body::Layer(layer) => {
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

/// Fails where a stream is not as long as its header said.
fn exactly(
    chunks: impl Stream<Item = Result<Bytes, ExportError>> + Send + 'static,
    want: u64,
) -> impl Stream<Item = Result<Bytes, ExportError>> + Send {
    let end = futures::stream::once(async { Ok(Bytes::new()) }).map(|b| (b, true));
    chunks
        .map(|c| (c, false))
        .chain(end)
        .scan(0_u64, move |received, (chunk, last)| {
            let checked = chunk.and_then(|chunk| {
                *received += chunk.len() as u64;
                let wrong = *received > want || (last && *received != want);
                if wrong {
                    Err(ExportError::result(format!(
                        "unexpected copy size {received}, expected {want}"
                    )))
                } else {
                    Ok(chunk)
                }
            });
            futures::future::ready(Some(checked))
        })
}

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
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
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
    use super::{Entry, pax_record, stream};
    use futures::TryStreamExt;

    #[tokio::test]
    async fn other_programs_can_read_the_archive() {
        let entries = vec![
            Entry::file("oci-layout", 0o444, "{}"),
            Entry::folder("blobs/"),
            Entry::file("index.json", 0o644, vec![b'x'; 513]),
            Entry::file("index.json", 0o644, "twice"),
        ];
        let bytes: Vec<u8> = stream(entries)
            .try_fold(Vec::new(), |mut all, chunk| async move {
                all.extend(chunk);
                Ok(all)
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
