//! Merges edges whose keys are equal: one of them continues for both.

use std::collections::BTreeSet;

use oci::Digest;

use super::edge::EdgePhase;
use super::{Effect, Scheduler};
use crate::domain::Domain;
use crate::domain::op::Obtained;
use crate::index::EdgeId;
use crate::keys::cachekey::{CacheKey, DepKey};

impl<D: Domain> Scheduler<D> {
    /// Registers the current key of an edge; if another edge has the same, merges the two. True if `id` was merged into the other.
    pub(super) fn merge_if_known(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) -> bool {
        let Some(key) = self.edges.get(&id).and_then(index_key) else {
            return false;
        };
        let ignores = |edge: EdgeId| {
            let vertex = self
                .edges
                .get(&edge)
                .and_then(|e| self.vertices.get(&e.vertex));
            vertex.is_some_and(|v| v.handle.vertex.options.ignore_cache)
        };
        let Some(registered) = self.index.load_or_store(&key, id, ignores) else {
            return false;
        };
        let (Some(edge), Some(registered_edge)) =
            (self.edges.get(&id), self.edges.get(&registered))
        else {
            return false;
        };
        if registered_edge.owner().is_some()
            || self.depends(&edge.vertex, &registered_edge.vertex)
            || self.depends(&registered_edge.vertex, &edge.vertex)
        {
            return false;
        }
        // Merges between the same two vertices must have one direction, or each would compute for the other.
        let swap = self.is_owned_by(&registered_edge.vertex.clone(), &edge.vertex.clone());
        let (dest, source) = if swap {
            (id, registered)
        } else {
            (registered, id)
        };
        let source_busy = self
            .edges
            .get(&source)
            .is_some_and(|e| !matches!(e.state, EdgePhase::Searching));
        if source_busy || (ignores(source) && !ignores(dest)) {
            return false;
        }
        self.merge(dest, source, out);
        source == id
    }

    fn merge(&mut self, dest: EdgeId, source: EdgeId, out: &mut Vec<Effect<D>>) {
        tracing::debug!(dest, source, "edges have equal keys and become one");
        self.observer.obtained(Obtained::Merged);
        self.stop_lookup(source, out);
        self.stop_waiting(source, out);
        self.demand_nothing(source);
        self.index.release(source);
        let Some(from) = self.edges.get_mut(&source) else {
            return;
        };
        from.state = EdgePhase::Merged { into: dest };
        self.merged.entry(dest).or_default().push(source);
        let consumers = std::mem::take(&mut from.consumers);
        let source_vertex = from.vertex.clone();
        let mut secondaries = Vec::new();
        for (input, dep) in from.deps.iter().enumerate() {
            let selector = from
                .map()
                .and_then(|m| m.deps.get(input))
                .and_then(|d| d.selector.clone());
            let results = dep.result.iter().flat_map(|r| &r.keys);
            for key in dep.keys.iter().chain(results) {
                secondaries.push((
                    input,
                    DepKey {
                        selector: selector.clone(),
                        key: key.clone(),
                    },
                ));
            }
            secondaries.extend(dep.slow_key().map(|key| {
                (
                    input,
                    DepKey {
                        selector: None,
                        key: key.clone(),
                    },
                )
            }));
        }
        for (consumer, level) in consumers {
            match consumer {
                super::Consumer::Build(build) => {
                    if let Some(state) = self.builds.get_mut(&build) {
                        state.edge = dest;
                    }
                }
                super::Consumer::Edge(parent, input) => {
                    if let Some(dep) = self
                        .edges
                        .get_mut(&parent)
                        .and_then(|p| p.deps.get_mut(input))
                    {
                        dep.edge = Some(dest);
                    }
                    self.to_learn.push(parent);
                }
            }
            if let Some(to) = self.edges.get_mut(&dest) {
                to.consumers.insert(consumer, level);
            }
        }
        if let Some(to) = self.edges.get_mut(&dest) {
            to.secondaries.lock().extend(secondaries);
            let dest_vertex = to.vertex.clone();
            let jobs = self.jobs_of(&source_vertex);
            self.add_jobs(&dest_vertex, &jobs, out);
        }
        self.announce(dest, out);
        self.to_learn.push(dest);
    }

    /// Whether `below` is `above` or a vertex below it.
    fn depends(&self, above: &Digest, below: &Digest) -> bool {
        let mut visited = BTreeSet::from([above.clone()]);
        let mut work = vec![above.clone()];
        while let Some(digest) = work.pop() {
            if digest == *below {
                return true;
            }
            let Some(vertex) = self.vertices.get(&digest) else {
                continue;
            };
            for (input, index) in &vertex.inputs {
                let merged = vertex_of(self, input, *index);
                for next in std::iter::once(input.clone()).chain(merged) {
                    if visited.insert(next.clone()) {
                        work.push(next);
                    }
                }
            }
        }
        false
    }

    /// Whether an output of `vertex` was merged into one of `owner`, directly or indirectly.
    fn is_owned_by(&self, vertex: &Digest, owner: &Digest) -> bool {
        let mut visited = BTreeSet::from([vertex.clone()]);
        let mut work = vec![vertex.clone()];
        while let Some(digest) = work.pop() {
            let edges = self.vertices.get(&digest).map(|v| v.edges.values());
            for above in edges
                .into_iter()
                .flatten()
                .filter_map(|e| self.edges.get(e)?.owner())
                .filter_map(|o| self.edges.get(&o))
            {
                if above.vertex == *owner {
                    return true;
                }
                if visited.insert(above.vertex.clone()) {
                    work.push(above.vertex.clone());
                }
            }
        }
        false
    }
}

fn vertex_of<D: Domain>(scheduler: &Scheduler<D>, digest: &Digest, index: usize) -> Option<Digest> {
    let edge = scheduler.vertices.get(digest)?.edges.get(&index)?;
    Some(
        scheduler
            .edges
            .get(&scheduler.resolve(*edge))?
            .vertex
            .clone(),
    )
}

/// Returns the current key of an edge, with all known keys of its inputs; none while an input has none.
fn index_key<D: Domain>(edge: &super::EdgeState<D>) -> Option<CacheKey<D>> {
    let map = edge.map()?;
    let mut deps = Vec::with_capacity(edge.deps.len());
    for (dep, map_dep) in edge.deps.iter().zip(&map.deps) {
        if dep.keys.is_empty() && dep.result.is_none() {
            return None;
        }
        let results = dep.result.iter().flat_map(|r| &r.keys);
        let mut keys: Vec<DepKey<D>> = dep
            .keys
            .iter()
            .chain(results)
            .map(|key| DepKey {
                selector: map_dep.selector.clone(),
                key: key.clone(),
            })
            .collect();
        if dep.result.is_some() {
            keys.extend(dep.slow_key().map(|key| DepKey {
                selector: None,
                key: key.clone(),
            }));
        }
        deps.push(keys);
    }
    let output = i64::try_from(edge.index).unwrap_or(i64::MAX);
    Some(CacheKey::new(
        map.digest.clone(),
        output,
        Some(Digest::clone(&edge.vertex)),
        deps,
    ))
}
