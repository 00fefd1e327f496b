//! How edges end: with a result that ran or was loaded and is saved under their keys, or with an error.

use std::sync::Arc;

use super::edge::{EdgeOutcome, EdgePhase, Finished};
use super::{EdgeLevel, Effect, Scheduler, VertexTask, Work, WorkOutcome, WorkOwner};
use crate::domain::Domain;
use crate::domain::error::SolveError;
use crate::index::EdgeId;
use crate::keys::cachekey::{CacheKey, CacheRecord, KeyInfo};
use crate::keys::export::{Exporter, KeyExporter, Secondaries};

impl<D: Domain> Scheduler<D> {
    /// Runs the vertex, or takes its outputs if it has run, and saves the edge's one.
    pub(super) fn after_exec(&mut self, id: EdgeId, out: &mut Vec<Effect<D>>) {
        self.demand_nothing(id);
        let Some(edge) = self.edges.get(&id) else {
            return;
        };
        let (digest, index) = (edge.vertex.clone(), edge.index);
        let Some(vertex) = self.vertices.get(&digest) else {
            return;
        };
        let results = match &vertex.exec {
            Some(Ok(results)) => results,
            Some(Err(error)) => {
                let error = error.clone();
                return self.fail(id, error, out);
            }
            None => {
                let inputs: Vec<D::Result> = edge
                    .deps
                    .iter()
                    .filter_map(|d| d.result.as_ref())
                    .map(|f| f.result.clone())
                    .collect();
                self.need(
                    id,
                    &digest,
                    VertexTask::Exec,
                    |v| Work::Exec {
                        of: Arc::clone(&v.handle),
                        inputs,
                    },
                    out,
                );
                return;
            }
        };
        let Some(result) = results.get(index).cloned() else {
            let error = SolveError::MissingOutput {
                vertex: vertex.handle.client_digest.clone(),
                index,
                got: results.len(),
            };
            return self.fail(id, error, out);
        };
        let output = i64::try_from(index).unwrap_or(i64::MAX);
        let vertex_digest = Some(digest);
        let keys: Vec<Arc<CacheKey<D>>> = if edge.deps.is_empty() {
            edge.map_digests
                .iter()
                .map(|d| {
                    Arc::new(CacheKey::new(
                        d.clone(),
                        output,
                        vertex_digest.clone(),
                        Vec::new(),
                    ))
                })
                .collect()
        } else {
            let Some(map) = edge.map() else { return };
            vec![Arc::new(CacheKey::new(
                map.digest.clone(),
                output,
                vertex_digest,
                edge.dep_keys(),
            ))]
        };
        let work = self.id();
        let effect = Work::Save {
            main: Arc::clone(&self.main),
            keys,
            result: result.clone(),
            created_at: self.now,
        };
        if let Some(edge) = self.edges.get_mut(&id) {
            edge.state = EdgePhase::Saving { work };
        }
        self.works.insert(work, WorkOwner::Edge(id));
        out.push(Effect::Start(work, effect));
    }

    /// Ends an edge: its look-up, its work and its demands stop.
    pub(super) fn end(&mut self, id: EdgeId, outcome: EdgeOutcome<D>, out: &mut Vec<Effect<D>>) {
        self.stop_lookup(id, out);
        self.stop_waiting(id, out);
        if let Some(edge) = self.edges.get_mut(&id) {
            edge.state = EdgePhase::Ended(outcome);
        }
    }

    pub(super) fn fail(&mut self, id: EdgeId, error: SolveError<D>, out: &mut Vec<Effect<D>>) {
        self.end(id, Err(error), out);
        self.announce(id, out);
    }

    /// Takes the outcome of an edge's look-up, load or save.
    pub(super) fn edge_done(
        &mut self,
        id: EdgeId,
        outcome: WorkOutcome<D>,
        out: &mut Vec<Effect<D>>,
    ) {
        if let WorkOutcome::Lookup(answer) = outcome {
            return self.looked_up(id, answer, out);
        }
        // The outcome may be the last owner of a result.
        let Some(edge) = self.edges.get_mut(&id) else {
            out.push(Effect::Release(Box::new(outcome)));
            return;
        };
        self.to_learn.push(id);
        let state = std::mem::replace(&mut edge.state, EdgePhase::Searching);
        match (state, outcome) {
            (EdgePhase::Loading { record, .. }, WorkOutcome::Load(loaded)) => {
                let Some(record) = edge.records.remove(&record) else {
                    return;
                };
                match loaded {
                    Ok(result) => {
                        let exporter = Exporter::Key(KeyExporter {
                            key: Arc::clone(&record.key),
                            record: Some(record.clone()),
                            records: Vec::new(),
                            allowed: None,
                            secondaries: Some(Arc::clone(&edge.secondaries)),
                        });
                        let key = KeyInfo {
                            key: record.key,
                            exporter: Arc::new(exporter),
                        };
                        edge.level = EdgeLevel::Complete;
                        let keys = vec![key];
                        self.end(id, Ok(Arc::new(Finished { result, keys })), out);
                    }
                    Err(error) => {
                        tracing::debug!(vertex = %edge.vertex, %error, "failed to load a stored result");
                        edge.tried.insert(record.id);
                    }
                }
            }
            (EdgePhase::Saving { .. }, WorkOutcome::Save(saved)) => match saved {
                Ok(records) => {
                    let Some(vertex) = self.vertices.get(&edge.vertex) else {
                        return;
                    };
                    let Some(Ok(results)) = &vertex.exec else {
                        return;
                    };
                    let Some(result) = results.get(edge.index).cloned() else {
                        return;
                    };
                    let subs = vertex.handle.sub_keys.lock().clone();
                    let keys = committed(&records, &subs, &edge.secondaries);
                    if !vertex.handle.vertex.options.ignore_cache {
                        edge.keys.extend(keys.iter().cloned());
                    }
                    edge.level = EdgeLevel::Complete;
                    self.end(id, Ok(Arc::new(Finished { result, keys })), out);
                }
                Err(error) => self.end(id, Err(SolveError::Keys(error)), out),
            },
            _ => unreachable!("the outcome has the type of its work"),
        }
        self.announce(id, out);
    }
}

/// The keys of a saved result: each exports all of them, and those of the op's own builds.
fn committed<D: Domain>(
    records: &[CacheRecord<D>],
    subs: &[KeyInfo<D>],
    secondaries: &Secondaries<D>,
) -> Vec<KeyInfo<D>> {
    let mut parts: Vec<Arc<Exporter<D>>> = Vec::new();
    for record in records {
        parts.push(Arc::new(Exporter::Key(KeyExporter {
            key: Arc::clone(&record.key),
            record: Some(record.clone()),
            records: Vec::new(),
            allowed: None,
            secondaries: Some(Arc::clone(secondaries)),
        })));
        parts.extend(subs.iter().map(|s| Arc::clone(&s.exporter)));
    }
    let all = Arc::new(Exporter::Merged(parts));
    records
        .iter()
        .map(|r| KeyInfo {
            key: Arc::clone(&r.key),
            exporter: Arc::clone(&all),
        })
        .collect()
}
