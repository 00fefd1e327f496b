//! The client against a scripted registry and against Debian's `docker-registry`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "suite/fake.rs"]
mod fake;
#[path = "suite/foreign.rs"]
mod foreign;
#[path = "suite/misbehaving.rs"]
mod misbehaving;
#[path = "suite/real.rs"]
mod real;
#[path = "suite/scripted.rs"]
mod scripted;
#[path = "suite/silent.rs"]
mod silent;
