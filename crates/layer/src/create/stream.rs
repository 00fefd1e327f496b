//! Hashing, compressing and writing of one layer, as its bytes come.

use std::io::{self, BufWriter, Write};

use oci::Digester;

use super::{CreateError, LayerInfo};
use crate::compress::{Compression, Encoder};

const WRITE_BUFFER: usize = 256 << 10;

/// Takes the uncompressed bytes of a layer.
pub(super) struct LayerStream<'a> {
    encoder: Encoder<CountingWriter<'a>>,
    plain: Digester,
    plain_size: u64,
    // Without compression both digests are one.
    packed: bool,
    media_type: &'static str,
}

impl<'a> LayerStream<'a> {
    pub(super) fn new(
        out: &'a mut (dyn Write + Send),
        compression: &Compression,
    ) -> Result<Self, CreateError> {
        let packed = compression.kind != crate::CompressionKind::Uncompressed;
        let out = BufWriter::with_capacity(WRITE_BUFFER, out);
        let out = CountingWriter {
            out,
            digest: packed.then(Digester::new),
            size: 0,
        };
        Ok(Self {
            encoder: Encoder::new(out, compression)?,
            plain: Digester::new(),
            plain_size: 0,
            packed,
            media_type: compression.kind.media_type(),
        })
    }

    pub(super) fn finish(self) -> Result<LayerInfo, CreateError> {
        let mut out = self.encoder.finish()?;
        out.out.flush()?;
        let diff_id = self.plain.finish();
        let digest = match out.digest.filter(|_| self.packed) {
            Some(digest) => digest.finish(),
            None => diff_id.clone(),
        };
        Ok(LayerInfo {
            digest,
            size: out.size,
            diff_id,
            uncompressed_size: self.plain_size,
            media_type: self.media_type,
        })
    }
}

impl Write for LayerStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.encoder.write(bytes)?;
        self.plain.update(bytes.get(..n).unwrap_or_default());
        self.plain_size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct CountingWriter<'a> {
    out: BufWriter<&'a mut (dyn Write + Send)>,
    digest: Option<Digester>,
    size: u64,
}

impl Write for CountingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        if let Some(digest) = &mut self.digest {
            digest.update(bytes.get(..n).unwrap_or_default());
        }
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
