//! Containers of a frontend in a client: their names, and the stream that carries their processes.
//!
//! All processes of a client share one stream. One loop reads the client's messages and writes input to the process as fast as
//! the process reads it. A task of each process sends its messages:
//!
//! ```text
//!   Init ──► Started ──► File (output, until its end) ──► Exit ──► Done
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use engine::api::frontend::gateway::{
    Container, ContainerMount, ContainerRequest, ProcessControl, ProcessRequest,
};
use engine::api::{Detail, Failure};
use proto::gateway as wire;
use proto::gateway::exec_message::Input;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::errors::{bridge_status, wire as wire_failure};
use crate::gateway::build::Build;

/// The exit code that clients get for a process that ended without one.
const UNKNOWN_EXIT: u32 = 255;
/// Capacity of each pipe between a process and its client.
const PIPE_BYTES: usize = 64 << 10;
/// Output of a process in one message.
const MAX_OUTPUT_PIECE_BYTES: usize = 32 << 10;

/// The answers on one stream of processes.
pub(crate) type Answers = mpsc::Sender<Result<wire::ExecMessage, Status>>;

/// Makes a container and gives it its name.
pub(crate) async fn create(
    build: &Arc<Build>,
    request: wire::NewContainerRequest,
) -> Result<(), Status> {
    let name = request.container_id;
    let mut mounts = Vec::with_capacity(request.mounts.len());
    for mount in request.mounts {
        let id = mount.result_id.clone();
        let source = if id.is_empty() {
            None
        } else {
            let reference = build
                .bridge
                .kept(&id)
                .or_else(|| build.returned(&id).ok().flatten());
            Some(reference.ok_or_else(|| {
                let dest = &mount.dest;
                Status::unknown(format!(
                    "failed to find ref {id} for {dest:?} mount: return reference {id} not found"
                ))
            })?)
        };
        mounts.push(ContainerMount { mount, source });
    }
    let name_taken = || Status::already_exists(format!("Container {name} already exists"));
    if build.container(&name).is_some() {
        return Err(name_taken());
    }
    let container = build
        .bridge
        .new_container(ContainerRequest {
            mounts,
            network: request.network,
            platform: request.platform,
            hostname: request.hostname,
            extra_hosts: request.extra_hosts,
            files: Vec::new(),
        })
        .await
        .map_err(|e| bridge_status(&e))?;
    if let Err(container) = build.add_container(&name, container) {
        if let Err(error) = container.release().await {
            tracing::debug!(%error, "failed to release a container whose name is taken");
        }
        return Err(name_taken());
    }
    Ok(())
}

/// A started process, as the loop that reads the client's messages holds it.
struct OpenProcess {
    /// The writing end of its standard input; none after its end, or if the client opened none.
    stdin: Option<DuplexStream>,
    control: mpsc::Sender<ProcessControl>,
    _task: task::Task<()>,
}

impl OpenProcess {
    async fn control(&self, control: ProcessControl) {
        if self.control.send(control).await.is_err() {
            tracing::debug!(
                ?control,
                "the process has ended and takes no control messages"
            );
        }
    }
}

/// Serves one stream to its end.
pub(crate) async fn serve(
    build: Arc<Build>,
    mut incoming: Streaming<wire::ExecMessage>,
    answers: Answers,
) {
    let mut processes: HashMap<String, OpenProcess> = HashMap::new();
    loop {
        let message = match incoming.message().await {
            Ok(Some(message)) => message,
            // Processes may still write output; they end with the client's call.
            Ok(None) => break,
            Err(_) => return,
        };
        if let Err(status) = handle_message(&build, &mut processes, message, &answers).await {
            // Sending fails only if the client has left, and then nobody needs the status.
            drop(answers.send(Err(status)).await);
            return;
        }
    }
    for process in processes.values_mut() {
        process.stdin = None;
    }
    answers.closed().await;
}

async fn handle_message(
    build: &Arc<Build>,
    processes: &mut HashMap<String, OpenProcess>,
    message: wire::ExecMessage,
    answers: &Answers,
) -> Result<(), Status> {
    let id = message.process_id;
    if id.is_empty() {
        return Err(Status::invalid_argument("ProcessID required"));
    }
    if let Some(Input::Init(init)) = message.input {
        if processes.contains_key(&id) {
            return Err(Status::already_exists(format!(
                "Process {id} already exists"
            )));
        }
        let process = start_process(build, &id, init, answers)?;
        processes.insert(id, process);
        return Ok(());
    }
    let process = processes
        .get_mut(&id)
        .ok_or_else(|| Status::not_found(format!("IO for process {id:?} not found")))?;
    match message.input {
        Some(Input::File(file)) if file.fd == 0 => {
            // Writing fails when the process has ended: its input is then closed as after an end of file.
            if let Some(stdin) = &mut process.stdin
                && (stdin.write_all(&file.data).await.is_err() || file.eof)
            {
                process.stdin = None;
            }
        }
        Some(Input::File(file)) => {
            return Err(Status::out_of_range(format!(
                "fd {} unavailable to write",
                file.fd
            )));
        }
        Some(Input::Resize(size)) => {
            let limit = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
            let control = ProcessControl::Resize {
                rows: limit(size.rows),
                cols: limit(size.cols),
            };
            process.control(control).await;
        }
        Some(Input::Signal(signal)) => {
            let number = signal_number(&signal.name).ok_or_else(|| {
                Status::invalid_argument(format!("Unknown signal {}", signal.name))
            })?;
            process.control(ProcessControl::Signal(number)).await;
        }
        Some(Input::Init(_) | Input::Started(_) | Input::Exit(_) | Input::Done(_)) | None => {}
    }
    Ok(())
}

