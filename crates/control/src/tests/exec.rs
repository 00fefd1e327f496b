//! Containers of a frontend, and the stream that carries their processes.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test refuses whatever it does not expect"
)]

use std::fmt;

use engine::api::frontend::BridgeError;
use engine::api::frontend::bridge::{FileRange, FileStat};
use engine::api::frontend::gateway::{Container, Process, ProcessControl, ProcessRequest};
use gateway::exec_message::Input;
use oci::ErrorKind;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::calls::build;
use super::*;

/// A container whose processes do what their first argument says.
#[derive(Default)]
struct ContainerDouble {
    calls: Mutex<Vec<String>>,
    /// Resolves when a process that hangs is dropped.
    killed: Mutex<Option<oneshot::Sender<()>>>,
}

impl fmt::Debug for ContainerDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContainerDouble")
    }
}

impl ContainerDouble {
    fn note(&self, call: String) {
        self.calls.lock().push(call);
    }
}

fn control_words(control: ProcessControl) -> String {
    match control {
        ProcessControl::Resize { rows, cols } => format!("{rows}x{cols}\n"),
        ProcessControl::Signal(number) => format!("signal {number}\n"),
    }
}

#[async_trait::async_trait]
impl Container for ContainerDouble {
    async fn start(&self, mut process: ProcessRequest) -> Result<Process, BridgeError> {
        let program = process.meta.args.first().cloned().unwrap_or_default();
        if program == "refused" {
            return Err(Failure::new(FailureKind::NotFound, "no such program").into());
        }
        let killed = self.killed.lock().take();
        let ended = async move {
            match program.as_str() {
                "cat" => {
                    let (mut input, mut output) = (
                        process.stdin.take().unwrap(),
                        process.stdout.take().unwrap(),
                    );
                    tokio::io::copy(&mut input, &mut output).await.unwrap();
                    output.shutdown().await.unwrap();
                    Ok(())
                }
                "fail" => {
                    let mut errors = process.stderr.take().unwrap();
                    errors.write_all(b"broken").await.unwrap();
                    errors.shutdown().await.unwrap();
                    let failure = Failure::new(FailureKind::Unknown, "exit code: 7");
                    Err(failure.with(Detail::Exit { code: 7 }).into())
                }
                // Writes down what is done to it until it is asked to end.
                "controlled" => {
                    let mut output = process.stdout.take().unwrap();
                    while let Some(control) = process.control.recv().await {
                        let words = control_words(control);
                        output.write_all(words.as_bytes()).await.unwrap();
                        if control == ProcessControl::Signal(15) {
                            break;
                        }
                    }
                    output.shutdown().await.unwrap();
                    Err(BridgeError::message("ended by a signal"))
                }
                _ => {
                    let _killed = killed;
                    std::future::pending().await
                }
            }
        };
        Ok(Process {
            ended: Box::pin(ended),
        })
    }

    async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes, BridgeError> {
        self.note(format!("read {mount} {path} {range:?}"));
        Ok(Bytes::from_static(b"content"))
    }

    async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        include: &str,
    ) -> Result<Vec<FileStat>, BridgeError> {
        self.note(format!("list {mount} {path} {include}"));
        Ok(vec![FileStat::default(), FileStat::default()])
    }

    async fn stat_file(&self, mount: usize, path: &str) -> Result<FileStat, BridgeError> {
        self.note(format!("stat {mount} {path}"));
        Err(BridgeError::new(ErrorKind::NotFound, "no such file"))
    }

    async fn release(&self) -> Result<(), BridgeError> {
        self.note("release".into());
        Ok(())
    }
}

/// A frontend of a build that has the container `c`, on which the calls are noted.
async fn frontend() -> (LlbBridgeClient<Channel>, Arc<ContainerDouble>) {
    let container = Arc::new(ContainerDouble::default());
    let bridge = BridgeDouble {
        container: Some(Arc::clone(&container) as Arc<dyn Container>),
        ..BridgeDouble::default()
    };
    let mut frontend = build(bridge).await;
    create(&mut frontend, "c").await.unwrap();
    (frontend, container)
}

