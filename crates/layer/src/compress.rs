//! Compression of layer blobs.
//!
//! What is compressed must come out the same every time and on every machine: digests of blobs depend on it. So block
//! sizes are fixed and the number of threads decides nothing. Streams that are read may be compressed by anyone: several
//! gzip members, skippable zstd frames, bzip2 and xz are read; bytes after a gzip member that are not another one are ignored.

mod attributes;
mod gunzip;
mod gzip;

use std::io::{self, BufReader, Read, Write};

pub use attributes::{AttributeError, CompressionAttributes};
pub(crate) use gunzip::Corrupt;
use gunzip::Gunzip;
use gzip::ParallelGzip;

const READ_BUFFER: usize = 128 << 10;
const ZSTD_LEVEL: i32 = 3;
// What reading may take. The header of an xz says how large its dictionary is, 4 GiB at the most; `xz -9` has 64 MiB. A zstd
// whose window is larger says so by an error, as the program does.
const XZ_MEMORY_KIB: u32 = 192 << 10;
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CompressionKind {
    /// Not at all.
    Uncompressed,
    /// As gzip, in blocks made on all cores.
    #[default]
    Gzip,
    /// As zstd.
    Zstd,
    /// As a gzip that can be read lazily.
    Estargz,
}

/// The compression of blobs, and whether blobs with another compression are converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compression {
    /// The compression.
    pub kind: CompressionKind,
    /// How hard; each kind has its own scale and default.
    pub level: Option<i32>,
    /// Convert blobs that exist with another kind.
    pub force: bool,
}

/// Why a stream was not compressed or decompressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// This program has no such compressor.
    #[error("compression {0} is not supported")]
    Unsupported(&'static str),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CompressError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Io(error) => ErrorKind::of_io(error),
        }
    }
}

impl CompressionKind {
    /// Returns the compression with this name; none if there is no such.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uncompressed" => Some(Self::Uncompressed),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            "estargz" => Some(Self::Estargz),
            _ => None,
        }
    }

    /// The name used in exporter attributes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Estargz => "estargz",
        }
    }

    /// The media type of such a layer in an OCI image.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Uncompressed => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip | Self::Estargz => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// The format of a stream, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// No known compression.
    Plain,
    /// gzip.
    Gzip,
    /// zstd, or a frame that zstd readers skip.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Format {
    /// Tells the format from the first bytes, of which six are enough.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        if start.starts_with(&[0x1f, 0x8b, 0x08]) {
            Self::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
            || matches!(start, [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50)
        {
            Self::Zstd
        } else if start.starts_with(b"BZh") {
            Self::Bzip2
        } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Self::Xz
        } else {
            Self::Plain
        }
    }
}

/// Decompresses a stream to its end; its first bytes tell how. Unknown first bytes are passed on as they are.
pub fn decompress<'a>(
    stream: impl Read + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, CompressError> {
    let mut stream = BufReader::with_capacity(READ_BUFFER, stream);
    // A first read may be shorter than the longest mark, of a pipe for instance: collect it before judging.
    let mut start = Vec::with_capacity(6);
    stream.by_ref().take(6).read_to_end(&mut start)?;
    let format = Format::of(&start);
    let whole = io::Cursor::new(start).chain(stream);
    Ok(match format {
        Format::Plain => Box::new(whole),
        Format::Gzip => Box::new(Gunzip::new(whole)),
        Format::Zstd => {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(whole)?;
            zstd.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(zstd)
        }
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(whole)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            whole,
            true,
            XZ_MEMORY_KIB,
        )),
    })
}

/// Compresses what is written to it into `W`.
#[derive(Debug)]
pub struct Encoder<W: Write> {
    inner: CompressorKind<W>,
}

