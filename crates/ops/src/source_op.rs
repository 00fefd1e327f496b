//! The source op: an op without inputs.
//!
//! | input of the key               | why                                                                     |
//! |--------------------------------|-------------------------------------------------------------------------|
//! | `buildkit.source.v0:` and the source's own key | each source has its formula, see the modules of `source` |
//! | `random:` instead of the algorithm             | for keys that begin with `session:`: never exported      |
//!
//! Source of the facts: `solver/llbsolver/ops/source.go` (v0.34.2).

use std::sync::Arc;

use ::source::{Context, SourceInstance};
use async_trait::async_trait;
use llb::pb;
use oci::{Digest, Platform};
use parking_lot::Mutex;
use progress::WriterSource as _;
use solver::{CacheMap, Op, OpCtx, OpError};

use crate::{BuildDomain, BuildOp, LayerHint, OpFailure, Parts, Ref};

const TYPE: &str = "buildkit.source.v0";

/// Loads one source.
#[derive(Debug)]
pub struct SourceOp {
    parts: Arc<Parts>,
    op: pb::SourceOp,
    platform: Option<Platform>,
    instance: Mutex<Option<Arc<dyn SourceInstance>>>,
    pin: Mutex<String>,
}

impl SourceOp {
    /// Creates the op of a source.
    pub fn new(parts: Arc<Parts>, op: pb::SourceOp, platform: Option<Platform>) -> Self {
        Self {
            parts,
            op,
            platform,
            instance: Mutex::new(None),
            pin: Mutex::new(String::new()),
        }
    }

    fn instance(&self) -> Result<Arc<dyn SourceInstance>, OpFailure> {
        let mut slot = self.instance.lock();
        if let Some(instance) = &*slot {
            return Ok(Arc::clone(instance));
        }
        let instance = self
            .parts
            .sources
            .resolve(&self.op.identifier, &self.op.attrs, self.platform.as_ref())
            .map_err(|e| OpFailure::Source(Box::new(e)))?;
        *slot = Some(Arc::clone(&instance));
        Ok(instance)
    }

    fn context(&self, ctx: &OpCtx<BuildDomain>) -> Context {
        Context {
            sessions: self.parts.group(ctx),
            progress: ctx.sink.writer(),
            resolved_sources: crate::domain::resolved_sources(ctx),
        }
    }
}

impl BuildOp for SourceOp {
    fn pin(&self) -> String {
        self.pin.lock().clone()
    }
}

#[async_trait]
impl Op<BuildDomain> for SourceOp {
    async fn cache_map(
        &self,
        ctx: &OpCtx<BuildDomain>,
        index: usize,
    ) -> Result<(CacheMap<BuildDomain>, bool), OpError> {
        let key = self
            .instance()?
            .cache_key(&self.context(ctx), index)
            .await
            .map_err(|e| OpFailure::Source(Box::new(e)))?;
        {
            let mut pin = self.pin.lock();
            if pin.is_empty() {
                pin.clone_from(&key.pin);
            }
        }
        let mut digest = Digest::sha256(format!("{TYPE}:{}", key.key));
        if key.key.starts_with("session:") {
            digest = Digest::key(&format!("random:{}", digest.hex()));
        }
        let hints = key.layers.into_iter();
        let hints = hints.map(|(layer, provider)| LayerHint { layer, provider });
        Ok((
            CacheMap {
                digest,
                deps: Vec::new(),
                hints: hints.collect(),
            },
            key.is_last,
        ))
    }

    async fn exec(&self, ctx: &OpCtx<BuildDomain>, _inputs: Vec<Ref>) -> Result<Vec<Ref>, OpError> {
        let snapshot = self
            .instance()?
            .snapshot(&self.context(ctx))
            .await
            .map_err(|e| OpFailure::Source(Box::new(e)))?;
        Ok(vec![snapshot])
    }
}
