//! What a daemon may ask of us, asked over the tunnel of a session as a daemon does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures::stream::StreamExt as _;
use proto::content::{
    InfoRequest, ReadContentRequest, StatusRequest, WriteAction, WriteContentRequest,
};
use proto::filesync::BytesMessage;
use proto::health::HealthCheckRequest;
use proto::ssh::CheckAgentRequest;
use services::content::content_client::ContentClient;
use services::filesync::file_send_client::FileSendClient;
use services::filesync::file_sync_client::FileSyncClient;
use services::health::health_client::HealthClient;
use services::ssh::ssh_client::SshClient;
use services::upload::upload_client::UploadClient;
use session::header;
use task::Task;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::daemon::{Call, Daemon, channel};
use crate::attach::{Attachables, FileTarget, FolderTarget, Target, Upload};
use crate::failure::Failure;

/// A session that serves `attachables`, and the daemon's connection through it.
struct Attached {
    channel: Channel,
    _serving: Task<Result<(), Failure>>,
    _daemon: Daemon,
}

async fn attached(attachables: Attachables) -> Attached {
    let (mut daemon, client) = Daemon::start().await;
    let (serving, call) = tokio::join!(
        crate::session::serve(&client, "s1", "", attachables),
        daemon.next()
    );
    let Call::Session(_, tunnel) = call else {
        panic!("not a session");
    };
    Attached {
        channel: channel(tunnel).await,
        _serving: serving.unwrap(),
        _daemon: daemon,
    }
}

fn with<M>(message: M, headers: &[(&'static str, &str)]) -> Request<M> {
    let mut request = Request::new(message);
    for (key, value) in headers {
        request.metadata_mut().append(*key, value.parse().unwrap());
    }
    request
}

fn chunks(parts: &[&'static [u8]]) -> Vec<BytesMessage> {
    let message = |data: &&'static [u8]| BytesMessage {
        data: (*data).into(),
    };
    parts.iter().map(message).collect()
}

/// Sends bytes to the target with the number 2, and waits until it has taken them.
async fn sent(attached: &Attached, parts: &[&'static [u8]], id: &str) -> Result<(), Status> {
    let stream = futures::stream::iter(chunks(parts));
    let request = with(stream, &[(header::EXPORTER_ID, id)]);
    let mut client = FileSendClient::new(attached.channel.clone());
    let mut answer = client.diff_copy(request).await?.into_inner();
    while answer.message().await?.is_some() {}
    Ok(())
}

fn target(target: FileTarget) -> Attachables {
    Attachables {
        targets: BTreeMap::from([(2, Target::Bytes(target))]),
        ..Attachables::default()
    }
}

/// Lets others work until something has happened.
async fn until(happened: impl Fn() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, waiting)
        .await
        .expect("it happens");
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_archive_takes_its_name_when_all_of_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/image.tar");
    let attached = attached(target(FileTarget::File(file.clone()))).await;
    sent(&attached, &[b"first ", b"", b"second"], "2")
        .await
        .unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"first second");
    sent(&attached, &[], "2").await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"", "an empty one replaces it");
    assert_eq!(names(&dir.path().join("new")), ["image.tar"]);
}

#[tokio::test]
async fn an_archive_that_breaks_off_leaves_the_old_one_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    fs::write(&file, "old").unwrap();
    let attached = attached(target(FileTarget::File(file.clone()))).await;
    let (to, messages) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut client = FileSendClient::new(attached.channel.clone());
    let answer = client
        .diff_copy(with(stream, &[(header::EXPORTER_ID, "2")]))
        .await
        .unwrap();
    to.send(chunks(&[b"half"]).remove(0)).await.unwrap();
    // The part is there before the call is given up.
    until(|| names(dir.path()).len() == 2).await;
    // The session ends with the daemon; the stream itself was never ended.
    drop((answer, client, attached));
    until(|| names(dir.path()).len() == 1).await;
    drop(to);
    assert_eq!(fs::read(&file).unwrap(), b"old");
}

