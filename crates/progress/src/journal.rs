//! The events of a hub in their order, to be read any number of times, in bounded memory.
//!
//! Events have numbers. Logs beyond a budget go to an unnamed file; what stays in memory is one entry per *run* of
//! logs. A status replaces the former one of the same part of work, so slow readers see only the newer.
//!
//! A log in the file is `length u32 | stream i64 | seconds i64 | nanos u32 | digest length u16 | digest | bytes`,
//! little endian, `length` counting what follows it. Only this process reads it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use oci::Digest;

use crate::event::{Event, Log};

const MAX_EVENTS_PER_RUN: u64 = 1024;
const MAX_BYTES_PER_RUN: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct Journal {
    entries: VecDeque<JournalEntry>,
    next: u64,
    /// Number of the newest status per part of work.
    latest: HashMap<(Digest, String), u64>,
    gone: usize,
    log_bytes: usize,
    budget: usize,
    spool: Spool,
}

#[derive(Debug)]
struct JournalEntry {
    number: u64,
    kind: EntryKind,
}

#[derive(Debug)]
enum EntryKind {
    Event(Box<Event>),
    Run { count: u64, offset: u64, bytes: u64 },
    Gone,
}

#[derive(Debug)]
enum Spool {
    Unopened(Option<PathBuf>),
    Open {
        file: Arc<File>,
        end: u64,
    },
    /// No file can be created: logs stay in memory beyond the budget, bounded only by the clipping of a step's output.
    Impossible,
}

/// The position of a reader.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    next: u64,
    /// Offset of event `next` in the file, if it is inside a run.
    offset: Option<u64>,
}

/// Events for a reader, and the piece of the file with the events after them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) piece: Option<Piece>,
}

#[derive(Debug)]
pub(crate) struct Piece {
    file: Arc<File>,
    offset: u64,
    bytes: u64,
}

impl Journal {
    /// Creates an empty journal with `budget` bytes of logs in memory; `dir` is the folder of its file, none for the
    /// system's folder of temporary files.
    pub(crate) fn new(budget: usize, dir: Option<PathBuf>) -> Self {
        Self {
            entries: VecDeque::new(),
            next: 0,
            latest: HashMap::new(),
            gone: 0,
            log_bytes: 0,
            budget,
            spool: Spool::Unopened(dir),
        }
    }

