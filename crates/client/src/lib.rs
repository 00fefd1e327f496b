//! Speaks to a daemon: solve, watch, serve a session.
//!
//! ```text
//!   Client ──Solve──────────► daemon
//!          ──Status─────────► SolveStatus …
//!          ──Session tunnel─► the daemon calls back: Attachables
//! ```
//!
//! # Invariants
//! - Only what is named in [`Attachables`] can be asked for; a folder is read below its root only.
//! - Dropping a future ends its call, and with the solve goes its session.

pub mod attach;
pub mod auth;
#[cfg(test)]
mod cases;
mod connect;
mod definition;
mod failure;
pub mod history;
mod id;
mod layout;
mod manage;
mod session;
mod solve;
mod status;
mod tunnel;

pub use attach::{
    Attachables, FileTarget, Folder, FolderTarget, LeftOut, LeftOutFiles, SecretSource, Target,
    Upload,
};
pub use auth::DockerConfig;
pub use connect::{Address, Client, ConnectError, Obstacle, TlsFiles};
pub use definition::{Definition, DefinitionError, SourcePolicy};
pub use failure::{Failure, LineRange, Origin, SourceExcerpt};
pub use id::new_id;
pub use layout::{Layout, LayoutError, LayoutName};
pub use manage::{DaemonVersion, DeviceRecord, PruneFilter, UsageRecord, WorkerRecord};
pub use solve::{CacheSpec, ExporterSpec, SolveRequest, SolveResult};
pub use status::{Group, Log, SolveStatus, Status, Vertex, Warning};
