//! What the frontends of one build may ask for.
//!
//! Requests, definitions and results stay until the build ends, so they are counted. Frontends that call frontends nest, and a request
//! whose inputs were made by requests tells of those too, so that each of them could double what the one before it told.
//!
//! | limit | of | |
//! |---|---|---|
//! | [`SOLVES`] | requests of one build | 100,000 |
//! | [`BYTES`] | their options and definitions | 512 MiB |
//! | [`DEPTH`] | frontends called by frontends | 16 |
//! | [`TOLD`], [`TOLD_BYTES`] | requests that one request tells of, and their options | 256, 1 MiB |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attest::RequestProvenance;
use llb::pb;

use crate::api::{Failure, FailureKind};

// DIFFERS: BuildKit has no such limits.
const SOLVES: usize = 100_000;
const BYTES: usize = 512 << 20;
pub(crate) const DEPTH: usize = 16;
const TOLD: usize = 256;
const TOLD_BYTES: usize = 1 << 20;
/// What one option takes beside its text.
const EACH: usize = 96;

/// What was asked for until now.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    solves: AtomicUsize,
    bytes: AtomicUsize,
}

fn refused(message: String) -> Failure {
    Failure::new(FailureKind::Unknown, message)
}

impl Spent {
    /// Counts one request.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), Failure> {
        if self.solves.fetch_add(1, Ordering::Relaxed) >= SOLVES {
            return Err(refused(format!(
                "the frontends of this build ask too often: {SOLVES} requests are answered"
            )));
        }
        let more = |spent: usize| spent.checked_add(bytes).filter(|sum| *sum <= BYTES);
        let counted = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.map(drop).map_err(|_| {
            refused(format!(
                "the frontends of this build ask for too much: {BYTES} bytes of options and definitions are accepted"
            ))
        })
    }
}

/// Refuses frontends that call frontends without end.
pub(crate) fn check_depth(depth: usize) -> Result<(), Failure> {
    if depth > DEPTH {
        return Err(refused(format!(
            "frontends call frontends too deep: at most {DEPTH} are accepted"
        )));
    }
    Ok(())
}

/// What options take.
pub(crate) fn of_options(options: &BTreeMap<String, String>) -> usize {
    let one = |(key, value): (&String, &String)| EACH + key.len() + value.len();
    options.iter().map(one).sum()
}

/// What a definition takes.
pub(crate) fn of_definition(definition: &pb::Definition) -> usize {
    let ops: usize = definition.def.iter().map(|op| EACH + op.len()).sum();
    // Names and places are about as long as digests.
    ops + 4 * EACH * definition.metadata.len()
}

/// What a request tells of others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    requests: usize,
    bytes: usize,
    depth: usize,
}

impl Told {
    /// Of this one and those it tells of; they are few, for they were counted when they were made.
    pub(crate) fn of(request: &RequestProvenance) -> Self {
        let mut told = Self::default();
        let mut stack = vec![(request, 1)];
        while let Some((at, depth)) = stack.pop() {
            told.requests += 1;
            told.depth = told.depth.max(depth);
            if let Some(request) = &at.request {
                told.bytes += of_options(&request.args);
                let inner = request.inputs.values().chain(request.root.as_deref());
                stack.extend(inner.map(|inner| (inner, depth + 1)));
            }
        }
        told
    }
}

/// The inputs that are told of: as many as fit.
pub(crate) fn fitting(
    inputs: impl Iterator<Item = (String, Arc<RequestProvenance>, Told)>,
) -> BTreeMap<String, RequestProvenance> {
    let (mut requests, mut bytes) = (0, 0);
    let mut out = BTreeMap::new();
    for (name, request, told) in inputs {
        let (more, longer) = (requests + told.requests, bytes + told.bytes);
        if more <= TOLD && longer <= TOLD_BYTES && told.depth < DEPTH {
            (requests, bytes) = (more, longer);
            out.insert(name, RequestProvenance::clone(&request));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use attest::Parameters;

    use super::*;

    #[test]
    fn what_requests_tell_of_their_inputs_does_not_double_for_ever() {
        let mut last = Arc::new(RequestProvenance::default());
        for _ in 0..200 {
            let told = Told::of(&last);
            let inputs = ["a", "b", "c"].map(|name| (name.to_owned(), Arc::clone(&last), told));
            let mut request = Parameters::default();
            request.args = [("k".to_owned(), "v".repeat(1000))].into();
            request.inputs = fitting(inputs.into_iter());
            last = Arc::new(RequestProvenance {
                request: Some(request),
                ..RequestProvenance::default()
            });
            let told = Told::of(&last);
            assert!(told.requests <= TOLD + 1 && told.depth <= DEPTH, "{told:?}");
        }
    }

    #[test]
    fn the_frontends_of_a_build_have_a_budget() {
        let spent = Spent::default();
        spent.spend(BYTES).unwrap();
        assert!(spent.spend(1).is_err());
        let spent = Spent::default();
        (0..SOLVES).for_each(|_| spent.spend(0).unwrap());
        assert!(spent.spend(0).is_err());
        assert!(check_depth(DEPTH).is_ok() && check_depth(DEPTH + 1).is_err());
    }
}
