//! Progress as lines, in the words that people and scripts know from the reference.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use client::{Log, SolveStatus, Status, Vertex};

use crate::progress::Display;
use crate::progress::text::{bytes, cut, seconds};

const TAIL: usize = 10;
const NAME: usize = 72;
/// A step that is being shown stays for this long while others have news too.
const STAY: Duration = Duration::from_secs(5);
/// A step that ended often begins again within a moment; it is told only when it has not.
const SETTLE: Duration = Duration::from_millis(60);
const MIN_TIME: Duration = Duration::from_secs(5);
const MIN_SHARE: f64 = 0.05;
const MAX_LINE: usize = 64 << 10;

#[derive(Debug, Default)]
struct Step {
    vertex: Vertex,
    number: usize,
    begun: Option<SystemTime>,
    // When its end was heard of.
    ended: Option<SystemTime>,
    // When it ran; it may run several times.
    ran: Vec<(SystemTime, SystemTime)>,
    done: bool,
    statuses: Vec<Status>,
    changed: HashSet<String>,
    shown: HashMap<String, (i64, SystemTime)>,
    lines: VecDeque<String>,
    partial: BTreeMap<i64, Vec<u8>>,
    warnings: VecDeque<String>,
    tail: VecDeque<String>,
    dirty: bool,
}

/// Writes lines.
#[derive(Debug)]
pub struct Plain {
    steps: HashMap<String, Step>,
    order: Vec<String>,
    next: usize,
    current: Option<String>,
    since: Option<SystemTime>,
    any: bool,
    truncate: bool,
    silent: bool,
    failed: Option<(String, String)>,
}

impl Plain {
    /// Shows everything; long names are cut with `truncate`.
    #[must_use]
    pub fn new(truncate: bool) -> Self {
        Self {
            steps: HashMap::new(),
            order: Vec::new(),
            next: 0,
            current: None,
            since: None,
            any: false,
            truncate,
            silent: false,
            failed: None,
        }
    }

    /// Shows nothing, but remembers what the end needs.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            silent: true,
            ..Self::new(false)
        }
    }

    fn step(&mut self, digest: &str) -> &mut Step {
        if !self.steps.contains_key(digest) {
            self.order.push(digest.to_owned());
        }
        self.steps.entry(digest.to_owned()).or_default()
    }

    fn take(&mut self, news: &SolveStatus, now: SystemTime) {
        for v in &news.vertexes {
            let step = self.step(&v.digest);
            let ended_again = v.completed.is_some() && v.completed != step.vertex.completed;
            let begun_again = v.started.is_some() && v.started != step.vertex.started;
            step.begun = step.begun.or(v.started);
            if ended_again {
                step.ended = Some(now);
            }
            step.dirty |= ended_again || begun_again;
            if begun_again && v.completed.is_none() {
                step.done = false;
            }
            if let Some((from, to)) = v.started.zip(v.completed) {
                match step.ran.iter_mut().find(|r| r.0 == from) {
                    Some(run) => run.1 = to,
                    None => step.ran.push((from, to)),
                }
            }
            step.vertex = v.clone();
            if !v.error.is_empty() && !v.error.ends_with("context canceled") {
                self.failed
                    .get_or_insert_with(|| (v.digest.clone(), v.name.clone()));
            }
        }
        for s in &news.statuses {
            let step = self.step(&s.vertex);
            match step.statuses.iter_mut().find(|old| old.id == s.id) {
                Some(old) => *old = s.clone(),
                None => step.statuses.push(s.clone()),
            }
            step.changed.insert(s.id.clone());
            step.dirty = true;
        }
        for w in &news.warnings {
            let step = self.step(&w.vertex);
            step.warnings.push_back(w.short.clone());
            step.dirty = true;
        }
        for l in &news.logs {
            self.step(&l.vertex).log(l);
        }
    }

    fn print(&mut self, digest: &str, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        let switching = self.current.as_deref() != Some(digest);
        if switching && let Some(old) = self.current.take().and_then(|d| self.steps.get(&d)) {
            writeln!(out, "#{} ...", old.number)?;
        }
        let Some(step) = self.steps.get_mut(digest) else {
            return Ok(());
        };
        if step.number == 0 {
            self.next += 1;
            step.number = self.next;
        }
        if switching {
            if std::mem::replace(&mut self.any, true) {
                writeln!(out)?;
            }
            let name = if self.truncate {
                cut(&step.vertex.name, NAME)
            } else {
                step.vertex.name.clone()
            };
            writeln!(out, "#{} {name}", step.number)?;
            self.since = Some(now);
        }
        let open = step.print(out)?;
        self.current = Some(digest.to_owned());
        if step.vertex.completed.is_some() && !open {
            self.current = None;
            step.end(out)?;
        }
        Ok(())
    }

    fn flush(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        // First the step on show, then those that ended, then any other, if the one on show has had its time.
        if let Some(current) = self.current.clone()
            && self
                .steps
                .get(&current)
                .is_some_and(|s| s.dirty && s.is_settled(now))
        {
            self.print(&current, now, out)?;
        }
        let ready = |s: &Step| s.dirty && s.begun.is_some() && s.is_settled(now);
        let ended: Vec<String> = self.pick(|s| ready(s) && s.vertex.completed.is_some());
        for digest in ended {
            self.print(&digest, now, out)?;
        }
        let stays = self.current.is_some()
            && self
                .since
                .is_some_and(|t| seconds(t, now) < STAY.as_secs_f64());
        if !stays && let Some(next) = self.pick(ready).first() {
            self.print(next, now, out)?;
        }
        Ok(())
    }

    fn pick(&self, wanted: impl Fn(&Step) -> bool) -> Vec<String> {
        let all = self.order.iter();
        all.filter(|d| self.steps.get(*d).is_some_and(&wanted))
            .cloned()
            .collect()
    }
}

