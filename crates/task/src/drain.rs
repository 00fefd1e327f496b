//! Ordered shutdown.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

type Closer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The phases of a shutdown, in order; each has a deadline after which the next begins anyway.
#[derive(Default)]
pub struct Drain {
    phases: Vec<(&'static str, Duration, Closer)>,
}

/// What became of one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhaseReport {
    /// The phase.
    pub name: &'static str,
    /// Whether it ended before its deadline.
    pub finished: bool,
    /// How long it took.
    pub took: Duration,
}

impl Drain {
    /// Makes a shutdown of no phases.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a phase after the ones there are.
    #[must_use]
    pub fn phase(
        mut self,
        name: &'static str,
        deadline: Duration,
        close: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.phases.push((name, deadline, Box::pin(close)));
        self
    }

    /// Runs the phases and reports on each.
    pub async fn run(self) -> Vec<PhaseReport> {
        let mut reports = Vec::with_capacity(self.phases.len());
        for (name, deadline, close) in self.phases {
            let started = Instant::now();
            tracing::debug!(phase = name, "shutting down");
            let finished = tokio::time::timeout(deadline, close).await.is_ok();
            if !finished {
                tracing::warn!(phase = name, "did not end within its deadline");
            }
            reports.push(PhaseReport {
                name,
                finished,
                took: started.elapsed(),
            });
        }
        reports
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.phases.iter().map(|p| p.0))
            .finish()
    }
}
