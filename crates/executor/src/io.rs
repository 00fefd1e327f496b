//! The ends of a process's streams on our side, and the pumps between them.

use std::fmt;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::error::ExecError;

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
    /// Gives its terminal another size.
    Resize(WinSize),
    /// Sends it a signal.
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
    /// The process has /dev/null in its place.
    #[default]
    Null,
    /// Each chunk goes to a sink that does not block.
    Sink(Box<dyn OutputSink>),
    /// The output goes to a stream, at its pace, which is shut down when the output ends.
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
    /// The standard input; `None` is /dev/null.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// The standard output. With a terminal the errors come here as well.
    pub stdout: Output,
    /// The standard error.
    pub stderr: Output,
    /// Resizes and signals; dropping the sender means no more.
    pub control: Option<mpsc::Receiver<Control>>,
}

impl fmt::Debug for ProcessIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessIo")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish()
    }
}

/// What the process gets: its three streams, or nothing when it makes a terminal.
pub(crate) struct Streams(pub(crate) Option<[OwnedFd; 3]>);

/// The daemon's ends of the streams, and where their bytes go.
pub(crate) struct Pumps {
    stdin: Option<(Option<pipe::Sender>, Box<dyn AsyncRead + Send + Unpin>)>,
    outputs: Vec<(pipe::Receiver, Output)>,
    terminal_output: Output,
    pub(crate) control: Option<mpsc::Receiver<Control>>,
}

impl Streams {
    /// Makes the pipes. With a terminal there are none.
    pub(crate) fn open(io: ProcessIo, tty: bool) -> Result<(Self, Pumps), ExecError> {
        Self::try_open(io, tty).map_err(ExecError::system("cannot make pipes"))
    }

    fn try_open(io: ProcessIo, tty: bool) -> std::io::Result<(Self, Pumps)> {
        let mut pumps = Pumps {
            stdin: None,
            outputs: Vec::new(),
            terminal_output: Output::Null,
            control: io.control,
        };
        if tty {
            pumps.stdin = io.stdin.map(|stdin| (None, stdin));
            pumps.terminal_output = io.stdout;
            return Ok((Self(None), pumps));
        }
        let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let stdin = match io.stdin {
            None => null()?,
            Some(stdin) => {
                let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
                pumps.stdin = Some((Some(pipe::Sender::from_owned_fd(ours)?), stdin));
                theirs
            }
        };
        let mut output = |output: Output| -> std::io::Result<OwnedFd> {
            if output.is_null() {
                return Ok(null()?);
            }
            let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            pumps
                .outputs
                .push((pipe::Receiver::from_owned_fd(ours)?, output));
            Ok(theirs)
        };
        let (stdout, stderr) = (output(io.stdout)?, output(io.stderr)?);
        Ok((Self(Some([stdin, stdout, stderr])), pumps))
    }
}

/// How long the output of an ended process is awaited when others of its container may hold the pipe open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the output of a process ends when the process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputEnd {
    /// Nobody else can hold the pipes any more.
    Certain,
    /// Other processes of the container may still hold them: the output is awaited for [`OUTPUT_TIMEOUT`].
    MayBeHeld,
}

