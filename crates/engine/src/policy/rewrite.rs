//! Policies applied to whole definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::TryStreamExt as _;
use llb::pb;
use prost::Message as _;

use super::{PolicyEvaluator, failed, op_digest};
use crate::api::Failure;

/// Number of questions to the client that are in flight at the same time.
const MAX_QUESTIONS_AT_ONCE: usize = 64;

/// An op of a definition, and whether a policy changed it.
type Evaluated = (pb::Op, bool);

/// Decides on all sources of a definition. Rewritten ops and their dependents are encoded anew; all others stay
/// as received.
pub(crate) async fn rewrite(
    evaluator: &PolicyEvaluator,
    definition: &Arc<pb::Definition>,
) -> Result<Arc<pb::Definition>, Failure> {
    let in_policy = |e: Failure| e.during("error evaluating the source policy");
    let received = Arc::clone(definition);
    let mut ops: Vec<Evaluated> = evaluator
        .in_pool(move |evaluator| {
            let ops = llb::definition::ops(&received).map_err(failed)?;
            let mut evaluated = Vec::with_capacity(ops.len());
            for mut op in ops {
                let mut changed = false;
                if !evaluator.asks_client()
                    && let Some(pb::op::Op::Source(source)) = &mut op.op
                {
                    let before = source.clone();
                    evaluator.by_rules(source).map_err(in_policy)?;
                    changed = *source != before;
                }
                evaluated.push((op, changed));
            }
            Ok(evaluated)
        })
        .await?;
    if evaluator.asks_client() {
        let sources = ops.iter_mut().filter_map(|(op, changed)| {
            let pb::Op { op, platform, .. } = op;
            match op {
                Some(pb::op::Op::Source(source)) => Some((source, platform.as_ref(), changed)),
                _ => None,
            }
        });
        futures::stream::iter(sources.map(Ok))
            .try_for_each_concurrent(
                MAX_QUESTIONS_AT_ONCE,
                |(source, platform, changed)| async move {
                    let before = source.clone();
                    evaluator.source(source, platform).await?;
                    *changed = *source != before;
                    Ok::<_, Failure>(())
                },
            )
            .await
            .map_err(in_policy)?;
    }
    if !ops.iter().any(|(_, changed)| *changed) {
        return Ok(Arc::clone(definition));
    }
    let received = Arc::clone(definition);
    evaluator
        .in_pool(move |_| Ok(Arc::new(encode(&received, ops))))
        .await
}

/// The definition with the changed ops, and with their new digests in the ops that use them.
fn encode(definition: &pb::Definition, ops: Vec<Evaluated>) -> pb::Definition {
    let mut out = definition.clone();
    // An op stands after its inputs.
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    for (slot, (mut op, mut changed)) in out.def.iter_mut().zip(ops) {
        for input in &mut op.inputs {
            if let Some(new) = renamed.get(&input.digest) {
                input.digest.clone_from(new);
                changed = true;
            }
        }
        if !changed {
            continue;
        }
        let old = op_digest(slot.as_ref());
        let encoded = op.encode_to_vec();
        let new = op_digest(&encoded);
        *slot = encoded;
        if let Some(metadata) = out.metadata.remove(&old) {
            out.metadata.insert(new.clone(), metadata);
        }
        if let Some(source) = &mut out.source
            && let Some(places) = source.locations.remove(&old)
        {
            source.locations.insert(new.clone(), places);
        }
        renamed.insert(old, new);
    }
    out
}
