//! The solver through its public interface: graphs, builds, and which ops ran.

#![expect(clippy::unwrap_used, reason = "a test may")]

#[path = "suite/caching.rs"]
mod caching;
#[path = "suite/errors.rs"]
mod errors;
#[path = "suite/exports.rs"]
mod exports;
#[path = "suite/failures.rs"]
mod failures;
#[path = "suite/key_store.rs"]
mod key_store;
#[path = "suite/sharing.rs"]
mod sharing;
#[path = "suite/waiting.rs"]
mod waiting;
#[path = "suite/world.rs"]
mod world;
