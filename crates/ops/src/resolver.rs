//! From a vertex to its op.

use std::sync::Arc;

use async_trait::async_trait;
use llb::pb;
use oci::Platform;
use solver::{CacheMap, Op, OpCtx, OpError, Resolver, SubBuilder, Vertex};

use crate::combine::{CombineOp, Kind};
use crate::exec::{ExecOp, resources_of};
use crate::file::FileOp;
use crate::source_op::SourceOp;
use crate::{BuildDomain, BuildRights, OpFailure, Parts, Ref};

/// What the engine puts into a vertex for the resolver.
#[derive(Debug, Clone, Default)]
pub struct OpSys {
    /// The op, its platform in normal form.
    pub op: Arc<pb::Op>,
    /// What the definition says about it.
    pub metadata: pb::OpMetadata,
    /// What its build was granted.
    pub rights: BuildRights,
}

/// What a vertex does.
#[derive(Debug)]
pub enum BuildOp {
    /// Runs a process.
    Exec(Box<ExecOp>),
    /// Changes files.
    File(FileOp),
    /// Brings a root of the graph.
    Source(SourceOp),
    /// Merges, compares or passes on its inputs.
    Combine(CombineOp),
}

#[async_trait]
impl Op<BuildDomain> for BuildOp {
    async fn cache_map(
        &self,
        ctx: &OpCtx<BuildDomain>,
        index: usize,
    ) -> Result<(CacheMap<BuildDomain>, bool), OpError> {
        match self {
            Self::Exec(op) => op.cache_map(ctx, index).await,
            Self::File(op) => op.cache_map(ctx, index).await,
            Self::Source(op) => op.cache_map(ctx, index).await,
            Self::Combine(op) => op.cache_map(ctx, index).await,
        }
    }

    async fn exec(&self, ctx: &OpCtx<BuildDomain>, inputs: Vec<Ref>) -> Result<Vec<Ref>, OpError> {
        match self {
            Self::Exec(op) => op.exec(ctx, inputs).await,
            Self::File(op) => op.exec(ctx, inputs).await,
            Self::Source(op) => op.exec(ctx, inputs).await,
            Self::Combine(op) => op.exec(ctx, inputs).await,
        }
    }
}

/// Finds the op of a vertex.
#[derive(Debug)]
pub struct OpResolver {
    parts: Arc<Parts>,
}

impl OpResolver {
    /// Makes a resolver of ops that work with `parts`.
    pub fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }
}

impl Resolver<BuildDomain> for OpResolver {
    fn resolve(
        &self,
        vertex: &Arc<Vertex<BuildDomain>>,
        _builder: SubBuilder<BuildDomain>,
    ) -> Result<Arc<BuildOp>, OpError> {
        let sys = &vertex.sys;
        let parts = Arc::clone(&self.parts);
        let inputs = vertex.inputs.len();
        let platform = sys.op.platform.clone();
        let combine = |parts, kind| CombineOp::new(parts, kind, inputs, &vertex.name);
        Ok(Arc::new(
            match sys.op.op.as_ref().ok_or(OpFailure::NoOp)? {
                pb::op::Op::Exec(op) => BuildOp::Exec(Box::new(ExecOp::new(
                    parts,
                    op.clone(),
                    platform,
                    sys.rights.clone(),
                    resources_of(sys.metadata.linux_resources.as_ref()),
                    inputs,
                ))),
                pb::op::Op::File(op) => {
                    BuildOp::File(FileOp::new(parts, op.clone(), inputs, &vertex.name))
                }
                pb::op::Op::Source(op) => BuildOp::Source(SourceOp::new(
                    parts,
                    op.clone(),
                    platform.map(|p| Platform {
                        os: p.os,
                        architecture: p.architecture,
                        variant: p.variant,
                        os_version: p.os_version,
                        os_features: p.os_features,
                    }),
                )),
                pb::op::Op::Merge(op) => BuildOp::Combine(combine(parts, Kind::Merge(op.clone()))),
                pb::op::Op::Diff(op) => BuildOp::Combine(combine(parts, Kind::Diff(*op))),
                pb::op::Op::Passthrough(op) => {
                    BuildOp::Combine(combine(parts, Kind::Passthrough(op.clone())))
                }
                pb::op::Op::Build(_) => {
                    return Err(OpFailure::NotBuilt {
                        feature: "nested builds (BuildOp)",
                        detail: vertex.name.clone(),
                    }
                    .into());
                }
            },
        ))
    }
}
