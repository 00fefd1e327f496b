//! The state of a build as shown: its steps in the order in which they began, with their output.
//!
//! Steps with a progress group are one step here, under the group's name. It stays hidden while only weak members began.
//! A step may run several times (its key, its content, its result, a late download): its time is what the runs cover.
//! All times are the daemon's; [`Trace::daemon_time`] turns ours into them.
//!
//! All texts are taken out of a terminal's reach as they come in: names, errors, warnings and what steps wrote are words
//! of the daemon and of whoever it runs.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use client::{Log, SolveStatus, Status, Vertex, Warning};

use crate::progress::text::{harmless_line, harmless_lines, seconds};

/// How many lines of output are kept for the end.
const TAIL_LINES: usize = 10;
const MAX_LINE_BYTES: usize = 64 << 10;
const CANCELED: &str = "context canceled";

/// A line of output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputLine {
    /// Seconds since the step began.
    pub at: f64,
    /// The line without its line break.
    pub text: String,
}

impl OutputLine {
    /// The line behind its time, with as many digits as the reference shows.
    #[must_use]
    pub fn stamped(&self) -> String {
        let digits = match self.at {
            at if at < 10.0 => 3,
            at if at < 100.0 => 2,
            _ => 1,
        };
        format!("{:.digits$} {}", self.at, self.text)
    }
}

/// In which state a step is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// The step has not begun.
    Waiting,
    /// The step runs.
    Running,
    /// The step ended without an error.
    Done,
    /// The step was cached.
    Cached,
    /// The step ended with an error.
    Failed,
    /// The step was cancelled, because another one failed or the user interrupted the build.
    Canceled,
}

/// A step as it is shown.
#[derive(Debug, Default)]
pub struct Step {
    /// The step's name, or that of its progress group.
    pub name: String,
    /// Whether the step was cached.
    pub cached: bool,
    /// Why the step failed; empty if it did not.
    pub error: String,
    /// The parts of its work that report progress, such as downloads.
    pub statuses: Vec<Status>,
    /// Warnings, in a line each.
    pub warnings: Vec<String>,
    /// When this program received the step's last end, by this machine's clock.
    pub ended: Option<SystemTime>,
    /// What has changed since the step was last shown.
    pub changes: StepChanges,
    members: BTreeMap<String, Vertex>,
    hidden: bool,
    runs: BTreeMap<SystemTime, Option<SystemTime>>,
    tail: VecDeque<OutputLine>,
    partial: BTreeMap<i64, Vec<u8>>,
}

/// Output, statuses and the like of a step that have not been shown.
#[derive(Debug, Default)]
pub struct StepChanges {
    /// Whether anything has changed.
    pub is_changed: bool,
    /// How much has changed, as a number that steps are compared by.
    pub weight: u32,
    /// When the first of the changes came, by this machine's clock.
    pub since: Option<SystemTime>,
    /// Names of the parts that changed.
    pub statuses: HashSet<String>,
    /// New lines of output, if [`Lines::keep`] is set.
    pub lines: VecDeque<OutputLine>,
}

/// What is done with lines of output.
#[derive(Debug, Clone, Copy)]
pub struct LineOptions {
    /// Whether new lines wait in [`Step::changes`] to be shown.
    pub keep: bool,
    /// Whether colours stay in the lines.
    pub colours: bool,
}

/// The state of a build as it is shown.
#[derive(Debug, Default)]
pub struct Trace {
    /// The steps, in the order in which they were first received.
    pub steps: Vec<Step>,
    by_digest: HashMap<String, usize>,
    by_group: HashMap<String, usize>,
    order: Vec<usize>,
    first_start: Option<SystemTime>,
    // This machine's clock less the daemon's, measured when the first step was received.
    ahead: Duration,
    behind: Duration,
    warnings: Vec<Warning>,
    keep_lines: bool,
    colours: bool,
}

impl Trace {
    /// Starts with nothing. New lines of output wait to be taken with `keep_lines`.
    #[must_use]
    pub fn new(keep_lines: bool) -> Self {
        Self {
            keep_lines,
            ..Self::default()
        }
    }

    /// Leaves colours in what steps wrote: for output that is no terminal.
    #[must_use]
    pub fn with_colours(self, colours: bool) -> Self {
        Self { colours, ..self }
    }

    /// Our time as the daemon's.
    #[must_use]
    pub fn daemon_time(&self, now: SystemTime) -> SystemTime {
        now.checked_sub(self.ahead)
            .and_then(|t| t.checked_add(self.behind))
            .unwrap_or(now)
    }

