//! The process rbuildd: settings, sockets, signals, phases, wiring.
//!
//! ```text
//! main ─► Settings ─► run ─► listen::open ─► wire::compose ─► control::serve per listener
//!                      │                        (store, executor, sources, exporters, engine)
//!                      │                        or tenants, each composed when its first connection comes
//!                      └─► stop: listeners ► calls in flight ► store
//! ```

mod debug;
pub mod doctor;
mod git;
mod idle;
pub mod listen;
pub mod logs;
mod mask;
mod network;
pub mod otel;
pub mod program;
pub mod rootless;
pub mod run;
pub mod settings;
pub mod signals;
pub mod tenants;
pub mod wire;

/// The table of metrics for the documentation.
pub use metrics::text::table as metrics_table;
pub use run::{DaemonError, run};
pub use settings::{Args, Defaults, Settings, SettingsError};
pub use store::{FsckReport, OpenError, fsck};
pub use wire::version_line;

/// Becomes the launcher of containers, or the program that carries packets of steps, if this program was executed for that. The first
/// line of `main`: it needs to be the only thread.
pub fn launcher_dispatch() {
    executor::launcher::dispatch();
    net::dispatch();
}
