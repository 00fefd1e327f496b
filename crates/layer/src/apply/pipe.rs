//! Decompresses and hashes a stream on a thread of its own.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use oci::{Digest, Digester};

use crate::compress::{Corrupt, decompress};

const CHUNK_BYTES: usize = 256 << 10;
const MAX_WAITING_CHUNKS: usize = 8;

/// How the bytes after the end of the archive are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They are part of the layer and must be readable.
    Read,
    /// They are ignored; only a wrong checksum of the compression is an error.
    Ignored,
}

/// The decompressed stream as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) diff_id: Digest,
    /// Bytes of the limit.
    pub(crate) size: u64,
}

/// Gives `use_it` the decompressed stream, reads on to its end, and returns the result of `use_it` with the stream's digest.
pub(crate) fn with_plain<T, E: From<io::Error>>(
    stream: &mut (dyn Read + Send),
    rest: Rest,
    use_it: impl FnOnce(&mut PipeReader) -> Result<T, E>,
) -> Result<(T, Plain), E> {
    std::thread::scope(|scope| {
        let (full, chunks) = sync_channel(MAX_WAITING_CHUNKS);
        let (recycle, empty) = sync_channel(MAX_WAITING_CHUNKS + 1);
        let hashing = scope.spawn(move || pump(stream, &full, &empty));
        let mut plain = PipeReader {
            chunks,
            recycle,
            chunk: Vec::new(),
            at: 0,
            ended: false,
        };
        let used = use_it(&mut plain);
        // The digest is that of the whole stream, with whatever follows the end of the archive.
        let drained = match &used {
            Ok(_) => io::copy(&mut plain, &mut io::sink()).map(|_| ()),
            Err(_) => Ok(()),
        };
        drop(plain);
        let (diff_id, size) = match hashing.join() {
            Ok(hashed) => hashed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let result = used?;
        match (drained, rest) {
            (Ok(()), _) => {}
            // DIFFERS: the reference ends reading with the archive, and does not find this error.
            (Err(error), _) if is_corrupt(&error) => return Err(error.into()),
            (Err(error), Rest::Ignored) => {
                tracing::warn!(%error, "an archive is followed by what cannot be read");
            }
            (Err(error), Rest::Read) => return Err(error.into()),
        }
        Ok((result, Plain { diff_id, size }))
    })
}

type Chunk = io::Result<Vec<u8>>;

fn is_corrupt(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|e| e.is::<Corrupt>())
}

/// Decompresses and hashes to the end of the stream, or to an error in it, which the reader of the chunks gets. Returns the digest and the
/// size of what came so far.
fn pump(
    stream: &mut (dyn Read + Send),
    full: &SyncSender<Chunk>,
    empty: &Receiver<Vec<u8>>,
) -> (Digest, u64) {
    let mut digest = Digester::new();
    let mut size = 0;
    let mut plain = match decompress(stream) {
        Ok(plain) => plain,
        Err(e) => {
            full.send(Err(io::Error::other(e))).ok();
            return (digest.finish(), size);
        }
    };
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_BYTES, 0);
        let mut n = 0;
        let result = loop {
            match plain.read(chunk.get_mut(n..).unwrap_or_default()) {
                Ok(0) => break Ok(()),
                Ok(read) => n += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        chunk.truncate(n);
        digest.update(&chunk);
        size += n as u64;
        // The other side gave up when it no longer listens; it knows why.
        if full.send(Ok(chunk)).is_err() {
            return (digest.finish(), size);
        }
        if let Err(e) = result {
            full.send(Err(e)).ok();
            return (digest.finish(), size);
        }
        if n < CHUNK_BYTES {
            return (digest.finish(), size);
        }
    }
}

/// The decompressed stream, as it arrives.
pub(crate) struct PipeReader {
    chunks: Receiver<Chunk>,
    recycle: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            match self.chunks.recv() {
                Ok(next) => {
                    let used = std::mem::replace(&mut self.chunk, next?);
                    self.at = 0;
                    self.recycle.try_send(used).ok();
                }
                Err(_) => self.ended = true,
            }
        }
        let from = self.chunk.get(self.at..).unwrap_or_default();
        let n = from.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), from.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        Ok(n)
    }
}
