//! The bytes of a download on their way to a file.

use std::sync::Arc;

use oci::Digester;

/// Where the bytes come from.
pub(super) enum Body {
    Answer(reqwest::Response),
    Upload(session::ByteStream),
}

impl Body {
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Answer(response) => response.content_length(),
            Self::Upload(_) => None,
        }
    }
}

/// Writes chunks to a file away from the reactor, hashing them.
pub(super) struct FileSink {
    pub(super) file: Arc<std::fs::File>,
    pub(super) digester: Digester,
    pub(super) at: u64,
}

impl FileSink {
    pub(super) fn new(file: std::fs::File) -> Self {
        Self {
            file: Arc::new(file),
            digester: Digester::new(),
            at: 0,
        }
    }

    pub(super) async fn write(&mut self, chunk: bytes::Bytes) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let (file, at) = (self.file.clone(), self.at);
        self.at = at.saturating_add(chunk.len() as u64);
        let mut digester = std::mem::take(&mut self.digester);
        let (digester, written) = task::blocking("download", move || {
            digester.update(&chunk);
            (digester, file.write_all_at(&chunk, at))
        })
        .await;
        self.digester = digester;
        written
    }
}
