//! Reading and writing tar streams.
use std::io;

/// Why a tar stream cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream breaks the format.
    #[error("invalid tar: {0}")]
    Invalid(&'static str),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}
