//! One solve, start to finish.
//!
//! ```text
//!   control ──► Backend (api) ──► Engine ──► solve: admit → frontend → evaluate → attest → export → cache → record
//!                                              │
//!                                              └── BuildScope: what all that works for one build may use of it
//! ```
//!
//! Each module uses only modules that stand below it here; there is no circle.
//!
//! | module | what it does |
//! |---|---|
//! | `inspect` | the state of a running daemon for operators, and draining |
//! | `engine` | composes the daemon's parts; implements [`api`] |
//! | `solve` | the stages of one build, in one file |
//! | `services` | parts of a daemon that all its builds share |
//! | `admit` | checks and resolves a request before anything runs |
//! | `export` | exporters of a result and their finalizers |
//! | `bridge`, `container` | the frontend's interface to its build; containers that it runs |
//! | `attestation` | statements about results: calls, provenance, SBOMs |
//! | `cache_export` | remote caches that a build writes |
//! | `reference` | a result that is computed on its first use, once |
//! | `evaluate`, `cache_import` | computes a definition; remote caches that are looked up before |
//! | `policy` | which sources a build may use |
//! | `resolve` | resolves a source to its metadata |
//! | `scope` | the state that everything working for one build shares |
//! | `history` | running and finished builds: their records |
//! | `maintain` | disk usage, pruning, garbage collection |
//! | `load`, `files`, `verify`, `rights`, `blobs`, `observe`, `usage`, `spans` | definition → vertices; files of a tree; platforms of a result; entitlements; blobs for clients; vertices → progress; what steps and the machine used; phases of a build and spans of its steps' programs |
//! | `failure` | errors of the parts to failures |
//! | [`api`] | the interface for the outer layer, in types of the domain |
//!
//! Invariant: a build ends when the future of its solve ends or is dropped. Whatever holds a ref of it later is refused.

mod admit;
pub mod api;
mod attestation;
mod blobs;
mod bridge;
mod build_log;
mod cache_export;
mod cache_import;
mod container;
mod engine;
mod evaluate;
mod export;
mod failure;
mod files;
mod history;
mod inspect;
mod load;
mod maintain;
mod observe;
mod policy;
mod reference;
mod resolve;
mod rights;
mod scope;
mod services;
mod solve;
mod spans;
mod usage;
mod verify;

pub use attestation::provenance_env;
pub use bridge::DockerfileFrontend;
pub use engine::{Engine, EngineParts, Settings};
pub use history::HistorySettings;
pub use policy::apply_encoded_policy;