    /// When the first step began.
    #[must_use]
    pub fn first_start(&self) -> Option<SystemTime> {
        self.first_start
    }

    /// The steps that began and are not hidden, by number, in the order in which they began.
    pub fn shown(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.order
            .iter()
            .filter_map(|n| self.steps.get(*n).map(|s| (*n, s)))
            .filter(|(_, s)| !s.hidden)
    }

    /// How many steps ended, and of how many.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let visible_steps = || self.steps.iter().filter(|s| !s.hidden);
        (
            visible_steps().filter(|s| s.has_ended()).count(),
            visible_steps().count(),
        )
    }

    /// The warnings, each once.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.warnings.iter()
    }

    /// The steps that failed, with the last lines that they wrote.
    #[must_use]
    pub fn failures(&self) -> Vec<(&str, Vec<String>)> {
        self.shown()
            .filter(|(_, s)| s.state() == StepState::Failed)
            .map(|(_, s)| {
                (
                    s.name.as_str(),
                    s.tail.iter().map(OutputLine::stamped).collect::<Vec<_>>(),
                )
            })
            .collect()
    }

    /// Takes a message of the daemon in.
    pub fn take(&mut self, change: &SolveStatus, now: SystemTime) {
        for v in &change.vertexes {
            self.vertex(v, now);
        }
        for s in &change.statuses {
            let mut s = s.clone();
            s.id = harmless_line(&s.id, false);
            if let Some(step) = self.step(&s.vertex) {
                match step.statuses.iter_mut().find(|old| old.id == s.id) {
                    Some(old) => *old = s.clone(),
                    None => step.statuses.push(s.clone()),
                }
                step.changes.statuses.insert(s.id);
                step.changes.add(now);
            }
        }
        for w in &change.warnings {
            let mut w = w.clone();
            w.short = harmless_line(&w.short, false);
            let same = |old: &Warning| {
                (&old.short, &old.detail, &old.url) == (&w.short, &w.detail, &w.url)
                    && old.ranges == w.ranges
            };
            if self.warnings.iter().any(same) {
                continue;
            }
            if let Some(step) = self.step(&w.vertex) {
                step.warnings.push(w.short.clone());
                step.changes.add(now);
            }
            self.warnings.push(w);
        }
        let lines = self.lines();
        for l in &change.logs {
            if let Some(step) = self.step(&l.vertex) {
                step.log(l, lines);
                step.changes.add(now);
            }
        }
    }

    /// Ends the build: steps that still run are shown as cancelled.
    pub fn end(&mut self, now: SystemTime) {
        let at = self.daemon_time(now);
        let lines = self.lines();
        for step in &mut self.steps {
            if step.state() == StepState::Running {
                for end in step.runs.values_mut() {
                    end.get_or_insert(at);
                }
                if step.error.is_empty() {
                    step.error = CANCELED.into();
                }
                step.ended = Some(now);
                step.changes.add(now);
            }
            step.close_lines(lines);
        }
    }

    /// What is done with lines of output.
    #[must_use]
    pub fn lines(&self) -> LineOptions {
        LineOptions {
            keep: self.keep_lines,
            colours: self.colours,
        }
    }

    fn step(&mut self, digest: &str) -> Option<&mut Step> {
        let at = *self.by_digest.get(digest)?;
        self.steps.get_mut(at)
    }

    fn vertex(&mut self, v: &Vertex, now: SystemTime) {
        if let (None, Some(started)) = (self.first_start, v.started) {
            self.first_start = Some(started);
            match now.duration_since(started) {
                Ok(ahead) => self.ahead = ahead,
                Err(error) => self.behind = error.duration(),
            }
        }
        let at = match &v.group {
            Some(group) => match self.by_group.get(&group.id) {
                Some(at) => *at,
                None => {
                    self.by_group.insert(group.id.clone(), self.steps.len());
                    self.add(Step {
                        name: harmless_line(&group.name, false),
                        hidden: true,
                        ..Step::default()
                    })
                }
            },
            None => match self.by_digest.get(&v.digest) {
                Some(at) => *at,
                None => self.add(Step::default()),
            },
        };
        self.by_digest.insert(v.digest.clone(), at);
        let Some(step) = self.steps.get_mut(at) else {
            return;
        };
        let before = step.state() != StepState::Waiting && !step.hidden;
        let changed = if v.group.is_some() {
            step.member(v)
        } else {
            step.become_as(v)
        };
        if changed {
            step.changes.add(now);
            if step.has_ended() {
                step.ended = Some(now);
            }
        }
        if !before && step.state() != StepState::Waiting && !step.hidden {
            self.order.push(at);
        }
    }

    fn add(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }
}

