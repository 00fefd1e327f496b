//! Vertices that are being built and what each waits for, to explain why a build does not continue.

use oci::Digest;

use super::edge::EdgePhase;
use super::{JobId, Scheduler, VertexTask};
use crate::domain::Domain;
use crate::index::EdgeId;

/// A vertex that a build waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitNode {
    /// Digest as clients know it.
    pub digest: Digest,
    /// Name for people.
    pub name: String,
    /// Names of the jobs that want it, in the order in which they joined.
    pub jobs: Vec<String>,
    /// The work in progress for it.
    pub activity: Activity,
    /// The vertices whose progress it waits for.
    pub waits_for: Vec<Digest>,
}

/// A snapshot of what is being built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitGraph {
    /// The vertices that builds wait for, ordered by name.
    pub nodes: Vec<WaitNode>,
    /// Whether the graph has more edges than were visited.
    pub has_more: bool,
}

/// The work in progress for a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// Nothing: it waits for its inputs, or for its turn.
    Waiting,
    /// Key stores look up its key.
    LookingUp,
    /// Its cache map is computed: a registry or a client is asked.
    Keying,
    /// The content of an input is digested, or downloaded for that.
    Hashing,
    /// A stored result is loaded.
    Loading,
    /// It runs.
    Executing,
    /// Its result is saved.
    Saving,
}

impl Activity {
    /// The activity as a phrase for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::LookingUp => "looking up",
            Self::Keying => "computing its key",
            Self::Hashing => "hashing an input",
            Self::Loading => "loading a known result",
            Self::Executing => "running",
            Self::Saving => "saving its result",
        }
    }
}

/// A node with ids of jobs in the place of their names.
pub(crate) struct WaitNodeWithIds {
    pub(crate) node: WaitNode,
    pub(crate) jobs: Vec<JobId>,
}

/// The nodes, and whether some were left out.
pub(crate) struct Waits {
    pub(crate) nodes: Vec<WaitNodeWithIds>,
    pub(crate) has_more: bool,
}

impl<D: Domain> Scheduler<D> {
    /// The vertices that builds wait for; visits no more than `limit` edges, so that the lock is held briefly.
    pub(crate) fn waits(&self, limit: usize) -> Waits {
        let mut nodes = Vec::new();
        let edges = self.edges.values().take(limit);
        for edge in edges.filter(|e| !e.consumers.is_empty() && e.outcome().is_none()) {
            let Some(vertex) = self.vertices.get(&edge.vertex) else {
                continue;
            };
            let mut waits_for: Vec<Digest> = Vec::new();
            let inputs = edge.deps.iter().filter(|dep| dep.demand.is_some());
            let owner = edge.owner();
            for input in inputs.filter_map(|dep| dep.edge).chain(owner) {
                if let Some(digest) = self.unfinished(input)
                    && !waits_for.contains(&digest)
                {
                    waits_for.push(digest);
                }
            }
            let of_vertex = vertex.running.keys().map(|task| match task {
                VertexTask::CacheMap => Activity::Keying,
                VertexTask::Slow(_) => Activity::Hashing,
                VertexTask::Exec => Activity::Executing,
            });
            let of_edge = match &edge.state {
                EdgePhase::Loading { .. } => Activity::Loading,
                EdgePhase::Saving { .. } => Activity::Saving,
                EdgePhase::Searching if edge.lookup.is_some() => Activity::LookingUp,
                EdgePhase::Searching
                | EdgePhase::Executing
                | EdgePhase::Merged { .. }
                | EdgePhase::Ended(_) => Activity::Waiting,
            };
            nodes.push(WaitNodeWithIds {
                node: WaitNode {
                    digest: vertex.handle.client_digest.clone(),
                    name: vertex.handle.vertex.name.clone(),
                    jobs: Vec::new(),
                    activity: of_vertex.fold(of_edge, Activity::max),
                    waits_for,
                },
                jobs: vertex.jobs.clone(),
            });
        }
        Waits {
            nodes,
            has_more: self.edges.len() > limit,
        }
    }

    /// The vertex of an edge that has not ended, with the client's digest.
    fn unfinished(&self, edge: EdgeId) -> Option<Digest> {
        let edge = self.edges.get(&edge).filter(|e| e.outcome().is_none())?;
        let vertex = self.vertices.get(&edge.vertex)?;
        Some(vertex.handle.client_digest.clone())
    }
}
