//! The ends of a process's streams on our side, and the pumps between them.

use std::fmt;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WinSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// A signal for the process, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

/// What can be done to a process while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Its terminal has another size.
    Resize(WinSize),
    /// It gets a signal.
    Signal(Signal),
}

/// Takes output as it comes, without waiting; for logs.
pub trait OutputSink: Send {
    /// Takes the next bytes.
    fn write(&mut self, chunk: Bytes);
}

impl<F: FnMut(Bytes) + Send> OutputSink for F {
    fn write(&mut self, chunk: Bytes) {
        self(chunk);
    }
}

/// Where output goes.
#[derive(Default)]
pub enum Output {
    /// Nowhere: the process has /dev/null.
    #[default]
    Null,
    /// To something that does not block.
    Sink(Box<dyn OutputSink>),
    /// To a stream, at its pace. It is shut down when the output ends.
    Stream(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Output {
    /// Output handed to a closure, chunk by chunk.
    pub fn sink(sink: impl OutputSink + 'static) -> Self {
        Self::Sink(Box::new(sink))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Sink(_) => "Sink",
            Self::Stream(_) => "Stream",
        })
    }
}

/// A process's streams. The default is /dev/null thrice.
#[derive(Default)]
pub struct ProcessIo {
    /// Input; none is /dev/null.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Output. With a terminal everything comes here.
    pub stdout: Output,
    /// Errors.
    pub stderr: Output,
    /// Resizes and signals; dropping the sender means no more.
    pub control: Option<mpsc::Receiver<Control>>,
}

impl fmt::Debug for ProcessIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessIo").field("stdin", &self.stdin.is_some()).field("stdout", &self.stdout).field("stderr", &self.stderr).finish()
    }
}
