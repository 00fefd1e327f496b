//! Sources against a real store, with clients, servers and repositories of this process.

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
#[path = "suite/credentials.rs"]
mod credentials;
#[path = "suite/downloads.rs"]
mod downloads;
#[path = "suite/git.rs"]
mod git;
#[path = "suite/git_hosts.rs"]
mod git_hosts;
#[path = "suite/http.rs"]
mod http;
#[path = "suite/image.rs"]
mod image;
#[path = "suite/local.rs"]
mod local;
#[path = "suite/signatures.rs"]
mod signatures;
