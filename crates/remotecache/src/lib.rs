//! Cache records in and out of the machine.
//!
//! ```text
//!   solver::export ──► Records ── chains ──► CacheConfig ── place ──► a registry, a folder of the client, an image config
//!                                   ▲
//!   place ── manifest, config ──────┘── imported ──► solver::CacheManager, whose results are lazy refs
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`format`] | the document: layers, records, the links between them; byte for byte BuildKit's |
//! | `chains` | records merged where they are the same; what is written, and what was read |
//! | `attrs` | what a client may say of a cache |
//! | `place` | where documents and layers lie: `registry`, `folder` |
//! | `export` | results to layers, layers and documents to a place |
//! | `inline` | records in terms of the layers of an image |
//! | `import` | documents to chains, chains to a cache manager |
//! | `imported` | the key store and the result storage over chains |
//!
//! Invariants:
//! - What a place says is hostile: documents are bounded, indexes are checked, loops are errors.
//! - An imported result is a lazy ref. Layers are fetched when somebody needs their bytes, by a session of the build that
//!   needs them; only what lies at a client is fetched when it is loaded, because the client will be gone.
//! - A cache that cannot be read is no reason for a build to fail.

mod attrs;
mod caches;
mod chains;
mod error;
mod export;
#[cfg(test)]
mod fixture;
pub mod format;
mod import;
mod imported;
mod inline;
mod place;

pub use caches::{CacheContext, CacheExporter, Caches};
pub use error::{AttributeError, CacheError};
pub use export::CacheRecords;
pub use place::registry::CredentialsOf;

/// The domains whose results this crate keeps: refs of the store, with sinks that show progress.
pub trait CacheDomain:
    solver::Domain<Result = store::StoreResult, Sink: progress::WriterSource>
{
}

impl<D> CacheDomain for D where
    D: solver::Domain<Result = store::StoreResult, Sink: progress::WriterSource>
{
}
