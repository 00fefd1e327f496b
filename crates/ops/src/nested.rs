//! A nested build: an input contains the definition to build.
//!
//! The key is SHA-256 of Go's JSON of `{Type: buildkit.build.v0, Exec: the op}`; inputs take part by their own keys only. Facts from
//! `solver/llbsolver/ops/build.go` and `client/llb/llbbuild` (v0.34.2).
//!
//! The nested build is a part of the vertex: it ends with the vertex, its steps are shown with the build, and the policies and rights of
//! the build apply to it.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use llb::pb;
use oci::Digest;
use serde::Serialize;
use solver::{CacheMap, Edge, Op, OpCtx, OpError, SolveError, SubBuilder, Vertex};

use crate::domain::{BuildDomain, BuildOp, BuildRights, Ref};
use crate::failure::nested::{DEFINITION, MAX_NESTED_BUILDS};
use crate::failure::{NestedBuildError, OpFailure};
use crate::key_plan::{DepPlan, KeyPlan};
use crate::parts::Parts;

/// The index that stands for the builder of LLB; other builders are not allowed.
const LLB_BUILDER: i64 = -1;
/// The attribute that names the file of the definition.
const FILENAME: &str = "llbbuild.filename";
/// Size limit of a definition in a file in bytes; that of one message.
const MAX_DEFINITION_BYTES: u64 = 16 << 20;

/// Builds the definition in one of its inputs.
pub struct NestedOp {
    parts: Arc<Parts>,
    op: pb::BuildOp,
    rights: BuildRights,
    /// Number of builds around this one.
    nesting: usize,
    inputs: usize,
    builder: Arc<dyn SubBuilder<BuildDomain>>,
}

impl fmt::Debug for NestedOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NestedOp")
            .field("op", &self.op)
            .field("nesting", &self.nesting)
            .finish_non_exhaustive()
    }
}

impl NestedOp {
    /// Creates the op of `vertex` from `op`; `builder` builds as a part of the vertex.
    pub fn new(
        parts: Arc<Parts>,
        op: pb::BuildOp,
        vertex: &Vertex<BuildDomain>,
        builder: Arc<dyn SubBuilder<BuildDomain>>,
    ) -> Self {
        Self {
            parts,
            op,
            rights: vertex.sys.rights.clone(),
            nesting: vertex.sys.nesting,
            inputs: vertex.inputs.len(),
            builder,
        }
    }

    async fn definition(&self, inputs: Vec<Ref>) -> Result<pb::Definition, OpFailure> {
        if self.op.builder != LLB_BUILDER {
            return Err(NestedBuildError::Builder.into());
        }
        let input = self.op.inputs.get(DEFINITION);
        let index = input.ok_or(NestedBuildError::NoInput)?.input;
        let file = self
            .op
            .attrs
            .get(FILENAME)
            .map_or(DEFINITION, String::as_str)
            .to_owned();
        let tree = usize::try_from(index)
            .ok()
            .and_then(|index| inputs.into_iter().nth(index))
            .ok_or(OpFailure::MissingInput(index))?;
        let tree = tree.ok_or_else(|| NestedBuildError::NoFile { file: file.clone() })?;
        tree.ensure().await?;
        task::blocking("read the definition of a nested build", move || {
            let bytes = tree
                .root()?
                .read(&file, MAX_DEFINITION_BYTES)
                .map_err(|error| OpFailure::Tree(Box::new(error)))?;
            llb::definition::decode(&bytes).map_err(|source| {
                NestedBuildError::Decode {
                    file,
                    source: Box::new(source),
                }
                .into()
            })
        })
        .await
    }
}

