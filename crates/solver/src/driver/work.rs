//! Carries out one piece of work, and reports it at its vertex.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tracing::Instrument as _;

use super::sub::VertexBuilder;
use super::{Core, lookups};
use crate::domain::Domain;
use crate::domain::error::{KeyStoreError, OpError, Phase, SolveError};
use crate::domain::op::{Obtained, Op as _, VertexSink as _};
use crate::keys::cachekey::CacheRecord;
use crate::keys::manager::CacheManager;
use crate::scheduler::{Handle, Work, WorkOutcome};

impl<D: Domain> Core<D> {
    fn op(self: &Arc<Self>, handle: &Arc<Handle<D>>) -> Result<Arc<D::Op>, SolveError<D>> {
        let op = handle.op.get_or_init(|| {
            let builder = VertexBuilder {
                core: Arc::downgrade(self),
                handle: Arc::downgrade(handle),
            };
            self.resolver.resolve(&handle.vertex, Arc::new(builder))
        });
        op.clone().map_err(|error| {
            SolveError::op(&handle.vertex, &handle.client_digest, Phase::Resolve, error)
        })
    }

    pub(super) async fn work(self: &Arc<Self>, work: Work<D>) -> WorkOutcome<D> {
        let span = match &work {
            Work::CacheMap { of, .. }
            | Work::Slow { of, .. }
            | Work::Exec { of, .. }
            | Work::Load { of, .. } => of.span.clone(),
            Work::Lookup(_) | Work::Save { .. } => tracing::Span::none(),
        };
        self.carry_out(work).instrument(span).await
    }

    async fn carry_out(self: &Arc<Self>, work: Work<D>) -> WorkOutcome<D> {
        match work {
            Work::CacheMap { of, index } => WorkOutcome::CacheMap(self.cache_map(&of, index).await),
            Work::Slow {
                of,
                input,
                slow,
                preprocess,
                result,
                made_by,
            } => {
                let run = async {
                    if let Some(preprocess) = preprocess {
                        preprocess.run(&self.ctx(&made_by), &result).await?;
                    }
                    match slow {
                        Some(slow) => slow.digest(&self.ctx(&of), &result).await.map(Some),
                        None => Ok(None),
                    }
                };
                let outcome = guard(&of, Phase::SlowKey(input), run).await;
                if let Err(error) = &outcome {
                    of.sink.started(false);
                    of.sink.completed(Some(&error_text(error)), false);
                }
                WorkOutcome::Slow(outcome)
            }
            Work::Exec { of, inputs } => {
                let outcome = match self.op(&of) {
                    Err(error) => Err(error),
                    Ok(op) => {
                        of.sink.started(false);
                        let end = EndOnDrop(&of);
                        let ctx = self.ctx(&of);
                        let outcome = guard(&of, Phase::Exec, op.exec(&ctx, inputs)).await;
                        end.ended();
                        of.sink
                            .completed(outcome.as_ref().err().map(error_text).as_deref(), false);
                        if outcome.is_ok() {
                            self.observer.obtained(Obtained::Executed);
                        }
                        outcome
                    }
                };
                WorkOutcome::Exec(outcome)
            }
            Work::Lookup(lookup) => {
                let run = move || lookups::run(*lookup);
                WorkOutcome::Lookup(task::blocking("look keys up", run).await)
            }
            Work::Load { of, record, main } => {
                of.sink.started(true);
                let end = EndOnDrop(&of);
                let loaded = self.load(&of, &record, &main).await;
                end.ended();
                of.sink.completed(
                    loaded.as_ref().err().map(ToString::to_string).as_deref(),
                    true,
                );
                if loaded.is_ok() {
                    let is_own = record.manager.id() == main.id();
                    self.observer.obtained(if is_own {
                        Obtained::Loaded
                    } else {
                        Obtained::Imported
                    });
                }
                WorkOutcome::Load(loaded)
            }
            Work::Save {
                main,
                keys,
                result,
                created_at,
            } => {
                let entries = keys
                    .into_iter()
                    .map(|key| (key, result.clone(), created_at))
                    .collect();
                WorkOutcome::Save(main.save_all(entries).await)
            }
        }
    }

    async fn cache_map(
        self: &Arc<Self>,
        of: &Arc<Handle<D>>,
        index: usize,
    ) -> Result<(Arc<crate::domain::op::CacheMap<D>>, bool), SolveError<D>> {
        let op = self.op(of)?;
        // An op without inputs works for its key (it asks a registry or a client), and is shown while it does so.
        let is_shown = of.vertex.inputs.is_empty();
        if is_shown {
            of.sink.started(false);
        }
        let end = is_shown.then(|| EndOnDrop(of));
        let ctx = self.ctx(of);
        let mut outcome = guard(of, Phase::CacheMap, op.cache_map(&ctx, index)).await;
        if let Some(end) = end {
            end.ended();
        }
        if let Ok((map, _)) = &outcome
            && map.deps.len() != of.vertex.inputs.len()
        {
            let (expected, actual) = (of.vertex.inputs.len(), map.deps.len());
            outcome = Err(SolveError::CacheMapDeps {
                vertex: of.client_digest.clone(),
                want: expected,
                got: actual,
            });
        }
        if is_shown {
            of.sink
                .completed(outcome.as_ref().err().map(error_text).as_deref(), false);
        }
        outcome.map(|(map, done)| (Arc::new(map), done))
    }

    async fn load(
        self: &Arc<Self>,
        of: &Arc<Handle<D>>,
        record: &CacheRecord<D>,
        main: &Arc<CacheManager<D>>,
    ) -> Result<D::Result, KeyStoreError> {
        let ctx = self.ctx(of);
        let loaded = AssertUnwindSafe(record.manager.load(record, &ctx))
            .catch_unwind()
            .await;
        let loaded = loaded.map_err(|panic| KeyStoreError::new(panic_text(&*panic)))??;
        let first = loaded.first().map(|(_, _, result)| result.clone());
        if record.manager.id() != main.id() {
            let entries = loaded
                .into_iter()
                .map(|(key, stored, result)| (key, result, stored.created_at))
                .collect();
            main.save_all(entries).await?;
        }
        first.ok_or_else(|| KeyStoreError::new("failed to load deleted cache"))
    }
}

/// Runs an op's future; its errors and panics become errors of the vertex.
async fn guard<D: Domain, T>(
    of: &Handle<D>,
    phase: Phase,
    run: impl Future<Output = Result<T, OpError>>,
) -> Result<T, SolveError<D>> {
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(result) => {
            result.map_err(|error| SolveError::op(&of.vertex, &of.client_digest, phase, error))
        }
        Err(panic) => Err(SolveError::Panic {
            name: of.vertex.name.clone(),
            message: panic_text(&*panic),
        }),
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// The error as its vertex shows it: the op's own sentence.
fn error_text<D: Domain>(error: &SolveError<D>) -> String {
    if let SolveError::Op { error, .. } = error {
        error.to_string()
    } else {
        error.to_string()
    }
}

/// Reports a vertex as canceled when its work is dropped.
struct EndOnDrop<'a, D: Domain>(&'a Handle<D>);

impl<D: Domain> EndOnDrop<'_, D> {
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl<D: Domain> Drop for EndOnDrop<'_, D> {
    fn drop(&mut self) {
        self.0.sink.completed(Some("context canceled"), false);
    }
}
