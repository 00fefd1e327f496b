//! No progress; what the end needs is kept.

use std::io::{self, Write};
use std::time::SystemTime;

use client::SolveStatus;

use crate::progress::Display;
use crate::progress::trace::Trace;

/// Shows nothing.
#[derive(Debug, Default)]
pub struct Quiet {
    trace: Trace,
}

impl Display for Quiet {
    fn update(
        &mut self,
        news: &SolveStatus,
        now: SystemTime,
        _out: &mut dyn Write,
    ) -> io::Result<()> {
        self.trace.take(news, now);
        Ok(())
    }

    fn tick(&mut self, _now: SystemTime, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, now: SystemTime, _out: &mut dyn Write) -> io::Result<()> {
        self.trace.end(now);
        Ok(())
    }

    fn trace(&self) -> &Trace {
        &self.trace
    }
}
