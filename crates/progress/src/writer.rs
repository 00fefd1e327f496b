//! Writers, with which ops report progress.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use oci::address::{redact_text, redacted};
use parking_lot::Mutex;

use crate::event::{Event, Log, Range, SourceInfo, Status, Warning};
use crate::shared::SharedVertex;

/// The shortest time between two updates of a status, except for the first and the last.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// The text without credentials in its addresses; bytes that are not UTF-8 are left unchanged.
fn redacted_bytes(bytes: Bytes) -> Bytes {
    match std::str::from_utf8(&bytes).map(redact_text) {
        Ok(Cow::Owned(text)) => text.into(),
        Ok(Cow::Borrowed(_)) | Err(_) => bytes,
    }
}

/// Reports the progress of a vertex, or discards it. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    shared: Option<Arc<SharedVertex>>,
}

/// A value with a writer, such as the sink of a vertex.
pub trait WriterSource {
    /// Returns a writer for the vertex.
    fn writer(&self) -> Writer;
}

impl Writer {
    pub(crate) fn new(shared: Option<Arc<SharedVertex>>) -> Self {
        Self { shared }
    }

    /// Returns a writer that discards everything.
    pub fn null() -> Self {
        Self { shared: None }
    }

    /// Starts a part of the work; it ends when the guard is dropped.
    pub fn status(&self, id: impl Into<String>, name: impl Into<String>) -> StatusGuard {
        let started_at = self.now();
        let status = self.shared.as_ref().map(|shared| Status {
            id: redacted(id.into()),
            vertex: shared.digest.clone(),
            name: redacted(name.into()),
            current: 0,
            total: 0,
            timestamp: started_at,
            started: Some(started_at),
            completed: None,
        });
        if let Some(status) = &status {
            self.publish(Event::Status(status.clone()));
        }
        StatusGuard {
            writer: self.clone(),
            status: Mutex::new(status),
        }
    }

    /// Starts work that continues after the vertex has ended, such as a postponed download: until the guard is
    /// dropped, the vertex is shown as running again. While the vertex runs anyway, nothing is shown.
    pub fn work(&self) -> WorkGuard {
        if let Some(shared) = &self.shared {
            shared.begin_work();
        }
        WorkGuard {
            shared: self.shared.clone(),
        }
    }

    /// Writes output: stream 1 is standard output, 2 standard error.
    pub fn log(&self, stream: i64, msg: impl Into<Bytes>) {
        let msg = msg.into();
        if let Some(shared) = &self.shared
            && !msg.is_empty()
        {
            let timestamp = shared.clock.system();
            shared.publish(Event::Log(Log {
                vertex: shared.digest.clone(),
                stream,
                msg,
                timestamp,
            }));
        }
    }

    /// Shows a warning of one line with details.
    pub fn warn(
        &self,
        level: i64,
        short: impl Into<Bytes>,
        detail: Vec<Bytes>,
        url: impl Into<String>,
        source: Option<(SourceInfo, Vec<Range>)>,
    ) {
        if let Some(shared) = &self.shared {
            let (source_info, ranges) =
                source.map_or((None, Vec::new()), |(info, ranges)| (Some(info), ranges));
            let source_info = source_info.map(|info: SourceInfo| SourceInfo {
                data: redacted_bytes(info.data),
                ..info
            });
            let vertex = shared.digest.clone();
            self.publish(Event::Warning(Warning {
                vertex,
                level,
                short: redacted_bytes(short.into()),
                detail: detail.into_iter().map(redacted_bytes).collect(),
                url: url.into(),
                source_info,
                ranges,
            }));
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.shared
            .as_ref()
            .map_or(SystemTime::UNIX_EPOCH, |shared| shared.clock.system())
    }

    fn publish(&self, event: Event) {
        if let Some(shared) = &self.shared {
            shared.publish(event);
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writer")
            .field(&self.shared.as_ref().map(|s| &s.digest))
            .finish()
    }
}

/// Work on the side of a vertex; it ends when dropped.
pub struct WorkGuard {
    shared: Option<Arc<SharedVertex>>,
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.end_work();
        }
    }
}

impl fmt::Debug for WorkGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkGuard")
            .field(&self.shared.as_ref().map(|s| &s.digest))
            .finish()
    }
}

/// A part of the work in progress; it ends when dropped.
pub struct StatusGuard {
    writer: Writer,
    status: Mutex<Option<Status>>,
}

impl StatusGuard {
    /// Updates the progress of the part; `total` 0 means unknown. May be called often: only some updates are passed on.
    pub fn set(&self, current: i64, total: i64) {
        let mut guard = self.status.lock();
        let Some(status) = guard.as_mut() else { return };
        status.current = current;
        status.total = total;
        let now = self.writer.now();
        let since = now
            .duration_since(status.timestamp)
            .unwrap_or(STATUS_INTERVAL);
        if since >= STATUS_INTERVAL {
            status.timestamp = now;
            self.writer.publish(Event::Status(status.clone()));
        }
    }

    /// Changes the activity, e.g. from `downloading` to `extracting`.
    pub fn rename(&self, name: impl Into<String>) {
        let mut guard = self.status.lock();
        if let Some(status) = guard.as_mut() {
            status.name = name.into();
            status.timestamp = self.writer.now();
            self.writer.publish(Event::Status(status.clone()));
        }
    }
}

impl Drop for StatusGuard {
    fn drop(&mut self) {
        if let Some(mut status) = self.status.get_mut().take() {
            let now = self.writer.now();
            status.timestamp = now;
            status.completed = Some(now);
            self.writer.publish(Event::Status(status));
        }
    }
}

impl fmt::Debug for StatusGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatusGuard")
            .field(&*self.status.lock())
            .finish()
    }
}