#[tokio::test]
async fn bytes_for_no_target_are_refused_and_a_device_is_written_as_it_is() {
    let attached = attached(target(FileTarget::File("/dev/null".into()))).await;
    sent(&attached, &[b"gone"], "2").await.unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    for id in ["0", "3", "-1", "99999999999999999999", "x"] {
        let refused = sent(&attached, &[b"x"], id).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{id}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_made_fails_the_transfer_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let attached = attached(target(FileTarget::File(file.join("below")))).await;
    let refused = sent(&attached, &[b"x"], "2").await.unwrap_err();
    let words = refused.message();
    assert!(
        words.starts_with("failed to write ") && words.contains("file/below"),
        "{words}"
    );
}

#[tokio::test]
async fn a_program_takes_bytes_on_its_standard_input_and_what_it_says_is_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out").display().to_string();
    let run =
        |script: &str| -> Vec<String> { ["sh", "-c", script, &out].map(str::to_owned).into() };
    let cases = [
        (run("cat > \"$0\""), None),
        (
            run("cat > /dev/null; echo no room >&2; exit 3"),
            Some(": no room"),
        ),
        (run("cat > /dev/null; exit 3"), Some("exit status: 3")),
        // It stops reading: what it says counts, not the broken pipe.
        (run("exec 0<&-; echo closed >&2; exit 1"), Some(": closed")),
        (
            vec!["/no/such/program".into()],
            Some("/no/such/program: No such file"),
        ),
        (vec![], Some("no program")),
    ];
    for (argv, error) in cases {
        let attached = attached(target(FileTarget::Program(argv.clone()))).await;
        match (sent(&attached, &[b"bytes"], "2").await, error) {
            (Ok(()), None) => assert_eq!(fs::read(&out).unwrap(), b"bytes"),
            (Err(status), Some(words)) => {
                assert!(status.message().contains(words), "{argv:?}: {status:?}");
            }
            (outcome, _) => panic!("{argv:?}: {outcome:?}"),
        }
    }
}

fn tree(path: &Path) -> Attachables {
    let folder = FolderTarget {
        path: path.to_owned(),
        ..FolderTarget::default()
    };
    Attachables {
        targets: BTreeMap::from([(0, Target::Folder(folder))]),
        ..Attachables::default()
    }
}

/// A packet of file sync whose metadata is given as bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Packed {
    #[prost(bytes = "vec", tag = "2")]
    stat: Vec<u8>,
}

#[tokio::test]
async fn a_packet_that_takes_more_memory_than_its_length_tells_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let attached = attached(tree(&dir.path().join("out"))).await;
    // An empty entry of the map of attributes takes two bytes on the wire and a hundred in memory.
    let packet = Packed {
        stat: [0x52, 0].repeat(400_000),
    };
    let mut grpc = tonic::client::Grpc::new(attached.channel.clone());
    grpc.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(session::method::FILE_SEND);
    let codec = services::codec::Codec::<Packed, proto::fsutil::Packet>::default();
    let request = Request::new(futures::stream::iter([packet]));
    let outcome = match grpc.streaming(request, path, codec).await {
        Ok(mut answer) => loop {
            match answer.get_mut().message().await {
                Ok(Some(packet)) => {
                    if packet.r#type() == proto::fsutil::packet::PacketType::PacketErr {
                        break String::from_utf8_lossy(&packet.data).into_owned();
                    }
                }
                Ok(None) => panic!("taken"),
                Err(status) => break status.message().to_owned(),
            }
        },
        Err(status) => status.message().to_owned(),
    };
    assert!(
        outcome.contains("memory") || outcome.contains("too"),
        "{outcome}"
    );
    assert!(names(&dir.path().join("out")).is_empty());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let attached = attached(tree(&file.join("out"))).await;
    let refused = sent(&attached, &[], "0").await.unwrap_err();
    let words = refused.message();
    assert!(
        words.starts_with("failed to write to ") && words.contains("file/out"),
        "{words}"
    );
}