impl StepChanges {
    fn add(&mut self, now: SystemTime) {
        self.is_changed = true;
        self.weight = self.weight.saturating_add(1);
        self.since.get_or_insert(now);
    }
}

impl Step {
    /// The state in which the step is shown.
    #[must_use]
    pub fn state(&self) -> StepState {
        if self.runs.is_empty() {
            StepState::Waiting
        } else if self.runs.values().any(Option::is_none) {
            StepState::Running
        } else if self.error.ends_with(CANCELED) {
            StepState::Canceled
        } else if !self.error.is_empty() {
            StepState::Failed
        } else if self.cached {
            StepState::Cached
        } else {
            StepState::Done
        }
    }

    /// Whether the step began and does not run any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !matches!(self.state(), StepState::Waiting | StepState::Running)
    }

    /// When it last ended, by the daemon's clock.
    #[must_use]
    pub fn end(&self) -> Option<SystemTime> {
        self.runs.values().filter_map(|end| *end).max()
    }

    /// The seconds that its runs cover, counted once where they overlap.
    #[must_use]
    pub fn took(&self, now: SystemTime) -> f64 {
        self.merged(now)
            .iter()
            .map(|(from, to)| seconds(*from, *to))
            .sum()
    }

    /// The last lines that it wrote, and the one that it is writing.
    #[must_use]
    pub fn tail(&self, count: usize) -> Vec<String> {
        let writing = self.partial.values().filter_map(|p| {
            let text = String::from_utf8_lossy(p);
            let text = visible(&text);
            (!text.trim().is_empty()).then(|| text.to_owned())
        });
        let mut lines: Vec<String> = self.tail.iter().map(|l| l.text.clone()).collect();
        lines.extend(writing);
        lines.split_off(lines.len().saturating_sub(count))
    }

    fn merged(&self, now: SystemTime) -> Vec<(SystemTime, SystemTime)> {
        let mut merged: Vec<(SystemTime, SystemTime)> = Vec::new();
        for (from, to) in &self.runs {
            let to = to.unwrap_or(now).max(*from);
            match merged.last_mut() {
                Some(last) if last.1 >= *from => last.1 = last.1.max(to),
                _ => merged.push((*from, to)),
            }
        }
        merged
    }

    fn ran(&mut self, v: &Vertex) -> bool {
        let Some(from) = v.started else { return false };
        let old = self.runs.insert(from, v.completed);
        old != Some(v.completed)
    }

    fn become_as(&mut self, v: &Vertex) -> bool {
        let mut changed = self.ran(v);
        if let Some(started) = v.started {
            // A step that begins again has ended, said or not.
            for (_, end) in self.runs.range_mut(..started) {
                end.get_or_insert(started);
            }
            changed |= self.cached != v.cached || self.error != harmless_lines(&v.error);
            self.cached = v.cached;
            self.error = harmless_lines(&v.error);
        }
        self.name = harmless_line(&v.name, false);
        changed && v.started.is_some()
    }

    fn member(&mut self, v: &Vertex) -> bool {
        let mut changed = self.ran(v);
        let weak = v.group.as_ref().is_some_and(|g| g.weak);
        if self.hidden && (v.started.is_some() && !weak || !v.error.is_empty()) {
            self.hidden = false;
            changed = true;
        }
        self.members.insert(v.digest.clone(), v.clone());
        let cached = self.members.values().all(|m| m.cached);
        let errors = self.members.values().map(|m| &m.error);
        let error = errors
            .filter(|e| !e.is_empty())
            .min_by_key(|e| e.ends_with(CANCELED));
        let error = error.map(|e| harmless_lines(e)).unwrap_or_default();
        changed |= self.cached != cached || self.error != error;
        self.cached = cached;
        self.error = error;
        changed
    }

    fn log(&mut self, log: &Log, how: LineOptions) {
        let first_start = self.merged(log.timestamp).last().map(|run| run.0);
        let at = seconds(first_start.unwrap_or(log.timestamp), log.timestamp);
        let partial = self.partial.entry(log.stream).or_default();
        partial.extend_from_slice(&log.data);
        let mut from = 0;
        let mut lines = Vec::new();
        while let Some(end) = partial
            .get(from..)
            .and_then(|rest| rest.iter().position(|b| *b == b'\n'))
        {
            lines.push(String::from_utf8_lossy(&partial[from..from + end]).into_owned());
            from += end + 1;
        }
        partial.drain(..from);
        if partial.len() > MAX_LINE_BYTES {
            lines.push(String::from_utf8_lossy(&std::mem::take(partial)).into_owned());
        }
        for line in lines {
            self.line(at, &line, how);
        }
    }

    fn line(&mut self, at: f64, text: &str, how: LineOptions) {
        let line = OutputLine {
            at,
            text: harmless_line(visible(text), how.colours),
        };
        self.tail.push_back(line.clone());
        if self.tail.len() > TAIL_LINES {
            self.tail.pop_front();
        }
        if how.keep {
            self.changes.lines.push_back(line);
            self.changes.is_changed = true;
        }
    }

    /// Takes what was written without an end of line as a line.
    pub fn close_lines(&mut self, how: LineOptions) {
        let now = self.end().unwrap_or(SystemTime::UNIX_EPOCH);
        let at = self
            .merged(now)
            .last()
            .map_or(0.0, |(from, to)| seconds(*from, *to));
        for (_, rest) in std::mem::take(&mut self.partial) {
            if !rest.is_empty() {
                self.line(at, &String::from_utf8_lossy(&rest), how);
            }
        }
    }
}

