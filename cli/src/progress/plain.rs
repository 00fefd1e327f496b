//! Progress as lines, in the words that people and scripts know from the reference.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use crate::progress::Display;
use crate::progress::text::{bytes, cut, seconds};
use crate::progress::trace::{Step, StepState, Trace};

const MAX_NAME_CHARS: usize = 72;
/// A step that says as much as all others keeps the floor for about twice this long.
const KEEP_FLOOR_SECONDS: f64 = 5.0;
/// A step whose news waited for this long gets the floor.
const MAX_WAIT_SECONDS: f64 = 10.0;
/// A step that ended often begins again within a moment; its end is printed only when it has not.
const SETTLE_TIME: Duration = Duration::from_millis(60);
/// Time and share of the whole between two lines about the same part of a step.
const MIN_TIME_SECONDS: f64 = 5.0;
const MIN_SHARE: f64 = 0.05;
/// An end that was printed is not printed again for a difference below this, in seconds.
const MIN_MORE_SECONDS: f64 = 0.05;

/// Writes lines.
#[derive(Debug)]
pub struct Plain {
    trace: Trace,
    printed: Vec<Printed>,
    next: usize,
    current: Option<usize>,
    has_printed: bool,
    truncate: bool,
}

/// What has been printed of a step.
#[derive(Debug, Default)]
struct Printed {
    number: usize,
    end: Option<(StepState, f64)>,
    statuses: HashMap<String, (i64, SystemTime)>,
    warnings: usize,
}

impl Plain {
    /// Shows everything; long names are cut with `truncate`.
    #[must_use]
    pub fn new(truncate: bool) -> Self {
        Self {
            trace: Trace::new(true),
            printed: Vec::new(),
            next: 0,
            current: None,
            has_printed: false,
            truncate,
        }
    }

    /// Leaves the colours of what steps wrote: for output that is no terminal.
    #[must_use]
    pub fn with_colours(self, colours: bool) -> Self {
        Self {
            trace: self.trace.with_colours(colours),
            ..self
        }
    }

    fn flush(&mut self, now: SystemTime, last: bool, out: &mut dyn Write) -> io::Result<()> {
        // First the ends, that of the step with the floor before others.
        let mut ended: Vec<(bool, Option<SystemTime>, usize)> = self
            .trace
            .shown()
            .filter(|(_, s)| s.changes.is_changed && s.has_ended() && (last || is_settled(s, now)))
            .map(|(n, s)| (Some(n) != self.current, s.end(), n))
            .collect();
        ended.sort();
        for (_, _, n) in ended {
            self.print(n, now, last, out)?;
        }
        let running = |s: &Step| s.state() == StepState::Running;
        let talking: Vec<usize> = self
            .trace
            .shown()
            .filter(|(n, s)| running(s) && (s.changes.is_changed || self.current == Some(*n)))
            .map(|(n, _)| n)
            .collect();
        let Some(current) = self.current else {
            // The one with most to say, or any that is at work.
            let loudest = self.loudest(&talking, now);
            let next =
                loudest.or_else(|| self.trace.shown().find(|(_, s)| running(s)).map(|s| s.0));
            return next.map_or(Ok(()), |n| self.print(n, now, last, out));
        };
        let share = if talking.contains(&current) {
            self.share(current, &talking, now)
        } else {
            0.0
        };
        let age_of_changes = self.age_of_changes(current, now);
        if talking.contains(&current)
            && self
                .trace
                .steps
                .get(current)
                .is_some_and(|s| s.changes.is_changed)
        {
            self.print(current, now, last, out)?;
        }
        let others: Vec<usize> = talking.into_iter().filter(|n| *n != current).collect();
        let starved = others
            .iter()
            .find(|n| self.age_of_changes(**n, now) > MAX_WAIT_SECONDS)
            .copied();
        let next = match starved {
            Some(n) => Some(n),
            None if KEEP_FLOOR_SECONDS / (1.0 - share).max(1e-9) < age_of_changes => {
                self.loudest(&others, now)
            }
            None => None,
        };
        next.map_or(Ok(()), |n| self.print(n, now, last, out))
    }