async fn create(frontend: &mut LlbBridgeClient<Channel>, name: &str) -> Result<(), Status> {
    let request = gateway::NewContainerRequest {
        container_id: name.into(),
        ..Default::default()
    };
    let answer = frontend.new_container(of_build(request, "b")).await;
    answer.map(drop)
}

fn message(process: &str, input: Input) -> gateway::ExecMessage {
    gateway::ExecMessage {
        process_id: process.into(),
        input: Some(input),
    }
}

fn init(process: &str, program: &str, fds: &[u32]) -> gateway::ExecMessage {
    let init = gateway::InitMessage {
        container_id: "c".into(),
        meta: Some(pb::Meta {
            args: vec![program.into()],
            ..Default::default()
        }),
        fds: fds.to_vec(),
        ..Default::default()
    };
    message(process, Input::Init(init))
}

fn input(process: &str, fd: u32, data: &[u8], eof: bool) -> gateway::ExecMessage {
    let data = data.to_vec();
    message(process, Input::File(gateway::FdMessage { fd, eof, data }))
}

fn signal(process: &str, name: &str) -> gateway::ExecMessage {
    let name = name.into();
    message(process, Input::Signal(gateway::SignalMessage { name }))
}

fn resize(process: &str, rows: u32, cols: u32) -> gateway::ExecMessage {
    message(
        process,
        Input::Resize(gateway::ResizeMessage { rows, cols }),
    )
}

/// The messages to the client about one process: their kinds in order, the bytes of each stream, and the exit.
#[derive(Debug, Default)]
struct ProcessMessages {
    kinds: Vec<&'static str>,
    streams: BTreeMap<u32, Vec<u8>>,
    exit: gateway::ExitMessage,
}

type Answers = Streaming<gateway::ExecMessage>;

/// Sends the messages, and leaves the stream open for as long as the sender lives.
async fn exec(
    frontend: &mut LlbBridgeClient<Channel>,
    messages: impl IntoIterator<Item = gateway::ExecMessage>,
) -> (mpsc::Sender<gateway::ExecMessage>, Answers) {
    let (sender, outgoing) = mpsc::channel(64);
    for message in messages {
        sender.send(message).await.unwrap();
    }
    let request = of_build(ReceiverStream::new(outgoing), "b");
    let answers = frontend.exec_process(request).await.unwrap().into_inner();
    (sender, answers)
}