// What a carriage return overwrote is not there any more.
fn visible(line: &str) -> &str {
    let line = line.trim_end_matches('\r');
    line.rsplit('\r').next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use client::Group;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    fn member(digest: &str, weak: bool, from: Option<u64>, to: Option<u64>) -> SolveStatus {
        SolveStatus {
            vertexes: vec![Vertex {
                digest: digest.into(),
                name: format!("inner {digest}"),
                started: from.map(at),
                completed: to.map(at),
                group: Some(Group {
                    id: "g".into(),
                    name: "[2/3] COPY --link a b".into(),
                    weak,
                }),
                ..Vertex::default()
            }],
            ..SolveStatus::default()
        }
    }

    #[test]
    fn a_group_is_one_step_that_weak_members_do_not_show() {
        let mut trace = Trace::new(true);
        let names = |t: &Trace| t.shown().map(|(_, s)| s.name.clone()).collect::<Vec<_>>();
        trace.take(&member("merge", true, Some(0), Some(10)), at(0));
        assert_eq!(names(&trace), [""; 0]);
        trace.take(&member("copy", false, Some(20), None), at(20));
        assert_eq!(names(&trace), ["[2/3] COPY --link a b"]);
        assert_eq!(trace.counts(), (0, 1));
        trace.take(&member("copy", false, Some(20), Some(120)), at(120));
        assert_eq!(trace.counts(), (1, 1));
        assert!((trace.steps[0].took(at(999)) - 0.11).abs() < 1e-9);
    }

    #[test]
    fn time_is_counted_once_and_by_the_daemons_clock() {
        let mut trace = Trace::new(false);
        let run = |from, to: Option<u64>| SolveStatus {
            vertexes: vec![Vertex {
                digest: "v".into(),
                started: Some(at(from)),
                completed: to.map(at),
                ..Vertex::default()
            }],
            ..SolveStatus::default()
        };
        // Our clock is 5 s ahead.
        trace.take(&run(0, None), at(5000));
        assert!((trace.steps[0].took(trace.daemon_time(at(6000))) - 1.0).abs() < 1e-9);
        trace.take(&run(0, Some(1000)), at(6000));
        trace.take(&run(500, Some(1500)), at(6000));
        trace.take(&run(3000, None), at(8000));
        assert_eq!(trace.steps[0].state(), StepState::Running);
        trace.end(at(9000));
        assert_eq!(trace.steps[0].state(), StepState::Canceled);
        assert!((trace.steps[0].took(at(0)) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn what_a_carriage_return_overwrote_is_not_kept() {
        let mut trace = Trace::new(true);
        let mut change = member("copy", false, Some(0), None);
        change.logs = ["10%\r20", "%\r30%\r\nnext\nlast"]
            .into_iter()
            .map(|data| Log {
                vertex: "copy".into(),
                stream: 1,
                data: data.into(),
                timestamp: at(12_345),
            })
            .collect();
        trace.take(&change, at(0));
        let lines: Vec<_> = trace.steps[0]
            .changes
            .lines
            .iter()
            .map(OutputLine::stamped)
            .collect();
        assert_eq!(lines, ["12.35 30%", "12.35 next"]);
        assert_eq!(trace.steps[0].tail(2), ["next", "last"]);
    }
}
