//! Loads vertices for jobs, and releases them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use oci::Digest;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::edge::EdgeState;
use super::{
    Attach, BuildId, BuildRequest, BuildState, Consumer, EdgeLevel, Effect, Handle, JobId,
    Requester, Scheduler, VertexState,
};
use crate::domain::Domain;
use crate::domain::error::SolveError;
use crate::domain::vertex::{Edge, Vertex};
use crate::index::EdgeId;
use crate::keys::manager::CacheManager;

impl<D: Domain> Scheduler<D> {
    pub(super) fn build(&mut self, request: BuildRequest<D>, out: &mut Vec<Effect<D>>) {
        let BuildRequest {
            build, by, edge, ..
        } = request;
        let mut loaded = request.loaded.lock();
        if !self.knows(&by) {
            out.push(Effect::Reply(build, Err(SolveError::Canceled)));
            return;
        }
        if loaded.is_empty() {
            self.load_part(
                &edge.vertex.closure(),
                &by,
                &request.sources,
                &mut loaded,
                out,
            );
        }
        let Some(vertex) = loaded.get(&edge.vertex.digest).map(Arc::clone) else {
            out.push(Effect::Reply(build, Err(SolveError::Canceled)));
            return;
        };
        // An active vertex may have other inputs than the ones loaded now: merged ones, or ones that do not ignore
        // the cache. Those must stay as long as it does.
        let jobs = match &by {
            Requester::Job(job) => vec![*job],
            Requester::Vertex(parent) => self.jobs_of(parent),
        };
        self.add_jobs(&vertex.digest, &jobs, out);
        let Some(id) = self.edge_of(&vertex.digest, edge.index) else {
            out.push(Effect::Reply(build, Err(SolveError::Canceled)));
            return;
        };
        self.builds.insert(
            build,
            BuildState {
                by,
                edge: id,
                vertex,
                index: edge.index,
            },
        );
        if let Some(state) = self.edges.get_mut(&id) {
            state
                .consumers
                .insert(Consumer::Build(build), EdgeLevel::Complete);
        }
        self.announce(id, out);
        self.to_learn.push(id);
    }

    pub(super) fn knows(&self, by: &Requester) -> bool {
        match by {
            Requester::Job(job) => self.jobs.contains_key(job),
            Requester::Vertex(parent) => self.vertices.contains_key(parent),
        }
    }

    /// Makes vertices active for a job or a parent; `loaded` has their inputs.
    pub(super) fn load_part(
        &mut self,
        part: &[Arc<Vertex<D>>],
        by: &Requester,
        sources: &[Arc<CacheManager<D>>],
        loaded: &mut HashMap<Digest, Arc<Vertex<D>>>,
        out: &mut Vec<Effect<D>>,
    ) {
        for vertex in part {
            let digest = self.load_one(vertex, loaded);
            let state = self.vertices.get_mut(&digest).expect("it was just loaded");
            for source in sources {
                if source.id() != self.main.id()
                    && !state.sources.iter().any(|s| s.id() == source.id())
                {
                    state.sources.push(Arc::clone(source));
                }
            }
            let mut is_known = false;
            match by {
                Requester::Job(job) => {
                    is_known = state.jobs.contains(job) && state.attached.contains(job);
                    if !state.jobs.contains(job) {
                        state.jobs.push(*job);
                    }
                }
                Requester::Vertex(parent) => {
                    if *parent != digest && state.parents.insert(parent.clone()) {
                        let inherited = self.vertices.get_mut(parent).map(|p| {
                            p.children.insert(digest.clone());
                            p.sources.clone()
                        });
                        let state = self.vertices.get_mut(&digest).expect("it was just loaded");
                        for source in inherited.unwrap_or_default() {
                            if !state.sources.iter().any(|s| s.id() == source.id()) {
                                state.sources.push(source);
                            }
                        }
                    }
                }
            }
            let here = self
                .vertices
                .get(&digest)
                .map(|v| Arc::clone(&v.handle.vertex))
                .expect("it was just loaded");
            loaded.insert(vertex.digest.clone(), here);
            if !is_known {
                self.refresh(&digest, true, out);
            }
        }
    }

