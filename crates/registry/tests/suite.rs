//! The client against a scripted registry and against Debian's `docker-registry`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

#[path = "suite/fake.rs"]
mod fake;
#[path = "suite/faults.rs"]
mod faults;
#[path = "suite/foreign.rs"]
mod foreign;
#[path = "suite/mirrors.rs"]
mod mirrors;
#[path = "suite/misbehaving.rs"]
mod misbehaving;
#[path = "suite/real.rs"]
mod real;
#[path = "suite/scripted.rs"]
mod scripted;
#[path = "suite/silent.rs"]
mod silent;
#[path = "suite/tokens.rs"]
mod tokens;
#[path = "suite/uploads.rs"]
mod uploads;