    pub(crate) fn push(&mut self, event: Event) {
        let number = self.next;
        self.next += 1;
        let event = match event {
            Event::Log(log) => {
                if self.log_bytes + log.msg.len() > self.budget && self.spill(number, &log) {
                    return;
                }
                self.log_bytes += log.msg.len() + 64;
                Event::Log(log)
            }
            Event::Status(status) => {
                let old = self
                    .latest
                    .insert((status.vertex.clone(), status.id.clone()), number);
                if let Some(entry) = old.and_then(|old| self.find(old)) {
                    entry.kind = EntryKind::Gone;
                    self.gone += 1;
                }
                Event::Status(status)
            }
            other @ (Event::Vertex(_) | Event::Warning(_)) => other,
        };
        self.entries.push_back(JournalEntry {
            number,
            kind: EntryKind::Event(Box::new(event)),
        });
        if self.gone > 64 && self.gone * 2 > self.entries.len() {
            self.entries.retain(|e| !matches!(e.kind, EntryKind::Gone));
            self.gone = 0;
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut JournalEntry> {
        let at = self.entries.partition_point(|e| e.number < number);
        self.entries.get_mut(at).filter(|e| e.number == number)
    }

    /// Writes a log to the file; false if that fails.
    fn spill(&mut self, number: u64, log: &Log) -> bool {
        if let Spool::Unopened(dir) = &self.spool {
            let file = dir
                .as_ref()
                .map_or_else(tempfile::tempfile, tempfile::tempfile_in);
            self.spool = match file {
                Ok(file) => Spool::Open {
                    file: Arc::new(file),
                    end: 0,
                },
                Err(error) => {
                    tracing::debug!(%error, "failed to create a file for logs");
                    Spool::Impossible
                }
            };
        }
        let Spool::Open { file, end } = &mut self.spool else {
            return false;
        };
        let Some(frame) = encode(log) else {
            return false;
        };
        if let Err(error) = file.write_all_at(&frame, *end) {
            tracing::warn!(%error, "failed to write logs to their file");
            self.spool = Spool::Impossible;
            return false;
        }
        let (offset, length) = (*end, frame.len() as u64);
        *end += length;
        if let Some(JournalEntry {
            number: first,
            kind:
                EntryKind::Run {
                    count,
                    offset: start,
                    bytes,
                },
        }) = self.entries.back_mut()
            && *first + *count == number
            && *start + *bytes == offset
            && *count < MAX_EVENTS_PER_RUN
            && *bytes < MAX_BYTES_PER_RUN
        {
            *count += 1;
            *bytes += length;
        } else {
            self.entries.push_back(JournalEntry {
                number,
                kind: EntryKind::Run {
                    count: 1,
                    offset,
                    bytes: length,
                },
            });
        }
        true
    }

    /// Returns about `max` events after `cursor`, and moves it.
    pub(crate) fn read(&self, cursor: &mut Cursor, max: usize) -> Batch {
        let mut batch = Batch::default();
        let first = self
            .entries
            .partition_point(|e| e.number + e.kind.count() <= cursor.next);
        for entry in self.entries.range(first..) {
            if batch.events.len() >= max {
                return batch;
            }
            match &entry.kind {
                EntryKind::Event(event) => batch.events.push((**event).clone()),
                EntryKind::Gone => {}
                EntryKind::Run {
                    count,
                    offset,
                    bytes,
                } => {
                    let end = offset + bytes;
                    let from = cursor
                        .offset
                        .filter(|_| cursor.next > entry.number)
                        .unwrap_or(*offset);
                    if let Spool::Open { file, .. } = &self.spool {
                        batch.piece = Some(Piece {
                            file: Arc::clone(file),
                            offset: from,
                            bytes: end - from,
                        });
                    }
                    *cursor = Cursor {
                        next: entry.number + count,
                        offset: Some(end),
                    };
                    return batch;
                }
            }
            *cursor = Cursor {
                next: entry.number + 1,
                offset: None,
            };
        }
        batch
    }
}

impl EntryKind {
    fn count(&self) -> u64 {
        match self {
            Self::Run { count, .. } => *count,
            Self::Event(_) | Self::Gone => 1,
        }
    }
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.piece.is_none()
    }

    /// Whether a read of up to `max` events would reach the end, without reading the file.
    pub(crate) fn is_rest(&self, max: usize) -> bool {
        self.piece.is_none() && self.events.len() < max
    }

    /// Returns all events, including those in the file.
    pub(crate) fn into_events(self) -> Vec<Event> {
        let mut events = self.events;
        if let Some(piece) = self.piece {
            match piece.read() {
                Ok(logs) => events.extend(logs.into_iter().map(Event::Log)),
                Err(error) => tracing::warn!(%error, "failed to read logs from their file"),
            }
        }
        events
    }
}

impl Piece {
    fn read(&self) -> io::Result<Vec<Log>> {
        let length = usize::try_from(self.bytes).map_err(io::Error::other)?;
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, self.offset)?;
        let mut unread = Bytes::from(buffer);
        let mut logs = Vec::new();
        while !unread.is_empty() {
            logs.push(
                decode(&mut unread).ok_or_else(|| io::Error::other("the log file is damaged"))?,
            );
        }
        Ok(logs)
    }
}