    // Since when a step has had news, or the floor.
    fn age_of_changes(&self, n: usize, now: SystemTime) -> f64 {
        let since = self.trace.steps.get(n).and_then(|s| s.changes.since);
        since.map_or(0.0, |t| seconds(t, now))
    }

    fn speed(&self, n: usize, now: SystemTime) -> f64 {
        let weight = self.trace.steps.get(n).map_or(0, |s| s.changes.weight);
        f64::from(weight) / self.age_of_changes(n, now).max(0.001)
    }

    fn share(&self, n: usize, among: &[usize], now: SystemTime) -> f64 {
        let all: f64 = among.iter().map(|n| self.speed(*n, now)).sum();
        if all > 0.0 {
            self.speed(n, now) / all
        } else {
            0.0
        }
    }

    fn loudest(&self, among: &[usize], now: SystemTime) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for n in among {
            let speed = self.speed(*n, now);
            if best.is_none_or(|(_, other)| speed > other) {
                best = Some((*n, speed));
            }
        }
        best.map(|b| b.0)
    }

    fn print(
        &mut self,
        n: usize,
        now: SystemTime,
        last: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let at = self.trace.daemon_time(now);
        if self.printed.len() <= n {
            self.printed.resize_with(n + 1, Printed::default);
        }
        let lines = self.trace.lines();
        let Some(step) = self.trace.steps.get_mut(n) else {
            return Ok(());
        };
        let ended = step.has_ended();
        if ended {
            step.close_lines(lines);
        }
        let end = (step.state(), step.took(at));
        let Some(printed) = self.printed.get_mut(n) else {
            return Ok(());
        };
        let same_end = printed.end.is_some_and(|(state, took)| {
            ended && state == end.0 && end.1 - took < MIN_MORE_SECONDS && step.error.is_empty()
        });
        let more = !step.changes.lines.is_empty()
            || !step.changes.statuses.is_empty()
            || step.warnings.len() > printed.warnings;
        if self.current != Some(n) && same_end && !more {
            step.changes = Default::default();
            return Ok(());
        }
        if printed.number == 0 {
            self.next += 1;
            printed.number = self.next;
        }
        let number = printed.number;
        if self.current != Some(n) {
            if let Some(old) = self.current {
                let old_number = self.printed.get(old).map_or(0, |t| t.number);
                writeln!(out, "#{old_number} ...")?;
                if let Some(old) = self.trace.steps.get_mut(old) {
                    (old.changes.weight, old.changes.since) = (0, None);
                }
            }
            if std::mem::replace(&mut self.has_printed, true) {
                writeln!(out)?;
            }
            let name = self.trace.steps.get(n).map_or("", |s| &s.name);
            let name = if self.truncate {
                cut(name, MAX_NAME_CHARS)
            } else {
                name.to_owned()
            };
            writeln!(out, "#{number} {name}")?;
            if let Some(step) = self.trace.steps.get_mut(n) {
                (step.changes.weight, step.changes.since) = (0, Some(now));
            }
        }
        self.current = Some(n);
        let (Some(step), Some(printed)) = (self.trace.steps.get_mut(n), self.printed.get_mut(n))
        else {
            return Ok(());
        };
        let open = printed.tell(step, out)?;
        // A part that outlives the step, such as a late download, keeps the floor.
        if ended && (!open || last) {
            self.current = None;
            step.changes = Default::default();
            printed.end = Some(end);
            match end {
                (StepState::Canceled, _) => writeln!(out, "#{number} CANCELED")?,
                (StepState::Failed, _) => writeln!(out, "#{number} ERROR: {}", step.error)?,
                (StepState::Cached, _) => writeln!(out, "#{number} CACHED")?,
                (_, took) => writeln!(out, "#{number} DONE {took:.1}s")?,
            }
        }
        Ok(())
    }
}

