//! Admission of steps: a limit on their number, and memory for all that run.
//!
//! A step that run_with_peak before is expected to need as much memory again. It starts when that fits beside the expected memory of the running
//! steps, and when the machine is not short of memory; otherwise it waits, and later steps wait behind it. While
//! no step runs, any step may start, so that none waits for ever.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oci::Digest;
use parking_lot::Mutex;
use task::{Permit, Permits};
use tokio::sync::Notify;

/// Number of steps whose memory is remembered.
const MAX_REMEMBERED_STEPS: usize = 4096;
/// Interval in which a waiting step checks for memory pressure. It is woken at once when another step ends.
const PRESSURE_INTERVAL: Duration = Duration::from_millis(500);
/// A step is expected to need a tenth more than in its last run.
const GROWTH_DIVISOR: u64 = 10;

/// The memory that all steps together may use.
#[derive(Clone)]
pub struct MemoryBudget {
    /// Size in bytes.
    pub bytes: u64,
    /// Returns whether the machine is short of memory. Called before a step starts.
    pub is_pressed: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Decides when steps start.
#[derive(Debug)]
pub(crate) struct Admission {
    permits: Permits,
    memory: Option<MemoryBudget>,
    state: Mutex<RunningSteps>,
    /// Notified when a step ends.
    ended: Notify,
    /// Held by the next step to start.
    next: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct RunningSteps {
    running: usize,
    /// Expected memory of the running steps, in bytes.
    reserved: u64,
    peaks: HashMap<Digest, Peak>,
    /// Number of steps that ended.
    clock: u64,
}

#[derive(Debug)]
struct Peak {
    bytes: u64,
    ended: u64,
}

/// The reason why a step waits for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// The step is expected to need more than is free.
    Budget {
        /// Expected memory of the step, in bytes.
        expected: u64,
        /// Expected memory of the running steps, in bytes.
        reserved: u64,
        /// Memory for all steps, in bytes.
        budget: u64,
    },
    /// The machine is short of memory.
    Pressure,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        match *self {
            Self::Budget {
                expected,
                reserved,
                budget,
            } => write!(
                f,
                "this step waits for memory: it is expected to need {} MiB, and {} of {} MiB are reserved for steps that run",
                mebibytes(expected),
                mebibytes(reserved),
                mebibytes(budget)
            ),
            Self::Pressure => f.write_str(
                "this step waits for memory: the machine is short of it, and other steps run",
            ),
        }
    }
}

/// A running step. Dropping it frees its memory for others.
#[derive(Debug)]
pub(crate) struct AdmittedStep<'a> {
    admission: &'a Admission,
    step: Digest,
    reserved: u64,
    _permit: Permit,
}