#[tokio::test]
async fn only_a_folder_that_is_not_there_is_not_found_and_every_other_error_fails_the_build() {
    // The daemon goes on without `.dockerignore` when it hears NOT_FOUND: any other error must sound different, or the whole
    // context would be sent, secrets included.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
    let folder = |name: &str| (name.to_owned(), dir.path().join(name).into());
    let attached = attached(Attachables {
        folders: BTreeMap::from([
            folder("gone"),
            folder("file"),
            folder("loop"),
            folder("file/below"),
        ]),
        ..Attachables::default()
    })
    .await;
    let mut client = FileSyncClient::new(attached.channel.clone());
    for (name, code) in [
        ("gone", Code::NotFound),
        ("file", Code::Unknown),
        ("loop", Code::Unknown),
        ("file/below", Code::Unknown),
        // Not offered: the daemon may not have it, whether it is there or not.
        ("other", Code::NotFound),
    ] {
        let packets = futures::stream::pending::<proto::fsutil::Packet>();
        let request = with(packets, &[(header::DIR_NAME, name)]);
        let refused = client.diff_copy(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{name}: {refused:?}");
    }
    let packets = futures::stream::pending::<proto::fsutil::Packet>();
    let tar = client.tar_stream(Request::new(packets)).await.unwrap_err();
    assert_eq!(tar.code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_upload_is_handed_over_once() {
    let upload = |data: &'static [u8]| Upload(Box::new(data));
    let attached = attached(Attachables {
        uploads: BTreeMap::from([("u1".into(), upload(b"context"))]),
        ..Attachables::default()
    })
    .await;
    let mut client = UploadClient::new(attached.channel.clone());
    let mut pull = async |path: &str| {
        let empty = futures::stream::pending();
        let request = with(empty, &[(header::UPLOAD_PATH, path)]);
        let mut answer = client.pull(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = answer.message().await? {
            bytes.extend_from_slice(&message.data);
        }
        Ok::<_, Status>(bytes)
    };
    assert!(pull("/u2").await.is_err());
    assert_eq!(pull("/u1").await.unwrap(), b"context");
    let again = pull("/u1").await.unwrap_err();
    assert!(again.message().contains("no http response"), "{again:?}");
}

/// An agent that answers every message with its kind and the text of the request, and keeps what it was asked.
async fn agent(
    listener: tokio::net::UnixListener,
    questions: std::sync::Arc<parking_lot::Mutex<Vec<u8>>>,
) {
    let (mut stream, _) = listener.accept().await.unwrap();
    while let Ok(size) = stream.read_u32().await {
        let mut body = vec![0; usize::try_from(size).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        questions.lock().push(body[0]);
        let answer = [&[0, 0, 0, 2, body[0] + 1][..], b"x"].concat();
        stream.write_all(&answer).await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_lists_and_signs_and_hears_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let questions = std::sync::Arc::default();
    let running = task::spawn("agent", agent(listener, std::sync::Arc::clone(&questions)));
    let attached = attached(Attachables {
        ssh: BTreeMap::from([
            ("default".into(), socket),
            ("gone".into(), "/nowhere".into()),
        ]),
        ..Attachables::default()
    })
    .await;
    let mut client = SshClient::new(attached.channel.clone());
    let mut check = async |id: &str| {
        let id = id.to_owned();
        let checked = client.check_agent(CheckAgentRequest { id }).await;
        checked.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(check("").await, Ok(()), "no id is the default");
    assert_eq!(check("default").await, Ok(()));
    assert_eq!(check("other").await, Err(Code::NotFound));
    let forward = async |id: &str, frames: Vec<Vec<u8>>| {
        let messages = frames
            .into_iter()
            .map(|data| proto::ssh::BytesMessage { data: data.into() });
        let request = with(futures::stream::iter(messages), &[(header::SSH_ID, id)]);
        let mut client = SshClient::new(attached.channel.clone());
        let mut answer = client.forward_agent(request).await?.into_inner();
        let mut frames = Vec::new();
        while let Some(message) = answer.message().await? {
            frames.push(message.data.to_vec());
        }
        Ok::<_, Status>(frames)
    };
    let message = |kind: u8| vec![0, 0, 0, 1, kind];
    // Listing and signing; adding, removing and locking; a message in two pieces, and one without a kind.
    let frames = vec![
        message(11),
        message(13),
        message(17),
        message(18),
        message(19),
        message(22),
        vec![0, 0],
        vec![0, 1, 11],
        vec![0, 0, 0, 0],
    ];
    let refusal = vec![0, 0, 0, 1, 5];
    let answers = forward("default", frames).await.unwrap();
    let through = |kind: u8| vec![0, 0, 0, 2, kind + 1, b'x'];
    let mut expected = vec![through(11), through(13)];
    expected.extend(vec![refusal.clone(); 4]);
    expected.extend([through(11), refusal]);
    assert_eq!(answers, expected);
    assert_eq!(*questions.lock(), [11, 13, 11]);
    drop(running);
    let gone = forward("gone", vec![]).await.unwrap_err();
    assert!(
        gone.message().starts_with("failed to connect to /nowhere"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn a_message_to_an_agent_has_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let running = task::spawn("agent", agent(listener, std::sync::Arc::default()));
    let attached = attached(Attachables {
        ssh: BTreeMap::from([("default".into(), socket)]),
        ..Attachables::default()
    })
    .await;
    let mut client = SshClient::new(attached.channel.clone());
    let data = vec![0, 4, 0, 1, 11].into();
    let messages = futures::stream::iter([proto::ssh::BytesMessage { data }]);
    let mut answer = client.forward_agent(messages).await.unwrap().into_inner();
    let refused = answer.message().await.unwrap_err();
    assert!(refused.message().contains("too large"), "{refused:?}");
    drop(running);
}

#[tokio::test]
async fn a_client_without_agents_says_that_it_has_none() {
    let attached = attached(Attachables::default()).await;
    let mut client = SshClient::new(attached.channel.clone());
    let none = client
        .check_agent(CheckAgentRequest::default())
        .await
        .unwrap_err();
    assert_eq!(none.code(), Code::Unimplemented);
    let mut health = HealthClient::new(attached.channel.clone());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    assert!(
        futures::poll!(watch.next()).is_pending(),
        "the session goes on"
    );
}

fn store(dir: &Path) -> Attachables {
    Attachables {
        stores: BTreeMap::from([("oci:x".into(), dir.to_owned())]),
        ..Attachables::default()
    }
}

const STORE: &[(&str, &str)] = &[(header::CONTENT_STORE, "oci:x")];

#[tokio::test]
async fn blobs_of_a_layout_are_read_from_where_the_daemon_says_and_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let digest = oci::Digest::sha256(b"0123456789");
    let folder = dir.path().join("blobs/sha256");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(digest.hex()), "0123456789").unwrap();
    let attached = attached(store(dir.path())).await;
    let mut client = ContentClient::new(attached.channel.clone());
    let mut read = async |digest: &str, offset: i64, size: i64, headers| {
        let request = ReadContentRequest {
            digest: digest.into(),
            offset,
            size,
        };
        let mut pieces = client.read(with(request, headers)).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
            assert_eq!(piece.offset, offset + i64::try_from(bytes.len()).unwrap());
            bytes.extend_from_slice(&piece.data);
        }
        Ok::<_, Status>(String::from_utf8(bytes).unwrap())
    };
    let name = digest.to_string();
    for (offset, size, bytes) in [
        (0, 0, "0123456789"),
        (0, 3, "012"),
        (7, 0, "789"),
        (7, 100, "789"),
        (10, 0, ""),
        (2, -1, "23456789"),
    ] {
        assert_eq!(read(&name, offset, size, STORE).await.unwrap(), bytes);
    }
    let none = oci::Digest::sha256(b"none").to_string();
    let outside = "sha256:../../../../../../etc/passwd";
    for (digest, offset, headers, code) in [
        (name.as_str(), 11, STORE, Code::OutOfRange),
        (&name, -1, STORE, Code::OutOfRange),
        (&none, 0, STORE, Code::NotFound),
        (outside, 0, STORE, Code::InvalidArgument),
        ("", 0, STORE, Code::InvalidArgument),
        (&name, 0, &[], Code::NotFound),
        (
            &name,
            0,
            &[(header::CONTENT_STORE, "oci:y")],
            Code::NotFound,
        ),
    ] {
        let refused = read(digest, offset, 0, headers).await.unwrap_err();
        assert_eq!(refused.code(), code, "{digest} {offset}: {refused:?}");
    }
    let request = with(
        InfoRequest {
            digest: name.clone(),
        },
        STORE,
    );
    let info = client
        .info(request)
        .await
        .unwrap()
        .into_inner()
        .info
        .unwrap();
    assert_eq!((info.digest, info.size), (name, 10));
}

fn part(offset: i64, data: &'static [u8], action: WriteAction) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        offset,
        data: data.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_blob_is_in_a_layout_when_its_digest_is_right_and_else_nothing_is() {
    let right = oci::Digest::sha256(b"blob").to_string();
    let wrong = oci::Digest::sha256(b"other").to_string();
    let commit = |data, expected: &str, total| WriteContentRequest {
        expected: expected.into(),
        total,
        ..part(2, data, WriteAction::Commit)
    };
    let begin = || part(0, b"bl", WriteAction::Write);
    let cases: Vec<(Vec<WriteContentRequest>, Option<Code>)> = vec![
        (vec![begin(), commit(b"ob", &right, 4)], None),
        (vec![begin(), commit(b"ob", "", 0)], None),
        (
            vec![
                part(0, b"", WriteAction::Stat),
                begin(),
                commit(b"ob", &right, 0),
            ],
            None,
        ),
        (
            vec![begin(), commit(b"ob", &wrong, 4)],
            Some(Code::FailedPrecondition),
        ),
        (
            vec![begin(), commit(b"ob", &right, 5)],
            Some(Code::FailedPrecondition),
        ),
        (
            vec![begin(), part(3, b"x", WriteAction::Write)],
            Some(Code::OutOfRange),
        ),
        (
            vec![part(-1, b"x", WriteAction::Write)],
            Some(Code::OutOfRange),
        ),
        (
            vec![commit(b"", "sha256:zz", 0)],
            Some(Code::InvalidArgument),
        ),
        // It breaks off.
        (vec![begin()], None),
    ];
    for (messages, code) in cases {
        let dir = tempfile::tempdir().unwrap();
        let attached = attached(store(dir.path())).await;
        let mut client = ContentClient::new(attached.channel.clone());
        let is_whole = code.is_none() && messages.len() > 1;
        let what = format!("{messages:?}");
        let request = with(futures::stream::iter(messages), STORE);
        let mut answers = client.write(request).await.unwrap().into_inner();
        let mut last = None;
        let error = loop {
            match answers.message().await {
                Ok(Some(answer)) => last = Some(answer),
                Ok(None) => break None,
                Err(status) => break Some(status.code()),
            }
        };
        assert_eq!(error, code, "{what}");
        let blobs = dir.path().join("blobs/sha256");
        if is_whole {
            let last = last.unwrap();
            assert_eq!((last.digest.as_str(), last.offset), (right.as_str(), 4));
            assert_eq!(names(&blobs), [right.trim_start_matches("sha256:")]);
        } else {
            assert!(!blobs.exists(), "{what}");
        }
        if dir.path().join("ingest").exists() {
            assert!(names(&dir.path().join("ingest")).is_empty(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_there_is_not_taken_again_and_layouts_are_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let digest = oci::Digest::sha256(b"blob");
    let folder = dir.path().join("blobs/sha256");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(digest.hex()), "blob").unwrap();
    let attached = attached(store(dir.path())).await;
    let mut client = ContentClient::new(attached.channel.clone());
    let message = WriteContentRequest {
        expected: digest.to_string(),
        ..part(0, b"", WriteAction::Stat)
    };
    let request = with(futures::stream::iter([message]), STORE);
    let mut answers = client.write(request).await.unwrap().into_inner();
    assert_eq!(
        answers.message().await.unwrap_err().code(),
        Code::AlreadyExists
    );
    let listed = client.list(Request::new(Default::default())).await;
    assert_eq!(listed.unwrap_err().code(), Code::Unimplemented);
    let deleted = client.delete(Request::new(Default::default())).await;
    assert_eq!(deleted.unwrap_err().code(), Code::Unimplemented);
    let status = client.status(with(StatusRequest::default(), STORE)).await;
    assert_eq!(status.unwrap_err().code(), Code::NotFound);
    client.abort(with(Default::default(), STORE)).await.unwrap();
    let statuses = client
        .list_statuses(Request::new(Default::default()))
        .await
        .unwrap();
    assert!(statuses.into_inner().statuses.is_empty());
    assert_eq!(fs::read(folder.join(digest.hex())).unwrap(), b"blob");
}
