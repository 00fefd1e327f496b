//! A view of the build that is redrawn on a terminal.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::SystemTime;

use client::{SolveStatus, Status, Vertex};

use crate::progress::Display;
use crate::progress::plain::Plain;
use crate::progress::text::{bytes, cut, harmless, seconds};

/// Lines of output shown below a running step.
const LOG_LINES: usize = 6;

#[derive(Debug, Default)]
struct Step {
    vertex: Vertex,
    statuses: Vec<Status>,
    warnings: Vec<String>,
}

/// Draws.
#[derive(Debug)]
pub struct Tty {
    memory: Plain,
    steps: HashMap<String, Step>,
    order: Vec<String>,
    begun: Option<SystemTime>,
    drawn: usize,
    title: String,
    size: Option<(usize, usize)>,
}

impl Tty {
    /// Draws below a title, in the size of the terminal.
    #[must_use]
    pub fn new(title: String) -> Self {
        Self {
            memory: Plain::quiet(),
            steps: HashMap::new(),
            order: Vec::new(),
            begun: None,
            drawn: 0,
            title,
            size: None,
        }
    }

    /// Draws in a size that does not change.
    #[must_use]
    pub fn sized(title: String, columns: usize, rows: usize) -> Self {
        Self {
            size: Some((columns, rows)),
            ..Self::new(title)
        }
    }

    fn size(&self) -> (usize, usize) {
        self.size.unwrap_or_else(|| {
            let there = rustix::termios::tcgetwinsize(io::stderr()).ok();
            let there = there.filter(|s| s.ws_col > 0 && s.ws_row > 0);
            there.map_or((80, 24), |s| (usize::from(s.ws_col), usize::from(s.ws_row)))
        })
    }

    fn step(&mut self, digest: &str) -> &mut Step {
        if !self.steps.contains_key(digest) {
            self.order.push(digest.to_owned());
        }
        self.steps.entry(digest.to_owned()).or_default()
    }

    // One block of lines for each step that has begun, and whether the step is still running.
    fn blocks(&self, now: SystemTime, width: usize, last: bool) -> Vec<(bool, Vec<String>)> {
        let steps = self.order.iter().filter_map(|d| self.steps.get(d));
        steps
            .filter(|s| s.vertex.started.is_some())
            .map(|s| {
                let running = s.vertex.completed.is_none();
                (running, self.block(s, now, width, running && !last))
            })
            .collect()
    }

    fn block(&self, step: &Step, now: SystemTime, width: usize, running: bool) -> Vec<String> {
        let v = &step.vertex;
        let started = v.started.unwrap_or(now);
        let took = seconds(started, v.completed.unwrap_or(now));
        let (word, colour) = if v.error.ends_with("context canceled") {
            ("CANCELED ", "33")
        } else if !v.error.is_empty() {
            ("ERROR ", "31")
        } else if v.cached {
            ("CACHED ", "34")
        } else if v.completed.is_some() {
            ("", "34")
        } else {
            ("", "")
        };
        let mut lines = vec![row(
            &format!(" => {word}{}", harmless(&v.name)),
            &format!("{took:.1}s"),
            width,
            colour,
        )];
        for s in &step.statuses {
            if !running && s.completed.is_some() && v.completed.is_some() && s.total == 0 {
                continue;
            }
            let size = if s.total > 0 {
                format!(" {} / {}", bytes(s.current), bytes(s.total))
            } else if s.current > 0 {
                format!(" {}", bytes(s.current))
            } else {
                String::new()
            };
            let took = s
                .started
                .map_or(0.0, |from| seconds(from, s.completed.unwrap_or(now)));
            lines.push(row(
                &format!(" => => {}{size}", harmless(&s.id)),
                &format!("{took:.1}s"),
                width,
                if s.completed.is_some() { "34" } else { "" },
            ));
        }
        for warning in &step.warnings {
            lines.push(paint(
                &cut(&format!(" => => WARN: {}", harmless(warning)), width),
                "33",
            ));
        }
        if running {
            let tail = self.memory.tail(&v.digest);
            for line in tail.iter().skip(tail.len().saturating_sub(LOG_LINES)) {
                lines.push(paint(
                    &cut(&format!(" => => # {}", harmless(line)), width),
                    "2",
                ));
            }
        }
        lines
    }

