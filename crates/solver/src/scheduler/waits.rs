//! What is being built now, and what waits for what: for people who ask why a build does not go on.

use oci::Digest;

use super::edge::State;
use super::{JobId, Scheduler, Task};
use crate::domain::Domain;
use crate::index::EdgeId;

/// A vertex that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitNode {
    /// Which, as clients know it.
    pub digest: Digest,
    /// Shown to people.
    pub name: String,
    /// The names of the jobs that want it, in order of joining.
    pub jobs: Vec<String>,
    /// What is done about it.
    pub activity: Activity,
    /// The vertices whose progress it waits for.
    pub waits_for: Vec<Digest>,
}

/// What is being built at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitGraph {
    /// The vertices that somebody waits for, by name.
    pub nodes: Vec<WaitNode>,
    /// The graph is larger than what was looked at.
    pub has_more: bool,
}

/// What is done about a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// Nothing: it waits for its inputs, or for its turn.
    Waiting,
    /// Key stores are asked for its key.
    LookingUp,
    /// Its cache map is computed: a registry or a client is asked.
    Keying,
    /// The content of an input is hashed, or fetched for that.
    Hashing,
    /// A known result is loaded.
    Loading,
    /// It runs.
    Executing,
    /// Its result is kept.
    Saving,
}

impl Activity {
    /// One word for it.
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

/// A node whose jobs have no names yet.
pub(crate) struct Node {
    pub(crate) node: WaitNode,
    pub(crate) jobs: Vec<JobId>,
}

/// The nodes there are, and whether some were left out.
pub(crate) struct Waits {
    pub(crate) nodes: Vec<Node>,
    pub(crate) has_more: bool,
}

impl<D: Domain> Scheduler<D> {
    /// The vertices that somebody waits for; looks at no more than `limit` edges, so that nobody waits long for the lock.
    pub(crate) fn waits(&self, limit: usize) -> Waits {
        let mut nodes = Vec::new();
        let wanted = self.edges.values().take(limit);
        for edge in wanted.filter(|e| !e.consumers.is_empty() && e.outcome().is_none()) {
            let Some(vertex) = self.vertices.get(&edge.vertex) else {
                continue;
            };
            let mut waits_for: Vec<Digest> = Vec::new();
            let inputs = edge.deps.iter().filter(|dep| dep.wanted.is_some());
            let owner = edge.owner();
            for input in inputs.filter_map(|dep| dep.edge).chain(owner) {
                if let Some(digest) = self.unfinished(input)
                    && !waits_for.contains(&digest)
                {
                    waits_for.push(digest);
                }
            }
            let of_vertex = vertex.running.keys().map(|task| match task {
                Task::CacheMap => Activity::Keying,
                Task::Slow(_) => Activity::Hashing,
                Task::Exec => Activity::Executing,
            });
            let of_edge = match &edge.state {
                State::Loading { .. } => Activity::Loading,
                State::Saving { .. } => Activity::Saving,
                State::Searching if edge.lookup.is_some() => Activity::LookingUp,
                State::Searching | State::Executing | State::Merged { .. } | State::Ended(_) => {
                    Activity::Waiting
                }
            };
            nodes.push(Node {
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

    /// The vertex of an edge that has not ended, as clients know it.
    fn unfinished(&self, edge: EdgeId) -> Option<Digest> {
        let edge = self.edges.get(&edge).filter(|e| e.outcome().is_none())?;
        let vertex = self.vertices.get(&edge.vertex)?;
        Some(vertex.handle.client_digest.clone())
    }
}