impl Admission {
    /// `max_parallelism` is the number of steps that may run at a time, 0 for any number. Without a budget, memory is not considered.
    pub(crate) fn new(max_parallelism: usize, memory: Option<MemoryBudget>) -> Self {
        Self {
            permits: match max_parallelism {
                0 => Permits::unlimited(),
                limit => Permits::new(limit),
            },
            memory,
            state: Mutex::default(),
            ended: Notify::new(),
            next: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits for a permit for work that needs hardly any memory.
    pub(crate) async fn permit(&self) -> Permit {
        self.permits.acquire().await
    }

    /// Waits until `step` may start. `limit` is its memory limit in bytes, 0 for none. `on_shortage` is called once if it has to wait
    /// for memory.
    pub(crate) async fn begin(
        &self,
        step: Digest,
        limit: u64,
        on_shortage: impl FnOnce(Shortage),
    ) -> AdmittedStep<'_> {
        let permit = self.permits.acquire().await;
        let running = |reserved| AdmittedStep {
            admission: self,
            step: step.clone(),
            reserved,
            _permit: permit,
        };
        let Some(memory) = &self.memory else {
            self.state.lock().running += 1;
            return running(0);
        };
        let _next = self.next.lock().await;
        let mut on_shortage = Some(on_shortage);
        loop {
            let ended = self.ended.notified();
            match self.reserve(memory, &step, limit) {
                Ok(reserved) => return running(reserved),
                Err(shortage) => {
                    if let Some(on_shortage) = on_shortage.take() {
                        on_shortage(shortage);
                    }
                }
            }
            tokio::select! {
                () = ended => {}
                () = task::clock::sleep(PRESSURE_INTERVAL) => {}
            }
        }
    }

    fn reserve(&self, memory: &MemoryBudget, step: &Digest, limit: u64) -> Result<u64, Shortage> {
        let is_pressed = (memory.is_pressed)();
        let mut state = self.state.lock();
        let expected = state.peaks.get(step).map_or(0, |peak| {
            let grown = peak.bytes.saturating_add(peak.bytes / GROWTH_DIVISOR);
            if limit == 0 { grown } else { grown.min(limit) }
        });
        if state.running > 0 {
            if state.reserved.saturating_add(expected) > memory.bytes {
                return Err(Shortage::Budget {
                    expected,
                    reserved: state.reserved,
                    budget: memory.bytes,
                });
            }
            if is_pressed {
                return Err(Shortage::Pressure);
            }
        }
        state.running += 1;
        state.reserved = state.reserved.saturating_add(expected);
        Ok(expected)
    }
}

impl AdmittedStep<'_> {
    /// Records the memory that the step used, in bytes; 0 if unknown.
    pub(crate) fn record_peak(&self, bytes: u64) {
        if bytes == 0 || self.admission.memory.is_none() {
            return;
        }
        let mut state = self.admission.state.lock();
        state.clock += 1;
        let ended = state.clock;
        // A step that once needed much memory is expected to need it for some further runs.
        let earlier = state.peaks.get(&self.step).map_or(0, |peak| peak.bytes);
        let bytes = bytes.max(earlier / 4 * 3);
        state.peaks.insert(self.step.clone(), Peak { bytes, ended });
        if state.peaks.len() > MAX_REMEMBERED_STEPS {
            let oldest = state.peaks.iter().min_by_key(|(_, peak)| peak.ended);
            if let Some(oldest) = oldest.map(|(step, _)| step.clone()) {
                state.peaks.remove(&oldest);
            }
        }
    }
}

