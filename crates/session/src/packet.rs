//! The messages of the file-sync protocol.

use bytes::Bytes;
use fstree::Stat;

/// One message of the file-sync protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// The next file; files are numbered from zero in this order. `None` ends the list.
    Stat(Option<Box<Stat>>),
    /// Requests the contents of a file by its number.
    Req(u32),
    /// A piece of a file; an empty one ends it.
    Data {
        /// Number of the file.
        id: u32,
        /// Bytes of the piece.
        bytes: Bytes,
    },
    /// The transfer is complete; the other side repeats the packet and closes.
    Fin,
    /// The side that sends this has failed, with the text of its error.
    Err(String),
}
