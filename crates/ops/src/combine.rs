//! Merge, diff and passthrough: ops that combine refs without reading their files.
//!
//! | op          | the key is SHA-256 of Go's JSON of            |
//! |-------------|-----------------------------------------------|
//! | merge       | `{Type: buildkit.merge.v0, Merge}`            |
//! | diff        | `{Type: buildkit.diff.v0, Diff}`              |
//! | passthrough | `{Type: buildkit.passthrough.v0, Passthrough}` |
//!
//! Inputs take part by their own keys only. Facts from `solver/llbsolver/ops/{merge,diff,passthrough}.go` (v0.34.2).

use std::sync::Arc;

use async_trait::async_trait;
use llb::pb;
use oci::Digest;
use serde::Serialize;
use solver::{CacheMap, Op, OpCtx, OpError};
use store::RefOptions;

use crate::exec::key::NO_INPUT;
use crate::{BuildDomain, BuildOp, DepPlan, KeyPlan, OpFailure, Parts, Ref, gojson};

/// The op and its data.
#[derive(Debug, Clone)]
pub enum CombineKind {
    /// The inputs stacked over each other.
    Merge(pb::MergeOp),
    /// The changes of the upper input against the lower.
    Diff(pb::DiffOp),
    /// The inputs unchanged.
    Passthrough(pb::PassthroughOp),
}

/// Combines refs.
#[derive(Debug)]
pub struct CombineOp {
    parts: Arc<Parts>,
    kind: CombineKind,
    inputs: usize,
    name: String,
}

impl CombineOp {
    /// Creates the op of a vertex with this name and this number of inputs.
    pub fn new(parts: Arc<Parts>, kind: CombineKind, inputs: usize, name: &str) -> Self {
        Self {
            parts,
            kind,
            inputs,
            name: name.into(),
        }
    }
}

/// Returns the key of the op.
pub fn plan(kind: &CombineKind, inputs: usize) -> KeyPlan {
    let json = match kind {
        CombineKind::Merge(op) => {
            #[derive(Serialize)]
            struct MergeKey<'a> {
                #[serde(rename = "Type")]
                kind: &'static str,
                #[serde(rename = "Merge")]
                merge: gojson::MergeOp<'a>,
            }
            gostd::json::to_vec(&MergeKey {
                kind: "buildkit.merge.v0",
                merge: gojson::MergeOp::from(op),
            })
        }
        CombineKind::Diff(op) => {
            #[derive(Serialize)]
            struct DiffKey<'a> {
                #[serde(rename = "Type")]
                kind: &'static str,
                #[serde(rename = "Diff")]
                diff: gojson::DiffOp<'a>,
            }
            gostd::json::to_vec(&DiffKey {
                kind: "buildkit.diff.v0",
                diff: gojson::DiffOp::from(op),
            })
        }
        CombineKind::Passthrough(op) => {
            #[derive(Serialize)]
            struct PassthroughKey<'a> {
                #[serde(rename = "Type")]
                kind: &'static str,
                #[serde(rename = "Passthrough")]
                passthrough: Passthrough<'a>,
            }
            #[derive(Serialize)]
            struct Passthrough<'a> {
                #[serde(skip_serializing_if = "str::is_empty")]
                id: &'a str,
                #[serde(skip_serializing_if = "<[i64]>::is_empty")]
                outputs: &'a [i64],
            }
            let passthrough = Passthrough {
                id: &op.id,
                outputs: &op.outputs,
            };
            gostd::json::to_vec(&PassthroughKey {
                kind: "buildkit.passthrough.v0",
                passthrough,
            })
        }
    };
    KeyPlan {
        digest: Digest::sha256(json),
        deps: vec![DepPlan::default(); inputs],
    }
}

impl BuildOp for CombineOp {}

#[async_trait]
impl Op<BuildDomain> for CombineOp {
    async fn cache_map(
        &self,
        _ctx: &OpCtx<BuildDomain>,
        _index: usize,
    ) -> Result<(CacheMap<BuildDomain>, bool), OpError> {
        Ok((plan(&self.kind, self.inputs).into_cache_map(false), true))
    }

    async fn exec(&self, _ctx: &OpCtx<BuildDomain>, inputs: Vec<Ref>) -> Result<Vec<Ref>, OpError> {
        let options = RefOptions {
            description: self.name.clone(),
            ..RefOptions::default()
        };
        match &self.kind {
            CombineKind::Merge(_) => {
                let refs: Vec<_> = inputs.into_iter().flatten().collect();
                Ok(vec![
                    self.parts
                        .store
                        .merge(&refs, options)
                        .map_err(OpFailure::from)?,
                ])
            }
            CombineKind::Diff(op) => {
                let mut inputs = inputs.into_iter();
                let mut next = |index: i64| {
                    if index == NO_INPUT {
                        Ok(None)
                    } else {
                        inputs.next().ok_or(OpFailure::MissingInput(index))
                    }
                };
                let lower = next(op.lower.as_ref().map_or(NO_INPUT, |i| i.input))?;
                let upper = next(op.upper.as_ref().map_or(NO_INPUT, |i| i.input))?;
                let Some(lower) = lower else {
                    return Ok(vec![upper]);
                };
                if upper.as_ref().is_some_and(|upper| upper.id() == lower.id()) {
                    return Ok(vec![None]);
                }
                Ok(vec![
                    self.parts
                        .store
                        .diff(Some(&lower), upper.as_ref(), options)
                        .map_err(OpFailure::from)?,
                ])
            }
            CombineKind::Passthrough(op) => op
                .outputs
                .iter()
                .map(|index| {
                    let input = usize::try_from(*index)
                        .ok()
                        .and_then(|i| inputs.get(i))
                        .cloned();
                    Ok(input.ok_or(OpFailure::MissingInput(*index))?)
                })
                .collect(),
        }
    }
}
