//! Invariants between two events. Tests check them after each.

use std::collections::BTreeSet;

use super::{Consumer, Scheduler, WorkOwner};
use crate::domain::Domain;
use crate::index::EdgeId;

impl<D: Domain> Scheduler<D> {
    /// Whether no vertex is active.
    pub(crate) fn is_idle(&self) -> bool {
        self.vertices.is_empty()
    }

    pub(super) fn assert_invariants(&self) {
        for (id, edge) in &self.edges {
            for consumer in edge.consumers.keys() {
                match consumer {
                    Consumer::Build(build) => assert_eq!(
                        self.builds.get(build).map(|b| b.edge),
                        Some(*id),
                        "a build is a consumer of the edge that it waits for"
                    ),
                    Consumer::Edge(parent, input) => {
                        let parent = self
                            .edges
                            .get(parent)
                            .expect("a demand comes from an edge that exists");
                        let dep = parent
                            .deps
                            .get(*input)
                            .expect("a demand comes from an input");
                        assert_eq!(dep.edge, Some(*id), "an edge demands where it thinks");
                    }
                }
            }
            if edge.consumers.is_empty() || edge.outcome().is_some() {
                assert!(edge.state.work().is_none(), "nobody wants the work");
                assert!(
                    edge.deps.iter().all(|d| d.demand.is_none()),
                    "an edge without consumers demands nothing"
                );
            }
            assert!(
                edge.lookup.is_none() || (edge.outcome().is_none() && edge.owner().is_none()),
                "an ended edge has no look-up"
            );
            let lookup = edge.lookup.as_ref().map(|lookup| lookup.work);
            for work in edge.state.work().into_iter().chain(lookup) {
                assert!(matches!(self.works.get(&work), Some(WorkOwner::Edge(e)) if e == id));
            }
        }
        for vertex in self.vertices.values() {
            for running in vertex.running.values() {
                assert!(
                    !running.waiters.is_empty(),
                    "work without waiters is cancelled"
                );
                assert!(self.works.contains_key(&running.work));
            }
            assert!(
                !vertex.jobs.is_empty() || !vertex.parents.is_empty(),
                "every vertex is loaded by a job or a parent"
            );
        }
        for build in self.builds.values() {
            let edge = self
                .edges
                .get(&build.edge)
                .expect("a build waits for an edge that exists");
            assert!(
                edge.owner().is_none() && edge.outcome().is_none(),
                "a build does not wait for an ended edge"
            );
            let mut visited = BTreeSet::new();
            assert!(
                self.is_moving(build.edge, &mut visited),
                "a build waits for work in progress: {}",
                self.dump(&visited)
            );
        }
        if self.vertices.is_empty() {
            assert!(
                self.edges.is_empty() && self.works.is_empty(),
                "nothing is left behind: {}",
                self.dump(&self.edges.keys().copied().collect())
            );
            assert!(
                self.index.is_empty(),
                "nothing is left behind: {:?}",
                self.index
            );
        }
    }

    fn dump(&self, edges: &BTreeSet<EdgeId>) -> String {
        let mut out = String::new();
        for id in edges {
            let Some(edge) = self.edges.get(id) else {
                continue;
            };
            let name = self
                .vertices
                .get(&edge.vertex)
                .map(|v| v.handle.vertex.name.clone());
            out += &format!(
                "\n{id}: {name:?} {:.12}#{} {edge:?}",
                edge.vertex.hex(),
                edge.index
            );
        }
        out
    }

    fn is_moving(&self, edge: EdgeId, visited: &mut BTreeSet<EdgeId>) -> bool {
        let Some(state) = self.edges.get(&edge) else {
            return false;
        };
        visited.insert(edge)
            && (state.state.work().is_some()
                || state.lookup.is_some()
                || self
                    .vertices
                    .get(&state.vertex)
                    .is_some_and(|v| v.running.values().any(|r| r.waiters.contains(&edge)))
                || state.deps.iter().any(|d| {
                    d.demand.is_some_and(|w| w > d.level)
                        && d.edge.is_some_and(|e| self.is_moving(e, visited))
                }))
    }
}
