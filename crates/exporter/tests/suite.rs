//! Exporters against a real store, a client of this process, and Debian's `docker-registry`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "tests fail by panicking and say why they skip"
)]

#[path = "suite/client.rs"]
mod client;
#[path = "suite/conformance.rs"]
mod conformance;
#[path = "suite/exporting.rs"]
mod exporting;
#[path = "suite/image.rs"]
mod image;
#[path = "suite/leftovers.rs"]
mod leftovers;
#[path = "suite/tree.rs"]
mod tree;
