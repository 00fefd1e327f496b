//! Import and export of cache records.
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
//! | `chains` | records with equal ones merged, imported or to be exported |
//! | `attrs` | parses the attributes of a cache |
//! | `place` | the places of documents and layers: `registry`, `folder` |
//! | `export` | packs layers of results and writes layers and documents to a place |
//! | `inline` | records that name layers of an image |
//! | `import` | reads documents into chains, chains into a cache manager |
//! | `imported` | the key store and the result storage over chains |
//!
//! Invariants:
//! - Documents of a place are hostile: their size is bounded, indexes are checked, loops are errors.
//! - An imported result is a lazy ref. Layers are downloaded when their bytes are needed, by a session of the build that
//!   needs them; only layers in a client's folder are downloaded when a result is loaded, because the client will leave.
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