fn start_process(
    build: &Arc<Build>,
    id: &str,
    init: wire::InitMessage,
    answers: &Answers,
) -> Result<OpenProcess, Status> {
    let container = build.container(&init.container_id).ok_or_else(|| {
        Status::not_found(format!(
            "container {:?} previously released or not created",
            init.container_id
        ))
    })?;
    let meta = init
        .meta
        .ok_or_else(|| Status::invalid_argument("process meta is required"))?;
    let has = |fd: u32| init.fds.contains(&fd);
    let (stdin, feed) = if has(0) {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        (Some(ours), Some(theirs))
    } else {
        (None, None)
    };
    let pipe = |fd: u32| has(fd).then(|| tokio::io::duplex(PIPE_BYTES)).unzip();
    let ((out, out_end), (err, err_end)) = (pipe(1), pipe(2));
    let (control, commands) = mpsc::channel(8);
    let request = ProcessRequest {
        meta,
        tty: init.tty,
        security: init.security,
        secret_env: init.secretenv,
        stdin: feed.map(|feed| Box::new(feed) as _),
        stdout: out_end.map(|end| Box::new(end) as _),
        stderr: err_end.map(|end| Box::new(end) as _),
        control: commands,
    };
    let reporter = ProcessReporter {
        process: id.to_owned(),
        answers: answers.clone(),
    };
    let task = task::spawn("gateway process", async move {
        // Reporting fails only if the client has left.
        drop(report_process(&reporter, container, request, out, err).await);
    });
    Ok(OpenProcess {
        stdin,
        control,
        _task: task,
    })
}

/// Sends the client what happens to one process.
struct ProcessReporter {
    process: String,
    answers: Answers,
}

/// The client has left its stream, so nothing can be sent to it.
struct ClientGone;

impl ProcessReporter {
    async fn report(&self, input: Input) -> Result<(), ClientGone> {
        let message = wire::ExecMessage {
            process_id: self.process.clone(),
            input: Some(input),
        };
        // The channel's error carries the message back and no reason.
        self.answers.send(Ok(message)).await.map_err(|_| ClientGone)
    }

    async fn output(&self, fd: u32, from: Option<DuplexStream>) -> Result<(), ClientGone> {
        let Some(mut from) = from else {
            return Ok(());
        };
        loop {
            let mut piece = Vec::with_capacity(MAX_OUTPUT_PIECE_BYTES);
            let end = !matches!(from.read_buf(&mut piece).await, Ok(1..));
            let file = wire::FdMessage {
                fd,
                eof: end,
                data: piece,
            };
            self.report(Input::File(file)).await?;
            if end {
                return Ok(());
            }
        }
    }
}

async fn report_process(
    reporter: &ProcessReporter,
    container: Arc<dyn Container>,
    request: ProcessRequest,
    out: Option<DuplexStream>,
    err: Option<DuplexStream>,
) -> Result<(), ClientGone> {
    let started = container.start(request).await;
    reporter
        .report(Input::Started(wire::StartedMessage {}))
        .await?;
    let ended = async {
        match started {
            Ok(process) => process.ended.await,
            Err(error) => Err(error),
        }
    };
    let reported = async { futures::try_join!(reporter.output(1, out), reporter.output(2, err)) };
    let (ended, reported) = futures::join!(ended, reported);
    reported?;
    let exit = match ended {
        Ok(()) => wire::ExitMessage {
            code: 0,
            error: None,
        },
        Err(error) => {
            let failure = Failure::of_bridge(&error);
            wire::ExitMessage {
                code: exit_code(&failure),
                error: Some(wire_failure(&failure)),
            }
        }
    };
    reporter.report(Input::Exit(exit)).await?;
    reporter.report(Input::Done(wire::DoneMessage {})).await
}

fn exit_code(failure: &Failure) -> u32 {
    let code = failure.details.iter().find_map(|detail| {
        if let Detail::Exit { code } = detail {
            Some(*code)
        } else {
            None
        }
    });
    code.unwrap_or(UNKNOWN_EXIT)
}

/// The status for a container that the client has not created or has released.
pub(crate) fn missing(name: &str) -> Status {
    Status::new(
        Code::Unknown,
        format!("container details for {name} not found"),
    )
}

/// The number of a signal by its name, with or without `SIG`. Numbers of Linux on amd64 and arm64.
fn signal_number(name: &str) -> Option<i32> {
    const NAMES: &[(&str, i32)] = &[
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("IOT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STKFLT", 16),
        ("CHLD", 17),
        ("CLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("URG", 23),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
        ("WINCH", 28),
        ("IO", 29),
        ("POLL", 29),
        ("PWR", 30),
        ("SYS", 31),
    ];
    let name = name.strip_prefix("SIG").unwrap_or(name);
    NAMES
        .iter()
        .find(|(signal, _)| *signal == name)
        .map(|(_, number)| *number)
}
