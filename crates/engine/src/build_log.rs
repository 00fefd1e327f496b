//! What the log says of a build: a span around all of its lines, its start, and how it ended.

use std::future::Future;
use std::time::Instant;

use oci::ErrorKind;
use task::Clock;
use tracing::{Instrument as _, Span};

use crate::api::{Failure, SolveRequest};

/// Log lines of one build. A build whose future is dropped is logged as cancelled.
pub(crate) struct BuildLog {
    clock: Clock,
    began: Instant,
    span: Span,
    is_logged: bool,
}

impl BuildLog {
    /// Says that a build starts.
    pub(crate) fn begin(clock: &Clock, request: &SolveRequest) -> Self {
        let span = tracing::info_span!("job", build = %request.build, session = %request.session);
        span.in_scope(|| {
            tracing::info!(
                frontend = request.input.frontend_name(),
                exporters = request.exporters.len(),
                "build started"
            );
        });
        Self {
            clock: clock.clone(),
            began: clock.now(),
            span,
            is_logged: false,
        }
    }

    /// Runs the build inside its span and says how it ended.
    pub(crate) async fn watch<T>(
        mut self,
        build: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let outcome = build.instrument(self.span.clone()).await;
        self.end(outcome.as_ref().err());
        outcome
    }

    /// Logs a user's error as info; errors of the host or of the daemon, which somebody has to look at, as warnings and errors.
    fn end(&mut self, failure: Option<&Failure>) {
        self.is_logged = true;
        let took = self.clock.now().saturating_duration_since(self.began);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let _inside = self.span.enter();
        let Some(failure) = failure else {
            tracing::info!(duration_ms, outcome = "succeeded", "build ended");
            return;
        };
        let (kind, error) = (failure.cause.word(), failure.message());
        match failure.cause {
            ErrorKind::Cancelled => {
                tracing::info!(duration_ms, outcome = "cancelled", "build ended");
            }
            ErrorKind::Bug => {
                tracing::error!(duration_ms, outcome = "failed", kind, error, "build ended");
            }
            ErrorKind::Exhausted | ErrorKind::System | ErrorKind::Hostile => {
                tracing::warn!(duration_ms, outcome = "failed", kind, error, "build ended");
            }
            ErrorKind::Failed
            | ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Denied
            | ErrorKind::Unavailable
            | ErrorKind::TimedOut
            | ErrorKind::Unsupported => {
                tracing::info!(duration_ms, outcome = "failed", kind, error, "build ended");
            }
        }
    }
}

impl Drop for BuildLog {
    fn drop(&mut self) {
        if !self.is_logged {
            self.end(Some(&crate::scope::canceled()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use parking_lot::Mutex;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::api::FailureKind;

    /// Collects lines as `LEVEL field=value …`, and the fields of spans.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Fields<'a>(&'a mut String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut line = format!("span {}", span.metadata().name());
            span.record(&mut Fields(&mut line));
            self.0.lock().push(line);
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut line = event.metadata().level().to_string();
            event.record(&mut Fields(&mut line));
            self.0.lock().push(line);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn request() -> SolveRequest {
        SolveRequest {
            build: "b1".into(),
            session: "s1".into(),
            input: crate::api::SolveInput::Frontend("dockerfile.v0".into()),
            ..SolveRequest::default()
        }
    }

    /// The log lines of a build that takes three seconds and has this outcome; none drops the build.
    fn lines_of(outcome: Option<Result<(), Failure>>) -> Vec<String> {
        let lines = Lines::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        tracing::subscriber::with_default(lines.clone(), || {
            let clock = Clock::paused(SystemTime::UNIX_EPOCH);
            let log = BuildLog::begin(&clock, &request());
            clock.advance(Duration::from_secs(3));
            match outcome {
                Some(outcome) => drop(runtime.block_on(log.watch(async { outcome }))),
                None => drop(log.watch(std::future::pending::<Result<(), Failure>>())),
            }
        });
        let lines = lines.0.lock();
        lines.clone()
    }

    #[test]
    fn the_log_has_a_build_s_ids_outcome_and_duration() {
        let start = [
            "span job build=b1 session=s1",
            "INFO message=build started frontend=\"dockerfile.v0\" exporters=0",
        ];
        let failed =
            |cause| Failure::of_build(cause, "cannot copy a descriptor: too many open files");
        for (outcome, end) in [
            (
                Some(Ok(())),
                "INFO message=build ended duration_ms=3000 outcome=\"succeeded\"",
            ),
            (
                None,
                "INFO message=build ended duration_ms=3000 outcome=\"cancelled\"",
            ),
            (
                Some(Err(Failure::new(FailureKind::Canceled, "context canceled"))),
                "INFO message=build ended duration_ms=3000 outcome=\"cancelled\"",
            ),
            (
                Some(Err(failed(ErrorKind::Failed))),
                "INFO message=build ended duration_ms=3000 outcome=\"failed\" kind=\"failed\" error=\"cannot copy a descriptor: too many open files\"",
            ),
            (
                Some(Err(failed(ErrorKind::Exhausted))),
                "WARN message=build ended duration_ms=3000 outcome=\"failed\" kind=\"exhausted\" error=\"cannot copy a descriptor: too many open files\"",
            ),
            (
                Some(Err(failed(ErrorKind::Bug))),
                "ERROR message=build ended duration_ms=3000 outcome=\"failed\" kind=\"bug\" error=\"cannot copy a descriptor: too many open files\"",
            ),
        ] {
            assert_eq!(lines_of(outcome), [start[0], start[1], end]);
        }
    }
}
