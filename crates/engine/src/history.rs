//! What is kept of finished builds: a record, what the build said, why it failed, when its steps ran.
//!
//! Records are rows of the store's index, their blobs are pinned by the name `history:<build>`. A record goes when it is older
//! than the configuration says *and* there are more than it says, unless it is pinned.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::Stream;
use oci::{Descriptor, Digest};
use progress::{Event, Hub, Subscription};
use serde_json::{Value, json};
use store::{Lease, Store};
use task::Permits;

use crate::api::{
    Failure, FailureKind, HistoryCodec, HistoryEvent, HistoryEventKind, HistoryRecord,
};
use crate::history_filter::Filter;

const LOG: &str = "application/vnd.buildkit.status.v0";
const ERROR: &str = "application/vnd.googleapis.google.rpc.status+proto";
const TRACE: &str = "application/vnd.buildkit.otlp.json.v0";
/// The most records that are listed, and that are deleted at a time.
const MOST: u32 = 10_000;
/// Records that are read at a time.
const PAGE: u32 = 16;
/// The most steps in a trace.
const MOST_STEPS: usize = 20_000;
/// The longest log that is replayed.
const LONGEST_LOG: u64 = 64 << 20;

/// How many records are kept, and how long.
#[derive(Debug, Clone)]
pub struct HistorySettings {
    /// So many are kept in any case; zero records nothing.
    pub max_entries: usize,
    /// So long they are kept in any case.
    pub max_age: Duration,
    /// How records are written; without it they stay in memory.
    pub codec: Option<Arc<dyn HistoryCodec>>,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self {
            max_entries: 50,
            max_age: Duration::from_secs(48 * 3600),
            codec: None,
        }
    }
}

/// The records on disk.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    store: Arc<Store>,
    codec: Arc<dyn HistoryCodec>,
    settings: HistorySettings,
    replays: Permits,
}

/// What a build said, counted.
#[derive(Default)]
struct Summary {
    steps: HashMap<Digest, Step>,
    warnings: i32,
}

#[derive(Default)]
struct Step {
    name: String,
    cached: bool,
    error: String,
    started: Option<SystemTime>,
    completed: Option<SystemTime>,
}

impl Summary {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Vertex(v) => {
                let step = self.steps.entry(v.digest.clone()).or_default();
                step.name.clone_from(&v.name);
                step.cached |= v.cached;
                step.error.clone_from(&v.error);
                step.started = v.started.or(step.started);
                step.completed = v.completed.or(step.completed);
            }
            Event::Warning(_) => self.warnings += 1,
            Event::Status(_) | Event::Log(_) => {}
        }
    }

    fn count(&self, which: impl Fn(&Step) -> bool) -> i32 {
        i32::try_from(self.steps.values().filter(|s| which(s)).count()).unwrap_or(i32::MAX)
    }
}

fn unknown(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Unknown, error.to_string())
}

impl Kept {
    /// None if records are not to be kept on disk.
    pub(crate) fn new(store: &Arc<Store>, settings: &HistorySettings) -> Option<Self> {
        let codec = settings
            .codec
            .clone()
            .filter(|_| settings.max_entries > 0)?;
        Some(Self {
            store: Arc::clone(store),
            codec,
            settings: settings.clone(),
            replays: Permits::new(1),
        })
    }

    fn owner(build: &str) -> String {
        format!("history:{build}")
    }

    fn blob(&self, lease: &Lease, kind: &str, bytes: &[u8]) -> Result<Descriptor, Failure> {
        let blob = self.store.put_blob(lease, bytes)?;
        Ok(descriptor(kind, blob.digest, blob.size))
    }

    /// Writes down a build that ended: `said` is all it said, up to its end.
    pub(crate) async fn finish(
        &self,
        mut record: HistoryRecord,
        mut said: Subscription,
    ) -> Result<HistoryRecord, Failure> {
        let lease = self.store.lease();
        let mut writer = self.store.blob_writer(&lease)?;
        let mut summary = Summary::default();
        while let Some(events) = said.next_batch().await {
            for event in &events {
                summary.take(event);
            }
            let codec = Arc::clone(&self.codec);
            writer = task::blocking("write a build's log", move || {
                writer.write_all(&codec.log(events)).map_err(unknown)?;
                Ok::<_, Failure>(writer)
            })
            .await?;
        }
        let kept = self.clone();
        task::blocking("write a build record", move || {
            let log = writer.commit(None)?;
            record.logs = Some(descriptor(LOG, log.digest, log.size));
            record.total_steps = summary.count(|_| true);
            record.cached_steps = summary.count(|s| s.cached);
            record.completed_steps = summary.count(|s| s.completed.is_some());
            record.warnings = summary.warnings;
            if let Some(error) = &mut record.error {
                let encoded = kept.codec.error(error);
                record.external_error = Some(kept.blob(&lease, ERROR, &encoded)?);
                error.details.clear();
            }
            let trace = trace(&record, &summary);
            record.trace = Some(kept.blob(&lease, TRACE, &trace)?);
            let owner = Self::owner(&record.build);
            let blobs = [&record.logs, &record.external_error, &record.trace];
            for blob in blobs.into_iter().flatten() {
                kept.store.pin_blob(&owner, &blob.digest)?;
            }
            for result in record.result.iter().chain(record.results.values()) {
                for blob in result.results.values().chain(&result.attestations) {
                    // What was pushed may not be kept here.
                    if kept.store.blob_info(&blob.digest)?.is_some() {
                        kept.store.pin_blob(&owner, &blob.digest)?;
                    }
                }
            }
            kept.put(&record)?;
            kept.expire(record.completed.unwrap_or(UNIX_EPOCH))?;
            drop(lease);
            Ok(record)
        })
        .await
    }

