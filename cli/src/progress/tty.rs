//! A view of the build that is redrawn on a terminal.
//!
//! A frame is one write: up to where the last one began, every line over its old self, and the rest cleared. The cursor
//! is hidden only within a frame, so that a program that dies leaves the terminal as it was.

use std::io::{self, Write};
use std::time::SystemTime;

use client::Status;

use crate::progress::Display;
use crate::progress::text::{bytes, cut, harmless, seconds, width};
use crate::progress::trace::{Step, StepState, Trace};

/// Lines of output shown below a running step, unless `BUILDKIT_TTY_LOG_LINES` says otherwise.
const LOG_LINES: usize = 6;
/// The narrowest line that has room for a time.
const MIN_COLUMNS: usize = 24;

/// Draws.
#[derive(Debug)]
pub struct Tty {
    trace: Trace,
    title: String,
    size: Option<(usize, usize)>,
    colours: bool,
    log_lines: usize,
    // How wide the lines of the last frame were.
    drawn: Vec<usize>,
}

/// A line of the view.
#[derive(Debug, Clone)]
struct ViewRow {
    text: String,
    colour: &'static str,
}

/// A step's lines: its own, those of its parts, the end of its output.
#[derive(Debug)]
struct StepBlock {
    running: bool,
    head: ViewRow,
    parts: Vec<ViewRow>,
    logs: Vec<ViewRow>,
}

impl Tty {
    /// Draws below a title, in the size of the terminal.
    #[must_use]
    pub fn new(title: String) -> Self {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        let lines = variable("BUILDKIT_TTY_LOG_LINES")
            .and_then(|v| v.to_str()?.parse().ok())
            .filter(|n| *n > 0);
        Self {
            trace: Trace::new(false),
            title,
            size: None,
            colours: variable("NO_COLOR").is_none(),
            log_lines: lines.unwrap_or(LOG_LINES),
            drawn: Vec::new(),
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

    fn block(&self, step: &Step, now: SystemTime, columns: usize) -> StepBlock {
        let state = step.state();
        let (word, colour) = match state {
            StepState::Waiting | StepState::Running => ("", ""),
            StepState::Done => ("", "34"),
            StepState::Cached => ("CACHED ", "34"),
            StepState::Failed => ("ERROR ", "31"),
            StepState::Canceled => ("CANCELED ", "33"),
        };
        let running = state == StepState::Running;
        let took = format!("{:.1}s", step.took(now));
        let name = format!(" => {word}{}", harmless(&step.name));
        let export = step.name.starts_with("exporting");
        let mut parts: Vec<ViewRow> = step
            .statuses
            .iter()
            .filter(|s| running || export || is_transfer(s))
            .map(|s| part(s, now, running, columns))
            .collect();
        let warnings = step.warnings.iter().map(|w| ViewRow {
            text: cut(&format!(" => => WARN: {}", harmless(w)), columns),
            colour: "33",
        });
        parts.extend(warnings);
        let logs = if running {
            step.tail(self.log_lines)
        } else {
            Vec::new()
        };
        StepBlock {
            running,
            head: row(&name, "", &took, columns, colour),
            parts,
            logs: logs
                .iter()
                .map(|line| ViewRow {
                    text: cut(&format!(" => => # {}", harmless(line)), columns),
                    colour: "2",
                })
                .collect(),
        }
    }

    fn draw(&mut self, ours: SystemTime, last: bool, out: &mut dyn Write) -> io::Result<()> {
        let (columns, rows) = self.size();
        let now = self.trace.daemon_time(ours);
        // The last column stays free: some terminals go to the next line when it is written.
        let room = columns.saturating_sub(1).max(1);
        let blocks: Vec<StepBlock> = self
            .trace
            .shown()
            .map(|(_, s)| self.block(s, now, room))
            .collect();
        let (done, total) = self.trace.counts();
        let took = self
            .trace
            .first_start()
            .map_or(0.0, |from| seconds(from, now));
        let was = |state| self.trace.shown().any(|(_, s)| s.state() == state);
        let finished = match last {
            false => "",
            true if was(StepState::Failed) => " FAILED",
            true if was(StepState::Canceled) => " CANCELED",
            true => " FINISHED",
        };
        let head = format!("[+] {} {took:.1}s ({done}/{total}){finished}", self.title);
        let mut page = vec![ViewRow {
            text: cut(&head, room),
            colour: if last { "34" } else { "" },
        }];
        if last {
            page.extend(blocks.into_iter().flat_map(StepBlock::rows));
        } else {
            page.extend(fit(blocks, rows.saturating_sub(2)));
        }
        // Lines that were drawn on a wider terminal may have been broken into several.
        let up: usize = self
            .drawn
            .iter()
            .map(|w| w.div_ceil(columns.max(1)).max(1))
            .sum();
        let up = up.min(rows.saturating_sub(1));
        let mut text = String::from("\u{1b}[?25l\r");
        if up > 0 {
            text += &format!("\u{1b}[{up}A");
        }
        for row in &mut page {
            row.text = cut(&row.text, room);
            text += &self.paint(row);
            text += "\u{1b}[K\r\n";
        }
        text += "\u{1b}[J\u{1b}[?25h";
        self.drawn = page.iter().map(|row| width(&row.text)).collect();
        out.write_all(text.as_bytes())
    }

    fn paint(&self, row: &ViewRow) -> String {
        if row.colour.is_empty() || !self.colours {
            row.text.clone()
        } else {
            format!("\u{1b}[{}m{}\u{1b}[0m", row.colour, row.text)
        }
    }
}

impl StepBlock {
    fn rows(self) -> impl Iterator<Item = ViewRow> {
        std::iter::once(self.head)
            .chain(self.parts)
            .chain(self.logs)
    }

    fn len(&self) -> usize {
        1 + self.parts.len() + self.logs.len()
    }
}

/// What stays of a step's parts when it ended: bytes that moved between client and daemon.
fn is_transfer(s: &Status) -> bool {
    s.total == 0 && s.current > 0 && s.id.starts_with("transferring")
}

fn part(s: &Status, now: SystemTime, running: bool, columns: usize) -> ViewRow {
    let took = s
        .started
        .map_or(0.0, |from| seconds(from, s.completed.unwrap_or(now)));
    let mut size = match (s.current, s.total) {
        (0, 0) => String::new(),
        (current, 0) => bytes(current),
        (current, total) => format!("{} / {}", bytes(current), bytes(total)),
    };
    if running && s.completed.is_none() && s.current > 0 && took >= 0.5 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "a rate for people"
        )]
        let rate = (s.current as f64 / took) as i64;
        size += &format!(" {}/s", bytes(rate));
    }
    let colour = if s.completed.is_some() || !running {
        "34"
    } else {
        ""
    };
    let name = format!(" => => {}", harmless(&s.id));
    row(&name, &size, &format!("{took:.1}s"), columns, colour)
}

