//! The steps of edges: learn from inputs, demand more of them, load, run, save.

use std::sync::Arc;

use super::edge::{
    EdgePhase, EdgeProgress, EdgeState, Learned, Maps, OngoingLookup, Search, SlowState,
    with_selector,
};
use super::{
    BuildId, Consumer, EdgeLevel, Effect, Scheduler, VertexState, VertexTask, Work, WorkOwner,
};
use crate::built::Built;
use crate::domain::Domain;
use crate::domain::error::{KeyStoreError, SolveError};
use crate::index::EdgeId;
use crate::keys::cachekey::{CacheKey, DepKey, KeyInfo};
use crate::keys::export::Exporter;
use crate::keys::lookup::{Answer, Lookup, Probe};

impl<D: Domain> Scheduler<D> {
    /// Takes what the vertex and the inputs have learned. A look-up starts if one is needed; the edge continues with
    /// the answer.
    pub(super) fn learn(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        if edge.owner().is_some() {
            return;
        }
        if let Some(lookup) = &mut edge.lookup {
            lookup.has_more = true;
            // Demands may have changed.
            self.to_act.push(id);
            return;
        }
        if edge.outcome().is_some() {
            self.to_act.push(id);
            return;
        }
        let before = edge.progress();
        let mut news = Learned::None;
        match self.gather(id, &mut news) {
            Ok(None) => {}
            Ok(Some(lookup)) => {
                let work = self.id();
                if let Some(edge) = self.edges.get_mut(&id) {
                    edge.lookup = Some(OngoingLookup {
                        work,
                        news,
                        has_more: false,
                    });
                }
                self.works.insert(work, WorkOwner::Edge(id));
                out.push(Effect::Start(work, Work::Lookup(Box::new(lookup))));
                return;
            }
            Err(error) => self.end(id, Err(error), out),
        }
        self.learned(id, before, news, out);
    }

