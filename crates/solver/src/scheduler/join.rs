//! Makes jobs hold a vertex and everything below it, one vertex at a time.

use std::collections::BTreeSet;

use oci::Digest;

use super::{Effect, JobId, Scheduler};
use crate::domain::Domain;

/// A walk from a vertex to everything below it.
pub(super) struct Join {
    jobs: Vec<JobId>,
    top: Digest,
    visited: BTreeSet<Digest>,
    work: Vec<Digest>,
}

impl Join {
    /// The next vertex; none at the end.
    pub(super) fn next(&mut self) -> Option<Digest> {
        self.work.pop()
    }
}

impl<D: Domain> Scheduler<D> {
    /// Makes jobs hold a vertex at once, and everything below it before any other work. The jobs are attached to the vertex itself.
    pub(super) fn add_jobs(&mut self, top: &Digest, jobs: &[JobId], out: &mut Vec<Effect<D>>) {
        self.to_join.push_front(Join {
            jobs: jobs.to_vec(),
            top: top.clone(),
            visited: BTreeSet::from([top.clone()]),
            work: Vec::new(),
        });
        self.join(top, out);
    }

    /// Continues the first walk with one vertex.
    pub(super) fn join(&mut self, digest: &Digest, out: &mut Vec<Effect<D>>) {
        let Some(mut join) = self.to_join.pop_front() else {
            return;
        };
        let is_top = join.top == *digest;
        let mut has_new_jobs = false;
        let inputs = match self.vertices.get_mut(digest) {
            Some(vertex) => {
                for job in &join.jobs {
                    // A job that has ended holds nothing.
                    if self.jobs.contains_key(job) && !vertex.jobs.contains(job) {
                        vertex.jobs.push(*job);
                        has_new_jobs = true;
                    }
                }
                vertex.inputs.clone()
            }
            None => Vec::new(),
        };
        for (input, index) in inputs {
            let merged = self
                .vertices
                .get(&input)
                .and_then(|v| v.edges.get(&index))
                .map(|e| self.resolve(*e));
            let merged = merged
                .and_then(|e| self.edges.get(&e))
                .map(|e| e.vertex.clone());
            for next in std::iter::once(input).chain(merged) {
                if join.visited.insert(next.clone()) {
                    join.work.push(next);
                }
            }
        }
        self.to_join.push_front(join);
        // In most cases the vertices were just loaded for these jobs.
        if is_top || has_new_jobs {
            self.refresh(digest, is_top, out);
        }
    }
}
