//! Why an image is not written.

use std::io;

use oci::error::ErrorKind;

/// Why there is no image. What was written before is of no use.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The image could not be written.
    #[error("cannot write the index: {0}")]
    Io(#[from] io::Error),
    /// A content begins or ends within a block.
    #[error(
        "the content at byte {device_offset} of device {device} is not on the borders of blocks"
    )]
    Unaligned {
        /// The device, counted from 1.
        device: u16,
        /// Where it begins, in bytes.
        device_offset: u64,
    },
    /// A content lies in a device that is not there, after its end, or further than 32 bits of blocks.
    #[error("the content at byte {device_offset} of device {device} is outside of it")]
    OutsideDevice {
        /// The device, counted from 1.
        device: u16,
        /// Where it begins, in bytes.
        device_offset: u64,
    },
    /// Extents of a file are out of order, overlap or end after it.
    #[error("the parts of a file of {size} bytes contradict each other")]
    Extents {
        /// The file's bytes.
        size: u64,
    },
    /// A file whose size the format cannot have.
    #[error("a file of {size} bytes is too large")]
    FileTooLarge {
        /// The file's bytes.
        size: u64,
    },
    /// A file in more pieces than is bearable.
    #[error("a file of {size} bytes in {chunks} pieces is too fragmented")]
    Fragmented {
        /// The file's bytes.
        size: u64,
        /// Pieces of one size that it would take.
        chunks: u64,
    },
    /// More than 32 bits of blocks, or more devices than 16 bits count.
    #[error("the index of the layer is too large")]
    ImageTooLarge,
}

impl WriteError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(error) => ErrorKind::of_host(error),
            Self::Unaligned { .. } | Self::OutsideDevice { .. } | Self::Extents { .. } => {
                ErrorKind::Bug
            }
            Self::FileTooLarge { .. } | Self::Fragmented { .. } | Self::ImageTooLarge => {
                ErrorKind::Exhausted
            }
        }
    }
}