/// Reads until `count` processes are done.
async fn follow(answers: &mut Answers, count: usize) -> BTreeMap<String, ProcessMessages> {
    let mut messages: BTreeMap<String, ProcessMessages> = BTreeMap::new();
    let mut ended_processes = 0;
    while ended_processes < count {
        let message = answers
            .message()
            .await
            .unwrap()
            .expect("the stream goes on");
        let process = messages.entry(message.process_id).or_default();
        let kind = match message.input.unwrap() {
            Input::Started(_) => "started",
            Input::File(file) => {
                process
                    .streams
                    .entry(file.fd)
                    .or_default()
                    .extend(file.data);
                if !file.eof {
                    continue;
                }
                "end of file"
            }
            Input::Exit(exit) => {
                process.exit = exit;
                "exit"
            }
            Input::Done(_) => {
                ended_processes += 1;
                "done"
            }
            other => panic!("clients get no {other:?}"),
        };
        process.kinds.push(kind);
    }
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_a_process_and_its_output_comes_back_before_its_exit() {
    let (mut frontend, _) = frontend().await;
    let large = vec![7; 300_000];
    let messages = [
        init("1", "cat", &[0, 1]),
        input("1", 0, b"hello", false),
        input("1", 0, &large, false),
        input("1", 0, b"!", true),
        // What comes after the end of the input is dropped.
        input("1", 0, b"more", false),
    ];
    let (_open, mut answers) = exec(&mut frontend, messages).await;
    let messages = &follow(&mut answers, 1).await["1"];
    assert_eq!(messages.kinds, ["started", "end of file", "exit", "done"]);
    let expected = [b"hello".as_slice(), &large, b"!"].concat();
    assert_eq!(messages.streams, [(1, expected)].into());
    assert_eq!((messages.exit.code, &messages.exit.error), (0, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_a_stream_and_each_has_its_own_end() {
    let (mut frontend, _) = frontend().await;
    let messages = [
        init("a", "cat", &[0, 1]),
        init("b", "fail", &[2]),
        init("c", "refused", &[1]),
        input("a", 0, b"x", true),
    ];
    let (_open, mut answers) = exec(&mut frontend, messages).await;
    let messages = follow(&mut answers, 3).await;
    assert_eq!(messages["a"].streams[&1], b"x");
    assert_eq!(messages["a"].exit.code, 0);
    assert_eq!(messages["b"].streams, [(2, b"broken".to_vec())].into());
    let exit = &messages["b"].exit;
    assert_eq!(exit.code, 7);
    assert_eq!(exit.error.as_ref().unwrap().message, "exit code: 7");
    // A process that could not be started has no output, and no exit code of its own.
    assert_eq!(
        messages["c"].kinds,
        ["started", "end of file", "exit", "done"]
    );
    assert!(messages["c"].streams[&1].is_empty());
    let exit = &messages["c"].exit;
    assert_eq!(exit.code, 255);
    let error = exit.error.as_ref().unwrap();
    assert_eq!(
        (Code::from(error.code), error.message.as_str()),
        (Code::NotFound, "no such program")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_by_any_name_and_sizes_of_the_terminal_reach_the_process() {
    let (mut frontend, _) = frontend().await;
    let messages = [
        init("1", "controlled", &[1]),
        resize("1", 24, 80),
        resize("1", u32::MAX, 0),
        signal("1", "SIGHUP"),
        signal("1", "USR1"),
        signal("1", "SIGSYS"),
        signal("1", "TERM"),
    ];
    let (_open, mut answers) = exec(&mut frontend, messages).await;
    let messages = &follow(&mut answers, 1).await["1"];
    assert_eq!(
        String::from_utf8_lossy(&messages.streams[&1]),
        "24x80\n65535x0\nsignal 1\nsignal 10\nsignal 31\nsignal 15\n"
    );
    assert_eq!(messages.exit.code, 255);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_make_no_sense_end_the_stream_with_a_status_that_says_why() {
    let bare = |container: &str, meta| {
        let init = gateway::InitMessage {
            container_id: container.into(),
            meta,
            ..Default::default()
        };
        message("1", Input::Init(init))
    };
    let hang = || init("1", "hang", &[0]);
    let cases = [
        (
            vec![init("", "hang", &[])],
            Code::InvalidArgument,
            "ProcessID required",
        ),
        (
            vec![hang(), hang()],
            Code::AlreadyExists,
            "Process 1 already exists",
        ),
        (
            vec![input("2", 0, b"x", false)],
            Code::NotFound,
            "IO for process \"2\" not found",
        ),
        (
            vec![hang(), input("1", 1, b"x", false)],
            Code::OutOfRange,
            "fd 1 unavailable to write",
        ),
        (
            vec![hang(), signal("1", "SIGNONE")],
            Code::InvalidArgument,
            "Unknown signal SIGNONE",
        ),
        (
            vec![bare("other", None)],
            Code::NotFound,
            "container \"other\" previously released or not created",
        ),
        (
            vec![bare("c", None)],
            Code::InvalidArgument,
            "process meta is required",
        ),
    ];
    let (mut frontend, _) = frontend().await;
    for (messages, code, text) in cases {
        let (_open, mut answers) = exec(&mut frontend, messages).await;
        let refused = loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no status: {text}"),
                Err(status) => break status,
            }
        };
        assert_eq!((refused.code(), refused.message()), (code, text));
    }
    // Messages that only the daemon sends are ignored.
    let messages = [
        init("1", "cat", &[0, 1]),
        message("1", Input::Done(gateway::DoneMessage {})),
        message("1", Input::Exit(gateway::ExitMessage::default())),
        input("1", 0, b"", true),
    ];
    let (_open, mut answers) = exec(&mut frontend, messages).await;
    assert_eq!(follow(&mut answers, 1).await["1"].exit.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_its_stream_kills_the_processes_on_it() {
    let (mut frontend, container) = frontend().await;
    let (killed, dropped) = oneshot::channel();
    *container.killed.lock() = Some(killed);
    let (open, mut answers) = exec(&mut frontend, [init("1", "hang", &[0, 1, 2])]).await;
    let started = answers.message().await.unwrap().unwrap();
    assert!(matches!(started.input, Some(Input::Started(_))));
    // The end of the client's messages is the end of the input only.
    drop(open);
    drop(answers);
    let dropped = tokio::time::timeout(Duration::from_secs(5), dropped).await;
    assert!(dropped.unwrap().is_err(), "the process was dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_its_name_until_it_is_released_and_files_by_mount() {
    let (mut frontend, container) = frontend().await;
    let taken = create(&mut frontend, "c").await.unwrap_err();
    assert_eq!(
        (taken.code(), taken.message()),
        (Code::AlreadyExists, "Container c already exists")
    );
    let read = |mount_index, range| gateway::ReadFileRequest {
        r#ref: "c".into(),
        file_path: "/a".into(),
        range,
        mount_index,
    };
    let range = |offset, length| Some(gateway::FileRange { offset, length });
    let answer = frontend
        .read_file_container(of_build(read(2, range(1, 2)), "b"))
        .await;
    assert_eq!(answer.unwrap().into_inner().data, b"content"[..]);
    for (request, text) in [
        (read(-1, None), "mount index -1 is out of bounds"),
        (read(0, range(-1, 0)), "invalid range for /a"),
        (read(0, range(0, -1)), "invalid range for /a"),
    ] {
        let refused = frontend.read_file_container(of_build(request, "b")).await;
        assert_eq!(refused.unwrap_err().message(), text);
    }
    let list = gateway::ReadDirRequest {
        r#ref: "c".into(),
        dir_path: "/d".into(),
        include_pattern: "*.rs".into(),
        mount_index: 1,
    };
    let answer = frontend.read_dir_container(of_build(list, "b")).await;
    assert_eq!(answer.unwrap().into_inner().entries.len(), 2);
    let stat = gateway::StatFileRequest {
        r#ref: "c".into(),
        path: "/s".into(),
        mount_index: 0,
    };
    let missing = frontend.stat_file_container(of_build(stat, "b")).await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
    let release = || {
        let container_id = "c".into();
        of_build(gateway::ReleaseContainerRequest { container_id }, "b")
    };
    frontend.release_container(release()).await.unwrap();
    let missing = frontend.release_container(release()).await.unwrap_err();
    assert_eq!(missing.message(), "container details for c not found");
    create(&mut frontend, "c").await.unwrap();
    assert_eq!(
        *container.calls.lock(),
        [
            "read 2 /a Some(FileRange { offset: 1, length: 2 })",
            "list 1 /d *.rs",
            "stat 0 /s",
            "release",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_of_a_container_is_a_ref_of_its_build() {
    let (mut frontend, _) = frontend().await;
    let mount = |result_id: &str| gateway::NewContainerRequest {
        container_id: "mounted".into(),
        mounts: vec![pb::Mount {
            dest: "/src".into(),
            result_id: result_id.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let refused = frontend.new_container(of_build(mount("ref9"), "b")).await;
    assert_eq!(
        refused.unwrap_err().message(),
        "failed to find ref ref9 for \"/src\" mount: return reference ref9 not found"
    );
    // A mount without a ref is an empty one.
    let empty = frontend.new_container(of_build(mount(""), "b")).await;
    empty.unwrap();
}