impl Printed {
    // Says what is new of a step. Whether a part of it is still going on.
    fn tell(&mut self, step: &mut Step, out: &mut dyn Write) -> io::Result<bool> {
        let n = self.number;
        let mut open = false;
        for s in &step.statuses {
            open |= s.completed.is_none();
            if !step.changes.statuses.remove(&s.id) {
                continue;
            }
            if s.completed.is_none()
                && let Some((current, when)) = self.statuses.get(&s.id)
            {
                #[expect(clippy::cast_precision_loss, reason = "compared with a share")]
                let share = if s.total > 0 {
                    (s.current - current) as f64 / s.total as f64
                } else {
                    0.0
                };
                if share < MIN_SHARE && seconds(*when, s.timestamp) < MIN_TIME_SECONDS {
                    continue;
                }
            }
            self.statuses.insert(s.id.clone(), (s.current, s.timestamp));
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
        step.changes.statuses.clear();
        for warning in step.warnings.iter().skip(self.warnings) {
            writeln!(out, "#{n} WARN: {warning}")?;
        }
        self.warnings = step.warnings.len();
        for line in step.changes.lines.drain(..) {
            writeln!(out, "#{n} {}", line.stamped())?;
        }
        step.changes.is_changed = false;
        Ok(open)
    }
}

fn is_settled(step: &Step, now: SystemTime) -> bool {
    step.ended
        .is_none_or(|at| seconds(at, now) >= SETTLE_TIME.as_secs_f64())
}

impl Display for Plain {
    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    fn show(&mut self, now: SystemTime, has_ended: bool, out: &mut dyn Write) -> io::Result<()> {
        self.flush(now, has_ended, out)
    }
}

#[cfg(test)]
mod tests {
    use client::{Log, SolveStatus, Status, Vertex};

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

    fn status(vertex: &str, id: &str, current: i64, total: i64, to: Option<u64>) -> SolveStatus {
        let status = Status {
            id: id.into(),
            vertex: vertex.into(),
            name: String::new(),
            current,
            total,
            timestamp: at(to.unwrap_or(200)),
            started: Some(at(100)),
            completed: to.map(at),
        };
        SolveStatus {
            statuses: vec![status],
            ..SolveStatus::default()
        }
    }

    #[test]
    fn steps_are_told_as_the_reference_tells_them() -> io::Result<()> {
        let (mut plain, mut out) = (Plain::new(false), Vec::new());
        plain.update(&steps(vec![vertex("a", 0, None)], vec![]), at(0), &mut out)?;
        plain.tick(at(0), &mut out)?;
        let logs = vec![
            log("a", 120, "hello\nwor"),
            log("b", 130, "hidden for now\n"),
        ];
        plain.update(&steps(vec![vertex("b", 10, None)], logs), at(130), &mut out)?;
        plain.tick(at(130), &mut out)?;
        let context = status("a", "transferring context:", 2_500_000, 0, Some(300));
        plain.update(&context, at(300), &mut out)?;
        plain.tick(at(300), &mut out)?;
        let ended = steps(vec![vertex("a", 0, Some(400))], vec![log("a", 350, "ld\n")]);
        plain.update(&ended, at(400), &mut out)?;
        plain.tick(at(500), &mut out)?;
        let mut failed = vertex("b", 10, Some(900));
        failed.error = "exit code: 7".into();
        let mut cached = vertex("c", 900, Some(901));
        cached.cached = true;
        plain.update(&steps(vec![cached, failed], vec![]), at(900), &mut out)?;
        plain.finish(at(900), &mut out)?;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "#1 [a] RUN x\n#1 0.120 hello\n#1 transferring context: 2.50MB 0.2s done\n#1 0.350 world\n#1 DONE 0.4s\n\n\
             #2 [b] RUN x\n#2 0.120 hidden for now\n#2 ERROR: exit code: 7\n\n#3 [c] RUN x\n#3 CACHED\n"
        );
        assert_eq!(
            plain.trace().failures(),
            [("[b] RUN x", vec!["0.120 hidden for now".to_owned()])]
        );
        Ok(())
    }

