//! Which edge to compute next, and whether it is cached. Knows nothing of containers, files, sessions or wall time.
//!
//! A build is a graph of [`Vertex`]es. An [`Edge`] is one output of a vertex. A [`Job`] is a client's interest in edges;
//! jobs share vertices with the same digest, and edges that turn out to have equal cache keys are merged.
//!
//! | module      | what is there                                                                                           |
//! | module      | contents                                                                                                |
//! | `domain`    | the types that a user of the solver defines ([`Domain`]): ops, vertices, errors                         |
//! | `keys`      | the key algebra, BuildKit's byte for byte, over a [`KeyStore`]; look-ups; [`export`] of chains of records |
//! | `index`     | keys of what is being computed now, to merge edges                                                      |
//! | `scheduler` | a value: events in, effects out, no await, no lock and no look-up                                       |
//! | `driver`    | carries out effects: cache maps, content digests, look-ups, loads, executions; holds no lock over any    |
//! | `job`       | what users call                                                                                         |
//! | `job`       | the interface for users: solvers and jobs                                                               |
//! Each module uses only those above it.

mod built;
mod domain;
mod driver;
mod index;
mod job;
mod keys;
mod scheduler;

pub use built::Built;
pub use domain::error::{KeyStoreError, OpError, Phase, SolveError};
pub use domain::op::{
    CacheMap, CacheMapDep, NullSink, Observer, Obtained, Op, OpCtx, Preprocess, Resolver,
    SessionGroup, SlowKey, SubBuilder, VertexSink,
};
pub use domain::vertex::{Edge, ProgressGroup, Vertex, VertexOptions};
pub use domain::{Domain, NoOp, ResultsOnly};
pub use job::{Job, JobOptions, ResolvedOp, Solver};
pub use keys::cachekey::{CacheKey, CacheRecord, DepKey, KeyInfo, root_key};
pub use keys::keystore::{KeyLink, KeyStore, ResultStorage, StoredResult};
pub use keys::manager::CacheManager;
pub use keys::memory::{MemoryKeyStore, MemoryResults};
pub use keys::{cachekey, export};
pub use scheduler::waits::{Activity, WaitGraph, WaitNode};