    fn put(&self, record: &HistoryRecord) -> Result<(), Failure> {
        self.store.put_history(&store::HistoryRecord {
            id: record.build.clone(),
            created: record.created.unwrap_or(UNIX_EPOCH),
            completed: record.completed,
            pinned: record.pinned,
            record: self.codec.record(record),
        })?;
        Ok(())
    }

    /// Deletes what is too old and too much.
    fn expire(&self, now: SystemTime) -> Result<(), Failure> {
        let before = now.checked_sub(self.settings.max_age).unwrap_or(UNIX_EPOCH);
        let keep = u32::try_from(self.settings.max_entries).unwrap_or(u32::MAX);
        for id in self.store.expired_history(keep, before, MOST)? {
            self.store.delete_history(&id)?;
        }
        Ok(())
    }

    /// Builds as events, newest first, read a page at a time: those that are `known` already, and those on disk that are none of
    /// `others` and that the filter wants; only `build`, unless that is empty.
    pub(crate) fn pages(
        &self,
        known: Vec<HistoryEvent>,
        others: HashSet<String>,
        filter: Filter,
        build: String,
    ) -> impl Stream<Item = Result<HistoryEvent, Failure>> + Send + use<> {
        let pages = Pages {
            kept: self.clone(),
            known: known.into(),
            others: Arc::new(others),
            filter: Arc::new(filter),
            build,
            page: VecDeque::new(),
            after: Some(None),
            left: MOST,
        };
        futures::stream::try_unfold(pages, |mut pages| async move {
            Ok(pages.next().await?.map(|event| (event, pages)))
        })
    }

    /// One record.
    pub(crate) async fn get(&self, build: &str) -> Result<Option<HistoryRecord>, Failure> {
        let (kept, build) = (self.clone(), build.to_owned());
        task::blocking("read a build record", move || {
            let row = kept.store.history(&build)?;
            Ok(row.and_then(|row| kept.codec.parse(&row.record)))
        })
        .await
    }

    /// Writes a changed record.
    pub(crate) async fn change(&self, record: HistoryRecord) -> Result<(), Failure> {
        let kept = self.clone();
        task::blocking("write a build record", move || kept.put(&record)).await
    }

    /// Deletes a record; its blobs go with the next collection.
    pub(crate) async fn delete(&self, build: &str) -> Result<(), Failure> {
        let (kept, build) = (self.clone(), build.to_owned());
        task::blocking("delete a build record", move || {
            kept.store.delete_history(&build)?;
            Ok(())
        })
        .await
    }

    /// What a build said, for one who asks now. One after the other: a log is read as a whole.
    pub(crate) async fn replay(&self, record: &HistoryRecord) -> Result<Subscription, Failure> {
        let hub = Hub::new();
        if let Some(log) = record.logs.clone() {
            let _alone = self.replays.acquire().await;
            let (kept, to) = (self.clone(), Arc::clone(&hub));
            task::blocking("read a build's log", move || {
                let bytes = kept.store.read_blob(&log.digest, LONGEST_LOG)?;
                for event in kept.codec.events(&bytes) {
                    to.publish(event);
                }
                Ok::<_, Failure>(())
            })
            .await?;
        }
        hub.close();
        Ok(hub.subscribe())
    }
}

/// Records on their way to one who lists them.
struct Pages {
    kept: Kept,
    known: VecDeque<HistoryEvent>,
    others: Arc<HashSet<String>>,
    filter: Arc<Filter>,
    build: String,
    page: VecDeque<HistoryRecord>,
    /// The last record that was read from disk; none at the end.
    after: Option<Option<(SystemTime, String)>>,
    left: u32,
}

