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
//! [`receiver`] and [`sender`] are the two sides as state machines without I/O; [`order`] refuses names that are out of order
//! or lead out of the tree. [`receive`] and [`send`] drive them over a [`PacketStream`](crate::PacketStream), with all file
//! work on blocking threads: no task and no await for a single file.

pub mod compare;
mod metadata;
pub mod order;
pub mod packet;
mod receive;
pub mod receiver;
mod send;
pub mod sender;
mod write;

pub use fstree::walk::Filter;
pub use fstree::{Root, Stat};
pub use metadata::Wanted;
pub use receive::{MapStat, Progress, ReceiveError, ReceiveOptions, Received, receive};
pub use send::{FilteredTree, SendError, TreeSource, send};
