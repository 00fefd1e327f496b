//! From a vertex to its op.

use std::sync::Arc;

use llb::pb;
use oci::Platform;
use solver::{Op, OpError, Resolver, SubBuilder, Vertex};

use crate::combine::{CombineOp, Kind};
use crate::exec::{ExecOp, resources_of};
use crate::file::FileOp;
use crate::source_op::SourceOp;
use crate::{BuildRights, OpFailure, Parts, Ref};

/// What the engine puts into a vertex for the resolver.
#[derive(Debug, Clone)]
pub struct OpSys {
    /// The op, its platform in normal form.
    pub op: Arc<pb::Op>,
    /// What the definition says about it.
    pub metadata: pb::OpMetadata,
    /// What its build was granted.
    pub rights: BuildRights,
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

impl Resolver<Ref> for OpResolver {
    fn resolve(
        &self,
        vertex: &Arc<Vertex>,
        _builder: SubBuilder<Ref>,
    ) -> Result<Arc<dyn Op<Ref>>, OpError> {
        let sys = vertex
            .sys
            .downcast_ref::<OpSys>()
            .ok_or_else(|| OpFailure::Foreign(vertex.digest.to_string()))?;
        let parts = Arc::clone(&self.parts);
        let inputs = vertex.inputs.len();
        let platform = sys.op.platform.clone();
        Ok(match sys.op.op.as_ref().ok_or(OpFailure::NoOp)? {
            pb::op::Op::Exec(op) => Arc::new(ExecOp::new(
                parts,
                op.clone(),
                platform,
                sys.rights.clone(),
                resources_of(sys.metadata.linux_resources.as_ref()),
                inputs,
            )),
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
            pb::op::Op::Merge(op) => Arc::new(CombineOp::new(
                parts,
                Kind::Merge(op.clone()),
                inputs,
                &vertex.name,
            )),
            pb::op::Op::Diff(op) => {
                Arc::new(CombineOp::new(parts, Kind::Diff(*op), inputs, &vertex.name))
            }
            pb::op::Op::Passthrough(op) => Arc::new(CombineOp::new(
                parts,
                Kind::Passthrough(op.clone()),
                inputs,
                &vertex.name,
            )),
            pb::op::Op::Build(_) => {
                return Err(OpFailure::NotBuilt {
                    feature: "nested builds (BuildOp)",
                    detail: vertex.name.clone(),
                }
                .into());
            }
        })
    }
}