impl Pumps {
    /// Takes them out, leaving none.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(
            self,
            Self {
                stdin: None,
                outputs: Vec::new(),
                terminal_output: Output::Null,
                control: None,
            },
        )
    }

    /// Moves bytes until the process has `process_end` and its output is read.
    pub(crate) async fn until<T>(
        self,
        terminal: Option<OwnedFd>,
        output_end: OutputEnd,
        process_end: impl Future<Output = T>,
    ) -> T {
        let terminal = terminal.and_then(|fd| {
            Terminal::new(fd)
                .inspect_err(|error| tracing::warn!(%error, "terminal lost"))
                .ok()
        });
        let terminal = terminal.map(Arc::new);
        let mut stdin = self.stdin;
        let feed = async {
            match &mut stdin {
                Some((pipe @ Some(_), source)) => {
                    if let Some(pipe) = pipe.as_mut() {
                        drop(tokio::io::copy(source, pipe).await);
                    }
                    // The process reads the end of its input when the pipe is closed.
                    *pipe = None;
                }
                Some((None, source)) => {
                    if let Some(terminal) = &terminal {
                        drop(tokio::io::copy(source, &mut &**terminal).await);
                    }
                }
                None => {}
            }
            std::future::pending::<()>().await;
        };
        let mut drains: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        for (pipe, output) in self.outputs {
            drains.push(Box::pin(drain(pipe, output)));
        }
        if let Some(terminal) = terminal.clone() {
            drains.push(Box::pin(async move {
                drain(&*terminal, self.terminal_output).await
            }));
        }
        let mut drained = futures::future::join_all(drains);
        let mut all_read = false;
        tokio::pin!(process_end, feed);
        let result = loop {
            tokio::select! {
                result = &mut process_end => break result,
                () = &mut feed => {}
                _ = &mut drained, if !all_read => all_read = true,
            }
        };
        if !all_read {
            if output_end == OutputEnd::Certain && terminal.is_none() {
                drained.await;
            } else {
                drop(tokio::time::timeout(OUTPUT_TIMEOUT, drained).await);
            }
        }
        result
    }
}

async fn drain(mut from: impl AsyncRead + Unpin, to: Output) {
    let mut buffer = BytesMut::new();
    match to {
        Output::Null => drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await),
        Output::Sink(mut sink) => loop {
            buffer.reserve(16 << 10);
            match from.read_buf(&mut buffer).await {
                Ok(1..) => sink.write(buffer.split().freeze()),
                _ => return,
            }
        },
        Output::Stream(mut stream) => {
            // A reader that is gone must not stop the process: what follows is thrown away.
            if tokio::io::copy(&mut from, &mut stream).await.is_err() {
                drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await);
            }
            drop(stream.shutdown().await);
        }
    }
}

/// The master of a terminal. The end of its last user reads as an end, not as an error.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(fd: OwnedFd) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        #[expect(
            deprecated,
            reason = "the registration owns the descriptor; the other way is unsafe"
        )]
        AsyncFd::new(fd).map(Self)
    }
}

impl AsyncRead for &Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_read_ready(cx))?;
            let result = ready.try_io(|fd| {
                Ok(rustix::io::read(
                    fd.get_ref(),
                    buffer.initialize_unfilled(),
                )?)
            });
            match result {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_not_yet) => {}
            }
        }
    }
}

