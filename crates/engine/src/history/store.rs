//! Records of finished builds on disk: a row, and blobs for the log, the failure and the spans.
//!
//! Records are rows of the store's index, their blobs are pinned by the name `history:<build>`. A record expires when it is older
//! than the configured age *and* there are more records than the configured number, unless it is pinned.

use std::collections::{HashSet, VecDeque};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::Stream;
use oci::{Descriptor, Digest, ErrorKind};
use progress::{Hub, Subscription};
use store::{Lease, Store};
use task::Permits;

use super::filter::RecordFilter;
use super::trace::{Summary, json_lines};
use crate::api::{
    BuildRef, Failure, HistoryCodec, HistoryEvent, HistoryEventKind, HistoryRecord, SpanSink,
};
use crate::spans::BuildTrace;

const LOG_TYPE: &str = "application/vnd.buildkit.status.v0";
const ERROR_TYPE: &str = "application/vnd.googleapis.google.rpc.status+proto";
const TRACE_TYPE: &str = "application/vnd.buildkit.otlp.json.v0";
/// Number of records that are listed at most, and deleted at a time.
const MAX_RECORDS: u32 = 10_000;
/// Number of records that are read at a time.
const PAGE_RECORDS: u32 = 16;
/// Size limit of a log that is replayed, in bytes.
const MAX_LOG_BYTES: u64 = 64 << 20;

/// How many records are kept, and for how long. A record expires when it exceeds both limits.
#[derive(Debug, Clone)]
pub struct HistorySettings {
    /// Number of newest records that are kept regardless of age; zero records nothing.
    pub max_entries: usize,
    /// Age up to which records are kept regardless of their number.
    pub max_age: Duration,
    /// Encodes records; without it they stay in memory.
    pub codec: Option<Arc<dyn HistoryCodec>>,
    /// Takes the spans of builds that have a record, and those of clients; none drops them.
    pub spans: Option<Arc<dyn SpanSink>>,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self {
            max_entries: 50,
            max_age: Duration::from_secs(48 * 3600),
            codec: None,
            spans: None,
        }
    }
}

/// The records on disk.
#[derive(Debug, Clone)]
pub(crate) struct RecordStore {
    store: Arc<Store>,
    codec: Arc<dyn HistoryCodec>,
    settings: HistorySettings,
    replays: Permits,
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::of_build(ErrorKind::of_host(&error), error)
}

impl RecordStore {
    /// None if no records are to be kept on disk.
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

    fn owner(build: &BuildRef) -> String {
        format!("history:{build}")
    }

    fn blob(&self, lease: &Lease, kind: &str, bytes: &[u8]) -> Result<Descriptor, Failure> {
        let blob = self.store.put_blob(lease, bytes)?;
        Ok(descriptor(kind, blob.digest, blob.size))
    }

    /// Writes the record of a finished build; `progress` has all its events, up to the last one.
    pub(crate) async fn finish(
        &self,
        mut record: HistoryRecord,
        mut progress: Subscription,
        trace: Arc<BuildTrace>,
    ) -> Result<HistoryRecord, Failure> {
        let lease = self.store.lease();
        let mut writer = self.store.blob_writer(&lease)?;
        let mut summary = Summary::default();
        while let Some(events) = progress.next_batch().await {
            for event in &events {
                summary.take(event);
            }
            let codec = Arc::clone(&self.codec);
            writer = task::blocking("write a build's log", move || {
                writer.write_all(&codec.log(events)).map_err(unwritten)?;
                Ok::<_, Failure>(writer)
            })
            .await?;
        }
        let records = self.clone();
        task::blocking("write a build record", move || {
            let log = writer.commit(None)?;
            record.logs = Some(descriptor(LOG_TYPE, log.digest, log.size));
            record.total_steps = summary.total();
            record.cached_steps = summary.cached();
            record.completed_steps = summary.completed();
            record.warnings = summary.warnings;
            if let Some(error) = &mut record.error {
                let encoded = records.codec.error(error);
                record.external_error = Some(records.blob(&lease, ERROR_TYPE, &encoded)?);
                error.details.clear();
            }
            let mut spans = summary.spans(&record, &trace);
            if let Some(sink) = &records.settings.spans {
                sink.take(&spans);
            }
            // The collector has these already.
            spans.extend(trace.take_sent());
            record.trace = Some(records.blob(&lease, TRACE_TYPE, &json_lines(&spans))?);
            let owner = Self::owner(&record.build);
            let blobs = [&record.logs, &record.external_error, &record.trace];
            for blob in blobs.into_iter().flatten() {
                records.store.pin_blob(&owner, &blob.digest)?;
            }
            for result in record.result.iter().chain(record.results.values()) {
                for blob in result.results.values().chain(&result.attestations) {
                    // A result that was only pushed is not in this store.
                    if records.store.blob_info(&blob.digest)?.is_some() {
                        records.store.pin_blob(&owner, &blob.digest)?;
                    }
                }
            }
            records.put(&record)?;
            records.expire(record.completed.unwrap_or(UNIX_EPOCH))?;
            drop(lease);
            Ok(record)
        })
        .await
    }

