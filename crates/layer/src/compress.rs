//! Compression of layer blobs.
use std::io::{self, Read};

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

/// What to compress with, and whether blobs that are compressed otherwise are converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Compression {
    /// How.
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
    /// This build has no such compressor.
    #[error("compression {0} is not supported")]
    Unsupported(&'static str),
    /// The name of a compression is unknown.
    #[error("unsupported compression type: {0}")]
    Unknown(String),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl CompressionKind {
    /// Reads the name used in exporter attributes.
    pub fn parse(name: &str) -> Result<Self, CompressError> {
        match name {
            "uncompressed" => Ok(Self::Uncompressed),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "estargz" => Ok(Self::Estargz),
            _ => Err(CompressError::Unknown(name.to_owned())),
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
}

/// Decompresses a stream whose compression its first bytes tell. Unknown first bytes are passed on as they are.
pub fn decompress<'a>(stream: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, CompressError> {
    let _ = &stream;
    todo!()
}
