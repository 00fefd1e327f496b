//! Which builds there are and were.
//!
//! DIFFERS: records live in memory, the last [`KEPT`] of them; they are gone when the daemon stops.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use progress::{Hub, Subscription};
use task::Clock;
use tokio::sync::{broadcast, watch};

use crate::api::{
    Failure, FailureKind, HistoryChange, HistoryEvent, HistoryEventKind, HistoryQuery,
    HistoryRecord, SolveRequest, SolveResponse,
};

/// Finished builds that are remembered.
const KEPT: usize = 64;
/// How long a status waits for its build.
const APPEAR: Duration = Duration::from_secs(6);
/// Events that a slow listener may be behind.
const BEHIND: usize = 256;

type Event = Result<HistoryEvent, Failure>;

struct Entry {
    record: HistoryRecord,
    hub: Arc<Hub>,
    internal: bool,
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
}

/// Removes what could be a credential.
fn attrs(
    attrs: &std::collections::BTreeMap<String, String>,
) -> std::collections::BTreeMap<String, String> {
    let secret = |key: &str| {
        let key = key.to_lowercase();
        ["token", "secret", "password", "access_key", "session_token"]
            .iter()
            .any(|word| key.contains(word))
    };
    attrs
        .iter()
        .filter(|(key, _)| !secret(key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

impl Records {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            entries: Mutex::default(),
            events: broadcast::Sender::new(BEHIND),
            changed: watch::Sender::new(()),
            clock,
        }
    }

    /// Registers a build that begins; its name must not be in use.
    pub(crate) fn begin(&self, request: &SolveRequest) -> Result<Arc<Hub>, Failure> {
        let hub = Hub::new();
        let record = HistoryRecord {
            build: request.build.clone(),
            frontend: request.frontend.clone(),
            frontend_attrs: attrs(&request.frontend_opts),
            exporters: request
                .exporters
                .iter()
                .map(|e| crate::api::ExporterSpec {
                    kind: e.kind.clone(),
                    attrs: attrs(&e.attrs),
                })
                .collect(),
            created: Some(self.clock.system()),
            generation: 1,
            ..HistoryRecord::default()
        };
        let entry = Entry {
            record,
            hub: Arc::clone(&hub),
            internal: request.internal,
        };
        let event = (!request.internal).then(|| entry.event());
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

    /// Records how a build ended.
    pub(crate) fn finish(&self, build: &str, outcome: Result<&SolveResponse, &Failure>) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries
            .iter_mut()
            .find(|e| e.is_running() && e.record.build == build)
        else {
            return;
        };
        entry.record.completed = Some(self.clock.system());
        entry.record.generation += 1;
        match outcome {
            Ok(response) => entry
                .record
                .exporter_response
                .clone_from(&response.exporter_response),
            Err(failure) => entry.record.error = Some(failure.clone()),
        }
        entry.hub.close();
        let event = (!entry.internal).then(|| entry.event());
        drop(entries);
        if let Some(event) = event {
            let _nobody_listens = self.events.send(event);
        }
    }

    /// What a build says; waits a little for a build that has not begun.
    pub(crate) async fn status(&self, build: &str) -> Result<Subscription, Failure> {
        let mut changed = self.changed.subscribe();
        let found = async {
            loop {
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
            }
        };
        let found = tokio::select! {
            found = found => found,
            () = self.clock.sleep(APPEAR) => None,
        };
        found.ok_or_else(|| Failure::new(FailureKind::Unknown, format!("no such job {build}")))
    }

    /// Builds as events, then, unless the query ends early, what happens to them.
    pub(crate) fn listen(
        &self,
        query: &HistoryQuery,
    ) -> Result<BoxStream<'static, Event>, Failure> {
        if !query.filters.is_empty() {
            return Err(Failure::not_built("filtering build records"));
        }
        let live = self.events.subscribe();
        let (build, active_only) = (query.build.clone(), query.active_only);
        let wanted = move |event: &HistoryEvent| {
            (build.is_empty() || event.record.build == build)
                && (!active_only || event.kind == HistoryEventKind::Started)
        };
        let mut known: Vec<HistoryEvent> = self
            .entries
            .lock()
            .iter()
            .filter(|e| !e.internal)
            .map(Entry::event)
            .filter(|e| wanted(e))
            .collect();
        known.sort_by_key(|e| std::cmp::Reverse(e.record.created));
        if query.limit > 0 {
            known.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
        }
        let known = stream::iter(known.into_iter().map(Ok));
        if query.early_exit {
            return Ok(known.boxed());
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
    pub(crate) fn update(&self, build: &str, change: HistoryChange) -> Result<(), Failure> {
        let mut entries = self.entries.lock();
        let at = entries
            .iter()
            .position(|e| e.record.build == build && !e.is_running());
        let missing = || {
            Failure::new(
                FailureKind::NotFound,
                format!("failed to retrieve bucket {build}: not found"),
            )
        };
        let entry = at.and_then(|at| entries.get_mut(at)).ok_or_else(missing)?;
        entry.record.generation += 1;
        let event = match change {
            HistoryChange::Pin(pinned) => {
                entry.record.pinned = pinned;
                entry.event()
            }
            HistoryChange::Finalize => entry.event(),
            HistoryChange::Delete => {
                let event = HistoryEvent {
                    kind: HistoryEventKind::Deleted,
                    ..entry.event()
                };
                entries.retain(|e| e.record.build != build);
                event
            }
        };
        drop(entries);
        let _nobody_listens = self.events.send(event);
        Ok(())
    }
}