    /// Makes one vertex active, and returns the digest under which it is active.
    ///
    /// A vertex that ignores the cache does not join one that uses it; any vertex joins one that ignores it.
    fn load_one(
        &mut self,
        vertex: &Arc<Vertex<D>>,
        loaded: &HashMap<Digest, Arc<Vertex<D>>>,
    ) -> Digest {
        let without_cache = || Digest::sha256(format!("{}-ignorecache", vertex.digest));
        if self.without_cache > 0 {
            let second = without_cache();
            if self.vertices.contains_key(&second) {
                return second;
            }
        }
        let mut digest = vertex.digest.clone();
        if let Some(active) = self.vertices.get(&digest) {
            if active.handle.vertex.options.ignore_cache || !vertex.options.ignore_cache {
                return digest;
            }
            digest = without_cache();
            self.without_cache += 1;
        }
        let inputs: Vec<Edge<D>> = vertex
            .inputs
            .iter()
            .map(|e| Edge {
                vertex: loaded.get(&e.vertex.digest).unwrap_or(&e.vertex).clone(),
                index: e.index,
            })
            .collect();
        let mut vertex_here = Vertex::clone(vertex);
        vertex_here.digest = digest.clone();
        vertex_here.inputs = inputs;
        let vertex_here = Arc::new(vertex_here);
        let handle = Handle {
            sink: self.observer.vertex(&vertex_here),
            client_digest: vertex.digest.clone(),
            sessions: watch::Sender::new(Vec::new()),
            values: Arc::default(),
            op: OnceLock::new(),
            sub_keys: Mutex::default(),
            span: tracing::info_span!("vertex", digest = %vertex.digest, name = vertex.name),
            vertex: vertex_here,
        };
        let state = VertexState {
            inputs: handle
                .vertex
                .inputs
                .iter()
                .map(|e| (e.vertex.digest.clone(), e.index))
                .collect(),
            handle: Arc::new(handle),
            jobs: Vec::new(),
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            attached: BTreeSet::new(),
            is_watched: false,
            edges: BTreeMap::new(),
            sources: Vec::new(),
            maps: Vec::new(),
            maps_done: false,
            maps_error: None,
            slow: BTreeMap::new(),
            exec: None,
            running: BTreeMap::new(),
        };
        self.vertices.insert(digest.clone(), state);
        digest
    }

    /// Returns the jobs that want a vertex, directly or through a build of one of its parents.
    pub(super) fn jobs_of(&self, digest: &Digest) -> Vec<JobId> {
        let mut out: Vec<JobId> = Vec::new();
        let mut visited = BTreeSet::from([digest.clone()]);
        let mut work = vec![digest.clone()];
        while let Some(digest) = work.pop() {
            let Some(vertex) = self.vertices.get(&digest) else {
                continue;
            };
            for job in &vertex.jobs {
                if !out.contains(job) {
                    out.push(*job);
                }
            }
            work.extend(
                vertex
                    .parents
                    .iter()
                    .filter(|p| visited.insert((*p).clone()))
                    .cloned(),
            );
        }
        out
    }

    /// Updates sessions, values and, with `attach`, attached jobs of a vertex and its children to the current jobs.
    pub(super) fn refresh(&mut self, digest: &Digest, attach: bool, out: &mut Vec<Effect<D>>) {
        let mut visited = BTreeSet::from([digest.clone()]);
        let mut work = vec![digest.clone()];
        while let Some(digest) = work.pop() {
            let jobs = self.jobs_of(&digest);
            let Some(vertex) = self.vertices.get_mut(&digest) else {
                continue;
            };
            let states: Vec<_> = jobs
                .iter()
                .filter_map(|job| Some((*job, self.jobs.get(job)?)))
                .collect();
            let mut sessions: Vec<String> = Vec::new();
            for session in states.iter().filter_map(|(_, s)| s.session.as_ref()) {
                if !sessions.contains(session) {
                    sessions.push(session.clone());
                }
            }
            *vertex.handle.values.write() =
                states.iter().map(|(_, s)| Arc::clone(&s.value)).collect();
            vertex.handle.sessions.send_if_modified(|now| {
                let differs = *now != sessions;
                *now = sessions;
                differs
            });
            if attach {
                let has_history = vertex.is_watched;
                for (job, state) in states {
                    if vertex.attached.insert(job) {
                        vertex.is_watched = true;
                        out.push(Effect::Attach(Attach {
                            handle: Arc::clone(&vertex.handle),
                            job,
                            value: Arc::clone(&state.value),
                            has_history,
                        }));
                    }
                }
            }
            work.extend(
                vertex
                    .children
                    .iter()
                    .filter(|c| visited.insert((*c).clone()))
                    .cloned(),
            );
        }
    }

    /// Returns the edge of an active vertex, or the edge into which it was merged.
    pub(super) fn edge_of(&mut self, digest: &Digest, index: usize) -> Option<EdgeId> {
        let vertex = self.vertices.get(digest)?;
        if let Some(id) = vertex.edges.get(&index) {
            return Some(self.resolve(*id));
        }
        let inputs = vertex.inputs.len();
        let id = self.id();
        self.edges
            .insert(id, EdgeState::new(digest.clone(), index, inputs));
        self.vertices.get_mut(digest)?.edges.insert(index, id);
        Some(id)
    }

