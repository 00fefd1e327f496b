//! Which builds there are and were.
//!
//! Builds that run, and the last that ended, are in memory, with what they said. All that ended are on disk (see
//! [`crate::history`]), unless the daemon was told to keep none.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use progress::{Hub, Subscription};
use task::Clock;
use tokio::sync::{broadcast, watch};

use crate::api::{
    Failure, FailureKind, HistoryChange, HistoryEvent, HistoryEventKind, HistoryQuery,
    HistoryRecord, HistoryResult, SolveRequest, SolveResponse,
};
use crate::history::Kept;
use crate::history_filter::Filter;
use crate::recorded;

/// Finished builds that are remembered, beside those on disk.
const KEPT: usize = 16;
/// How long a status waits for its build.
const APPEAR: Duration = Duration::from_secs(6);
/// Events that a slow listener may be behind.
const BEHIND: usize = 256;

type Event = Result<HistoryEvent, Failure>;

struct Entry {
    record: HistoryRecord,
    hub: Arc<Hub>,
    internal: bool,
    /// It is on disk.
    stored: bool,
}

impl Entry {
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

/// The builds, oldest first.
pub(crate) struct Records {
    entries: Mutex<VecDeque<Entry>>,
    events: broadcast::Sender<HistoryEvent>,
    changed: watch::Sender<()>,
    clock: Clock,
    kept: Option<Kept>,
    enabled: bool,
}

impl Records {
    pub(crate) fn new(clock: Clock, kept: Option<Kept>, enabled: bool) -> Self {
        Self {
            kept,
            enabled,
            entries: Mutex::default(),
            events: broadcast::Sender::new(BEHIND),
            changed: watch::Sender::new(()),
            clock,
        }
    }

    /// Registers a build that begins; its name must not be in use.
    pub(crate) fn begin(&self, request: &SolveRequest) -> Result<Arc<Hub>, Failure> {
        recorded::check_name(&request.build)?;
        let hub = Hub::new();
        let record = HistoryRecord {
            created: Some(self.clock.system()),
            ..recorded::begun(request)
        };
        let entry = Entry {
            record,
            hub: Arc::clone(&hub),
            internal: request.internal || !self.enabled,
            stored: false,
        };
        let event = (!entry.internal).then(|| entry.event());
        {
            let mut entries = self.entries.lock();
            if entries
                .iter()
                .any(|e| e.is_running() && e.record.build == request.build)
            {
                return Err(Failure::new(
                    FailureKind::Unknown,
                    format!("job ID {} exists", request.build),
                ));
            }
            entries.retain(|e| e.record.build != request.build);
            entries.push_back(entry);
            let mut extra = entries
                .iter()
                .filter(|e| !e.is_running() && !e.record.pinned)
                .count()
                .saturating_sub(KEPT);
            entries.retain(|e| {
                let goes = extra > 0 && !e.is_running() && !e.record.pinned;
                extra -= usize::from(goes);
                !goes
            });
        }
        self.changed.send_replace(());
        if let Some(event) = event {
            let _nobody_listens = self.events.send(event);
        }
        Ok(hub)
    }

    /// Records how a build ended, with what its exporters made.
    pub(crate) async fn finish(
        &self,
        build: &str,
        outcome: Result<&SolveResponse, &Failure>,
        (result, results): (HistoryResult, BTreeMap<String, HistoryResult>),
    ) {
        let (mut record, hub, internal) = {
            let mut entries = self.entries.lock();
            let found = entries
                .iter_mut()
                .find(|e| e.is_running() && e.record.build == build);
            let Some(entry) = found else {
                return;
            };
            let record = &mut entry.record;
            record.completed = Some(self.clock.system());
            record.generation += 1;
            match outcome {
                Ok(response) => {
                    record.exporter_response = recorded::answered(&response.exporter_response);
                    record.result = Some(result);
                    record.results = results;
                }
                Err(failure) => record.error = Some(recorded::failed(failure)),
            }
            entry.hub.close();
            (entry.record.clone(), Arc::clone(&entry.hub), entry.internal)
        };
        if internal {
            return;
        }
        let mut stored = false;
        if let Some(kept) = &self.kept {
            match kept.finish(record.clone(), hub.subscribe()).await {
                Ok(written) => (record, stored) = (written, true),
                Err(error) => tracing::warn!(%error, build, "the build's record is not kept"),
            }
        }
        {
            let mut entries = self.entries.lock();
            let found = entries.iter_mut().find(|e| e.record.build == build);
            if let Some(entry) = found.filter(|e| Arc::ptr_eq(&e.hub, &hub)) {
                entry.record = record.clone();
                entry.stored = stored;
            }
        }
        let _nobody_listens = self.events.send(HistoryEvent {
            kind: HistoryEventKind::Complete,
            record,
        });
    }

