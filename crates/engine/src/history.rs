//! Records of running and finished builds.
//!
//! Running builds and the last finished ones are in memory, with their progress. All finished ones are on disk (see [`store`]),
//! unless the daemon is configured to keep none.
//!
//! | module | what it does |
//! |---|---|
//! | [`store`] | records on disk, with their logs and traces |
//! | [`trace`] | the steps of a build, counted and as spans |
//! | [`filter`] | filters of clients on records |
//! | [`redact`] | limits of a record, and redaction of credentials |
//!
//! A record that was opened is closed exactly once: by [`OpenRecord::finish`], or as cancelled when the [`OpenRecord`] is dropped.
//! Closing continues when its caller is gone, and [`History::close`] waits for it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use metrics::{BuildOutcome, StepKind};
use parking_lot::Mutex;
use progress::{Hub, Subscription};
use task::Clock;
use tokio::sync::{broadcast, watch};

use crate::api::{
    BuildRef, Failure, FailureKind, HistoryChange, HistoryEnd, HistoryEvent, HistoryEventKind,
    HistoryQuery, HistoryRecord, HistoryResult, HistoryScope, Recording, RunningBuild,
    SolveRequest, Span,
};
use crate::spans::BuildTrace;

mod filter;
mod redact;
mod store;
mod trace;

use filter::RecordFilter;
pub use store::HistorySettings;
use store::RecordStore;

/// Finished builds that stay in memory, beside those on disk.
const MAX_FINISHED_IN_MEMORY: usize = 16;
/// How long a status call waits for its build to start.
const BUILD_WAIT_TIMEOUT: Duration = Duration::from_secs(6);
/// Events that a slow listener may lag behind before it misses some.
const MAX_EVENTS_BEHIND: usize = 256;

/// Answer to builds that arrive while the daemon stops.
const STOPPING: &str =
    "the daemon is stopping and takes no more builds: try again when it is back, or at another one";

type Event = Result<HistoryEvent, Failure>;

/// A build in memory.
struct Build {
    record: HistoryRecord,
    hub: Arc<Hub>,
    is_internal: bool,
    is_stored: bool,
    trace: Arc<BuildTrace>,
}

impl Build {
    fn is_running(&self) -> bool {
        self.record.completed.is_none()
    }

    fn event(&self) -> HistoryEvent {
        let kind = if self.is_running() {
            HistoryEventKind::Started
        } else {
            HistoryEventKind::Complete
        };
        HistoryEvent {
            kind,
            record: self.record.clone(),
        }
    }
}

/// The results of a build as its record has them.
#[derive(Debug, Default)]
pub(crate) struct BuildResults {
    /// The answers of the exporters, by key.
    pub(crate) response: BTreeMap<String, String>,
    /// The descriptors that exporters wrote, and the attestations of a single result.
    pub(crate) single: HistoryResult,
    /// The attestations of each result, by platform.
    pub(crate) by_platform: BTreeMap<String, HistoryResult>,
}

/// The builds, oldest first.
pub(crate) struct History {
    builds: Mutex<VecDeque<Build>>,
    events: broadcast::Sender<HistoryEvent>,
    changed: watch::Sender<()>,
    /// Records that were opened and are not closed yet.
    open: watch::Sender<usize>,
    /// True once no build may start.
    is_draining: watch::Sender<bool>,
    /// True once running builds have to end.
    is_closing: watch::Sender<bool>,
    clock: Clock,
    store: Option<RecordStore>,
    is_enabled: bool,
}

/// The record of a running build. Dropping it closes the record as cancelled.
pub(crate) struct OpenRecord {
    history: Arc<History>,
    build: BuildRef,
    hub: Arc<Hub>,
    trace: Arc<BuildTrace>,
    counted: Option<OpenCount>,
    _active: metrics::GaugeGuard,
}

/// Counts an open record until it is dropped.
struct OpenCount(watch::Sender<usize>);

