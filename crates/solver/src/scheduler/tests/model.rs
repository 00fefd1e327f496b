//! Ops that are numbers, and the naive evaluator.

use super::*;

#[derive(Debug, Clone)]
pub(super) struct Val {
    pub(super) content: u64,
    pub(super) uid: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) name: u64,
    pub(super) outputs: usize,
    /// Per input: has a selector, has a content key.
    pub(super) deps: Vec<(bool, bool)>,
    /// Few different contents, so that different inputs give equal outputs.
    pub(super) collapse: u64,
    pub(super) maps: usize,
    pub(super) fails: bool,
}

pub(super) struct Model;

impl Domain for Model {
    type Result = Val;
    type System = Kind;
    type Op = NoOp;
    type Job = JobId;
    type Sink = NullSink;
    type Hint = ();
}

pub(super) struct NoKey;

#[async_trait]
impl SlowKey<Model> for NoKey {
    async fn digest(&self, _ctx: &OpCtx<Model>, _input: &Val) -> Result<Digest, OpError> {
        unreachable!("the harness computes content keys")
    }
}

pub(super) struct Rng(pub(super) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

pub(super) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |h, p| {
        (h ^ p).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    }) >> 8
}

pub(super) fn kind_of(vertex: &Vertex<Model>) -> Arc<Kind> {
    Arc::clone(&vertex.sys)
}

pub(super) fn slow_digest(content: u64) -> u64 {
    content / 2
}

/// The naive evaluator: the content of an edge, or that computing it fails.
pub(super) fn content(
    edge: &Edge<Model>,
    memo: &mut HashMap<(Digest, usize), Result<u64, ()>>,
) -> Result<u64, ()> {
    let at = (edge.vertex.digest.clone(), edge.index);
    if let Some(result) = memo.get(&at) {
        return *result;
    }
    let kind = kind_of(&edge.vertex);
    let inputs: Result<Vec<u64>, ()> = edge
        .vertex
        .inputs
        .iter()
        .map(|e| content(e, memo))
        .collect();
    let out = inputs.and_then(|inputs| {
        if kind.fails {
            Err(())
        } else {
            Ok(output(&kind, edge.index, &inputs))
        }
    });
    memo.insert(at, out);
    out
}

pub(super) fn output(kind: &Kind, index: usize, inputs: &[u64]) -> u64 {
    let mut parts = vec![kind.name, index as u64];
    for (content, (_, slow)) in inputs.iter().zip(&kind.deps) {
        parts.push(if *slow {
            slow_digest(*content)
        } else {
            *content
        });
    }
    let content = mix(&parts);
    if kind.collapse == 0 {
        content
    } else {
        content % kind.collapse
    }
}

/// The identity of an edge's output for a perfect cache: by content where the op reads content, by definition elsewhere.
pub(super) fn meaning(
    edge: &Edge<Model>,
    memo: &mut HashMap<(Digest, usize), Result<u64, ()>>,
) -> String {
    let kind = kind_of(&edge.vertex);
    let inputs: Vec<String> = edge
        .vertex
        .inputs
        .iter()
        .zip(&kind.deps)
        .map(|(input, (_, slow))| {
            if *slow {
                format!("c{}", slow_digest(content(input, memo).unwrap_or_default()))
            } else {
                meaning(input, memo)
            }
        })
        .collect();
    format!("{}#{}({})", kind.name, edge.index, inputs.join(","))
}
