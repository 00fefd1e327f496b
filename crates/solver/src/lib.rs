//! Which edge to compute next, and whether it is cached. Knows nothing of containers, files, sessions or wall time.
//!
//! A build is a graph of [`Vertex`]es. An [`Edge`] is one output of a vertex. A [`Job`] is a client's interest in edges;
//! jobs share vertices with the same digest, and edges that turn out to have equal cache keys are merged.
//!
//! * the *scheduler* (`scheduler`) is a value: events in, effects out, no await;
//! * the *driver* (`driver`) carries out effects: cache maps, content digests, loads, executions, one task each;
//! * the *key algebra* (`cachekey`, `manager`) is BuildKit's, byte for byte, over a [`KeyStore`];
//! * [`export`] turns the keys of a result into chains of records for a cache exporter.

mod built;
pub mod cachekey;
mod domain;
mod driver;
mod error;
pub mod export;
mod index;
mod job;
mod keystore;
mod lookup;
mod manager;
mod memory;
mod op;
mod scheduler;
mod vertex;

pub use built::Built;
pub use cachekey::{CacheKey, CacheRecord, DepKey, KeyInfo, root_key};
pub use domain::{Domain, NoOp, ResultsOnly};
pub use error::{KeyStoreError, OpError, Phase, SolveError};
pub use job::{Job, JobOptions, Solver};
pub use keystore::{KeyStore, Link, ResultStorage, StoredResult};
pub use manager::CacheManager;
pub use memory::{MemoryKeyStore, MemoryResults};
pub use op::{
    CacheMap, CacheMapDep, NullSink, Observer, Op, OpCtx, Preprocess, Resolver, SessionGroup,
    SlowKey, SubBuilder, VertexSink,
};
pub use vertex::{Edge, ProgressGroup, Vertex, VertexOptions};
