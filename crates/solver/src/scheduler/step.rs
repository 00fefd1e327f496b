//! What edges do: learn from their inputs, demand more of them, load, run, keep.

use std::sync::Arc;

use super::edge::{
    EdgeState, LookingUp, Maps, News, Progress, Search, SlowState, State, with_selector,
};
use super::{BuildId, Consumer, Effect, Level, Scheduler, Target, Task, VertexState, Work};
use crate::built::Built;
use crate::domain::Domain;
use crate::domain::error::{KeyStoreError, SolveError};
use crate::index::EdgeId;
use crate::keys::cachekey::{CacheKey, DepKey, KeyInfo};
use crate::keys::export::Exporter;
use crate::keys::lookup::{Answer, Lookup, Probe};

impl<D: Domain> Scheduler<D> {
    /// Takes in what vertex and inputs have come to know. What has to be looked up for that is begun; the edge goes on when
    /// the answer is there.
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
        let mut news = News::None;
        match self.gather(id, &mut news) {
            Ok(None) => {}
            Ok(Some(lookup)) => {
                let work = self.id();
                if let Some(edge) = self.edges.get_mut(&id) {
                    edge.lookup = Some(LookingUp {
                        work,
                        news,
                        has_more: false,
                    });
                }
                self.works.insert(work, Target::Edge(id));
                out.push(Effect::Start(work, Work::Lookup(Box::new(lookup))));
                return;
            }
            Err(error) => self.end(id, Err(error), out),
        }
        self.learned(id, before, news, out);
    }

    /// Takes in what a look-up found.
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

    /// Tells consumers if what an edge learned since `before` changes anything for them.
    fn learned(&mut self, id: EdgeId, before: Progress, news: News, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        let has_ended = edge.outcome().is_some();
        if !has_ended {
            edge.measure();
        }
        let after = edge.progress();
        if news == News::Keys && !has_ended && self.merge_if_known(id, out) {
            return;
        }
        if before != after {
            self.announce(id, out);
        }
        self.to_act.push(id);
    }

    /// Tells builds of an end, and makes edges learn.
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

    fn gather(&mut self, id: EdgeId, news: &mut News) -> Result<Option<Lookup<D>>, SolveError<D>> {
        // The edge is taken out so that it and the rest can be seen at once.
        let Some(mut edge) = self.edges.remove(&id) else {
            return Ok(None);
        };
        let lookup = self.gather_into(&mut edge, news);
        self.edges.insert(id, edge);
        lookup
    }

    /// Takes in what is known without asking key stores, and returns what is to be looked up.
    fn gather_into(
        &self,
        edge: &mut EdgeState<D>,
        news: &mut News,
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
                *news = News::Keys;
            }
            if edge.deps.is_empty() {
                if ignore {
                    edge.level = edge.level.max(Level::Slow);
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
            // Errors of inputs count even before the edge knows how it is cached.
            return self.input_error(edge).map_or(Ok(None), Err);
        };
        for (input, dep) in edge.deps.iter_mut().enumerate() {
            let how = map.deps.get(input);
            let selector = how.and_then(|h| h.selector.as_ref());
            if let Some(from_id) = dep.edge.map(|e| self.resolve(e))
                && let Some(from) = self.edges.get(&from_id)
            {
                if let Some(Err(error)) = from.outcome() {
                    return Err(error.clone());
                }
                if dep.seen.0 != from_id {
                    dep.seen = (from_id, 0);
                }
                let new = from.keys.get(dep.seen.1..).unwrap_or_default();
                if !new.is_empty() {
                    dep.seen.1 = from.keys.len();
                    dep.keys.extend(new.iter().cloned());
                    if !ignore {
                        probes.push(Probe::Keys {
                            input,
                            keys: with_selector(new, selector),
                            is_content: false,
                        });
                    }
                    *news = News::Keys;
                }
                // Whoever takes over an input may be less far than it was.
                if dep.result.is_none() {
                    dep.level = from.level;
                }
                if dep.result.is_none()
                    && let Some(Ok(finished)) = from.outcome()
                {
                    dep.result = Some(Arc::clone(finished));
                    dep.level = Level::Complete;
                    *news = News::Keys;
                }
            }
            let wants_slow = how.is_some_and(|h| h.slow.is_some() || h.preprocess.is_some());
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
                    // What is known by definition and by content leads to the same from now on.
                    let mut both = with_selector(&result.keys, selector);
                    both.push(content.clone());
                    if !ignore {
                        probes.push(Probe::Keys {
                            input,
                            keys: vec![content],
                            is_content: true,
                        });
                    }
                    probes.push(Probe::Join { input, keys: both });
                }
                dep.slow = SlowState::Known { key, found: false };
                *news = News::Keys;
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

    /// Begins what is needed next for what is demanded; ends what is not needed.
    pub(super) fn act(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        if edge.owner().is_some() {
            return;
        }
        let demand = edge.consumers.values().max().copied();
        let (Some(demand), None) = (demand, edge.outcome()) else {
            // A look-up goes on for whoever wants the edge next.
            self.stop_waiting(id, out);
            self.demand_nothing(id);
            return;
        };
        if edge.level >= demand {
            // After a certain miss its inputs will be needed as soon as it is itself: what was begun goes on until then,
            // or until nobody is interested any more.
            if edge.search == Search::Open {
                self.demand_nothing(id);
            }
            return;
        }
        match edge.state {
            State::Loading { .. } | State::Saving { .. } => return,
            State::Executing => return self.after_exec(id, out),
            // What is being looked up may decide what is needed.
            State::Searching if edge.lookup.is_some() => return,
            State::Searching => {}
            State::Merged { .. } | State::Ended(_) => return,
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
                Task::CacheMap,
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
        if demand == Level::Complete && !edge.records.is_empty() {
            return self.start_load(id, out);
        }
        if demand == Level::Complete && edge.ready == Level::Complete {
            if let Some(edge) = self.edges.get_mut(&id) {
                edge.state = State::Executing;
            }
            return self.after_exec(id, out);
        }
        self.ask_inputs(id, demand, out);
    }

    /// Demands of each input what is needed next.
    fn ask_inputs(&mut self, id: EdgeId, demand: Level, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        let mut demands: Vec<Option<Level>> = Vec::with_capacity(edge.deps.len());
        let mut pending = Vec::new();
        let rounds = edge.rounds();
        for (input, dep) in edge.deps.iter().enumerate() {
            let desired = edge.desired(input, dep, demand, rounds);
            demands.push((desired > dep.level).then_some(desired));
            if dep.level == Level::Complete && edge.input_pending(input, dep) {
                pending.push(input);
            }
        }
        let working = self
            .vertices
            .get(&edge.vertex)
            .is_some_and(|v| v.running.values().any(|r| r.waiters.contains(&id)));
        if !working && pending.is_empty() && demands.iter().all(Option::is_none) {
            // A miss was not proved, nor a hit found, and nothing more can be learned without the inputs' results.
            tracing::debug!(vertex = %edge.vertex, "inputs are computed: without their results neither a hit nor a miss can be proved");
            demands = edge
                .deps
                .iter()
                .map(|d| (d.level < Level::Complete).then_some(Level::Complete))
                .collect();
        }
        for input in pending {
            self.need_slow(id, input, out);
        }
        for (input, demand) in demands.into_iter().enumerate() {
            self.want(id, input, demand, out);
        }
    }

    /// Changes what is demanded of an input.
    fn want(&mut self, id: EdgeId, input: usize, wanted: Option<Level>, out: &mut Vec<Effect<D>>) {
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        let Some(dep) = edge.deps.get(input) else {
            return;
        };
        if dep.wanted == wanted {
            return;
        }
        // It may have been merged into another, or be gone, while nothing was wanted of it.
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
            dep.wanted = wanted;
        }
        if let Some(state) = self.edges.get_mut(&target) {
            match wanted {
                Some(level) => state.consumers.insert(Consumer::Edge(id, input), level),
                None => state.consumers.remove(&Consumer::Edge(id, input)),
            };
            // It may be there already, or know something that is news here.
            if wanted.is_some_and(|w| state.level >= w)
                || state.outcome().is_some()
                || !state.keys.is_empty()
            {
                self.to_learn.push(id);
            }
            self.to_learn.push(target);
        }
    }

    /// Withdraws all demands.
    pub(super) fn demand_nothing(&mut self, id: EdgeId) {
        let Some(edge) = self.edges.get_mut(&id) else {
            return;
        };
        let mut targets = Vec::new();
        for (input, dep) in edge.deps.iter_mut().enumerate() {
            if dep.wanted.take().is_some()
                && let Some(target) = dep.edge
            {
                // A demand is where `dep.edge` says; only unwanted inputs may lag behind merges.
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
        let Some(how) = map.deps.get(input) else {
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
            slow: how.slow.clone(),
            preprocess: how.preprocess.clone(),
            result: finished.result.clone(),
            made_by: made_by.unwrap_or_else(|| Arc::clone(&v.handle)),
        };
        self.need(id, &digest, Task::Slow(input), make, out);
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
        edge.state = State::Loading {
            work,
            record: record.id.clone(),
        };
        self.works.insert(work, Target::Edge(id));
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
