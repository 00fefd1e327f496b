//! Shows what a build does.

#[cfg(test)]
mod cases;
pub mod plain;
pub mod quiet;
pub mod raw;
pub mod text;
pub mod trace;
pub mod tty;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use client::SolveStatus;
use tokio::sync::mpsc;

use crate::args::ProgressMode;
use crate::progress::trace::Trace;

/// Something that shows progress. What it knows is a [`Trace`]; most displays only say how that looks.
pub trait Display: Send {
    /// What the news so far amount to.
    fn trace(&self) -> &Trace;

    /// The same, to take news into.
    fn trace_mut(&mut self) -> &mut Trace;

    /// Writes how the build stands at `now`, or stood when it ended.
    fn show(&mut self, now: SystemTime, has_ended: bool, out: &mut dyn Write) -> io::Result<()>;

    /// Takes news. They are shown at the next tick: a step often ends, begins and ends again within a moment.
    fn update(
        &mut self,
        change: &SolveStatus,
        now: SystemTime,
        _out: &mut dyn Write,
    ) -> io::Result<()> {
        self.trace_mut().take(change, now);
        Ok(())
    }

    /// Is called several times a second.
    fn tick(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        self.show(now, false, out)
    }

    /// Is called once, when there will be no more news.
    fn finish(&mut self, now: SystemTime, out: &mut dyn Write) -> io::Result<()> {
        self.trace_mut().end(now);
        self.show(now, true, out)
    }
}

/// The display for a mode.
#[must_use]
pub fn display(mode: ProgressMode, truncate: bool, title: String) -> Box<dyn Display> {
    let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    let terminal = io::stderr().is_terminal() && !dumb;
    let plain = |truncate| plain::Plain::new(truncate).with_colours(!io::stderr().is_terminal());
    match mode {
        ProgressMode::Quiet => Box::new(quiet::Quiet::default()),
        ProgressMode::Rawjson => Box::new(raw::Raw::default()),
        ProgressMode::Plain => Box::new(plain(truncate)),
        ProgressMode::Tty => Box::new(tty::Tty::new(title)),
        ProgressMode::Auto if terminal => Box::new(tty::Tty::new(title)),
        ProgressMode::Auto => Box::new(plain(truncate)),
    }
}

/// Shows news on standard error until there are no more, and returns the display for what comes after.
pub async fn show(
    mut display: Box<dyn Display>,
    mut changes: mpsc::Receiver<SolveStatus>,
) -> Box<dyn Display> {
    let mut tick = tokio::time::interval(Duration::from_millis(150));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A build does not fail because standard error is closed.
    loop {
        let mut page = Vec::new();
        let _in_memory = tokio::select! {
            next = changes.recv() => match next {
                Some(next) => {
                    let mut written = display.update(&next, task::clock::wall(), &mut page);
                    while let (Ok(()), Ok(next)) = (&written, changes.try_recv()) {
                        written = display.update(&next, task::clock::wall(), &mut page);
                    }
                    written
                }
                None => break,
            },
            _ = tick.tick() => display.tick(task::clock::wall(), &mut page),
        };
        let _closed = io::stderr().lock().write_all(&page);
    }
    let mut page = Vec::new();
    let _in_memory = display.finish(task::clock::wall(), &mut page);
    let _closed = io::stderr().lock().write_all(&page);
    display
}