    /// Follows merges to the edge that continues.
    pub(super) fn resolve(&self, mut id: EdgeId) -> EdgeId {
        while let Some(owner) = self.edges.get(&id).and_then(EdgeState::owner) {
            id = owner;
        }
        id
    }

    pub(super) fn discard(&mut self, job: JobId, out: &mut Vec<Effect<D>>) {
        self.jobs.remove(&job);
        let job_builds: Vec<BuildId> = self
            .builds
            .iter()
            .filter(|(_, b)| matches!(b.by, Requester::Job(j) if j == job))
            .map(|(id, _)| *id)
            .collect();
        for build in job_builds {
            self.leave(build);
            out.push(Effect::Reply(build, Err(SolveError::Canceled)));
        }
        let mut changed = Vec::new();
        for (digest, vertex) in &mut self.vertices {
            let before = vertex.jobs.len();
            vertex.jobs.retain(|j| *j != job);
            vertex.attached.remove(&job);
            if vertex.jobs.len() != before {
                changed.push(digest.clone());
            }
        }
        self.to_forget.extend(changed);
    }

    /// Drops a vertex that a job released, unless another job or a parent vertex still uses it.
    pub(super) fn forget(&mut self, digest: &Digest, out: &mut Vec<Effect<D>>) {
        self.drop_if_unwanted(digest, out);
        if self.vertices.is_empty() {
            self.index.clear();
        } else if self.vertices.contains_key(digest) {
            self.refresh(digest, false, out);
        }
    }

    fn drop_if_unwanted(&mut self, digest: &Digest, out: &mut Vec<Effect<D>>) {
        let mut work = vec![digest.clone()];
        while let Some(digest) = work.pop() {
            if !self
                .vertices
                .get(&digest)
                .is_some_and(|v| v.jobs.is_empty() && v.parents.is_empty())
            {
                continue;
            }
            let edges: Vec<EdgeId> = self
                .vertices
                .get(&digest)
                .map(|v| v.edges.values().copied().collect())
                .unwrap_or_default();
            for edge in edges {
                self.drop_edge(edge, out);
            }
            let Some(mut vertex) = self.vertices.remove(&digest) else {
                continue;
            };
            if vertex.handle.client_digest != digest {
                self.without_cache -= 1;
            }
            for child in std::mem::take(&mut vertex.children) {
                if let Some(state) = self.vertices.get_mut(&child) {
                    state.parents.remove(&digest);
                    work.push(child);
                }
            }
            out.push(Effect::Release(Box::new(vertex)));
        }
    }

    fn drop_edge(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) {
        self.stop_lookup(id, out);
        self.stop_waiting(id, out);
        self.demand_nothing(id);
        self.index.release(id);
        let Some(mut state) = self.edges.remove(&id) else {
            return;
        };
        if let Some(vertex) = self.vertices.get_mut(&state.vertex) {
            vertex.edges.remove(&state.index);
        }
        // Edges that were merged into it become independent again.
        for merged in self.merged.remove(&id).unwrap_or_default() {
            if let Some(edge) = self
                .edges
                .get_mut(&merged)
                .filter(|e| e.owner() == Some(id))
            {
                let new = EdgeState::new(edge.vertex.clone(), edge.index, edge.deps.len());
                out.push(Effect::Release(Box::new(std::mem::replace(edge, new))));
            }
        }
        // Builds that waited for them through this edge wait for them again.
        for consumer in std::mem::take(&mut state.consumers).into_keys() {
            match consumer {
                Consumer::Build(build) => self.send_back(build, &state.vertex, out),
                Consumer::Edge(parent, input) => {
                    if let Some(dep) = self
                        .edges
                        .get_mut(&parent)
                        .and_then(|p| p.deps.get_mut(input))
                    {
                        dep.edge = None;
                        dep.demand = None;
                    }
                    self.to_learn.push(parent);
                }
            }
        }
        out.push(Effect::Release(Box::new(state)));
    }

    fn send_back(&mut self, build: BuildId, dropped_vertex: &Digest, out: &mut Vec<Effect<D>>) {
        let Some(state) = self.builds.get(&build) else {
            return;
        };
        let (digest, index) = (state.vertex.digest.clone(), state.index);
        let own = (digest != *dropped_vertex)
            .then(|| self.edge_of(&digest, index))
            .flatten();
        match (own, self.builds.get_mut(&build)) {
            (Some(own), Some(state)) => {
                state.edge = own;
                if let Some(edge) = self.edges.get_mut(&own) {
                    edge.consumers
                        .insert(Consumer::Build(build), EdgeLevel::Complete);
                }
                self.announce(own, out);
                self.to_learn.push(own);
            }
            _ => {
                self.builds.remove(&build);
                out.push(Effect::Reply(build, Err(SolveError::Canceled)));
            }
        }
    }
}