/// Makes the blocks fit. Output goes first, from every step alike; then steps that ended, the oldest first; then parts;
/// then those steps that began last, which are counted.
fn fit(mut blocks: Vec<StepBlock>, rows: usize) -> Vec<ViewRow> {
    if rows == 0 {
        return Vec::new();
    }
    let all = |blocks: &[StepBlock]| blocks.iter().map(StepBlock::len).sum::<usize>();
    // Steps that ended give way to the running ones' output, but a screen of them is left.
    while all(&blocks) > rows && blocks.iter().filter(|b| !b.running).count() > rows / 3 {
        let Some(at) = blocks.iter().position(|b| !b.running) else {
            break;
        };
        drop(blocks.remove(at));
    }
    while all(&blocks) > rows {
        let Some(most) = blocks
            .iter_mut()
            .filter(|b| !b.logs.is_empty())
            .max_by_key(|b| b.logs.len())
        else {
            break;
        };
        drop(most.logs.remove(0));
    }
    while all(&blocks) > rows
        && let Some(at) = blocks.iter().position(|b| !b.running)
    {
        drop(blocks.remove(at));
    }
    while all(&blocks) > rows {
        let Some(most) = blocks
            .iter_mut()
            .filter(|b| !b.parts.is_empty())
            .max_by_key(|b| b.parts.len())
        else {
            break;
        };
        drop(most.parts.remove(0));
    }
    let hidden = blocks.len().saturating_sub(rows);
    if hidden > 0 {
        blocks.truncate(rows.saturating_sub(1));
    }
    let mut page: Vec<ViewRow> = blocks.into_iter().flat_map(StepBlock::rows).collect();
    if hidden > 0 {
        page.push(ViewRow {
            text: format!(" => and {} more", hidden + 1),
            colour: "2",
        });
    }
    page
}

// A text and a size on the left, a time on the right; what does not fit is left out, the text is cut.
fn row(left: &str, size: &str, right: &str, columns: usize, colour: &'static str) -> ViewRow {
    if columns < MIN_COLUMNS {
        return ViewRow {
            text: cut(left, columns),
            colour,
        };
    }
    let room = columns.saturating_sub(right.len() + 1);
    let mut text = if size.is_empty() || room < size.len() + 20 {
        cut(left, room)
    } else {
        let short = cut(left, room - size.len() - 1);
        format!("{short} {size}")
    };
    let gap = columns.saturating_sub(width(&text) + right.len());
    text += &" ".repeat(gap);
    text += right;
    ViewRow { text, colour }
}