impl AsyncWrite for &Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_not_yet) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io::{Read as _, Write as _};
    use std::os::fd::OwnedFd;

    fn file(fd: OwnedFd) -> std::fs::File {
        std::fs::File::from(fd)
    }

    fn collected() -> (Output, Arc<Mutex<Vec<u8>>>) {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let into = Arc::clone(&bytes);
        (
            Output::sink(move |chunk: Bytes| into.lock().extend_from_slice(&chunk)),
            bytes,
        )
    }

    fn open_streams(io: ProcessIo) -> ([std::fs::File; 3], Pumps) {
        let (streams, pumps) = Streams::open(io, false).unwrap();
        (streams.0.unwrap().map(file), pumps)
    }

    #[tokio::test]
    async fn streams_that_nobody_wants_are_the_null_device() {
        let ([mut input, mut output, mut errors], pumps) = open_streams(ProcessIo::default());
        assert_eq!(input.read(&mut [0; 4]).unwrap(), 0);
        output.write_all(b"lost").unwrap();
        errors.write_all(b"lost").unwrap();
        pumps.until(None, OutputEnd::Certain, async {}).await;
    }

    #[tokio::test]
    async fn everything_that_was_written_is_read_when_nobody_else_holds_the_pipes() {
        let (stdout, out) = collected();
        let (stderr, err) = collected();
        let (streams, pumps) = open_streams(ProcessIo {
            stdout,
            stderr,
            ..ProcessIo::default()
        });
        let process_end = task::blocking("process", move || {
            let [_, mut output, mut errors] = streams;
            output.write_all(&vec![b'o'; 300_000]).unwrap();
            errors.write_all(b"err").unwrap();
            7
        });
        assert_eq!(pumps.until(None, OutputEnd::Certain, process_end).await, 7);
        assert!(out.lock().len() == 300_000 && *err.lock() == b"err");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipe_that_somebody_else_holds_is_not_waited_for_long() {
        let (stdout, out) = collected();
        let ([_, mut output, _], pumps) = open_streams(ProcessIo {
            stdout,
            ..ProcessIo::default()
        });
        output.write_all(b"said").unwrap();
        let began = tokio::time::Instant::now();
        pumps
            .until(
                None,
                OutputEnd::MayBeHeld,
                task::clock::sleep(Duration::from_secs(5)),
            )
            .await;
        assert_eq!(began.elapsed(), Duration::from_secs(5) + OUTPUT_TIMEOUT);
        assert_eq!(*out.lock(), b"said");
        drop(output);
    }

    #[tokio::test]
    async fn input_arrives_whole_and_ends() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
        let ([mut input, _, _], pumps) = open_streams(ProcessIo {
            stdin: Some(Box::new(std::io::Cursor::new(bytes.clone()))),
            ..ProcessIo::default()
        });
        let reading = task::blocking("process", move || {
            let mut all = Vec::new();
            input.read_to_end(&mut all).unwrap();
            all
        });
        assert!(pumps.until(None, OutputEnd::Certain, reading).await == bytes);
    }

    #[tokio::test]
    async fn a_process_that_reads_no_input_ends_all_the_same() {
        let ([input, _, _], pumps) = open_streams(ProcessIo {
            stdin: Some(Box::new(tokio::io::repeat(b'x'))),
            ..ProcessIo::default()
        });
        drop(input);
        pumps.until(None, OutputEnd::Certain, async {}).await;
    }

    /// Takes some bytes and then fails.
    struct FailingWriter(usize);

    impl AsyncWrite for FailingWriter {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            if self.0 == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()));
            }
            let length = bytes.len().min(self.0);
            self.0 -= length;
            Poll::Ready(Ok(length))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_does_not_stop_the_process() {
        let (streams, pumps) = open_streams(ProcessIo {
            stdout: Output::Stream(Box::new(FailingWriter(10))),
            ..ProcessIo::default()
        });
        let process_end = task::blocking("process", move || {
            let [_, mut output, _] = streams;
            output.write_all(&vec![b'o'; 1 << 20])
        });
        assert!(
            pumps
                .until(None, OutputEnd::Certain, process_end)
                .await
                .is_ok(),
            "what follows is thrown away"
        );
    }

    #[tokio::test]
    async fn a_terminal_carries_both_ways_and_its_end_is_no_error() {
        let Ok(devpts) = sys::path::open_dir("/dev/pts") else {
            testkit::skip::skip("no /dev/pts");
            return;
        };
        let Ok(master) = sys::pty::open_master(&devpts) else {
            testkit::skip::skip("no devpts that makes terminals");
            return;
        };
        let peer = sys::pty::open_peer(&master).unwrap();
        let (stdout, out) = collected();
        let io = ProcessIo {
            stdin: Some(Box::new(&b"line\n"[..])),
            stdout,
            ..ProcessIo::default()
        };
        let (streams, pumps) = Streams::open(io, true).unwrap();
        assert!(streams.0.is_none(), "the process makes its terminal itself");
        let process_end = task::blocking("process", move || {
            let mut terminal = file(peer);
            let mut line = [0; 16];
            let length = terminal.read(&mut line).unwrap();
            terminal.write_all(b"answer").unwrap();
            line[..length].to_vec()
        });
        assert_eq!(
            pumps
                .until(Some(master), OutputEnd::Certain, process_end)
                .await,
            b"line\n"
        );
        let screen = String::from_utf8(out.lock().clone()).unwrap();
        assert!(screen.ends_with("answer"), "{screen:?}");
    }
}
