//! The file-sync protocol: a sender lists a tree, a receiver asks for the contents that it lacks.
//!
//! ```text
//!   sender                                receiver
//!     STAT 0, STAT 1, … STAT (empty) ──►    compares with what it has
//!     ◄── REQ 1, REQ 7, …                   only what differs; at most a window at a time
//!     DATA 1 …, DATA 1 (empty), DATA 7 ──►  written as it comes
//!     ◄── FIN                               everything is written
//!     FIN ──►
//! ```
//!
//! The side that answers the call ends it, and the side that called waits for that ([`CallSide`]): the reference's receiver holds
//! its half open until the response has ended.
//!
//! [`receiver`] and [`sender`] are the two sides as state machines without I/O; [`order`] refuses names that are out of order
//! or lead out of the tree. [`receive`] and [`send`] drive them over a [`PacketStream`](crate::PacketStream), with all file
//! work on threads of their own, since the other side can stall them: no task and no await for a single file. How many
//! there are, what they hold and how long they may wait is the session's [`TransferShare`](crate::TransferShare).

pub mod compare;
mod coordinate;
pub mod marks;
mod metadata;
pub mod order;
mod receive;
pub mod receiver;
mod room;
mod send;
pub mod sender;
mod write;

pub use fstree::walk::{Filter, follow_links};
pub use fstree::{Root, Stat, stat};
pub use metadata::WantsContents;
pub use receive::{MapStat, Progress, ReceiveCounts, ReceiveError, ReceiveOptions, receive};
pub use send::{FilteredTree, SendError, SendOptions, TreeSource, send};

/// The side of the call that this process is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallSide {
    /// We called: we close our half first and wait for the end of the answer, which may be an error.
    #[default]
    Caller,
    /// We answer: the call ends when we do, and what the caller still sends is not read.
    Callee,
}
