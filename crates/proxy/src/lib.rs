//! The HTTP proxy that steps reach the network by, and by nothing else.
//!
//! ```text
//!   a step's namespace            │ a namespace without routes      │ the network of the step's mode
//!   HTTP_PROXY=http://10.89.0.1 ──┼─► listener ── Proxy::serve ─────┼─► Egress::connect ── (upstream proxy) ── server
//!                                 │       │ allow-list, policy, capture
//! ```
//!
//! [`Proxy`] is one for the daemon: it has the certificate authority, the allow-list and the way out. [`Proxy::serve`] answers the
//! connections of one step. HTTP/1.1 requests are read, decided upon and sent on; `CONNECT` gets a certificate of our authority, and
//! what is said inside is HTTP/1.1 as well. Nothing is ever passed on that was not understood.
//!
//! | layer | modules |
//! |---|---|
//! | decisions without a network | `target`, `allow`, `addresses`, `upstream`, `headers` |
//! | what is kept of a step | `capture`, `body` |
//! | certificates | `authority`, `trust`, `java` |
//! | at work | `egress`, `step`, `forward`, `serve`, `proxy` |
//!
//! # Invariants
//! - Every request is put to the allow-list and to the step's [`RequestPolicy`] before a connection is made for it.
//! - Bodies are streamed; what is held of a step is bounded ([`MAX_CONNECTIONS`], [`MAX_HEADER_BYTES`], [`Capture`]).
//! - A request with two opinions on its length, or on its host, is refused.
//! - Credentials in addresses are in no log and no record.

mod addresses;
mod allow;
mod authority;
mod body;
mod capture;
mod egress;
mod error;
mod forward;
mod headers;
pub mod java;
mod proxy;
mod serve;
mod step;
mod target;
pub mod trust;
mod upstream;

#[cfg(test)]
mod tests;

pub use addresses::Reach;
pub use allow::{AllowList, InvalidPattern};
pub use capture::{Capture, Incomplete, Material, Request};
pub use egress::Egress;
pub use error::ProxyError;
pub use headers::MAX_HEADER_BYTES;
pub use proxy::{Config, Proxy, Serving};
pub use serve::MAX_CONNECTIONS;
pub use step::StepRules;
pub use upstream::{InvalidUpstream, Upstreams};

use async_trait::async_trait;

/// Where a step's proxy listens: the same for every step, so that an address which a program writes down is no difference between two
/// builds. Each step has a pair of namespaces of its own, in which nobody else has it.
pub const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 89, 0, 1);
/// The step's own end.
pub const STEP_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 89, 0, 2);
/// The port of [`ADDRESS`].
pub const PORT: u16 = 3128;

/// Decides on requests of steps.
#[async_trait]
pub trait RequestPolicy: Send + Sync + std::fmt::Debug {
    /// Decides on a request by its method and its address, from which credentials were removed. Returns the address to go to instead,
    /// if it is to be another.
    async fn check(&self, method: &str, url: &str) -> Result<Option<String>, PolicyError>;
}

/// Why a policy lets a request not pass: a sentence for the step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);
