//! Which steps may begin: a bound on their number, and memory for all that run.
//!
//! A step that ran before is expected to need what it needed then. It begins when that fits beside what is expected of the steps
//! that run, and when the machine is not short of memory; otherwise it waits, and those that came after it wait behind it. While
//! nothing runs every step begins, so that none waits for ever.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use oci::Digest;
use parking_lot::Mutex;
use task::{Permit, Permits};
use tokio::sync::Notify;

/// Of how many steps it is remembered what memory they needed.
const MAX_REMEMBERED_STEPS: usize = 4096;
/// How often a step that waits looks whether the machine has memory again. It is told at once when another step ends.
const PRESSURE_INTERVAL: Duration = Duration::from_millis(500);
/// A step is expected to need this share more than when it ran last: a tenth.
const GROWTH_DIVISOR: u64 = 10;

/// The memory that steps may use together.
#[derive(Clone)]
pub struct MemoryBudget {
    /// Bytes.
    pub bytes: u64,
    /// Whether the machine is short of memory now. It is asked before a step begins.
    pub is_pressed: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Lets steps begin.
#[derive(Debug)]
pub(crate) struct Admission {
    permits: Permits,
    memory: Option<MemoryBudget>,
    state: Mutex<State>,
    /// A step ended.
    ended: Notify,
    /// The step that is next holds it.
    next: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// What is expected of the steps that run, in bytes.
    reserved: u64,
    peaks: HashMap<Digest, Peak>,
    /// Counts steps that ended.
    clock: u64,
}

#[derive(Debug)]
struct Peak {
    bytes: u64,
    ended: u64,
}

/// Why a step waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// It is expected to need more than is left.
    Budget {
        /// Bytes that are expected of it.
        expected: u64,
        /// Bytes that are expected of the steps that run.
        reserved: u64,
        /// Bytes for all.
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

/// A step that runs. Dropping it makes room for others.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    admission: &'a Admission,
    step: Digest,
    reserved: u64,
    _permit: Permit,
}

impl Admission {
    /// `max_parallelism`: how many steps may run at a time, 0 for any number. Without a budget memory is not looked at.
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

    /// Waits for a turn of something that needs no memory to speak of.
    pub(crate) async fn turn(&self) -> Permit {
        self.permits.acquire().await
    }

