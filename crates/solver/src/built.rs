//! The outcome of a build.

use std::fmt;
use std::sync::Arc;

use crate::domain::Domain;
use crate::domain::vertex::Vertex;
use crate::keys::cachekey::KeyInfo;

/// The outcome of a build.
pub struct Built<D: Domain> {
    /// Output of the edge that was built.
    pub result: D::Result,
    /// Keys of the result; cache exporters start from them.
    pub keys: Vec<KeyInfo<D>>,
    /// The vertex as the solver holds it: its digest differs from the client's if it ignores the cache.
    pub vertex: Arc<Vertex<D>>,
}

impl<D: Domain> fmt::Debug for Built<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built")
            .field("keys", &self.keys)
            .field("vertex", &self.vertex.digest)
            .finish_non_exhaustive()
    }
}
