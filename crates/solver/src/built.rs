//! What a build gives.

use std::fmt;
use std::sync::Arc;

use crate::domain::Domain;
use crate::domain::vertex::Vertex;
use crate::keys::cachekey::KeyInfo;

/// The outcome of a build.
pub struct Built<D: Domain> {
    /// The result.
    pub result: D::Result,
    /// The keys it is known by; what a cache exporter starts from.
    pub keys: Vec<KeyInfo<D>>,
    /// The vertex as the solver holds it.
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