    /// Waits until `step` may begin. `limit`: the bytes that it is limited to, 0 for none. `waits` is told once if it has to wait
    /// for memory.
    pub(crate) async fn begin(
        &self,
        step: Digest,
        limit: u64,
        waits: impl FnOnce(Shortage),
    ) -> Running<'_> {
        let permit = self.permits.acquire().await;
        let running = |reserved| Running {
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
        let mut waits = Some(waits);
        loop {
            let ended = self.ended.notified();
            match self.reserve(memory, &step, limit) {
                Ok(reserved) => return running(reserved),
                Err(shortage) => {
                    if let Some(waits) = waits.take() {
                        waits(shortage);
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

impl Running<'_> {
    /// Remembers what the step needed, in bytes; 0 if nobody knows.
    pub(crate) fn needed(&self, bytes: u64) {
        if bytes == 0 || self.admission.memory.is_none() {
            return;
        }
        let mut state = self.admission.state.lock();
        state.clock += 1;
        let ended = state.clock;
        // What once needed much is believed to need it for a while.
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

impl Drop for Running<'_> {
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

    /// Runs `step` once, which needs so much.
    fn ran(admission: &Admission, name: &str, mebibytes: u64) {
        let running = at_once(admission, name).unwrap();
        running.needed(mebibytes * MIB);
    }

    fn at_once<'a>(admission: &'a Admission, name: &str) -> Option<Running<'a>> {
        admission.begin(step(name), 0, |_| {}).now_or_never()
    }

    #[tokio::test]
    async fn steps_that_nobody_knows_begin_side_by_side() {
        let (admission, _) = admission(100);
        let all: Vec<_> = (0..50)
            .map(|n| at_once(&admission, &n.to_string()))
            .collect();
        assert!(all.iter().all(Option::is_some));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_waits_while_what_it_needed_does_not_fit_and_is_told_why_once() {
        let (admission, _) = admission(100);
        ran(&admission, "large", 60);
        let first = at_once(&admission, "large").unwrap();
        let told = Mutex::new(Vec::new());
        let second = admission.begin(step("large"), 0, |shortage| told.lock().push(shortage));
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
        assert_eq!(*told.lock(), [budget]);
        assert_eq!(
            budget.to_string(),
            "this step waits for memory: it is expected to need 66 MiB, and 66 of 100 MiB are reserved for steps that run"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_later_waits_behind_who_waits() {
        let (admission, _) = admission(100);
        ran(&admission, "large", 60);
        let first = at_once(&admission, "large").unwrap();
        let mut second = Box::pin(admission.begin(step("large"), 0, |_| {}));
        assert!((&mut second).now_or_never().is_none());
        assert!(at_once(&admission, "small").is_none());
        drop(first);
        let _second = second.await;
        assert!(at_once(&admission, "small").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_waiting_keeps_nobody_back() {
        let (admission, _) = admission(100);
        ran(&admission, "large", 60);
        let _first = at_once(&admission, "large").unwrap();
        let mut second = Box::pin(admission.begin(step("large"), 0, |_| {}));
        assert!((&mut second).now_or_never().is_none());
        drop(second);
        assert!(at_once(&admission, "small").is_some());
    }

    #[tokio::test]
    async fn a_step_that_never_fits_runs_alone() {
        let (admission, pressed) = admission(100);
        ran(&admission, "huge", 1000);
        pressed.store(true, Ordering::Relaxed);
        let alone = at_once(&admission, "huge").unwrap();
        assert!(at_once(&admission, "small").is_none());
        drop(alone);
        assert!(at_once(&admission, "small").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_short_of_memory_lets_no_further_step_begin_until_it_has_some() {
        let (admission, pressed) = admission(100);
        let _first = at_once(&admission, "a").unwrap();
        pressed.store(true, Ordering::Relaxed);
        let told = Mutex::new(Vec::new());
        let mut second = Box::pin(admission.begin(step("b"), 0, |why| told.lock().push(why)));
        assert!((&mut second).now_or_never().is_none());
        pressed.store(false, Ordering::Relaxed);
        let _second = second.await;
        assert_eq!(*told.lock(), [Shortage::Pressure]);
    }

    #[tokio::test]
    async fn no_step_is_expected_to_need_more_than_its_limit() {
        let (admission, _) = admission(100);
        ran(&admission, "large", 90);
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
    async fn what_a_step_needed_fades_and_the_oldest_is_forgotten() {
        let (admission, _) = admission(100);
        ran(&admission, "a", 100);
        ran(&admission, "a", 1);
        let peak = |name: &str| {
            admission
                .state
                .lock()
                .peaks
                .get(&step(name))
                .map(|p| p.bytes / MIB)
        };
        assert_eq!(peak("a"), Some(75));
        ran(&admission, "a", 0);
        assert_eq!(peak("a"), Some(75), "nothing was learned");
        for n in 0..MAX_REMEMBERED_STEPS {
            ran(&admission, &n.to_string(), 1);
            // A task may poll only so often before it lets others run.
            tokio::task::yield_now().await;
        }
        assert_eq!(peak("a"), None);
        assert_eq!(admission.state.lock().peaks.len(), MAX_REMEMBERED_STEPS);
    }

    #[tokio::test]
    async fn without_a_budget_only_the_number_counts() {
        let admission = Admission::new(2, None);
        ran(&admission, "a", 1000);
        let (first, second) = (at_once(&admission, "a"), at_once(&admission, "a"));
        assert!(first.is_some() && second.is_some());
        assert!(at_once(&admission, "a").is_none());
        assert!(admission.turn().now_or_never().is_none());
        drop(first);
        assert!(admission.turn().now_or_never().is_some());
    }
}
