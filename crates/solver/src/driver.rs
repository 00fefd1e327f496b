//! The one place that does asynchronously what the scheduler decides synchronously.
//!
//! The scheduler sits behind a lock that is held while an event is applied and its effects are begun, so listeners hear
//! things in the order they were decided. Work is one task each; cancelling drops it. A work's end is the next event.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use parking_lot::Mutex;
use task::{Clock, Task};
use tokio::sync::oneshot;

use crate::cachekey::CacheRecord;
use crate::domain::Domain;
use crate::error::{KeyStoreError, OpError, Phase, SolveError};
use crate::job::{Built, SubBuilder};
use crate::manager::CacheManager;
use crate::op::{FindHint, Observer, Op as _, OpCtx, Resolver, SessionGroup, VertexSink as _};
use crate::scheduler::{BuildId, Effect, Event, Handle, Outcome, Scheduler, Work, WorkId};

pub(crate) struct Core<D: Domain> {
    state: Mutex<State<D>>,
    resolver: Arc<dyn Resolver<D>>,
    clock: Clock,
}

struct State<D: Domain> {
    scheduler: Scheduler<D>,
    tasks: HashMap<WorkId, Task<()>>,
    replies: HashMap<BuildId, oneshot::Sender<Result<Built<D>, SolveError<D>>>>,
    jobs: std::collections::HashSet<String>,
    /// Somebody works off what is left of earlier events.
    going_on: bool,
    next: u64,
}

/// How long the scheduler is left to itself.
const LONGEST: Duration = Duration::from_millis(10);
/// Steps of the scheduler between two looks at the clock.
const PIECE: usize = 16;