impl OpenCount {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count += 1);
        Self(open.clone())
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl OpenRecord {
    /// The hub of the build's progress.
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The build's trace.
    pub(crate) fn trace(&self) -> &Arc<BuildTrace> {
        &self.trace
    }

    /// Resolves when the build is to end because the daemon stops.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut is_closing = self.history.is_closing.subscribe();
        async move {
            if is_closing.wait_for(|closing| *closing).await.is_err() {
                // The history has been dropped, so it will not close.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Closes the record. It is written also if this future is dropped; `held` is dropped when it is.
    pub(crate) async fn finish<H: Send + 'static>(
        mut self,
        outcome: Result<BuildResults, Failure>,
        held: H,
    ) {
        let Some(counted) = self.counted.take() else {
            return;
        };
        let (history, build) = (Arc::clone(&self.history), std::mem::take(&mut self.build));
        let work = async move {
            history.finish(&build, outcome).await;
            drop((held, counted));
        };
        task::uncancellable("record a build", work).await;
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let Some(counted) = self.counted.take() else {
            return;
        };
        // The client left; the record is written all the same.
        let (history, build) = (Arc::clone(&self.history), std::mem::take(&mut self.build));
        let work = async move {
            let canceled = Failure::new(FailureKind::Canceled, "context canceled");
            history.finish(&build, Err(canceled)).await;
            drop(counted);
        };
        task::spawn("record a cancelled build", work).detach();
    }
}

impl History {
    /// Starts without builds in memory; those in `store` remain. Without a store, records stay in memory only.
    pub(crate) fn new(
        clock: Clock,
        store: &Arc<::store::Store>,
        settings: &HistorySettings,
    ) -> Arc<Self> {
        Arc::new(Self {
            store: RecordStore::new(store, settings),
            is_enabled: settings.max_entries > 0,
            builds: Mutex::default(),
            events: broadcast::Sender::new(MAX_EVENTS_BEHIND),
            changed: watch::Sender::new(()),
            open: watch::Sender::new(0),
            is_draining: watch::Sender::new(false),
            is_closing: watch::Sender::new(false),
            clock,
        })
    }

    /// Ends the running builds, refuses new ones, and waits until the records of all are written. The owner of an
    /// [`OpenRecord`] must heed [`OpenRecord::closing`].
    pub(crate) async fn close(&self) {
        self.refuse();
        self.is_closing.send_replace(true);
        self.idle().await;
    }

    /// Refuses builds from now on; those that run go on.
    pub(crate) fn refuse(&self) {
        self.is_draining.send_replace(true);
    }

    /// Whether builds are refused.
    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.is_draining.subscribe()
    }

    /// The builds that run, oldest first.
    pub(crate) fn running(&self) -> Vec<RunningBuild> {
        let builds = self.builds.lock();
        let running = builds.iter().filter(|build| build.is_running());
        running
            .map(|build| RunningBuild {
                build: build.record.build.clone(),
                frontend: build.record.frontend.clone(),
                started: build.record.created,
            })
            .collect()
    }

    /// Adds what a program of a step sent to the trace of its build. False if it is of no running build, or if there is no room for it.
    pub(crate) fn add_step_spans(&self, spans: Vec<Span>) -> bool {
        let Some(id) = spans.first().map(|span| span.trace) else {
            return true;
        };
        // A program that does what it was told has one trace.
        if spans.iter().any(|span| span.trace != id) {
            return false;
        }
        let trace = {
            let builds = self.builds.lock();
            let build = builds
                .iter()
                .find(|build| build.is_running() && build.trace.id() == id);
            build.map(|build| Arc::clone(&build.trace))
        };
        trace.is_some_and(|trace| trace.add(spans))
    }

    /// Waits until the records of all builds are closed.
    pub(crate) async fn idle(&self) {
        let mut open = self.open.subscribe();
        if open.wait_for(|count| *count == 0).await.is_err() {
            tracing::debug!("the sender of the open records' count was dropped");
        }
    }

    /// Opens the record of a build that starts; its name must not be in use.
    pub(crate) fn begin(self: &Arc<Self>, request: &SolveRequest) -> Result<OpenRecord, Failure> {
        redact::check_name(&request.build)?;
        // The record is counted before the check: either closing waits for it, or it sees that the history closes.
        let counted = OpenCount::new(&self.open);
        if *self.is_draining.borrow() {
            metrics::BUILDS_REFUSED.add(metrics::NoLabels, 1);
            return Err(Failure::new(FailureKind::Unavailable, STOPPING));
        }
        let hub = Hub::new();
        let trace = BuildTrace::new(request.build.as_str(), request.trace, self.clock.clone());
        let record = HistoryRecord {
            created: Some(self.clock.system()),
            ..redact::prepare(request)
        };
        let build = Build {
            record,
            hub: Arc::clone(&hub),
            is_internal: request.recording == Recording::Internal || !self.is_enabled,
            is_stored: false,
            trace: Arc::clone(&trace),
        };
        let event = (!build.is_internal).then(|| build.event());
        {
            let mut builds = self.builds.lock();
            if builds
                .iter()
                .any(|b| b.is_running() && b.record.build == request.build)
            {
                return Err(Failure::new(
                    FailureKind::Unknown,
                    format!("job ID {} exists", request.build),
                ));
            }
            builds.retain(|b| b.record.build != request.build);
            builds.push_back(build);
            let mut extra = builds
                .iter()
                .filter(|b| !b.is_running() && !b.record.pinned)
                .count()
                .saturating_sub(MAX_FINISHED_IN_MEMORY);
            builds.retain(|b| {
                let goes = extra > 0 && !b.is_running() && !b.record.pinned;
                extra -= usize::from(goes);
                !goes
            });
        }
        self.changed.send_replace(());
        if let Some(event) = event {
            let _nobody_listens = self.events.send(event);
        }
        Ok(OpenRecord {
            history: Arc::clone(self),
            build: request.build.clone(),
            hub,
            trace,
            counted: Some(counted),
            _active: metrics::BUILDS_ACTIVE.enter(metrics::NoLabels),
        })
    }

    /// Records how a build ended.
    async fn finish(&self, name: &BuildRef, outcome: Result<BuildResults, Failure>) {
        let (mut record, hub, is_internal, trace) = {
            let mut builds = self.builds.lock();
            let running = builds
                .iter_mut()
                .find(|b| b.is_running() && b.record.build == *name);
            let Some(build) = running else {
                return;
            };
            let record = &mut build.record;
            record.completed = Some(self.clock.system());
            count_end(record, outcome.as_ref().err());
            record.generation += 1;
            match outcome {
                Ok(results) => {
                    record.exporter_response = redact::redact_response(&results.response);
                    record.result = Some(results.single);
                    record.results = results.by_platform;
                }
                Err(failure) => record.error = Some(redact::redact_failure(&failure)),
            }
            build.hub.close();
            (
                build.record.clone(),
                Arc::clone(&build.hub),
                build.is_internal,
                Arc::clone(&build.trace),
            )
        };
        if is_internal {
            return;
        }
        let mut is_stored = false;
        if let Some(store) = &self.store {
            match store.finish(record.clone(), hub.subscribe(), trace).await {
                Ok(written) => {
                    count_steps(&written);
                    (record, is_stored) = (written, true);
                }
                Err(error) => {
                    tracing::warn!(%error, build = %name, "failed to write the build's record");
                }
            }
        }
        {
            let mut builds = self.builds.lock();
            let build = builds.iter_mut().find(|b| b.record.build == *name);
            if let Some(build) = build.filter(|b| Arc::ptr_eq(&b.hub, &hub)) {
                build.record = record.clone();
                build.is_stored = is_stored;
            }
        }
        let _nobody_listens = self.events.send(HistoryEvent {
            kind: HistoryEventKind::Complete,
            record,
        });
    }

    /// Subscribes to the progress of a build; waits a little for a build that has not started.
    pub(crate) async fn status(&self, build: &BuildRef) -> Result<Subscription, Failure> {
        let mut changed = self.changed.subscribe();
        let mut look = async || loop {
            changed.borrow_and_update();
            let hub = self
                .builds
                .lock()
                .iter()
                .find(|e| e.record.build == *build)
                .map(|e| Arc::clone(&e.hub));
            if let Some(hub) = hub {
                return Some(hub.subscribe());
            }
            changed.changed().await.ok()?;
        };
        if self.builds.lock().iter().all(|e| e.record.build != *build)
            && let Some(store) = &self.store
            && let Some(record) = store.get(build).await?
        {
            return store.replay(&record).await;
        }
        let hub = tokio::select! {
            hub = look() => hub,
            () = self.clock.sleep(BUILD_WAIT_TIMEOUT) => None,
        };
        hub.ok_or_else(|| Failure::new(FailureKind::Unknown, format!("no such job {build}")))
    }

    /// Lists builds as events, then follows changes of their records unless the query ends after the list.
    pub(crate) async fn listen(
        &self,
        query: &HistoryQuery,
    ) -> Result<BoxStream<'static, Event>, Failure> {
        let filter = RecordFilter::parse(&query.filters, self.clock.system())?;
        let live = self.events.subscribe();
        let active_only = query.scope == HistoryScope::Active;
        let is_listed = |event: &HistoryEvent| {
            (query.build.is_empty() || event.record.build == query.build)
                && (!active_only || event.kind == HistoryEventKind::Started)
                && (event.kind == HistoryEventKind::Started || filter.fits(&event.record))
        };
        let mut in_memory: Vec<HistoryEvent> = {
            let builds = self.builds.lock();
            let listed = builds.iter().filter(|e| !e.is_internal && !e.is_stored);
            listed.map(Build::event).collect()
        };
        let in_memory_names: HashSet<BuildRef> =
            in_memory.iter().map(|e| e.record.build.clone()).collect();
        in_memory.retain(is_listed);
        in_memory.sort_by_key(|e| std::cmp::Reverse(e.record.created));
        let limit = match usize::try_from(query.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        let list = match self.store.as_ref().filter(|_| !active_only) {
            Some(store) => store
                .pages(in_memory, in_memory_names, filter, query.build.clone())
                .take(limit)
                .boxed(),
            None => stream::iter(in_memory.into_iter().map(Ok))
                .take(limit)
                .boxed(),
        };
        if query.end == HistoryEnd::AfterList {
            return Ok(list);
        }
        let build = query.build.clone();
        let live = stream::unfold(live, |mut live| async move {
            loop {
                match live.recv().await {
                    Ok(event) => return Some((event, live)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        let live = live.filter(move |event| {
            let fits = (build.is_empty() || event.record.build == build)
                && (!active_only || event.kind != HistoryEventKind::Deleted);
            futures::future::ready(fits)
        });
        Ok(list.chain(live.map(Ok)).boxed())
    }

    /// Changes a record.
    pub(crate) async fn update(
        &self,
        name: &BuildRef,
        change: HistoryChange,
    ) -> Result<(), Failure> {
        if change == HistoryChange::Finalize {
            // Everything is on disk already when a build ends.
            return Ok(());
        }
        let stored = match &self.store {
            Some(store) => store.get(name).await?,
            None => None,
        };
        let in_memory = {
            let builds = self.builds.lock();
            let mut finished = builds.iter().filter(|e| !e.is_running() && !e.is_internal);
            finished
                .find(|e| e.record.build == *name)
                .map(|e| e.record.clone())
        };
        let missing = || {
            Failure::new(
                FailureKind::NotFound,
                format!("failed to retrieve bucket {name}: not found"),
            )
        };
        let is_stored = stored.is_some();
        let mut record = stored.or(in_memory).ok_or_else(missing)?;
        record.generation += 1;
        let kind = match change {
            HistoryChange::Pin(pinned) => {
                record.pinned = pinned;
                HistoryEventKind::Complete
            }
            HistoryChange::Finalize => HistoryEventKind::Complete,
            HistoryChange::Delete => HistoryEventKind::Deleted,
        };
        if let Some(store) = self.store.as_ref().filter(|_| is_stored) {
            match change {
                HistoryChange::Delete => store.delete(name).await?,
                HistoryChange::Pin(_) | HistoryChange::Finalize => {
                    store.change(record.clone()).await?;
                }
            }
        }
        {
            let mut builds = self.builds.lock();
            if change == HistoryChange::Delete {
                builds.retain(|e| e.is_running() || e.record.build != *name);
            } else if let Some(build) = builds.iter_mut().find(|e| e.record.build == *name) {
                build.record = record.clone();
            }
        }
        let _nobody_listens = self.events.send(HistoryEvent { kind, record });
        Ok(())
    }
}

/// Counts a build that ended.
fn count_end(record: &HistoryRecord, failure: Option<&Failure>) {
    let outcome = failure.map_or(BuildOutcome::Success, |failure| match failure.kind {
        FailureKind::Unknown => BuildOutcome::Unknown,
        FailureKind::Canceled => BuildOutcome::Canceled,
        FailureKind::InvalidArgument => BuildOutcome::InvalidArgument,
        FailureKind::DeadlineExceeded => BuildOutcome::DeadlineExceeded,
        FailureKind::NotFound => BuildOutcome::NotFound,
        FailureKind::AlreadyExists => BuildOutcome::AlreadyExists,
        FailureKind::PermissionDenied => BuildOutcome::PermissionDenied,
        FailureKind::ResourceExhausted => BuildOutcome::ResourceExhausted,
        FailureKind::Unimplemented => BuildOutcome::Unimplemented,
        FailureKind::Internal => BuildOutcome::Internal,
        FailureKind::Unavailable => BuildOutcome::Unavailable,
    });
    metrics::BUILDS.add(outcome, 1);
    if let (Some(created), Some(completed)) = (record.created, record.completed) {
        // If the clock was set back, the duration is unknown.
        let took = completed.duration_since(created).unwrap_or_default();
        metrics::BUILD_DURATION.observe(outcome.status(), took);
    }
}

/// Counts the steps of a finished build, from the summary of its log.
fn count_steps(record: &HistoryRecord) {
    for (kind, count) in [
        (StepKind::Completed, record.completed_steps),
        (StepKind::Cached, record.cached_steps),
        (StepKind::Total, record.total_steps),
        (StepKind::Warnings, record.warnings),
    ] {
        metrics::BUILDS_STEPS.add(kind, u64::try_from(count).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests;
