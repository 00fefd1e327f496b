//! What a build's trace has beside the spans of its vertices: the phases of the build, and what programs of its steps sent.

use std::sync::Arc;
use std::time::SystemTime;

use oci::Digest;
use ops::StepTrace;
use parking_lot::Mutex;
use task::Clock;

use crate::api::{Span, SpanSubject, TraceContext, bytes_of_hex};

/// Phases that a trace keeps; a build has about ten.
const MAX_PHASES: usize = 64;
/// Spans of programs that a trace keeps.
const MAX_SENT_SPANS: usize = 5_000;
/// What the spans of programs may take in memory, in bytes.
const MAX_SENT_BYTES: usize = 4 << 20;

/// The trace of a build, while it runs.
#[derive(Debug)]
pub(crate) struct BuildTrace {
    steps: Arc<StepTrace>,
    root: [u8; 8],
    /// The client's span that the build is a part of.
    parent: Option<[u8; 8]>,
    clock: Clock,
    phases: Mutex<Vec<Phase>>,
    sent: Mutex<SentSpans>,
}

#[derive(Debug, Clone)]
struct Phase {
    name: &'static str,
    start: SystemTime,
    end: SystemTime,
}

#[derive(Debug, Default)]
struct SentSpans {
    spans: Vec<Span>,
    bytes: usize,
}

impl BuildTrace {
    /// The trace of a build with this name, which is a part of `within`.
    pub(crate) fn new(build: &str, within: Option<TraceContext>, clock: Clock) -> Arc<Self> {
        let id = Digest::sha256(build);
        let trace = match within {
            Some(within) => within.trace,
            None => bytes_of_hex(id.hex()).unwrap_or_default(),
        };
        let root = id.hex().get(32..).and_then(bytes_of_hex);
        Arc::new(Self {
            steps: Arc::new(StepTrace {
                trace,
                build: build.to_owned(),
            }),
            root: root.unwrap_or_default(),
            parent: within.map(|within| within.span),
            clock,
            phases: Mutex::default(),
            sent: Mutex::default(),
        })
    }

    /// Which trace it is.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.steps.trace
    }

    /// Where steps stand in it.
    pub(crate) fn steps(&self) -> &Arc<StepTrace> {
        &self.steps
    }

    /// The span of the build itself.
    pub(crate) fn root(&self) -> [u8; 8] {
        self.root
    }

    /// What the build is a part of.
    pub(crate) fn parent(&self) -> Option<[u8; 8]> {
        self.parent
    }

    /// What a program is told that runs for the build and for none of its vertices, see [`StepTrace::parent`].
    pub(crate) fn traceparent(&self) -> String {
        self.steps.parent_of(self.root)
    }

    /// Begins a phase, which lasts until the answer is dropped.
    pub(crate) fn phase(self: &Arc<Self>, name: &'static str) -> RunningPhase {
        RunningPhase {
            trace: Arc::clone(self),
            name,
            start: self.clock.system(),
        }
    }

    /// Adds what a program of a step sent; false if there is no room for it.
    pub(crate) fn add(&self, spans: Vec<Span>) -> bool {
        let size = |span: &Span| {
            let subject = match &span.subject {
                SpanSubject::Program { attributes, .. } => attributes
                    .iter()
                    .map(|(key, value)| key.len() + value.len() + 64)
                    .sum(),
                SpanSubject::Build | SpanSubject::Phase | SpanSubject::Vertex { .. } => 0,
            };
            size_of::<Span>() + span.name.len() + span.error.len() + subject
        };
        let bytes: usize = spans.iter().map(size).sum();
        let mut sent = self.sent.lock();
        if sent.spans.len() + spans.len() > MAX_SENT_SPANS || sent.bytes + bytes > MAX_SENT_BYTES {
            return false;
        }
        sent.bytes += bytes;
        sent.spans.extend(spans);
        true
    }

    /// What programs sent, in the order of time; nothing a second time.
    pub(crate) fn take_sent(&self) -> Vec<Span> {
        let mut sent = std::mem::take(&mut *self.sent.lock()).spans;
        sent.sort_by_key(|span| span.start);
        sent
    }

    /// The phases that are over as spans, in the order of time.
    pub(crate) fn phases(&self) -> Vec<Span> {
        let phases = self.phases.lock().clone();
        let mut phases: Vec<Span> = phases
            .into_iter()
            .enumerate()
            .map(|(at, phase)| Span {
                trace: self.id(),
                id: self.steps.span(&format!("phase {at} {}", phase.name)),
                parent: Some(self.root),
                name: phase.name.to_owned(),
                start: phase.start,
                end: phase.end,
                error: String::new(),
                subject: SpanSubject::Phase,
            })
            .collect();
        phases.sort_by_key(|span| span.start);
        phases
    }
}

/// A phase that is not over.
#[derive(Debug)]
#[must_use = "the phase is over when it is dropped"]
pub(crate) struct RunningPhase {
    trace: Arc<BuildTrace>,
    name: &'static str,
    start: SystemTime,
}

impl Drop for RunningPhase {
    fn drop(&mut self) {
        let mut phases = self.trace.phases.lock();
        if phases.len() < MAX_PHASES {
            phases.push(Phase {
                name: self.name,
                start: self.start,
                end: self.trace.clock.system(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn sent(name: &str) -> Span {
        Span {
            trace: [1; 16],
            id: [2; 8],
            parent: None,
            name: name.into(),
            start: UNIX_EPOCH,
            end: UNIX_EPOCH,
            error: String::new(),
            subject: SpanSubject::Program {
                service: "make".into(),
                attributes: vec![("a".into(), "b".into())],
            },
        }
    }

    #[test]
    fn phases_are_spans_of_the_build_also_when_they_were_left() {
        let clock = Clock::paused(UNIX_EPOCH);
        let within = TraceContext {
            trace: [7; 16],
            span: [9; 8],
        };
        let trace = BuildTrace::new("b", Some(within), clock.clone());
        let whole = trace.phase("whole");
        clock.advance(Duration::from_secs(1));
        drop(trace.phase("second"));
        clock.advance(Duration::from_secs(2));
        drop(whole);
        let phases = trace.phases();
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let times: Vec<_> = phases
            .iter()
            .map(|span| (span.name.as_str(), seconds(span.start), seconds(span.end)))
            .collect();
        assert_eq!(times, [("whole", 0, 3), ("second", 1, 1)]);
        for span in &phases {
            assert_eq!((span.trace, span.parent), ([7; 16], Some(trace.root())));
        }
        assert_ne!(phases[0].id, phases[1].id);
        assert!(trace.take_sent().is_empty());
        for _ in 0..MAX_PHASES + 9 {
            drop(trace.phase("again"));
        }
        assert_eq!(trace.phases().len(), MAX_PHASES);
    }

    #[test]
    fn programs_fill_a_trace_up_to_its_bounds() {
        let trace = BuildTrace::new("b", None, Clock::real());
        let many = |count| vec![sent("x"); count];
        assert!(trace.add(many(MAX_SENT_SPANS - 1)));
        assert!(!trace.add(many(2)));
        assert!(trace.add(many(1)));
        assert!(!trace.add(many(1)));
        assert_eq!(trace.take_sent().len(), MAX_SENT_SPANS);
        assert!(trace.take_sent().is_empty());
        let large = BuildTrace::new("b", None, Clock::real());
        assert!(!large.add(vec![sent(&"x".repeat(MAX_SENT_BYTES))]));
        assert!(large.add(vec![sent("x")]));
    }
}