/// Returns the key of the op.
pub fn plan(op: &pb::BuildOp, inputs: usize) -> KeyPlan {
    #[derive(Serialize)]
    struct Input {
        #[serde(skip_serializing_if = "is_zero")]
        input: i64,
    }
    // The field `def` is left out: neither clients nor the daemon use it.
    #[derive(Serialize)]
    struct Exec<'a> {
        #[serde(skip_serializing_if = "is_zero")]
        builder: i64,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        inputs: BTreeMap<&'a str, Input>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        attrs: BTreeMap<&'a str, &'a str>,
    }
    #[derive(Serialize)]
    struct BuildKey<'a> {
        #[serde(rename = "Type")]
        kind: &'static str,
        #[serde(rename = "Exec")]
        exec: Exec<'a>,
    }
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands over references"
    )]
    fn is_zero(number: &i64) -> bool {
        *number == 0
    }
    let json = gostd::json::to_vec(&BuildKey {
        kind: "buildkit.build.v0",
        exec: Exec {
            builder: op.builder,
            inputs: op
                .inputs
                .iter()
                .map(|(name, input)| (name.as_str(), Input { input: input.input }))
                .collect(),
            attrs: op
                .attrs
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        },
    });
    KeyPlan {
        digest: Digest::sha256(json),
        deps: vec![DepPlan::default(); inputs],
    }
}

/// The digests of nested builds in the graph of `edge`, including that of `edge` itself.
fn nested_within(edge: &Edge<BuildDomain>) -> Vec<Digest> {
    let mut visited = HashSet::from([edge.vertex.digest.clone()]);
    let mut open = vec![Arc::clone(&edge.vertex)];
    let mut nested = Vec::new();
    while let Some(vertex) = open.pop() {
        if matches!(vertex.sys.op.op, Some(pb::op::Op::Build(_))) {
            nested.push(vertex.digest.clone());
        }
        for input in &vertex.inputs {
            if visited.insert(input.vertex.digest.clone()) {
                open.push(Arc::clone(&input.vertex));
            }
        }
    }
    nested
}

impl BuildOp for NestedOp {}

#[async_trait]
impl Op<BuildDomain> for NestedOp {
    async fn cache_map(
        &self,
        _ctx: &OpCtx<BuildDomain>,
        _index: usize,
    ) -> Result<(CacheMap<BuildDomain>, bool), OpError> {
        Ok((plan(&self.op, self.inputs).into_cache_map(false), true))
    }

    // It needs no permit of its own: the steps of the nested build take theirs.
    async fn exec(&self, ctx: &OpCtx<BuildDomain>, inputs: Vec<Ref>) -> Result<Vec<Ref>, OpError> {
        if self.nesting >= MAX_NESTED_BUILDS {
            return Err(OpFailure::from(NestedBuildError::TooDeep).into());
        }
        let definition = Arc::new(self.definition(inputs).await?);
        let jobs = ctx.job_values();
        let loader = jobs.iter().find_map(|job| job.nested.get()?.upgrade());
        let loader = loader.ok_or(OpFailure::from(NestedBuildError::BuildIsOver))?;
        let edge = loader
            .load(definition, &self.rights, self.nesting + 1)
            .await?;
        let within = nested_within(&edge);
        let _ongoing = self
            .parts
            .nested
            .enter(&ctx.vertex.digest, within)
            .map_err(OpFailure::from)?;
        match self.builder.build(edge).await {
            Ok(result) => Ok(vec![result]),
            // The error of the nested build becomes this one's without its details: errors nested like their builds would be shown
            // once for each path through them.
            Err(SolveError::Op { error, .. }) => Err(error),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_gos_json() {
        let mut op = pb::BuildOp {
            builder: LLB_BUILDER,
            inputs: [(DEFINITION.to_owned(), pb::BuildInput { input: 0 })].into(),
            ..pb::BuildOp::default()
        };
        let key = |op: &pb::BuildOp| plan(op, 1).digest;
        let json = |text: &str| Digest::sha256(text.as_bytes());
        assert_eq!(
            key(&op),
            json(
                r#"{"Type":"buildkit.build.v0","Exec":{"builder":-1,"inputs":{"buildkit.llb.definition":{}}}}"#
            )
        );
        op.attrs.insert(FILENAME.to_owned(), "a/b".to_owned());
        op.inputs
            .insert("x".to_owned(), pb::BuildInput { input: 2 });
        assert_eq!(
            key(&op),
            json(
                r#"{"Type":"buildkit.build.v0","Exec":{"builder":-1,"inputs":{"buildkit.llb.definition":{},"x":{"input":2}},"attrs":{"llbbuild.filename":"a/b"}}}"#
            )
        );
        assert_eq!(plan(&op, 3).deps.len(), 3);
    }
}
