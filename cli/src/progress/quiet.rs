//! No progress; what the end needs is kept.

use std::io::{self, Write};
use std::time::SystemTime;

use crate::progress::Display;
use crate::progress::trace::Trace;

/// Shows nothing.
#[derive(Debug, Default)]
pub struct Quiet {
    trace: Trace,
}

impl Display for Quiet {
    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    fn show(&mut self, _: SystemTime, _: bool, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}
