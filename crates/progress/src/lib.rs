//! The progress of vertices, delivered to users in order.
//!
//! ```text
//! Writer ─► VertexProgress ─► Hub (one per solve) ─► Subscription, Subscription, …
//!  (ops)     (one per vertex, any number of hubs)      (clients, history)
//! ```
//!
//! A vertex that several builds share reports once; each hub it is attached to gets all of it, including past
//! events. A subscription starts at the first event and ends when the hub is closed.
//!
//! Invariants: nothing here waits for a reader. Memory does not grow with output: log bytes beyond a small amount live
//! in an unnamed file, and a status that was superseded before a reader got it is dropped.

mod event;
mod hub;
mod journal;
mod limit;
mod shared;
mod stream;
mod vertex;
mod writer;

pub use event::{Event, Log, Position, ProgressGroup, Range, SourceInfo, Status, Vertex, Warning};
pub use hub::{Hub, Subscription};
pub use limit::{LogLimit, LogStreams};
pub use vertex::VertexProgress;
pub use writer::{StatusGuard, WorkGuard, Writer, WriterSource};