impl Display for Tty {
    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    fn show(&mut self, now: SystemTime, has_ended: bool, out: &mut dyn Write) -> io::Result<()> {
        self.draw(now, has_ended, out)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::{Log, SolveStatus, Vertex};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn at(s: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(s)
    }

    fn vertex(digest: &str, completed: Option<u64>) -> Vertex {
        Vertex {
            digest: digest.into(),
            name: format!("[{digest}] RUN x\u{1b}[2J"),
            started: Some(at(0)),
            completed: completed.map(at),
            ..Vertex::default()
        }
    }

    fn steps(vertexes: Vec<Vertex>) -> SolveStatus {
        SolveStatus {
            vertexes,
            ..SolveStatus::default()
        }
    }

    fn logs(vertex: &str, count: usize) -> Vec<Log> {
        (0..count)
            .map(|n| Log {
                vertex: vertex.into(),
                stream: 1,
                data: format!("line {n}\n").into(),
                timestamp: at(1),
            })
            .collect()
    }

    fn screen(columns: u16, rows: u16) -> Result<vt100::Parser, std::num::TryFromIntError> {
        Ok(vt100::Parser::new(rows.try_into()?, columns.try_into()?, 0))
    }

    #[test]
    fn the_view_is_redrawn_in_place_and_ends_with_all_steps() -> TestResult {
        let mut screen = screen(60, 12)?;
        let mut tty = Tty::sized("Building".into(), 60, 12);
        let mut out = Vec::new();
        let mut change = steps(vec![vertex("a", None), vertex("b", None)]);
        change.logs = logs("a", 9);
        tty.update(&change, at(0), &mut out)?;
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
        let change = steps(vec![vertex("a", Some(3)), vertex("b", Some(4))]);
        tty.update(&change, at(4), &mut out)?;
        tty.finish(at(4), &mut out)?;
        screen.process(&out);
        let text = screen.screen().contents();
        assert!(
            text.starts_with("[+] Building 4.0s (2/2) FINISHED"),
            "{text}"
        );
        assert!(!text.contains("line 8"), "{text}");
        assert!(!screen.screen().hide_cursor());
        let mut cut_off = Tty::sized("Building".into(), 60, 12);
        cut_off.update(&steps(vec![vertex("a", None)]), at(0), &mut out)?;
        out.clear();
        cut_off.finish(at(1), &mut out)?;
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("(1/1) CANCELED"), "{text}");
        assert!(text.contains("CANCELED [a] RUN x"), "{text}");
        Ok(())
    }

    #[test]
    fn any_size_of_terminal_holds_the_view() -> TestResult {
        for (columns, rows) in [(80, 24), (30, 8), (12, 4), (3, 2), (200, 5)] {
            let mut screen = screen(columns, rows)?;
            let (w, h) = (usize::from(columns), usize::from(rows));
            let mut tty = Tty::sized("Building".into(), w, h);
            let mut out = Vec::new();
            let mut change = steps((0..30).map(|n| vertex(&n.to_string(), None)).collect());
            change.vertexes[3].completed = Some(at(1));
            change.logs = (0..30).flat_map(|n| logs(&n.to_string(), 9)).collect();
            tty.update(&change, at(0), &mut out)?;
            for tick in 1..5 {
                tty.tick(at(tick), &mut out)?;
            }
            screen.process(&out);
            let text = screen.screen().contents();
            assert_eq!(text.matches("[+").count(), 1, "{columns}x{rows}: {text}");
            assert!(text.starts_with("[+"), "{columns}x{rows}: {text}");
        }
        Ok(())
    }

    #[test]
    fn transfers_have_a_size_and_a_rate_and_stay_when_they_matter() -> TestResult {
        let mut screen = screen(70, 12)?;
        let mut tty = Tty::sized("Building".into(), 70, 12);
        let mut out = Vec::new();
        let status = |id: &str, current, total| Status {
            id: id.into(),
            vertex: "a".into(),
            name: String::new(),
            current,
            total,
            timestamp: at(1),
            started: Some(at(0)),
            completed: None,
        };
        let mut change = steps(vec![vertex("a", None)]);
        change.statuses = vec![
            status("sha256:12", 20_000_000, 50_000_000),
            status("transferring context:", 4000, 0),
        ];
        tty.update(&change, at(0), &mut out)?;
        tty.tick(at(2), &mut out)?;
        screen.process(&out);
        let text = screen.screen().contents();
        assert!(
            text.contains("sha256:12 20.00MB / 50.00MB 10.00MB/s"),
            "{text}"
        );
        out.clear();
        tty.update(&steps(vec![vertex("a", Some(2))]), at(2), &mut out)?;
        tty.finish(at(2), &mut out)?;
        screen.process(&out);
        let text = screen.screen().contents();
        assert!(text.contains("transferring context: 4.00kB "), "{text}");
        assert!(!text.contains("sha256"), "{text}");
        Ok(())
    }
}