    /// Takes the answer of a look-up.
    pub(super) fn looked_up(
        &mut self,
        id: EdgeId,
        answer: Result<Box<Answer<D>>, KeyStoreError>,
        out: &mut Vec<Effect<D>>,
    ) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        let Some(lookup) = edge.lookup.take() else {
            return;
        };
        let (before, is_root) = (edge.progress(), edge.deps.is_empty());
        match answer {
            Ok(answer) => {
                let vertex = self.vertices.get(&edge.vertex);
                let options = vertex.map(|v| &v.handle.vertex.options);
                edge.take_answer(*answer, options.and_then(|o| o.export_cache));
            }
            Err(error) => self.end(id, Err(error.into()), out),
        }
        // An op without inputs may have further cache maps.
        if lookup.has_more || is_root {
            self.to_learn.push(id);
        }
        self.learned(id, before, lookup.news, out);
    }

    /// Notifies consumers if the edge has learned something since `before` that matters to them.
    fn learned(
        &mut self,
        id: EdgeId,
        before: EdgeProgress,
        news: Learned,
        out: &mut Vec<Effect<D>>,
    ) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        let has_ended = edge.outcome().is_some();
        if !has_ended {
            edge.measure();
        }
        let after = edge.progress();
        if news == Learned::Keys && !has_ended && self.merge_if_known(id, out) {
            return;
        }
        if before != after {
            self.announce(id, out);
        }
        self.to_act.push(id);
    }

    /// Replies to builds of an ended edge, and makes consuming edges learn.
    pub(super) fn announce(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        let mut builds: Vec<BuildId> = Vec::new();
        for consumer in edge.consumers.keys() {
            match consumer {
                Consumer::Edge(parent, _) => self.to_learn.push(*parent),
                Consumer::Build(build) => builds.push(*build),
            }
        }
        let Some(outcome) = edge.outcome().cloned() else {
            return;
        };
        for build in builds {
            edge.consumers.remove(&Consumer::Build(build));
            if let Some(state) = self.builds.remove(&build) {
                let built = outcome.clone().map(|f| Built {
                    result: f.result.clone(),
                    keys: f.keys.clone(),
                    vertex: state.vertex,
                });
                out.push(Effect::Reply(build, built));
            }
        }
        self.to_act.push(id);
    }

    fn gather(
        &mut self,
        id: EdgeId,
        news: &mut Learned,
    ) -> Result<Option<Lookup<D>>, SolveError<D>> {
        // The edge is taken out of the map, so that it and the others can be borrowed together.
        let Some(mut edge) = self.edges.remove(&id) else {
            return Ok(None);
        };
        let lookup = self.gather_into(&mut edge, news);
        self.edges.insert(id, edge);
        lookup
    }

    /// Takes what is known without the key stores, and returns the questions for them.
    fn gather_into(
        &self,
        edge: &mut EdgeState<D>,
        news: &mut Learned,
    ) -> Result<Option<Lookup<D>>, SolveError<D>> {
        let Some(vertex) = self.vertices.get(&edge.vertex) else {
            return Err(SolveError::Canceled);
        };
        let ignore = vertex.handle.vertex.options.ignore_cache;
        let mut probes: Vec<Probe<D>> = Vec::new();
        while probes.is_empty()
            && edge.wants_more_maps()
            && let Some(map) = vertex.maps.get(edge.map_digests.len())
        {
            edge.map_digests.push(map.digest.clone());
            let is_last = vertex.maps_done && edge.map_digests.len() == vertex.maps.len();
            edge.maps = if is_last { Maps::All } else { Maps::Some }(Arc::clone(map));
            if edge.all_have_keys() {
                *news = Learned::Keys;
            }
            if edge.deps.is_empty() {
                if ignore {
                    edge.level = edge.level.max(EdgeLevel::Slow);
                } else {
                    probes.push(Probe::Root);
                }
            }
        }
        if probes.is_empty()
            && edge.wants_more_maps()
            && let Some(error) = &vertex.maps_error
        {
            return Err(error.clone());
        }
        let Some(map) = edge.map().cloned() else {
            // Errors of inputs count even before the edge has its cache map.
            return self.input_error(edge).map_or(Ok(None), Err);
        };
        for (input, dep) in edge.deps.iter_mut().enumerate() {
            let map_dep = map.deps.get(input);
            let selector = map_dep.and_then(|h| h.selector.as_ref());
            if let Some(from_id) = dep.edge.map(|e| self.resolve(e))
                && let Some(from) = self.edges.get(&from_id)
            {
                if let Some(Err(error)) = from.outcome() {
                    return Err(error.clone());
                }
                if dep.keys_read.0 != from_id {
                    dep.keys_read = (from_id, 0);
                }
                let new = from.keys.get(dep.keys_read.1..).unwrap_or_default();
                if !new.is_empty() {
                    dep.keys_read.1 = from.keys.len();
                    dep.keys.extend(new.iter().cloned());
                    if !ignore {
                        probes.push(Probe::Keys {
                            input,
                            keys: with_selector(new, selector),
                            is_content: false,
                        });
                    }
                    *news = Learned::Keys;
                }
                // An edge that an input was merged into may have a lower level than the input had.
                if dep.result.is_none() {
                    dep.level = from.level;
                }
                if dep.result.is_none()
                    && let Some(Ok(finished)) = from.outcome()
                {
                    dep.result = Some(Arc::clone(finished));
                    dep.level = EdgeLevel::Complete;
                    *news = Learned::Keys;
                }
            }
            let wants_slow = map_dep.is_some_and(|h| h.slow.is_some() || h.preprocess.is_some());
            if wants_slow
                && !dep.slow_known()
                && let Some(result) = dep.result.clone()
                && let Some(slow) = vertex.slow.get(&input)
            {
                let digest = slow.clone()?;
                let key = digest.map(|digest| {
                    let key = Arc::new(CacheKey::new(digest, -1, None, Vec::new()));
                    KeyInfo {
                        exporter: Exporter::bare(&key),
                        key,
                    }
                });
                if let Some(key) = &key {
                    let content = DepKey {
                        selector: None,
                        key: key.clone(),
                    };
                    // Keys by definition and by content lead to the same keys from now on.
                    let mut dep_keys = with_selector(&result.keys, selector);
                    dep_keys.push(content.clone());
                    if !ignore {
                        probes.push(Probe::Keys {
                            input,
                            keys: vec![content],
                            is_content: true,
                        });
                    }
                    probes.push(Probe::Join {
                        input,
                        keys: dep_keys,
                    });
                }
                dep.slow = SlowState::Known {
                    key,
                    led_to_new_key: false,
                };
                *news = Learned::Keys;
            }
        }
        if probes.is_empty() {
            return Ok(None);
        }
        Ok(Some(Lookup {
            managers: self.managers(vertex),
            vertex: vertex.handle.vertex.digest.clone(),
            digest: map.digest.clone(),
            output: edge.index,
            probes,
            matches: edge.deps.iter().map(|dep| dep.matches.clone()).collect(),
            matched: edge.matched.clone(),
            dep_keys: edge.dep_keys(),
        }))
    }

    fn input_error(&self, edge: &EdgeState<D>) -> Option<SolveError<D>> {
        edge.deps
            .iter()
            .filter_map(|d| self.edges.get(&self.resolve(d.edge?))?.outcome())
            .find_map(|o| o.as_ref().err().cloned())
    }

    /// Starts the work that the demand needs next; stops work that it does not need.
    pub(super) fn act(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        if edge.owner().is_some() {
            return;
        }
        let demand = edge.consumers.values().max().copied();
        let (Some(demand), None) = (demand, edge.outcome()) else {
            // The look-up continues for the next consumer of the edge.
            self.stop_waiting(id, out);
            self.demand_nothing(id);
            return;
        };
        if edge.level >= demand {
            // After a certain miss the inputs are needed as soon as the edge is: their work continues until then,
            // or until no build needs it.
            if edge.search == Search::Open {
                self.demand_nothing(id);
            }
            return;
        }
        match edge.state {
            EdgePhase::Loading { .. } | EdgePhase::Saving { .. } => return,
            EdgePhase::Executing => return self.after_exec(id, out),
            // The look-up may decide what is needed.
            EdgePhase::Searching if edge.lookup.is_some() => return,
            EdgePhase::Searching => {}
            EdgePhase::Merged { .. } | EdgePhase::Ended(_) => return,
        }
        let digest = edge.vertex.clone();
        if edge.wants_more_maps() {
            let index = edge.map_digests.len();
            if self
                .vertices
                .get(&digest)
                .is_some_and(|v| v.maps.len() > index || v.maps_error.is_some())
            {
                self.to_learn.push(id);
                return;
            }
            self.need(
                id,
                &digest,
                VertexTask::CacheMap,
                |v| Work::CacheMap {
                    of: Arc::clone(&v.handle),
                    index,
                },
                out,
            );
        }
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        if demand == EdgeLevel::Complete && !edge.records.is_empty() {
            return self.start_load(id, out);
        }
        if demand == EdgeLevel::Complete && edge.ready == EdgeLevel::Complete {
            if let Some(edge) = self.edges.get_mut(&id) {
                edge.state = EdgePhase::Executing;
            }
            return self.after_exec(id, out);
        }
        self.demand_of_inputs(id, demand, out);
    }

    /// Demands of each input the level that is needed next.
    fn demand_of_inputs(&mut self, id: EdgeId, demand: EdgeLevel, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        let mut demands: Vec<Option<EdgeLevel>> = Vec::with_capacity(edge.deps.len());
        let mut pending = Vec::new();
        let rounds = edge.rounds();
        for (input, dep) in edge.deps.iter().enumerate() {
            let desired = edge.desired(input, dep, demand, rounds);
            demands.push((desired > dep.level).then_some(desired));
            if dep.level == EdgeLevel::Complete && edge.input_pending(input, dep) {
                pending.push(input);
            }
        }
        let working = self
            .vertices
            .get(&edge.vertex)
            .is_some_and(|v| v.running.values().any(|r| r.waiters.contains(&id)));
        if !working && pending.is_empty() && demands.iter().all(Option::is_none) {
            // Neither a miss nor a hit is proved, and nothing more can be learned without the inputs' results.
            tracing::debug!(vertex = %edge.vertex, "inputs are computed: without their results neither a hit nor a miss can be proved");
            demands = edge
                .deps
                .iter()
                .map(|d| (d.level < EdgeLevel::Complete).then_some(EdgeLevel::Complete))
                .collect();
        }
        for input in pending {
            self.need_slow(id, input, out);
        }
        for (input, demand) in demands.into_iter().enumerate() {
            self.want(id, input, demand, out);
        }
    }

    /// Changes the demand on an input.
    fn want(
        &mut self,
        id: EdgeId,
        input: usize,
        demand: Option<EdgeLevel>,
        out: &mut Vec<Effect<D>>,
    ) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        let Some(dep) = edge.deps.get(input) else {
            return;
        };
        if dep.demand == demand {
            return;
        }
        // The input's edge may have been merged or dropped while nothing was demanded of it.
        let mut target = dep
            .edge
            .map(|e| self.resolve(e))
            .filter(|e| self.edges.contains_key(e));
        if target.is_none() {
            let source = self
                .vertices
                .get(&edge.vertex)
                .and_then(|v| v.inputs.get(input))
                .cloned();
            target = source
                .as_ref()
                .and_then(|(digest, index)| self.edge_of(digest, *index));
            if target.is_none() {
                let (vertex, index) =
                    source.map_or((String::new(), 0), |(d, i)| (d.as_str().to_owned(), i));
                self.end(id, Err(SolveError::Inconsistent { vertex, index }), out);
                self.announce(id, out);
                return;
            }
        }
        let Some(target) = target else { return };
        if let Some(dep) = self.edges.get_mut(&id).and_then(|e| e.deps.get_mut(input)) {
            dep.edge = Some(target);
            dep.demand = demand;
        }
        if let Some(state) = self.edges.get_mut(&target) {
            match demand {
                Some(level) => state.consumers.insert(Consumer::Edge(id, input), level),
                None => state.consumers.remove(&Consumer::Edge(id, input)),
            };
            // The edge may have reached the level already, or know keys that are new here.
            if demand.is_some_and(|w| state.level >= w)
                || state.outcome().is_some()
                || !state.keys.is_empty()
            {
                self.to_learn.push(id);
            }
            self.to_learn.push(target);
        }
    }

    /// Withdraws all demands of an edge.
    pub(super) fn demand_nothing(&mut self, id: EdgeId) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        let mut targets = Vec::new();
        for (input, dep) in edge.deps.iter_mut().enumerate() {
            if dep.demand.take().is_some()
                && let Some(target) = dep.edge
            {
                // A demand is registered at `dep.edge`; only inputs without demand may lag behind merges.
                targets.push((target, input));
            }
        }
        for (target, input) in targets {
            if let Some(state) = self.edges.get_mut(&target) {
                state.consumers.remove(&Consumer::Edge(id, input));
                self.to_act.push(target);
            }
        }
    }

    fn need_slow(&mut self, id: EdgeId, input: usize, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        let (digest, map) = (edge.vertex.clone(), edge.map().cloned());
        let Some(dep) = edge.deps.get(input) else {
            return;
        };
        let (Some(map), Some(finished)) = (map, dep.result.clone()) else {
            return;
        };
        let Some(map_dep) = map.deps.get(input) else {
            return;
        };
        if self
            .vertices
            .get(&digest)
            .is_some_and(|v| v.slow.contains_key(&input))
        {
            self.to_learn.push(id);
            return;
        }
        let made_by = dep
            .edge
            .and_then(|e| self.edges.get(&self.resolve(e)))
            .and_then(|e| self.vertices.get(&e.vertex))
            .map(|v| Arc::clone(&v.handle));
        let make = |v: &VertexState<D>| Work::Slow {
            of: Arc::clone(&v.handle),
            input,
            slow: map_dep.slow.clone(),
            preprocess: map_dep.preprocess.clone(),
            result: finished.result.clone(),
            made_by: made_by.unwrap_or_else(|| Arc::clone(&v.handle)),
        };
        self.need(id, &digest, VertexTask::Slow(input), make, out);
    }

    fn start_load(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) {
        self.stop_waiting(id, out);
        self.demand_nothing(id);
        let work = self.id();
        let main = Arc::clone(&self.main);
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        let Some(record) = edge.records.values().min_by(|a, b| a.order(b)).cloned() else {
            return;
        };
        let Some(vertex) = self.vertices.get(&edge.vertex) else {
            return;
        };
        edge.state = EdgePhase::Loading {
            work,
            record: record.id.clone(),
        };
        self.works.insert(work, WorkOwner::Edge(id));
        out.push(Effect::Start(
            work,
            Work::Load {
                of: Arc::clone(&vertex.handle),
                record,
                main,
            },
        ));
    }
}