fn encode(log: &Log) -> Option<Vec<u8>> {
    let digest = log.vertex.as_str().as_bytes();
    let since = log.timestamp.duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = 8 + 8 + 4 + 2 + digest.len() + log.msg.len();
    let mut frame = Vec::with_capacity(length + 4);
    frame.extend(u32::try_from(length).ok()?.to_le_bytes());
    frame.extend(log.stream.to_le_bytes());
    frame.extend(since.as_secs().to_le_bytes());
    frame.extend(since.subsec_nanos().to_le_bytes());
    frame.extend(u16::try_from(digest.len()).ok()?.to_le_bytes());
    frame.extend(digest);
    frame.extend(&log.msg);
    Some(frame)
}

fn decode(frames: &mut Bytes) -> Option<Log> {
    fn take<const N: usize>(from: &mut Bytes) -> Option<[u8; N]> {
        if from.len() < N {
            return None;
        }
        from.split_to(N).as_ref().try_into().ok()
    }
    let length = usize::try_from(u32::from_le_bytes(take(frames)?)).ok()?;
    if frames.len() < length {
        return None;
    }
    let mut frame = frames.split_to(length);
    let stream = i64::from_le_bytes(take(&mut frame)?);
    let seconds = u64::from_le_bytes(take(&mut frame)?);
    let nanos = u32::from_le_bytes(take(&mut frame)?);
    let digest_length = usize::from(u16::from_le_bytes(take(&mut frame)?));
    if frame.len() < digest_length {
        return None;
    }
    let digest = frame.split_to(digest_length);
    let vertex = Digest::key(std::str::from_utf8(&digest).ok()?);
    let timestamp = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    // The message is its own copy: a small one must not keep a whole run in memory.
    Some(Log {
        vertex,
        stream,
        msg: Bytes::copy_from_slice(&frame),
        timestamp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Status;

    fn log(n: usize) -> Event {
        let msg = Bytes::from(format!("line {n}\n"));
        Event::Log(Log {
            vertex: Digest::key("v:1"),
            stream: 1,
            msg,
            timestamp: UNIX_EPOCH + Duration::from_nanos(n as u64),
        })
    }

    fn status(n: i64) -> Event {
        Event::Status(Status {
            id: "layer".into(),
            vertex: Digest::key("v:1"),
            name: String::new(),
            current: n,
            total: 0,
            timestamp: UNIX_EPOCH,
            started: None,
            completed: None,
        })
    }

    fn drain(journal: &Journal, cursor: &mut Cursor, max: usize) -> Vec<Event> {
        let mut out = Vec::new();
        loop {
            let batch = journal.read(cursor, max);
            if batch.is_empty() {
                return out;
            }
            out.extend(batch.into_events());
        }
    }

    #[test]
    fn readers_see_all_logs_in_order_wherever_they_are_kept() {
        for budget in [0, 100, 1 << 20] {
            let mut journal = Journal::new(budget, None);
            let (mut live, mut seen) = (Cursor::default(), Vec::new());
            for n in 0..5000 {
                journal.push(log(n));
                if n % 7 == 0 {
                    journal.push(Event::Vertex(crate::Vertex::new(
                        Digest::key("v:1"),
                        n.to_string(),
                        Vec::new(),
                    )));
                }
                if n % 13 == 0 {
                    seen.extend(drain(&journal, &mut live, 3));
                }
            }
            seen.extend(drain(&journal, &mut live, 100));
            let late = drain(&journal, &mut Cursor::default(), 50);
            assert_eq!(seen, late, "budget {budget}");
            let logs: Vec<_> = late
                .into_iter()
                .filter(|e| matches!(e, Event::Log(_)))
                .collect();
            assert_eq!(
                logs,
                (0..5000).map(log).collect::<Vec<_>>(),
                "budget {budget}"
            );
            if budget == 0 {
                assert!(
                    journal.entries.len() < 1500,
                    "runs are joined: {}",
                    journal.entries.len()
                );
            }
        }
    }

    #[test]
    fn superseded_statuses_are_dropped() {
        let mut journal = Journal::new(0, None);
        let mut live = Cursor::default();
        for n in 0..100_000 {
            journal.push(status(n));
            if n == 5 {
                assert_eq!(drain(&journal, &mut live, 10), vec![status(5)]);
            }
        }
        assert!(journal.entries.len() < 200);
        assert_eq!(drain(&journal, &mut live, 10), vec![status(99_999)]);
        assert_eq!(
            drain(&journal, &mut Cursor::default(), 10),
            vec![status(99_999)]
        );
    }

    #[test]
    fn a_log_is_read_from_the_file_as_it_was_written() {
        let at = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        for (vertex, stream, msg, timestamp) in [
            ("sha256:00", 1, &b"line\n"[..], at(0)),
            ("v", 2, b"", at(1)),
            ("", -1, b"\0\xff", at(999_999_999)),
            ("v", i64::MAX, b"x", at(1_700_000_000_123_456_789)),
        ] {
            let log = Log {
                vertex: Digest::key(vertex),
                stream,
                msg: Bytes::copy_from_slice(msg),
                timestamp,
            };
            let mut bytes = Bytes::from([encode(&log).unwrap(), encode(&log).unwrap()].concat());
            for _ in 0..2 {
                assert_eq!(decode(&mut bytes), Some(log.clone()));
            }
            assert!(bytes.is_empty());
        }
        // Times before 1970 cannot be written.
        let early = Log {
            vertex: Digest::key("v"),
            stream: 1,
            msg: Bytes::new(),
            timestamp: UNIX_EPOCH - Duration::from_secs(1),
        };
        let mut bytes = Bytes::from(encode(&early).unwrap());
        assert_eq!(decode(&mut bytes).unwrap().timestamp, UNIX_EPOCH);
    }

    #[test]
    fn a_file_that_is_damaged_is_an_error_wherever_it_ends() {
        let Event::Log(log) = log(7) else {
            unreachable!("it is one")
        };
        let frame = encode(&log).unwrap();
        for end in 0..frame.len() {
            assert_eq!(
                decode(&mut Bytes::copy_from_slice(&frame[..end])),
                None,
                "{end}"
            );
        }
        // A frame with a length below its content, and a digest longer than its frame.
        for (at, value) in [(0, 3_u8), (24, 0xff)] {
            let mut bad = frame.clone();
            bad[at] = value;
            assert_eq!(decode(&mut Bytes::from(bad)), None, "{at}");
        }
    }

    #[test]
    fn a_reader_inside_a_run_continues_at_its_position() {
        let mut journal = Journal::new(0, None);
        let mut cursor = Cursor::default();
        let mut read_events = Vec::new();
        for n in 0..10 {
            journal.push(log(n));
            if n % 3 == 0 {
                read_events.extend(drain(&journal, &mut cursor, 1));
            }
        }
        read_events.extend(drain(&journal, &mut cursor, 1));
        assert_eq!(read_events, (0..10).map(log).collect::<Vec<_>>());
        assert_eq!(journal.entries.len(), 1, "they are one run");
    }

    #[test]
    fn a_run_is_bounded_in_events_and_in_bytes() {
        let mut journal = Journal::new(0, None);
        for n in 0..3_000 {
            journal.push(log(n));
        }
        for entry in &journal.entries {
            let EntryKind::Run { count, .. } = entry.kind else {
                panic!("all of it is in the file")
            };
            assert!(count <= MAX_EVENTS_PER_RUN);
        }
        assert_eq!(journal.entries.len(), 3);
        let mut journal = Journal::new(0, None);
        for _ in 0..4 {
            let Event::Log(mut large) = log(0) else {
                unreachable!("it is one")
            };
            large.msg = Bytes::from(vec![b'x'; 70_000]);
            journal.push(Event::Log(large));
        }
        assert_eq!(
            journal.entries.len(),
            4,
            "a run that is large takes no more"
        );
    }
}
