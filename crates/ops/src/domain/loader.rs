//! Loads definitions that steps of a build produce.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use llb::pb;
use solver::{Edge, OpError};

use super::{BuildDomain, BuildRights, Slot};

/// Loads definitions that steps of a build produce.
#[async_trait]
pub trait NestedLoader: Send + Sync {
    /// The edge of `definition`, if the policies of the build allow its sources. Its steps have `rights`, and `nesting` builds are
    /// around it.
    async fn load(
        &self,
        definition: Arc<pb::Definition>,
        rights: &BuildRights,
        nesting: usize,
    ) -> Result<Edge<BuildDomain>, OpError>;
}

/// The loader of a build: set once the build has its policies, and gone when the build is.
pub type LoaderSlot = Slot<Weak<dyn NestedLoader>>;
