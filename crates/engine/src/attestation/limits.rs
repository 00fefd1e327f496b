//! Limits on the requests of one build's frontends.
//!
//! Requests, definitions and results stay until the build ends, so they are counted. Frontends call frontends, and the provenance of a
//! request repeats that of requests whose results are its inputs, so that each level could double the one before.
//!
//! | limit | of | |
//! |---|---|---|
//! | [`MAX_REQUESTS`] | requests of one build | 100,000 |
//! | [`MAX_REQUEST_BYTES`] | their options and definitions | 512 MiB |
//! | [`MAX_DEPTH`] | frontends that call each other | 16 |
//! | [`MAX_NESTED`], [`MAX_NESTED_BYTES`] | requests that the provenance of one request repeats, and their options | 256, 1 MiB |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attest::RequestProvenance;
use llb::pb;

use crate::api::{Failure, FailureKind};

// DIFFERS: BuildKit has no such limits.
const MAX_REQUESTS: usize = 100_000;
const MAX_REQUEST_BYTES: usize = 512 << 20;
pub(super) const MAX_DEPTH: usize = 16;
const MAX_NESTED: usize = 256;
const MAX_NESTED_BYTES: usize = 1 << 20;
/// Memory that one option takes beside its text.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Requests and bytes counted so far for one build.
#[derive(Debug, Default)]
pub(super) struct Budget {
    solves: AtomicUsize,
    bytes: AtomicUsize,
}

fn refused(message: String) -> Failure {
    Failure::new(FailureKind::Unknown, message)
}

impl Budget {
    /// Counts one request.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), Failure> {
        if self.solves.fetch_add(1, Ordering::Relaxed) >= MAX_REQUESTS {
            return Err(refused(format!(
                "the frontends of this build ask too often: {MAX_REQUESTS} requests are answered"
            )));
        }
        let add_bytes = |spent: usize| {
            spent
                .checked_add(bytes)
                .filter(|sum| *sum <= MAX_REQUEST_BYTES)
        };
        let counted = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add_bytes);
        // `fetch_update` fails with the former sum, which says nothing to the client.
        counted.map(drop).map_err(|_| {
            refused(format!(
                "the frontends of this build ask for too much: {MAX_REQUEST_BYTES} bytes of options and definitions are accepted"
            ))
        })
    }
}

/// Refuses a chain of frontends that is too deep.
pub(super) fn check_depth(depth: usize) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        return Err(refused(format!(
            "frontends call frontends too deep: at most {MAX_DEPTH} are accepted"
        )));
    }
    Ok(())
}

/// Memory that options take, in bytes.
pub(super) fn of_options(options: &BTreeMap<String, String>) -> usize {
    let entry_bytes =
        |(key, value): (&String, &String)| ENTRY_OVERHEAD_BYTES + key.len() + value.len();
    options.iter().map(entry_bytes).sum()
}

/// Memory that a definition takes, in bytes.
pub(super) fn of_definition(definition: &pb::Definition) -> usize {
    let ops: usize = definition
        .def
        .iter()
        .map(|op| ENTRY_OVERHEAD_BYTES + op.len())
        .sum();
    // Names and places are about as long as digests.
    ops + 4 * ENTRY_OVERHEAD_BYTES * definition.metadata.len()
}

/// Size of the requests that the provenance of one request repeats.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Nested {
    requests: usize,
    bytes: usize,
    depth: usize,
}

impl Nested {
    /// Counts the request and those nested in it. They are few: each was counted before it was nested.
    pub(super) fn of(request: &RequestProvenance) -> Self {
        let mut nested = Self::default();
        let mut stack = vec![(request, 1)];
        while let Some((at, depth)) = stack.pop() {
            nested.requests += 1;
            nested.depth = nested.depth.max(depth);
            if let Some(request) = &at.request {
                nested.bytes += of_options(&request.args);
                let inner = request.inputs.values().chain(request.root.as_deref());
                stack.extend(inner.map(|inner| (inner, depth + 1)));
            }
        }
        nested
    }
}

/// The inputs whose requests fit into the limits; the others are left out.
pub(super) fn fitting(
    inputs: impl Iterator<Item = (String, Arc<RequestProvenance>, Nested)>,
) -> BTreeMap<String, RequestProvenance> {
    let (mut requests, mut bytes) = (0, 0);
    let mut out = BTreeMap::new();
    for (name, request, nested) in inputs {
        let (new_requests, new_bytes) = (requests + nested.requests, bytes + nested.bytes);
        if new_requests <= MAX_NESTED && new_bytes <= MAX_NESTED_BYTES && nested.depth < MAX_DEPTH {
            (requests, bytes) = (new_requests, new_bytes);
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
    fn provenance_of_nested_requests_does_not_double_with_each_level() {
        let mut last = Arc::new(RequestProvenance::default());
        for _ in 0..200 {
            let nested = Nested::of(&last);
            let inputs = ["a", "b", "c"].map(|name| (name.to_owned(), Arc::clone(&last), nested));
            let mut request = Parameters::default();
            request.args = [("k".to_owned(), "v".repeat(1000))].into();
            request.inputs = fitting(inputs.into_iter());
            last = Arc::new(RequestProvenance {
                request: Some(request),
                ..RequestProvenance::default()
            });
            let nested = Nested::of(&last);
            assert!(
                nested.requests <= MAX_NESTED + 1 && nested.depth <= MAX_DEPTH,
                "{nested:?}"
            );
        }
    }

    #[test]
    fn the_frontends_of_a_build_have_a_budget() {
        let budget = Budget::default();
        budget.spend(MAX_REQUEST_BYTES).unwrap();
        assert!(budget.spend(1).is_err());
        let budget = Budget::default();
        (0..MAX_REQUESTS).for_each(|_| budget.spend(0).unwrap());
        assert!(budget.spend(0).is_err());
        assert!(check_depth(MAX_DEPTH).is_ok() && check_depth(MAX_DEPTH + 1).is_err());
    }
}
