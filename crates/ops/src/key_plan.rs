//! Cache maps as values, before they are tied to the solver.

use std::sync::Arc;

use async_trait::async_trait;
use oci::Digest;
use solver::{CacheMap, CacheMapDep, OpCtx, OpError, Preprocess};

use crate::content;
use crate::domain::{BuildDomain, Ref};
use crate::failure::OpFailure;

/// A cache map before it is tied to the solver: what the formulas give, to be tested as values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlan {
    /// Digest of all that decides the output except the inputs.
    pub digest: Digest,
    /// What each input adds.
    pub deps: Vec<DepPlan>,
}

/// What one input adds to a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DepPlan {
    /// Restricts matches by the input's own key.
    pub selector: Option<Digest>,
    /// What of the input's content is a key of its own; empty is all of it.
    pub content: Option<Vec<content::Selector>>,
}

impl KeyPlan {
    /// Makes the solver's cache map. With `unlazy` the inputs are made real before the op runs.
    pub fn into_cache_map(self, unlazy: bool) -> CacheMap<BuildDomain> {
        let deps = self
            .deps
            .into_iter()
            .map(|dep| CacheMapDep {
                selector: dep.selector,
                slow: dep
                    .content
                    .map(|selectors| Arc::new(content::ContentKey::new(selectors)) as _),
                preprocess: unlazy.then(|| Arc::new(Unlazy) as _),
            })
            .collect();
        CacheMap {
            digest: self.digest,
            deps,
            hints: Vec::new(),
        }
    }
}

/// Pulls and unpacks an input before it is used.
#[derive(Debug)]
struct Unlazy;

#[async_trait]
impl Preprocess<BuildDomain> for Unlazy {
    async fn run(&self, _ctx: &OpCtx<BuildDomain>, input: &Ref) -> Result<(), OpError> {
        if let Some(input) = input {
            input.ensure().await.map_err(OpFailure::from)?;
        }
        Ok(())
    }
}