impl<D: Domain> Core<D> {
    pub(crate) fn new(
        resolver: Arc<dyn Resolver<D>>,
        cache: Arc<CacheManager<D>>,
        observer: Arc<dyn Observer<D>>,
        clock: Clock,
    ) -> Arc<Self> {
        let state = State {
            scheduler: Scheduler::new(cache, observer),
            tasks: HashMap::new(),
            replies: HashMap::new(),
            jobs: std::collections::HashSet::new(),
            going_on: false,
            next: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            resolver,
            clock,
        })
    }

    /// Returns a number that was not returned before.
    pub(crate) fn id(&self) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        state.next
    }

    /// Reserves a job's name; false if it is taken.
    pub(crate) fn reserve(&self, name: &str) -> bool {
        self.state.lock().jobs.insert(name.to_owned())
    }

    pub(crate) fn unreserve(&self, name: &str) {
        self.state.lock().jobs.remove(name);
    }

    pub(crate) fn apply(self: &Arc<Self>, event: Event<D>) {
        let now = self.clock.system();
        let mut leftovers = Vec::new();
        let mut effects = Vec::new();
        let mut state = self.state.lock();
        if let Event::Done(work, _) = &event {
            leftovers.extend(state.tasks.remove(work));
        }
        state.scheduler.take(now, event, &mut effects);
        let mut more = self.go_on(&mut state, effects, &mut leftovers);
        if more && !state.going_on {
            if tokio::runtime::Handle::try_current().is_ok() {
                state.going_on = true;
                let core = Arc::clone(self);
                task::spawn("schedule", async move { core.work_off().await }).detach();
            } else {
                // The runtime is gone: nobody is kept waiting.
                while more {
                    more = self.go_on(&mut state, Vec::new(), &mut leftovers);
                }
            }
        }
        drop(state);
        // What was cancelled is dropped here: a future's drop may do anything.
        drop(leftovers);
    }

    /// Works off the rest of large graphs, a piece at a time, so that nobody waits long for a thread or the lock.
    async fn work_off(self: Arc<Self>) {
        loop {
            tokio::task::yield_now().await;
            let mut leftovers = Vec::new();
            let mut state = self.state.lock();
            let more = self.go_on(&mut state, Vec::new(), &mut leftovers);
            state.going_on = more;
            drop(state);
            drop(leftovers);
            if !more {
                return;
            }
        }
    }

    /// Works off a piece and does what follows from it; true if there is more.
    fn go_on(
        self: &Arc<Self>,
        state: &mut State<D>,
        mut effects: Vec<Effect<D>>,
        leftovers: &mut Vec<Task<()>>,
    ) -> bool {
        let begun = Instant::now();
        let mut more = true;
        while more && begun.elapsed() < LONGEST {
            more = state.scheduler.go_on(PIECE, &mut effects);
        }
        for effect in effects {
            match effect {
                Effect::Start(id, work) => {
                    let core = Arc::clone(self);
                    let run = task::spawn("solve", async move {
                        let outcome = core.work(work).await;
                        core.apply(Event::Done(id, outcome));
                    });
                    state.tasks.insert(id, run);
                }
                Effect::Cancel(id) => leftovers.extend(state.tasks.remove(&id)),
                Effect::Attach(handle, job) => handle.sink.attach(&job),
                Effect::Reply(build, result) => {
                    if let Some(to) = state.replies.remove(&build) {
                        // A build that left is not there to be told.
                        drop(to.send(result));
                    }
                }
            }
        }
        more
    }

    /// Waits for a build; leaving cancels it.
    pub(crate) async fn build(
        self: &Arc<Self>,
        make: impl FnOnce(BuildId) -> Event<D>,
    ) -> Result<Built<D>, SolveError<D>> {
        let id = self.id();
        let (to, from) = oneshot::channel();
        self.state.lock().replies.insert(id, to);
        let leave = Leave {
            core: self,
            id: Some(id),
        };
        self.apply(make(id));
        let result = from.await.unwrap_or(Err(SolveError::Canceled));
        leave.ended();
        result
    }

    pub(crate) fn with_scheduler<T>(&self, look: impl FnOnce(&Scheduler<D>) -> T) -> T {
        look(&self.state.lock().scheduler)
    }

    pub(crate) fn ctx(self: &Arc<Self>, handle: &Handle<D>) -> OpCtx<D> {
        let (core, digest) = (Arc::downgrade(self), handle.vertex.digest.clone());
        let hints: FindHint<D> = Arc::new(move |is_wanted| {
            core.upgrade()?
                .with_scheduler(|s| s.find_hint(&digest, is_wanted))
        });
        OpCtx {
            vertex: Arc::clone(&handle.vertex),
            sink: Arc::clone(&handle.sink),
            sessions: SessionGroup::live(handle.sessions.subscribe()),
            values: Arc::clone(&handle.values),
            hints: Some(hints),
        }
    }

    fn op(self: &Arc<Self>, handle: &Arc<Handle<D>>) -> Result<Arc<D::Op>, SolveError<D>> {
        let made = handle.op.get_or_init(|| {
            let builder = SubBuilder::new(
                Arc::clone(self),
                Arc::downgrade(handle),
                handle.vertex.digest.clone(),
            );
            self.resolver.resolve(&handle.vertex, builder)
        });
        made.clone().map_err(|error| {
            SolveError::op(&handle.vertex, &handle.client_digest, Phase::Resolve, error)
        })
    }

    async fn work(self: &Arc<Self>, work: Work<D>) -> Outcome<D> {
        match work {
            Work::CacheMap { of, index } => Outcome::CacheMap(self.cache_map(&of, index).await),
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
                    of.sink.completed(Some(&told(error)), false);
                }
                Outcome::Slow(outcome)
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
                            .completed(outcome.as_ref().err().map(told).as_deref(), false);
                        outcome
                    }
                };
                Outcome::Exec(outcome)
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
                Outcome::Load(loaded)
            }
            Work::Save {
                main,
                keys,
                result,
                created_at,
            } => {
                let save = move || {
                    keys.iter()
                        .map(|key| main.save(key, &result, created_at))
                        .collect::<Result<Vec<_>, _>>()
                };
                Outcome::Save(task::blocking("save cache records", save).await)
            }
        }
    }

    async fn cache_map(
        self: &Arc<Self>,
        of: &Arc<Handle<D>>,
        index: usize,
    ) -> Result<(Arc<crate::op::CacheMap<D>>, bool), SolveError<D>> {
        let op = self.op(of)?;
        // An op without inputs works for its key (it asks a registry, a client, …), and is shown to do so.
        let shown = of.vertex.inputs.is_empty();
        if shown {
            of.sink.started(false);
        }
        let end = shown.then(|| EndOnDrop(of));
        let ctx = self.ctx(of);
        let mut outcome = guard(of, Phase::CacheMap, op.cache_map(&ctx, index)).await;
        if let Some(end) = end {
            end.ended();
        }
        if let Ok((map, _)) = &outcome
            && map.deps.len() != of.vertex.inputs.len()
        {
            let (want, got) = (of.vertex.inputs.len(), map.deps.len());
            outcome = Err(SolveError::CacheMapDeps {
                vertex: of.client_digest.clone(),
                want,
                got,
            });
        }
        if shown {
            of.sink
                .completed(outcome.as_ref().err().map(told).as_deref(), false);
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
            let main = Arc::clone(main);
            task::blocking("save cache records", move || {
                loaded.iter().try_for_each(|(key, stored, result)| {
                    main.save(key, result, stored.created_at).map(drop)
                })
            })
            .await?;
        }
        first.ok_or_else(|| KeyStoreError::new("failed to load deleted cache"))
    }
}

/// Runs an op's future, and makes errors and panics the vertex's.
async fn guard<D: Domain, T>(
    of: &Handle<D>,
    phase: Phase,
    run: impl Future<Output = Result<T, OpError>>,
) -> Result<T, SolveError<D>> {
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(done) => {
            done.map_err(|error| SolveError::op(&of.vertex, &of.client_digest, phase, error))
        }
        Err(panic) => Err(SolveError::Panic {
            name: of.vertex.name.clone(),
            message: panic_text(&*panic),
        }),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

/// What is shown at the vertex: the op's own words.
fn told<D: Domain>(error: &SolveError<D>) -> String {
    if let SolveError::Op { error, .. } = error {
        error.to_string()
    } else {
        error.to_string()
    }
}

/// Shows a vertex as canceled when its work is dropped.
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

struct Leave<'a, D: Domain> {
    core: &'a Arc<Core<D>>,
    id: Option<BuildId>,
}

impl<D: Domain> Leave<'_, D> {
    fn ended(mut self) {
        self.id = None;
    }
}

impl<D: Domain> Drop for Leave<'_, D> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.core.state.lock().replies.remove(&id);
            self.core.apply(Event::Leave(id));
        }
    }
}

impl<D: Domain> fmt::Debug for Core<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Core")
    }
}