    fn draw(&mut self, now: SystemTime, last: bool, out: &mut dyn Write) -> io::Result<()> {
        let (width, height) = self.size();
        let width = width.saturating_sub(1).max(20);
        let mut blocks = self.blocks(now, width, last);
        let total = self.steps.len();
        let done = self
            .steps
            .values()
            .filter(|s| s.vertex.completed.is_some())
            .count();
        let took = self.begun.map_or(0.0, |from| seconds(from, now));
        let finished = if last { " FINISHED" } else { "" };
        let head = format!("[+] {} {took:.1}s ({done}/{total}){finished}", self.title);
        let mut page: Vec<String> = Vec::new();
        if !last {
            // What ended first goes first when there is no room; the rest is cut.
            let room = height.saturating_sub(2).max(4);
            while blocks.iter().map(|b| b.1.len()).sum::<usize>() > room
                && let Some(at) = blocks.iter().position(|b| !b.0)
            {
                drop(blocks.remove(at));
            }
            page.extend(blocks.into_iter().flat_map(|b| b.1));
            page.truncate(room);
        } else {
            page.extend(blocks.into_iter().flat_map(|b| b.1));
        }
        let mut text = String::from("\u{1b}[?25l");
        if self.drawn > 0 {
            text += &format!("\r\u{1b}[{}A", self.drawn);
        }
        text += "\u{1b}[J";
        text += &paint(&cut(&head, width), if last { "34" } else { "" });
        text += "\r\n";
        for line in &page {
            text += line;
            text += "\r\n";
        }
        text += "\u{1b}[?25h";
        self.drawn = page.len() + 1;
        out.write_all(text.as_bytes())
    }
}

fn paint(text: &str, colour: &str) -> String {
    if colour.is_empty() || std::env::var_os("NO_COLOR").is_some() {
        text.to_owned()
    } else {
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    }
}

// A text on the left and a time on the right.
fn row(left: &str, right: &str, width: usize, colour: &str) -> String {
    let room = width.saturating_sub(right.len() + 1);
    let left = cut(left, room);
    let gap = width.saturating_sub(left.chars().count() + right.len());
    paint(&format!("{left}{}{right}", " ".repeat(gap)), colour)
}

impl Display for Tty {
    fn update(
        &mut self,
        news: &SolveStatus,
        now: SystemTime,
        _out: &mut dyn Write,
    ) -> io::Result<()> {
        self.memory.update(news, now, &mut io::sink())?;
        self.begun.get_or_insert(now);
        for v in &news.vertexes {
            self.step(&v.digest).vertex = v.clone();
        }
        for s in &news.statuses {
            let step = self.step(&s.vertex);
            match step.statuses.iter_mut().find(|old| old.id == s.id) {
                Some(old) => *old = s.clone(),
                None => step.statuses.push(s.clone()),
            }
        }
        for w in &news.warnings {
            self.step(&w.vertex).warnings.push(w.short.clone());
        }
        Ok(())
    }

    fn tick(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        self.draw(now, false, out)
    }

    fn finish(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        self.memory.finish(now, &mut io::sink())?;
        self.draw(now, true, out)
    }

    fn tail(&self, vertex: &str) -> Vec<String> {
        self.memory.tail(vertex)
    }

    fn failed(&self) -> Option<(String, String)> {
        self.memory.failed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::Log;

    use super::*;

    #[test]
    fn the_view_is_redrawn_in_place_and_ends_with_all_steps()
    -> Result<(), Box<dyn std::error::Error>> {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let vertex = |digest: &str, completed| Vertex {
            digest: digest.into(),
            name: format!("[{digest}] RUN x\u{1b}[2J"),
            started: Some(at(0)),
            completed,
            ..Vertex::default()
        };
        let mut screen = vt100::Parser::new(12u16.try_into()?, 60u16.try_into()?, 0);
        let mut tty = Tty::sized("Building".into(), 60, 12);
        let mut out = Vec::new();
        let mut news = SolveStatus {
            vertexes: vec![vertex("a", None), vertex("b", None)],
            ..SolveStatus::default()
        };
        news.logs = (0..9)
            .map(|n| Log {
                vertex: "a".into(),
                stream: 1,
                data: format!("line {n}\n").into(),
                timestamp: at(1),
            })
            .collect();
        tty.update(&news, at(0), &mut out)?;
        tty.tick(at(1), &mut out)?;
        tty.tick(at(2), &mut out)?;
        screen.process(&out);
        let text = screen.screen().contents();
        assert!(text.starts_with("[+] Building 2.0s (0/2)"), "{text}");
        assert_eq!(text.matches("[a] RUN x").count(), 1, "{text}");
        assert!(
            text.contains("line 8") && !text.contains("line 2"),
            "{text}"
        );
        out.clear();
        let news = SolveStatus {
            vertexes: vec![vertex("a", Some(at(3))), vertex("b", Some(at(4)))],
            ..SolveStatus::default()
        };
        tty.update(&news, at(4), &mut out)?;
        tty.finish(at(4), &mut out)?;
        screen.process(&out);
        let text = screen.screen().contents();
        assert!(
            text.starts_with("[+] Building 4.0s (2/2) FINISHED"),
            "{text}"
        );
        assert!(!text.contains("line 8"), "{text}");
        Ok(())
    }
}
