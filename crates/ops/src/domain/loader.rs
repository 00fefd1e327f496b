//! How ops of a build have definitions loaded.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use llb::pb;
use solver::{Edge, OpError};

use super::{BuildDomain, BuildRights};

/// Loads definitions that steps of a build made.
#[async_trait]
pub trait NestedLoader: Send + Sync {
    /// What `definition` wants, if the policies of the build allow its sources. It runs with `rights`, and `nesting` builds are
    /// around it.
    async fn load(
        &self,
        definition: Arc<pb::Definition>,
        rights: &BuildRights,
        nesting: usize,
    ) -> Result<Edge<BuildDomain>, OpError>;
}

/// The loader of a build, from when its policies are there until it is over.
#[derive(Default)]
pub struct LoaderSlot(OnceLock<Weak<dyn NestedLoader>>);

impl LoaderSlot {
    /// Puts the loader in, once.
    pub fn set(&self, loader: Weak<dyn NestedLoader>) {
        let is_first = self.0.set(loader).is_ok();
        debug_assert!(is_first, "a build has one loader");
    }

    pub(crate) fn get(&self) -> Option<Arc<dyn NestedLoader>> {
        self.0.get()?.upgrade()
    }
}

impl fmt::Debug for LoaderSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LoaderSlot")
            .field(&self.0.get().is_some())
            .finish()
    }
}
