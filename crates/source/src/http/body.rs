//! Reads the body of a download and writes it to a file.

use std::io::Write as _;
use std::sync::Arc;

use flate2::write::MultiGzDecoder;
use oci::Digester;

/// Where the bytes come from.
pub(super) enum DownloadBody {
    Answer(reqwest::Response),
    Upload(session::ByteStream),
}

impl DownloadBody {
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Answer(response) => response.content_length(),
            Self::Upload(_) => None,
        }
    }
}

/// Writes chunks to a file on a blocking thread and hashes them. If the server compressed the body, it is decompressed.
pub(super) struct DownloadFile {
    pub(super) file: Arc<std::fs::File>,
    pub(super) digester: Digester,
    /// Bytes that came from the server.
    pub(super) received: u64,
    /// Bytes in the file.
    written: u64,
    unpack: Option<MultiGzDecoder<Vec<u8>>>,
}

impl DownloadFile {
    pub(super) fn new(file: std::fs::File, is_compressed: bool) -> Self {
        Self {
            file: Arc::new(file),
            digester: Digester::new(),
            received: 0,
            written: 0,
            unpack: is_compressed.then(|| MultiGzDecoder::new(Vec::new())),
        }
    }

    pub(super) async fn write(&mut self, chunk: bytes::Bytes) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let (file, offset) = (self.file.clone(), self.written);
        self.received = self.received.saturating_add(chunk.len() as u64);
        let mut digester = std::mem::take(&mut self.digester);
        let mut unpack = self.unpack.take();
        let (digester, unpack, written) = task::blocking("download", move || {
            let mut append = |bytes: &[u8]| {
                digester.update(bytes);
                file.write_all_at(bytes, offset)?;
                Ok(bytes.len() as u64)
            };
            let written = match &mut unpack {
                None => append(&chunk),
                Some(decoder) => decoder.write_all(&chunk).and_then(|()| {
                    let plain = std::mem::take(decoder.get_mut());
                    append(&plain)
                }),
            };
            (digester, unpack, written)
        })
        .await;
        (self.digester, self.unpack) = (digester, unpack);
        self.written = offset.saturating_add(written?);
        Ok(())
    }

    /// Writes what the decompressor holds back; fails if the compressed bytes end too early.
    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let Some(decoder) = self.unpack.take() else {
            return Ok(());
        };
        if self.received == 0 {
            return Ok(());
        }
        let last_bytes = decoder.finish()?;
        self.digester.update(&last_bytes);
        self.file.write_all_at(&last_bytes, self.written)
    }
}
