//! One solve, start to finish.
//!
//! ```text
//!   control ──► Backend (api) ──► Engine ──► Build ── frontend ──► Bridge ──► LazyRef ──► solver ──► ops
//!                                              │                                             │
//!                                              └── exporters, response            Observer ──► Hub ──► Status
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`api`] | what the outer layer may ask, in words of the domain |
//! | `engine` | the parts of a daemon, put together |
//! | `build` | what one build owns: its job, its progress, where its vertices stand in the user's files |
//! | `load` | definition → vertices, with the rights of the build |
//! | `bridge`, `reference`, `resolve` | what a frontend may ask of its build |
//! | `container`, `files` | programs that frontends run, files that they read |
//! | `policy` | which sources a build may use |
//! | `verify` | whether a result is what was asked for |
//! | `history` | which builds there are and were: their records |
//! | `cache` | remote caches: read before results are computed, written when they are there |
//! | `solve` | a request from its registration to its response |
//! | `provenance` | who asked for which result, and what went into it |
//! | `attestations`, `sbom` | what is stated about results |
//! | `blobs` | what clients may read of what is kept |
//! | `maintain` | usage, pruning, collection |
//!
//! Invariant: a build ends when the future of its solve ends or is dropped. Whatever holds a ref of it later is refused.

pub mod api;
mod attestations;
mod blobs;
mod bridge;
mod build;
mod cache;
mod container;
mod engine;
mod failure;
mod files;
mod history;
mod load;
mod maintain;
mod observe;
mod policy;
mod provenance;
mod reference;
mod request;
mod resolve;
mod rights;
mod sbom;
mod solve;
mod spent;
mod verify;

pub use engine::{Engine, EngineParts, Settings};
pub use history::HistorySettings;
pub use policy::apply_encoded as apply_encoded_policy;
pub use provenance::provenance_env;