impl Pages {
    async fn next(&mut self) -> Result<Option<HistoryEvent>, Failure> {
        while self.page.is_empty() && self.after.is_some() {
            self.read().await?;
        }
        let newest = self.page.front().map(|record| record.created);
        let is_known = match (self.known.front(), newest) {
            (Some(known), Some(newest)) => known.record.created >= newest,
            (known, _) => known.is_some(),
        };
        if is_known {
            return Ok(self.known.pop_front());
        }
        let record = self.page.pop_front();
        let kind = HistoryEventKind::Complete;
        Ok(record.map(|record| HistoryEvent { kind, record }))
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let Some(after) = self.after.take() else {
            return Ok(());
        };
        if !self.build.is_empty() {
            let found = self.kept.get(&self.build).await?;
            self.page = found.into_iter().filter(|r| self.wants(r)).collect();
            return Ok(());
        }
        let (kept, others, filter) = (
            self.kept.clone(),
            Arc::clone(&self.others),
            Arc::clone(&self.filter),
        );
        let size = PAGE.min(self.left);
        let (page, last) = task::blocking("list build records", move || {
            let after = after.as_ref().map(|(at, id)| (*at, id.as_str()));
            let rows = kept.store.list_history(after, size)?;
            let full = u32::try_from(rows.len()).is_ok_and(|n| n == size);
            let last = rows.last().filter(|_| full);
            let last = last.map(|row| (row.created, row.id.clone()));
            let page: VecDeque<_> = rows
                .iter()
                .filter(|row| !others.contains(&row.id))
                .filter_map(|row| kept.codec.parse(&row.record))
                .filter(|record| filter.fits(record))
                .collect();
            Ok::<_, Failure>((page, last))
        })
        .await?;
        self.page = page;
        self.left -= size;
        self.after = last.filter(|_| self.left > 0).map(Some);
        Ok(())
    }

    fn wants(&self, record: &HistoryRecord) -> bool {
        !self.others.contains(&record.build) && self.filter.fits(record)
    }
}

fn descriptor(kind: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor::new(kind, digest, size)
}

/// The steps of a build as spans, one JSON document a line, in the form of the reference's traces.
fn trace(record: &HistoryRecord, summary: &Summary) -> Vec<u8> {
    let id = Digest::sha256(record.build.as_bytes());
    let trace = id.hex().get(..32).unwrap_or_default();
    let root = id.hex().get(32..48).unwrap_or_default();
    let context = |span: &str| json!({ "TraceID": trace, "SpanID": span, "TraceFlags": "01", "TraceState": "", "Remote": false });
    let nobody = json!({
        "TraceID": "0".repeat(32), "SpanID": "0".repeat(16), "TraceFlags": "00", "TraceState": "", "Remote": false,
    });
    let span = |name: &str, own: &str, parent: Value, step: &Step, attributes: Value| {
        let time = |at: Option<SystemTime>| rfc3339(at.or(record.created).unwrap_or(UNIX_EPOCH));
        let code = if step.error.is_empty() {
            "Unset"
        } else {
            "Error"
        };
        json!({
            "Name": name, "SpanContext": context(own), "Parent": parent, "SpanKind": 1,
            "StartTime": time(step.started), "EndTime": time(step.completed.or(step.started)),
            "Attributes": attributes, "Events": null, "Links": null,
            "Status": { "Code": code, "Description": step.error },
            "DroppedAttributes": 0, "DroppedEvents": 0, "DroppedLinks": 0, "ChildSpanCount": 0,
            "Resource": [{ "Key": "service.name", "Value": { "Type": "STRING", "Value": "rbuildd" } }],
            "InstrumentationLibrary": { "Name": "rbuild", "Version": "", "SchemaURL": "", "Attributes": null },
        })
    };
    let mut out = Vec::new();
    let mut line = |span: &Value| {
        out.extend_from_slice(span.to_string().as_bytes());
        out.push(b'\n');
    };
    let whole = Step {
        started: record.created,
        completed: record.completed,
        ..Step::default()
    };
    line(&span(
        "moby.buildkit.v1.Control/Solve",
        root,
        nobody,
        &whole,
        Value::Null,
    ));
    let mut steps: Vec<(&Digest, &Step)> = summary
        .steps
        .iter()
        .filter(|(_, step)| step.started.is_some())
        .collect();
    steps.sort_by_key(|(digest, step)| (step.started, digest.as_str().to_owned()));
    for (digest, step) in steps.into_iter().take(MOST_STEPS) {
        let own = digest.hex().get(..16).unwrap_or_default();
        let vertex =
            json!([{ "Key": "vertex", "Value": { "Type": "STRING", "Value": digest.as_str() } }]);
        line(&span(&step.name, own, context(root), step, vertex));
    }
    out
}

/// A time in the form of RFC 3339. The calendar repeats every 400 years.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // From the first of March of the year zero, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_700_000_001), "2023-11-14T22:13:21.000000000Z");
    }
}
