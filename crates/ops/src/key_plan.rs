//! Cache maps as plain values, before conversion to the solver's type.

use std::sync::Arc;

use async_trait::async_trait;
use oci::Digest;
use solver::{CacheMap, CacheMapDep, OpCtx, OpError, Preprocess};

use crate::content;
use crate::domain::{BuildDomain, Ref};
use crate::failure::OpFailure;

/// A cache map as a plain value, which tests can compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlan {
    /// Digest of everything that decides the output, without the inputs.
    pub digest: Digest,
    /// One entry per input.
    pub deps: Vec<DepPlan>,
}

/// The part of one input in a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DepPlan {
    /// Digest that restricts matches by the input's own key.
    pub selector: Option<Digest>,
    /// Selectors of the content that makes a key of its own; an empty list selects all content, none makes no content key.
    pub content: Option<Vec<content::ContentSelector>>,
}

impl KeyPlan {
    /// Converts to the solver's cache map. With `unlazy` the inputs are unpacked before the op runs.
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

/// Pulls and unpacks a lazy input before it is used.
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