    #[test]
    fn nothing_that_a_daemon_says_reaches_a_terminal_as_more_than_text() -> io::Result<()> {
        let evil = "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1A\u{8}\u{202e}\ry";
        let run = |mut plain: Plain| -> io::Result<String> {
            let mut out = Vec::new();
            let mut step = vertex("a", 0, None);
            step.name = evil.into();
            let mut change = steps(
                vec![step.clone()],
                vec![log("a", 10, "\u{1b}[31mred\u{1b}[0m\u{1b}[2J\n")],
            );
            change.logs.push(Log {
                data: format!("{evil}\n{evil}").into(),
                ..log("a", 20, "")
            });
            change.statuses = status("a", evil, 5, 0, None).statuses;
            change.warnings = vec![client::Warning {
                vertex: "a".into(),
                level: 1,
                short: evil.into(),
                detail: vec![evil.into()],
                url: evil.into(),
                source: None,
                ranges: Vec::new(),
            }];
            plain.update(&change, at(0), &mut out)?;
            plain.tick(at(100), &mut out)?;
            step.completed = Some(at(200));
            step.error = format!("{evil}\nsecond line");
            plain.update(&steps(vec![step], vec![]), at(200), &mut out)?;
            plain.finish(at(200), &mut out)?;
            let failure = client::Failure {
                sources: vec![client::SourceExcerpt {
                    filename: evil.into(),
                    data: evil.into(),
                    ranges: vec![client::LineRange::lines(1, 1)],
                }],
                ..client::Failure::local(evil)
            };
            crate::failure::explain(&failure, plain.trace(), ("", ""), true, &mut out)?;
            out.extend(
                crate::failure::last_lines(&crate::failure::CliError::Build(failure)).bytes(),
            );
            Ok(String::from_utf8_lossy(&out).into_owned())
        };
        let text = run(Plain::new(false))?;
        let acts = |text: &str| {
            text.chars()
                .any(|c| c.is_control() && c != '\n' || c == '\u{202e}')
        };
        assert!(!acts(&text), "{text:?}");
        assert!(
            text.contains(" red\n") && text.contains("second line"),
            "{text:?}"
        );
        let text = run(Plain::new(false).with_colours(true))?;
        assert!(text.contains("\u{1b}[31mred\u{1b}[0m\n"), "{text:?}");
        assert!(
            !acts(&text.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "")),
            "{text:?}"
        );
        Ok(())
    }

    #[test]
    fn a_step_keeps_the_floor_until_another_has_waited() -> io::Result<()> {
        let (mut plain, mut out) = (Plain::new(false), Vec::new());
        let both = vec![vertex("a", 0, None), vertex("b", 0, None)];
        plain.update(&steps(both, vec![]), at(0), &mut out)?;
        for tick in 0..120 {
            let ms = tick * 100;
            let logs = vec![log("a", ms, "a\n"), log("b", ms, "b\n")];
            plain.update(&steps(vec![], logs), at(ms), &mut out)?;
            plain.tick(at(ms + 50), &mut out)?;
        }
        let text = String::from_utf8_lossy(&out);
        assert_eq!(text.matches("[a] RUN x").count(), 1, "{text}");
        assert_eq!(
            text.matches("#1 ...\n\n#2 [b] RUN x\n#2 0.000 b\n").count(),
            1
        );
        assert_eq!(text.matches("#2 ...").count(), 0, "{text}");
        Ok(())
    }

    #[test]
    fn a_late_download_is_told_and_an_idle_restart_is_not() -> io::Result<()> {
        let (mut plain, mut out) = (Plain::new(false), Vec::new());
        let step = |from, to| steps(vec![vertex("a", from, to)], vec![]);
        for (from, to) in [(0, 20), (300, 310), (1000, 1900)] {
            plain.update(&step(from, None), at(from), &mut out)?;
            plain.update(&step(from, Some(to)), at(to), &mut out)?;
            if from == 1000 {
                let layer = status("a", "sha256:11", 5000, 5000, Some(1900));
                plain.update(&layer, at(to), &mut out)?;
            }
            plain.tick(at(to + 100), &mut out)?;
        }
        plain.finish(at(3000), &mut out)?;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "#1 [a] RUN x\n#1 DONE 0.0s\n\n#1 [a] RUN x\n#1 sha256:11 5.00kB / 5.00kB 1.8s done\n#1 DONE 0.9s\n"
        );
        Ok(())
    }
}