impl Step {
    fn is_settled(&self, now: SystemTime) -> bool {
        self.vertex.completed.is_none()
            || self
                .ended
                .is_none_or(|at| seconds(at, now) >= SETTLE.as_secs_f64())
    }

    fn log(&mut self, log: &Log) {
        let begun = self.begun.unwrap_or(log.timestamp);
        let at = seconds(begun, log.timestamp);
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
        if partial.len() > MAX_LINE {
            lines.push(String::from_utf8_lossy(&std::mem::take(partial)).into_owned());
        }
        for line in lines {
            self.line(at, &line);
        }
    }

    fn line(&mut self, at: f64, line: &str) {
        // What a carriage return overwrote is not there any more.
        let line = line.trim_end_matches('\r');
        let line = line.rsplit('\r').next().unwrap_or(line);
        let text = format!("{at:.3} {line}");
        self.tail.push_back(text.clone());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
        self.lines.push_back(text);
        self.dirty = true;
    }

    fn close_lines(&mut self) {
        let at = self
            .begun
            .zip(self.vertex.completed)
            .map_or(0.0, |(from, to)| seconds(from, to));
        for (_, rest) in std::mem::take(&mut self.partial) {
            if !rest.is_empty() {
                self.line(at, &String::from_utf8_lossy(&rest));
            }
        }
    }

    // Whether a part of it is still going on.
    fn print(&mut self, out: &mut dyn Write) -> io::Result<bool> {
        if self.vertex.completed.is_some() {
            self.close_lines();
        }
        self.dirty = false;
        let n = self.number;
        let mut open = false;
        for s in &self.statuses {
            open |= s.completed.is_none();
            if !self.changed.remove(&s.id) {
                continue;
            }
            if s.completed.is_none()
                && let Some((current, when)) = self.shown.get(&s.id)
            {
                #[expect(clippy::cast_precision_loss, reason = "compared with a share")]
                let share = if s.total > 0 {
                    (s.current - current) as f64 / s.total as f64
                } else {
                    0.0
                };
                if share < MIN_SHARE && seconds(*when, s.timestamp) < MIN_TIME.as_secs_f64() {
                    continue;
                }
            }
            self.shown.insert(s.id.clone(), (s.current, s.timestamp));
            let mut line = s.id.clone();
            if s.total != 0 {
                line += &format!(" {} / {}", bytes(s.current), bytes(s.total));
            } else if s.current != 0 {
                line += &format!(" {}", bytes(s.current));
            }
            if let Some(started) = s.started {
                let took = seconds(started, s.completed.unwrap_or(s.timestamp));
                if took > 0.01 {
                    line += &format!(" {took:.1}s");
                }
            }
            if s.completed.is_some() {
                line += " done";
            }
            writeln!(out, "#{n} {line}")?;
        }
        for warning in self.warnings.drain(..) {
            writeln!(out, "#{n} WARN: {warning}")?;
        }
        for line in self.lines.drain(..) {
            writeln!(out, "#{n} {line}")?;
        }
        Ok(open && self.vertex.completed.is_none())
    }

    fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        let (n, v) = (self.number, &self.vertex);
        if v.error.ends_with("context canceled") {
            writeln!(out, "#{n} CANCELED")
        } else if !v.error.is_empty() {
            writeln!(out, "#{n} ERROR: {}", v.error)
        } else if v.cached {
            writeln!(out, "#{n} CACHED")
        } else {
            let took = together(&self.ran);
            writeln!(out, "#{n} DONE {took:.1}s")
        }
    }
}