impl Drop for AdmittedStep<'_> {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.running -= 1;
        state.reserved = state.reserved.saturating_sub(self.reserved);
        drop(state);
        self.admission.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::FutureExt as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn step(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn admission(mebibytes: u64) -> (Admission, Arc<AtomicBool>) {
        let pressed = Arc::new(AtomicBool::new(false));
        let gauge = Arc::clone(&pressed);
        let memory = MemoryBudget {
            bytes: mebibytes * MIB,
            is_pressed: Arc::new(move || gauge.load(Ordering::Relaxed)),
        };
        (Admission::new(0, Some(memory)), pressed)
    }

    /// Runs `step` once, with this peak of memory.
    fn run_with_peak(admission: &Admission, name: &str, mebibytes: u64) {
        let running = start_at_once(admission, name).unwrap();
        running.record_peak(mebibytes * MIB);
    }

    fn start_at_once<'a>(admission: &'a Admission, name: &str) -> Option<AdmittedStep<'a>> {
        admission.begin(step(name), 0, |_| {}).now_or_never()
    }

    #[tokio::test]
    async fn unknown_steps_start_side_by_side() {
        let (admission, _) = admission(100);
        let all: Vec<_> = (0..50)
            .map(|n| start_at_once(&admission, &n.to_string()))
            .collect();
        assert!(all.iter().all(Option::is_some));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_waits_while_its_expected_memory_does_not_fit_and_gets_the_reason_once() {
        let (admission, _) = admission(100);
        run_with_peak(&admission, "large", 60);
        let first = start_at_once(&admission, "large").unwrap();
        let shortages = Mutex::new(Vec::new());
        let second = admission.begin(step("large"), 0, |shortage| shortages.lock().push(shortage));
        let mut second = Box::pin(second);
        assert!((&mut second).now_or_never().is_none());
        task::clock::sleep(PRESSURE_INTERVAL * 3).await;
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        let _second = second.await;
        let budget = Shortage::Budget {
            expected: 66 * MIB,
            reserved: 66 * MIB,
            budget: 100 * MIB,
        };
        assert_eq!(*shortages.lock(), [budget]);
        assert_eq!(
            budget.to_string(),
            "this step waits for memory: it is expected to need 66 MiB, and 66 of 100 MiB are reserved for steps that run"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn later_steps_wait_behind_waiting_ones() {
        let (admission, _) = admission(100);
        run_with_peak(&admission, "large", 60);
        let first = start_at_once(&admission, "large").unwrap();
        let mut second = Box::pin(admission.begin(step("large"), 0, |_| {}));
        assert!((&mut second).now_or_never().is_none());
        assert!(start_at_once(&admission, "small").is_none());
        drop(first);
        let _second = second.await;
        assert!(start_at_once(&admission, "small").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_wait_blocks_no_other_step() {
        let (admission, _) = admission(100);
        run_with_peak(&admission, "large", 60);
        let _first = start_at_once(&admission, "large").unwrap();
        let mut second = Box::pin(admission.begin(step("large"), 0, |_| {}));
        assert!((&mut second).now_or_never().is_none());
        drop(second);
        assert!(start_at_once(&admission, "small").is_some());
    }

    #[tokio::test]
    async fn a_step_that_never_fits_runs_alone() {
        let (admission, pressed) = admission(100);
        run_with_peak(&admission, "huge", 1000);
        pressed.store(true, Ordering::Relaxed);
        let alone = start_at_once(&admission, "huge").unwrap();
        assert!(start_at_once(&admission, "small").is_none());
        drop(alone);
        assert!(start_at_once(&admission, "small").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn under_memory_pressure_no_further_step_starts() {
        let (admission, pressed) = admission(100);
        let _first = start_at_once(&admission, "a").unwrap();
        pressed.store(true, Ordering::Relaxed);
        let shortages = Mutex::new(Vec::new());
        let mut second = Box::pin(admission.begin(step("b"), 0, |why| shortages.lock().push(why)));
        assert!((&mut second).now_or_never().is_none());
        pressed.store(false, Ordering::Relaxed);
        let _second = second.await;
        assert_eq!(*shortages.lock(), [Shortage::Pressure]);
    }

    #[tokio::test]
    async fn no_step_is_expected_to_need_more_than_its_limit() {
        let (admission, _) = admission(100);
        run_with_peak(&admission, "large", 90);
        let limited = || {
            admission
                .begin(step("large"), 40 * MIB, |_| {})
                .now_or_never()
        };
        let (first, second) = (limited(), limited());
        assert!(first.is_some() && second.is_some());
        assert!(limited().is_none());
    }

    #[tokio::test]
    async fn remembered_peaks_decay_and_the_oldest_is_forgotten() {
        let (admission, _) = admission(100);
        run_with_peak(&admission, "a", 100);
        run_with_peak(&admission, "a", 1);
        let peak = |name: &str| {
            admission
                .state
                .lock()
                .peaks
                .get(&step(name))
                .map(|p| p.bytes / MIB)
        };
        assert_eq!(peak("a"), Some(75));
        run_with_peak(&admission, "a", 0);
        assert_eq!(peak("a"), Some(75), "nothing was learned");
        for n in 0..MAX_REMEMBERED_STEPS {
            run_with_peak(&admission, &n.to_string(), 1);
            // A task may poll a limited number of times before it yields.
            tokio::task::yield_now().await;
        }
        assert_eq!(peak("a"), None);
        assert_eq!(admission.state.lock().peaks.len(), MAX_REMEMBERED_STEPS);
    }

    #[tokio::test]
    async fn without_a_budget_only_the_number_of_steps_is_limited() {
        let admission = Admission::new(2, None);
        run_with_peak(&admission, "a", 1000);
        let (first, second) = (
            start_at_once(&admission, "a"),
            start_at_once(&admission, "a"),
        );
        assert!(first.is_some() && second.is_some());
        assert!(start_at_once(&admission, "a").is_none());
        assert!(admission.permit().now_or_never().is_none());
        drop(first);
        assert!(admission.permit().now_or_never().is_some());
    }
}
