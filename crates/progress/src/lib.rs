//! What the user is told about vertices, in order, with backpressure.
//!
//! ```text
//! Writer ─► VertexProgress ─► Hub (one per solve) ─► Subscription, Subscription, …
//!  (ops)     (one per vertex, any number of hubs)      (clients, history)
//! ```
//!
//! A vertex that several builds share says everything once; each hub it is attached to gets all of it, also what was
//! said before. A subscription starts at the beginning and ends when the hub is closed.
//!
//! Invariants: nothing here waits for a reader. Memory does not grow with output: log bytes beyond a small amount live
//! in an unnamed file, and a status that was superseded before anyone read it is dropped.

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