// The time that the runs cover, counted once where they overlap.
fn together(runs: &[(SystemTime, SystemTime)]) -> f64 {
    let mut runs = runs.to_vec();
    runs.sort();
    let mut total = 0.0;
    let mut covered = None;
    for (from, to) in runs {
        let from = covered.map_or(from, |c| from.max(c));
        total += seconds(from, to);
        covered = Some(covered.map_or(to, |c| to.max(c)));
    }
    total
}

impl Display for Plain {
    fn update(
        &mut self,
        news: &SolveStatus,
        now: SystemTime,
        _out: &mut dyn Write,
    ) -> io::Result<()> {
        self.take(news, now);
        if self.silent {
            for step in self.steps.values_mut() {
                step.lines.clear();
            }
        }
        // Shown at the next tick: a step often ends, begins and ends again within a moment.
        Ok(())
    }

    fn tick(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        self.flush(now, out)
    }

    fn finish(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        for step in self.steps.values_mut() {
            step.close_lines();
        }
        if self.silent {
            return Ok(());
        }
        for digest in self.pick(|s| s.dirty && s.begun.is_some()) {
            self.print(&digest, now, out)?;
        }
        Ok(())
    }

    fn tail(&self, vertex: &str) -> Vec<String> {
        let step = self.steps.get(vertex);
        step.map_or_else(Vec::new, |s| s.tail.iter().cloned().collect())
    }

    fn failed(&self) -> Option<(String, String)> {
        self.failed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000 + ms)
    }

    fn vertex(digest: &str, from: u64, to: Option<u64>) -> Vertex {
        Vertex {
            digest: digest.into(),
            name: format!("[{digest}] RUN x"),
            started: Some(at(from)),
            completed: to.map(at),
            ..Vertex::default()
        }
    }

    fn log(vertex: &str, ms: u64, data: &'static str) -> Log {
        Log {
            vertex: vertex.into(),
            stream: 1,
            data: data.into(),
            timestamp: at(ms),
        }
    }

    fn steps(vertexes: Vec<Vertex>, logs: Vec<Log>) -> SolveStatus {
        SolveStatus {
            vertexes,
            logs,
            ..SolveStatus::default()
        }
    }

    #[test]
    fn steps_are_told_as_the_reference_tells_them() -> io::Result<()> {
        let (mut plain, mut out) = (Plain::new(false), Vec::new());
        plain.update(&steps(vec![vertex("a", 0, None)], vec![]), at(0), &mut out)?;
        plain.tick(at(0), &mut out)?;
        plain.update(
            &steps(
                vec![vertex("b", 10, None)],
                vec![
                    log("a", 120, "hello\nwor"),
                    log("b", 130, "hidden for now\n"),
                ],
            ),
            at(130),
            &mut out,
        )?;
        plain.tick(at(130), &mut out)?;
        let status = Status {
            id: "transferring context:".into(),
            vertex: "a".into(),
            name: String::new(),
            current: 2_500_000,
            total: 0,
            timestamp: at(300),
            started: Some(at(100)),
            completed: Some(at(300)),
        };
        plain.update(
            &SolveStatus {
                statuses: vec![status],
                ..SolveStatus::default()
            },
            at(300),
            &mut out,
        )?;
        plain.tick(at(300), &mut out)?;
        plain.update(
            &steps(vec![vertex("a", 0, Some(400))], vec![log("a", 350, "ld\n")]),
            at(400),
            &mut out,
        )?;
        plain.tick(at(500), &mut out)?;
        let mut failed = vertex("b", 10, Some(900));
        failed.error = "exit code: 7".into();
        let mut cached = vertex("c", 900, Some(900));
        cached.cached = true;
        plain.update(&steps(vec![cached, failed], vec![]), at(900), &mut out)?;
        plain.finish(at(900), &mut out)?;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "#1 [a] RUN x\n#1 0.120 hello\n#1 transferring context: 2.50MB 0.2s done\n#1 0.350 world\n#1 DONE 0.4s\n\n\
             #2 [b] RUN x\n#2 0.120 hidden for now\n#2 ERROR: exit code: 7\n\n#3 [c] RUN x\n#3 CACHED\n"
        );
        assert_eq!(plain.tail("b"), ["0.120 hidden for now"]);
        assert_eq!(plain.failed().map(|f| f.0), Some("b".into()));
        Ok(())
    }
}