    fn put(&self, record: &HistoryRecord) -> Result<(), Failure> {
        self.store.put_history(&store::HistoryRecord {
            id: record.build.to_string(),
            created: record.created.unwrap_or(UNIX_EPOCH),
            completed: record.completed,
            pinned: record.pinned,
            record: self.codec.record(record),
        })?;
        Ok(())
    }

    /// Deletes expired records.
    fn expire(&self, now: SystemTime) -> Result<(), Failure> {
        let before = now.checked_sub(self.settings.max_age).unwrap_or(UNIX_EPOCH);
        let keep = u32::try_from(self.settings.max_entries).unwrap_or(u32::MAX);
        for id in self.store.expired_history(keep, before, MAX_RECORDS)? {
            self.store.delete_history(&id)?;
        }
        Ok(())
    }

    /// Lists builds as events, newest first. `in_memory` holds the builds of memory that are listed; those on disk are read page
    /// by page, without the builds of `in_memory_names` and those that do not match the filter. Lists only `build`, unless that
    /// is empty.
    pub(crate) fn pages(
        &self,
        in_memory: Vec<HistoryEvent>,
        in_memory_names: HashSet<BuildRef>,
        filter: RecordFilter,
        build: BuildRef,
    ) -> impl Stream<Item = Result<HistoryEvent, Failure>> + Send + use<> {
        let pages = Pages {
            records: self.clone(),
            in_memory: in_memory.into(),
            in_memory_names: Arc::new(in_memory_names),
            filter: Arc::new(filter),
            build,
            page: VecDeque::new(),
            after: Some(None),
            left: MAX_RECORDS,
        };
        futures::stream::try_unfold(pages, |mut pages| async move {
            Ok(pages.next().await?.map(|event| (event, pages)))
        })
    }

    /// One record.
    pub(crate) async fn get(&self, build: &BuildRef) -> Result<Option<HistoryRecord>, Failure> {
        let (records, build) = (self.clone(), build.clone());
        task::blocking("read a build record", move || {
            let row = records.store.history(build.as_str())?;
            Ok(row.and_then(|row| records.codec.parse(&row.record)))
        })
        .await
    }

    /// Writes a changed record.
    pub(crate) async fn change(&self, record: HistoryRecord) -> Result<(), Failure> {
        let records = self.clone();
        task::blocking("write a build record", move || records.put(&record)).await
    }

    /// Deletes a record; its blobs go with the next collection.
    pub(crate) async fn delete(&self, build: &BuildRef) -> Result<(), Failure> {
        let (records, build) = (self.clone(), build.clone());
        task::blocking("delete a build record", move || {
            records.store.delete_history(build.as_str())?;
            Ok(())
        })
        .await
    }

    /// Replays a build's log for a client that subscribes late. One log at a time, because it is read as a whole.
    pub(crate) async fn replay(&self, record: &HistoryRecord) -> Result<Subscription, Failure> {
        let hub = Hub::new();
        if let Some(log) = record.logs.clone() {
            let _alone = self.replays.acquire().await;
            let (records, replay_hub) = (self.clone(), Arc::clone(&hub));
            task::blocking("read a build's log", move || {
                let bytes = records.store.read_blob(&log.digest, MAX_LOG_BYTES)?;
                for event in records.codec.events(&bytes) {
                    replay_hub.publish(event);
                }
                Ok::<_, Failure>(())
            })
            .await?;
        }
        hub.close();
        Ok(hub.subscribe())
    }
}

/// A list of records in progress: those in memory merged with pages from disk, newest first.
struct Pages {
    records: RecordStore,
    in_memory: VecDeque<HistoryEvent>,
    in_memory_names: Arc<HashSet<BuildRef>>,
    filter: Arc<RecordFilter>,
    build: BuildRef,
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
        let is_in_memory_next = match (self.in_memory.front(), newest) {
            (Some(event), Some(newest)) => event.record.created >= newest,
            (event, _) => event.is_some(),
        };
        if is_in_memory_next {
            return Ok(self.in_memory.pop_front());
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
            let record = self.records.get(&self.build).await?;
            self.page = record.into_iter().filter(|r| self.is_listed(r)).collect();
            return Ok(());
        }
        let (records, in_memory_names, filter) = (
            self.records.clone(),
            Arc::clone(&self.in_memory_names),
            Arc::clone(&self.filter),
        );
        let size = PAGE_RECORDS.min(self.left);
        let (page, last) = task::blocking("list build records", move || {
            let after = after.as_ref().map(|(at, id)| (*at, id.as_str()));
            let rows = records.store.list_history(after, size)?;
            let full = u32::try_from(rows.len()).is_ok_and(|n| n == size);
            let last = rows.last().filter(|_| full);
            let last = last.map(|row| (row.created, row.id.clone()));
            let page: VecDeque<_> = rows
                .iter()
                .filter(|row| !in_memory_names.contains(row.id.as_str()))
                .filter_map(|row| records.codec.parse(&row.record))
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

    fn is_listed(&self, record: &HistoryRecord) -> bool {
        !self.in_memory_names.contains(&record.build) && self.filter.fits(record)
    }
}

fn descriptor(kind: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor::new(kind, digest, size)
}
