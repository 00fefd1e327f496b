//! The gRPC surface, one file per service.
//!
//! ```text
//!   listener ─► serve ─► service (Control) ─────► engine::api::Backend
//!                 │         └─ session ─► tunnel ─► remote: session::Session for one client
//!                 ├────► gateway (LLBBridge): a frontend in the client, as an engine Frontend
//!                 ├────► content, trace, health
//!                 ├──── limits: what a connection and a call may hold
//!                 ├──── history, policy: records on disk, verdicts of clients
//!                 └──── convert, errors, status, protojson: wire ⇄ domain
//!   engine ───────────► otlp ─► a collector of spans and metrics
//! ```
//!
//! # Invariants
//! - Nothing outside this crate and `client` sees a wire message; nothing in here decides about a build.
//! - What is not built answers `UNIMPLEMENTED` with a sentence that names it.
//! - A client that leaves takes its session, its calls and its builds with it: everything is a future that is dropped.

mod content;
mod convert;
mod errors;
mod gateway;
mod health;
mod history;
mod io;
mod limits;
mod otlp;
mod policy;
mod protojson;
mod remote;
mod serve;
mod service;
mod session;
mod status;
mod step_spans;
mod trace;
mod tunnel;

#[cfg(test)]
mod tests;

pub use gateway::StdioHost;
pub use history::Codec;
pub use io::Connection;
pub use otlp::{Endpoint, Otlp, OtlpConfig, OtlpError, Protocol};
pub use serve::{ServeError, routes, serve};
pub use step_spans::{StepSpans, StepSpansError};
pub use tonic::service::Routes;
