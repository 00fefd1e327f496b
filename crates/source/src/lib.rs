//! Sources, the ops without inputs: images, client folders, OCI layouts, files by URL, git repositories.
//!
//! A [`Source`] reads identifiers of its schemes into [`SourceInstance`]s; an instance has a cache key (BuildKit's formula, see
//! each module's table) and makes a snapshot. [`Sources`] finds the source of a scheme.
//!
//! Invariants:
//! - A cache key is computed without downloading content wherever the reference can do so.
//! - Nothing a client or server names becomes a path outside the snapshot, an option of a program, or a header.
//! - Secrets go to the exact host they are for, never into a description, an error, or a cache key.

pub mod blob;
pub mod context;
pub mod error;
pub mod git;
pub mod http;
pub mod image;
pub mod local;
mod manager;
pub mod oci_layout;
mod scratch;
mod session_credentials;
mod signed;

pub use context::{Context, ResolvedSources};
pub use error::SourceError;
pub use manager::{CacheKey, Facts, Source, SourceInstance, Sources};
pub use session_credentials::SessionCredentials;
