//! The messages of the file-sync protocol.

use bytes::Bytes;
use fstree::Stat;

/// One message of the file-sync protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The next file; files are numbered from zero in this order. `None` ends the list.
    Stat(Option<Box<Stat>>),
    /// Asks for the contents of a file.
    Req(u32),
    /// A piece of a file; an empty one ends it.
    Data {
        /// The number of the file.
        id: u32,
        /// The piece.
        bytes: Bytes,
    },
    /// Everything is there; the other side repeats it and closes.
    Fin,
    /// The sender of this gives up.
    Err(String),
}