enum CompressorKind<W: Write> {
    Plain(W),
    Gzip(Box<ParallelGzip<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> std::fmt::Debug for CompressorKind<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl<W: Write> Encoder<W> {
    /// Starts a compressed stream.
    pub fn new(out: W, compression: &Compression) -> Result<Self, CompressError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let inner = match compression.kind {
            CompressionKind::Uncompressed => CompressorKind::Plain(out),
            CompressionKind::Gzip => CompressorKind::Gzip(Box::new(ParallelGzip::new(
                out,
                compression.level,
                threads,
            )?)),
            CompressionKind::Zstd => {
                let mut zstd = zstd::stream::write::Encoder::new(
                    out,
                    compression.level.unwrap_or(ZSTD_LEVEL),
                )?;
                // Any number of workers gives the same bytes, but none at all gives others.
                zstd.multithread(u32::try_from(threads).unwrap_or(1).max(1))?;
                CompressorKind::Zstd(zstd)
            }
            CompressionKind::Estargz => return Err(CompressError::Unsupported("estargz")),
        };
        Ok(Self { inner })
    }

    /// Ends the stream and gives the one below back.
    pub fn finish(self) -> Result<W, CompressError> {
        Ok(match self.inner {
            CompressorKind::Plain(out) => out,
            CompressorKind::Gzip(gzip) => gzip.finish()?,
            CompressorKind::Zstd(zstd) => zstd.finish()?,
        })
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            CompressorKind::Plain(out) => out.write(bytes),
            CompressorKind::Gzip(gzip) => gzip.write(bytes),
            CompressorKind::Zstd(zstd) => zstd.write(bytes),
        }
    }

    // Flushing would end blocks early and change the bytes; `finish` is what completes a stream.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..len)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // The middle third cannot be compressed.
                if i / (len / 3 + 1) == 1 {
                    (state >> 24) as u8
                } else {
                    b"layers "[i % 7] ^ (i >> 12).to_le_bytes()[0]
                }
            })
            .collect()
    }

    fn compress(data: &[u8], kind: CompressionKind, chunk: usize) -> Vec<u8> {
        let mut out = Encoder::new(
            Vec::new(),
            &Compression {
                kind,
                ..Compression::default()
            },
        )
        .unwrap();
        for part in data.chunks(chunk) {
            out.write_all(part).unwrap();
        }
        out.finish().unwrap()
    }

    #[test]
    fn every_compression_comes_back_and_does_not_depend_on_how_it_was_written() {
        for len in [0, 1, 100_000, 3_000_000] {
            let data = sample(len);
            for kind in [
                CompressionKind::Uncompressed,
                CompressionKind::Gzip,
                CompressionKind::Zstd,
            ] {
                let packed = compress(&data, kind, 1 << 20);
                assert_eq!(packed, compress(&data, kind, 777), "{kind:?} {len}");
                let mut back = Vec::new();
                decompress(packed.as_slice())
                    .unwrap()
                    .read_to_end(&mut back)
                    .unwrap();
                assert!(back == data, "{kind:?} {len}");
            }
        }
    }

    #[test]
    fn the_bytes_of_a_gzip_do_not_depend_on_threads() {
        let data = sample(4_000_000);
        let packed = |threads| {
            let mut out = ParallelGzip::new(Vec::new(), None, threads).unwrap();
            out.write_all(&data).unwrap();
            out.finish().unwrap()
        };
        assert!(packed(1) == packed(3));
    }

    #[test]
    fn members_frames_and_foreign_formats_are_read_to_the_end() {
        let half = |text: &str| compress(text.as_bytes(), CompressionKind::Gzip, 100);
        let two = [half("one "), half("two")].concat();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..]].concat();
        let zstd = |text: &str| compress(text.as_bytes(), CompressionKind::Zstd, 100);
        let frames = [skippable.clone(), zstd("one "), skippable, zstd("two")].concat();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(b"one two").unwrap();
        for packed in [two, frames, bzip2.finish().unwrap()] {
            let mut back = String::new();
            decompress(packed.as_slice())
                .unwrap()
                .read_to_string(&mut back)
                .unwrap();
            assert_eq!(back, "one two");
        }
        let cut = half("one two");
        let mut back = String::new();
        assert!(
            decompress(&cut[..cut.len() - 4])
                .unwrap()
                .read_to_string(&mut back)
                .is_err()
        );
    }
}