    /// What a build says; waits a little for a build that has not begun.
    pub(crate) async fn status(&self, build: &str) -> Result<Subscription, Failure> {
        let mut changed = self.changed.subscribe();
        let mut look = async || loop {
            changed.borrow_and_update();
            let hub = self
                .entries
                .lock()
                .iter()
                .find(|e| e.record.build == build)
                .map(|e| Arc::clone(&e.hub));
            if let Some(hub) = hub {
                return Some(hub.subscribe());
            }
            changed.changed().await.ok()?;
        };
        if self.entries.lock().iter().all(|e| e.record.build != build)
            && let Some(kept) = &self.kept
            && let Some(record) = kept.get(build).await?
        {
            return kept.replay(&record).await;
        }
        let found = tokio::select! {
            found = look() => found,
            () = self.clock.sleep(APPEAR) => None,
        };
        found.ok_or_else(|| Failure::new(FailureKind::Unknown, format!("no such job {build}")))
    }

    /// Builds as events, then, unless the query ends early, what happens to them.
    pub(crate) async fn listen(
        &self,
        query: &HistoryQuery,
    ) -> Result<BoxStream<'static, Event>, Failure> {
        let filter = Filter::parse(&query.filters, self.clock.system())?;
        let live = self.events.subscribe();
        let wanted = |event: &HistoryEvent| {
            (query.build.is_empty() || event.record.build == query.build)
                && (!query.active_only || event.kind == HistoryEventKind::Started)
                && (event.kind == HistoryEventKind::Started || filter.fits(&event.record))
        };
        let mut known: Vec<HistoryEvent> = {
            let entries = self.entries.lock();
            let shown = entries.iter().filter(|e| !e.internal && !e.stored);
            shown.map(Entry::event).collect()
        };
        let others: HashSet<String> = known.iter().map(|e| e.record.build.clone()).collect();
        known.retain(wanted);
        known.sort_by_key(|e| std::cmp::Reverse(e.record.created));
        let limit = match usize::try_from(query.limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        let known = match self.kept.as_ref().filter(|_| !query.active_only) {
            Some(kept) => kept
                .pages(known, others, filter, query.build.clone())
                .take(limit)
                .boxed(),
            None => stream::iter(known.into_iter().map(Ok)).take(limit).boxed(),
        };
        if query.early_exit {
            return Ok(known);
        }
        let active_only = query.active_only;
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
        Ok(known.chain(live.map(Ok)).boxed())
    }

    /// Changes a record.
    pub(crate) async fn update(&self, build: &str, change: HistoryChange) -> Result<(), Failure> {
        if change == HistoryChange::Finalize {
            // All is written when a build ends.
            return Ok(());
        }
        let stored = match &self.kept {
            Some(kept) => kept.get(build).await?,
            None => None,
        };
        let in_memory = {
            let entries = self.entries.lock();
            let mut ended = entries.iter().filter(|e| !e.is_running() && !e.internal);
            ended
                .find(|e| e.record.build == build)
                .map(|e| e.record.clone())
        };
        let missing = || {
            Failure::new(
                FailureKind::NotFound,
                format!("failed to retrieve bucket {build}: not found"),
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
        if let Some(kept) = self.kept.as_ref().filter(|_| is_stored) {
            match change {
                HistoryChange::Delete => kept.delete(build).await?,
                HistoryChange::Pin(_) | HistoryChange::Finalize => {
                    kept.change(record.clone()).await?;
                }
            }
        }
        {
            let mut entries = self.entries.lock();
            if change == HistoryChange::Delete {
                entries.retain(|e| e.is_running() || e.record.build != build);
            } else if let Some(entry) = entries.iter_mut().find(|e| e.record.build == build) {
                entry.record = record.clone();
            }
        }
        let _nobody_listens = self.events.send(HistoryEvent { kind, record });
        Ok(())
    }
}
