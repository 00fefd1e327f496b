//! Spans and metrics, sent to a collector by OTLP.
//!
//! ```text
//!   engine: spans of a build that ended ─┐
//!   TraceService: spans of clients ──────┴─► queue ─► task ─► send ─► collector (gRPC or HTTP)
//!   metrics ── every interval, what was added since ─► task ─► send ─►
//! ```
//!
//! Whoever hands spans over never waits: what does not fit into the queue is counted as lost, as is what the collector does not take
//! within a few attempts.

mod encode;
mod send;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::api::{Span, SpanSink};
use metrics::Signal;
use oci::ErrorKind;
use parking_lot::Mutex;
use task::Task;
use tokio::sync::{mpsc, watch};

pub use send::Protocol;
use send::{SendError, Sender};

/// Batches of spans that wait to be sent.
const MAX_WAITING_BATCHES: usize = 64;
/// Spans in one request: one of a collector's default size takes some ten thousand.
const MAX_SPANS_PER_BATCH: usize = 2_000;
/// How often a batch is offered to a collector.
const ATTEMPTS: u32 = 3;
/// The pause after the first attempt; each is twice the one before.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The collector that one signal is sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// How it is sent.
    pub protocol: Protocol,
    /// `http://host:port` for gRPC, the whole URL for HTTP.
    pub url: String,
    /// Headers of requests, such as a key for the collector.
    pub headers: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Authorities for a collector's certificate, as PEM.
    pub authorities: Option<Vec<u8>>,
}

/// The collectors of spans and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// The collector of spans; `None` if they are not sent.
    pub traces: Option<Endpoint>,
    /// The collector of metrics; `None` if they are not sent.
    pub metrics: Option<Endpoint>,
    /// Attributes of this program and machine.
    pub resource: Vec<(String, String)>,
    /// How often metrics are sent.
    pub metric_interval: Duration,
}

/// Why the connection to a collector cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot send to the collector {url}: {source}")]
pub struct OtlpError {
    url: String,
    source: SendError,
}

impl OtlpError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The tasks that send. Dropped, what waits is lost; see [`Otlp::close`].
#[derive(Debug)]
pub struct Otlp {
    resource: Vec<(String, String)>,
    batches: Mutex<Option<mpsc::Sender<Vec<Bytes>>>>,
    closing: watch::Sender<bool>,
    tasks: Mutex<Vec<Task<()>>>,
}

impl Otlp {
    /// Begins to send. The collector need not be there yet.
    pub fn start(config: OtlpConfig) -> Result<Arc<Self>, OtlpError> {
        let sender = |endpoint: &Endpoint| {
            Sender::new(endpoint).map_err(|source| OtlpError {
                url: endpoint.url.clone(),
                source,
            })
        };
        let mut tasks = Vec::new();
        let mut queue = None;
        if let Some(endpoint) = &config.traces {
            let sender = sender(endpoint)?;
            let (to, batches) = mpsc::channel(MAX_WAITING_BATCHES);
            queue = Some(to);
            tasks.push(task::spawn("send spans", send_spans(sender, batches)));
        }
        let closing = watch::Sender::new(false);
        if let Some(endpoint) = &config.metrics {
            let sender = sender(endpoint)?;
            let work = send_metrics(
                sender,
                config.resource.clone(),
                config.metric_interval,
                closing.subscribe(),
            );
            tasks.push(task::spawn("send metrics", work));
        }
        Ok(Arc::new(Self {
            resource: config.resource,
            batches: Mutex::new(queue),
            closing,
            tasks: Mutex::new(tasks),
        }))
    }

    /// Sends what waits and the metrics as they are now, and returns when the collector has them or does not take them.
    pub async fn close(&self) {
        drop(self.batches.lock().take());
        self.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.await;
        }
    }

    fn queue(&self, batch: Vec<Bytes>, spans: usize) {
        let batches = self.batches.lock();
        let is_queued = batches
            .as_ref()
            .is_some_and(|batches| batches.try_send(batch).is_ok());
        if !is_queued {
            metrics::TELEMETRY_LOST.add(Signal::Traces, spans as u64);
        }
    }
}

impl SpanSink for Otlp {
    fn take(&self, spans: &[Span]) {
        for part in spans.chunks(MAX_SPANS_PER_BATCH) {
            let encoded = encode::spans(&self.resource, part);
            self.queue(vec![encoded], part.len());
        }
    }

    fn forward(&self, resource_spans: Vec<Bytes>) {
        let spans = resource_spans.len();
        self.queue(resource_spans, spans);
    }
}

async fn send_spans(sender: Sender, mut batches: mpsc::Receiver<Vec<Bytes>>) {
    while let Some(batch) = batches.recv().await {
        let lost = batch.len() as u64;
        if !offer(&sender, Signal::Traces, &batch).await {
            metrics::TELEMETRY_LOST.add(Signal::Traces, lost);
        }
    }
}

async fn send_metrics(
    sender: Sender,
    resource: Vec<(String, String)>,
    interval: Duration,
    mut closing: watch::Receiver<bool>,
) {
    let clock = task::Clock::real();
    let mut deltas = encode::Deltas::new(clock.system());
    loop {
        let is_closing = tokio::select! {
            () = task::clock::sleep(interval) => false,
            _ = closing.wait_for(|closing| *closing) => true,
        };
        let batch = vec![deltas.next(&resource, clock.system())];
        if !offer(&sender, Signal::Metrics, &batch).await {
            metrics::TELEMETRY_LOST.add(Signal::Metrics, 1);
        }
        if is_closing {
            return;
        }
    }
}

/// Offers a batch a few times; false if it was not taken.
async fn offer(sender: &Sender, signal: Signal, batch: &[Bytes]) -> bool {
    let mut pause = RETRY_PAUSE;
    for attempt in 1..=ATTEMPTS {
        match sender.send(signal, batch).await {
            Ok(()) => return true,
            Err(error) if attempt == ATTEMPTS || !error.is_transient() => {
                tracing::warn!(
                    error = oci::error::chain(&error),
                    ?signal,
                    "the collector does not take what is sent (OTEL_EXPORTER_OTLP_ENDPOINT)"
                );
                return false;
            }
            Err(_) => {
                task::clock::sleep(pause).await;
                pause *= 2;
            }
        }
    }
    false
}
