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
//! | `inspect` | what operators may look at while builds run, and draining |
//! | `engine` | the daemon's parts, put together; answers what [`api`] asks |
//! | `solve` | the stages of one build, in one file |
//! | `services` | what a daemon has for all its builds |
//! | `admit` | what a request asks for, checked and resolved before anything runs |
//! | `export` | what is done with a result |
//! | `bridge`, `container` | what a frontend may ask of its build, programs that it runs |
//! | `attestation` | what is stated about results: requests, provenance, SBOMs |
//! | `cache_export` | remote caches that a build writes |
//! | `reference` | a result that is computed when somebody asks for it, once |
//! | `evaluate`, `cache_import` | a definition to its result; remote caches that are looked into before |
//! | `policy` | which sources a build may use |
//! | `resolve` | a source to what is fixed about it |
//! | `scope` | what everything that works for one build may use of it |
//! | `history` | which builds there are and were: their records |
//! | `maintain` | usage, pruning, collection |
//! | `load`, `files`, `verify`, `rights`, `blobs`, `observe` | definition → vertices; files of a tree; platforms of a result; entitlements; blobs for clients; vertices → progress |
//! | `failure` | errors of the parts to failures |
//! | [`api`] | what the outer layer may ask, in words of the domain |
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
mod verify;

pub use attestation::provenance_env;
pub use bridge::DockerfileFrontend;
pub use engine::{Engine, EngineParts, Settings};
pub use history::HistorySettings;
pub use policy::apply_encoded_policy;
