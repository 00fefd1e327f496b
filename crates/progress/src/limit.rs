//! Clipping of a step's output.
//!
//! Facts from `util/progress/logs` (v0.34.2): each stream of a step may write a number of bytes, and as many for each
//! second started; output beyond that is left out, with one line per gap that says so. The last bytes of a clipped
//! stream are kept and shown if the step fails.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::writer::Writer;

const TAIL_BYTES: usize = 256 << 10;

/// Limits on the output of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimit {
    /// Bytes per stream; none for no limit.
    pub size: Option<u64>,
    /// Bytes per stream and second; none for no limit.
    pub speed: Option<u64>,
}

impl LogLimit {
    /// BuildKit's default: 2 MiB, and 200 KiB per second.
    pub const STANDARD: Self = Self {
        size: Some(2 << 20),
        speed: Some(200 << 10),
    };
    /// No limit.
    pub const NONE: Self = Self {
        size: None,
        speed: None,
    };

    fn now(self, since: Duration) -> (Option<u64>, bool) {
        let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
        let by_speed = self.speed.map(|speed| seconds.saturating_mul(speed));
        match (by_speed, self.size) {
            (Some(speed), Some(size)) if speed > size => (Some(size), false),
            (Some(speed), _) => (Some(speed), true),
            (None, size) => (size, false),
        }
    }
}

/// The two output streams of a step, clipped.
#[derive(Debug)]
pub struct LogStreams {
    writer: Writer,
    limit: LogLimit,
    started: SystemTime,
    streams: Mutex<[ClippedStream; 2]>,
}

#[derive(Debug, Default)]
struct ClippedStream {
    size: u64,
    clipping: bool,
    tail: Option<VecDeque<u8>>,
}

impl LogStreams {
    /// Starts the output of a step.
    pub fn new(writer: Writer, limit: LogLimit) -> Self {
        let started = writer.now();
        Self {
            writer,
            limit,
            started,
            streams: Mutex::default(),
        }
    }

    /// Writes output: stream 1 is standard output, 2 standard error.
    pub fn log(&self, stream: i64, data: &[u8]) {
        let since = self
            .writer
            .now()
            .duration_since(self.started)
            .unwrap_or_default();
        let (max, by_speed) = self.limit.now(since);
        let mut streams = self.streams.lock();
        let [out, err] = &mut *streams;
        let state = if stream == 1 { out } else { err };
        let before = state.size;
        state.size = state.size.saturating_add(data.len() as u64);
        let room = max.map_or(u64::MAX, |max| max.saturating_sub(before));
        let shown_bytes = usize::try_from(room).unwrap_or(usize::MAX).min(data.len());
        let clipped = shown_bytes < data.len();
        if clipped && state.tail.is_none() {
            state.tail = Some(VecDeque::new());
        }
        if let Some(tail) = &mut state.tail {
            tail.extend(data);
            let over = tail.len().saturating_sub(TAIL_BYTES);
            tail.drain(..over);
        }
        let mut msg = data.get(..shown_bytes).unwrap_or_default().to_vec();
        if clipped && !state.clipping {
            let limit = if by_speed {
                self.limit.speed
            } else {
                self.limit.size
            }
            .unwrap_or_default();
            let unit = if by_speed { "/s" } else { "" };
            msg.extend(
                format!(
                    "\n[output clipped, log limit {}{unit} reached]\n",
                    human(limit)
                )
                .into_bytes(),
            );
        }
        state.clipping = clipped;
        self.writer.log(stream, Bytes::from(msg));
    }

    /// Writes the last clipped bytes: called when the step failed, because the reason is usually there.
    pub fn flush_tail(&self) {
        let mut streams = self.streams.lock();
        for (stream, state) in (1..).zip(streams.iter_mut()) {
            if let Some(tail) = state.tail.take() {
                self.writer.log(stream, Bytes::from(Vec::from(tail)));
            }
        }
    }
}

fn human(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, name) in units {
        if bytes >= size {
            #[expect(clippy::cast_precision_loss, reason = "a number for people")]
            let value = bytes as f64 / size as f64;
            return format!("{}{name}", (value * 1000.0).round() / 1000.0);
        }
    }
    format!("{bytes}B")
}
