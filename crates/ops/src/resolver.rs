//! Resolves a vertex to its op.

use std::sync::Arc;

use llb::pb;
use oci::Platform;
use solver::{OpError, Resolver, SubBuilder, Vertex};

use crate::combine::{CombineKind, CombineOp};
use crate::domain::{BuildDomain, BuildOp};
use crate::exec::{ExecOp, resources_of};
use crate::file::FileOp;
use crate::nested::NestedOp;
use crate::source_op::SourceOp;
use crate::{OpFailure, Parts};

/// Creates the op of a vertex.
#[derive(Debug)]
pub struct OpResolver {
    parts: Arc<Parts>,
}

impl OpResolver {
    /// Creates a resolver whose ops use `parts`.
    pub fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }
}

impl Resolver<BuildDomain> for OpResolver {
    fn resolve(
        &self,
        vertex: &Arc<Vertex<BuildDomain>>,
        builder: Arc<dyn SubBuilder<BuildDomain>>,
    ) -> Result<Arc<dyn BuildOp>, OpError> {
        let sys = &vertex.sys;
        let parts = Arc::clone(&self.parts);
        let inputs = vertex.inputs.len();
        let platform = sys.op.platform.clone();
        let combine = |kind| CombineOp::new(Arc::clone(&self.parts), kind, inputs, &vertex.name);
        Ok(match sys.op.op.as_ref().ok_or(OpFailure::NoOp)? {
            pb::op::Op::Exec(op) => Arc::new(
                ExecOp::new(
                    parts,
                    op.clone(),
                    platform,
                    sys.rights.clone(),
                    resources_of(sys.metadata.linux_resources.as_ref()),
                    inputs,
                )
                .proxied(sys.proxied),
            ),
            pb::op::Op::File(op) => Arc::new(FileOp::new(parts, op.clone(), inputs, &vertex.name)),
            pb::op::Op::Source(op) => Arc::new(SourceOp::new(
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
            pb::op::Op::Merge(op) => Arc::new(combine(CombineKind::Merge(op.clone()))),
            pb::op::Op::Diff(op) => Arc::new(combine(CombineKind::Diff(*op))),
            pb::op::Op::Passthrough(op) => Arc::new(combine(CombineKind::Passthrough(op.clone()))),
            pb::op::Op::Build(op) => Arc::new(NestedOp::new(parts, op.clone(), vertex, builder)),
        })
    }
}
