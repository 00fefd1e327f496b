//! The services over a real connection, with a client that serves its session in the tunnel.

use ::session::wire;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::session::diffcopy::{FilteredTree, ReceiveOptions, SendOptions, receive, send};
use ::session::stream::PACKETS_IN_FLIGHT;
use ::session::{CallError, Group, PacketStream, SessionManager, SyncRequest, header, method};
use bytes::Bytes;
use double::{BridgeDouble, EngineDouble, run_client_frontend};
use engine::api::{Detail, Failure, FailureKind, SolveInput, SolveRequest, SolveResponse};
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use llb::pb;
use oci::Digest;
use prost::Message as _;
use proto::{control, filesync, fsutil, gateway, rpc, secrets};
use services::control::control_client::ControlClient;
use services::filesync::file_send_server::{FileSend, FileSendServer};
use services::filesync::file_sync_server::{FileSync, FileSyncServer};
use services::gateway::llb_bridge_client::LlbBridgeClient;
use services::health::health_server::HealthServer;
use services::secrets::secrets_server::{Secrets, SecretsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::health::HealthService;
use crate::{routes, serve};

mod answers;
mod calls;
mod conformance;
/// The engine that the fuzzer of gateway calls has too.
#[path = "../../../fuzz/src/gateway/double.rs"]
mod double;
mod limits;
mod small_frames;

/// What a build does, by the name of its frontend.
async fn scripted(
    sessions: Arc<SessionManager>,
    hub: Arc<progress::Hub>,
    request: SolveRequest,
) -> Result<SolveResponse, Failure> {
    if matches!(request.input, SolveInput::ClientFrontend(_)) {
        return run_client_frontend(request, BridgeDouble::default()).await;
    }
    let group = Group::new(sessions, [request.session.to_string()]);
    let said = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Unknown, e.to_string());
    let session = group.first().await.map_err(|e| said(&e))?;
    let mut response = BTreeMap::new();
    match request.input.frontend_name() {
        "sync" => {
            let dir = tempfile::tempdir().map_err(|e| said(&e))?;
            let root = fstree_root(dir.path());
            let wanted = SyncRequest {
                name: "context/ü".into(),
                exclude: vec!["*.log".into()],
                ..Default::default()
            };
            let stream = session.diff_copy(wanted).await.map_err(|e| said(&e))?;
            let done = receive(stream, root, ReceiveOptions::default())
                .await
                .map_err(|e| said(&e))?;
            response.insert("listed".into(), done.listed.to_string());
            response.insert(
                "hello".into(),
                std::fs::read_to_string(dir.path().join("d/hello")).unwrap_or_default(),
            );
        }
        "late-sync" => {
            let listed = small_frames::read_late(&session).await;
            response.insert("listed".into(), listed.map_err(|e| said(&e))?.to_string());
        }
        "send" => {
            let metadata = [("containerimage.digest".to_owned(), "sha256:x".to_owned())].into();
            let mut sink = session
                .send_file(3, &metadata)
                .await
                .map_err(|e| said(&e))?;
            for _ in 0..20 {
                sink.write(Bytes::from(vec![7; 300_000]))
                    .await
                    .map_err(|e| said(&e))?;
            }
            sink.finish().await.map_err(|e| said(&e))?;
        }
        "secret" => {
            for id in ["known", "unknown"] {
                let secret = session.secret(id).await.map_err(|e| said(&e))?;
                response.insert(
                    id.into(),
                    secret
                        .map(|s| String::from_utf8_lossy(s.expose()).into_owned())
                        .unwrap_or_default(),
                );
            }
        }
        "fail" => {
            return Err(Failure::new(
                FailureKind::Unknown,
                "process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7",
            )
            .with(Detail::Source {
                info: pb::SourceInfo {
                    data: vec![b'#'; 60_000],
                    ..Default::default()
                },
                ranges: vec![],
            }));
        }
        "hang" => {
            let begun = progress::Vertex::new(Digest::sha256(b"hang"), "hang", Vec::new());
            hub.publish(progress::Event::Vertex(begun));
            session.closed().await;
            return Err(Failure::new(FailureKind::Canceled, "the client left"));
        }
        other => return Err(Failure::not_built(other)),
    }
    Ok(SolveResponse {
        exporter_response: response,
    })
}

fn fstree_root(path: &Path) -> ::session::diffcopy::Root {
    ::session::diffcopy::Root::open(path).expect("the folder was just made")
}

/// The daemon on an in-memory connection.
async fn daemon() -> (Channel, Arc<SessionManager>, Arc<progress::Hub>) {
    let ([channel, _], sessions, hub) = daemon_of_two().await;
    (channel, sessions, hub)
}

/// Two clients of one daemon, each with a connection of its own.
async fn daemon_of_two() -> ([Channel; 2], Arc<SessionManager>, Arc<progress::Hub>) {
    let sessions = SessionManager::new();
    let hub = progress::Hub::new();
    let (to_build, said) = (sessions.clone(), hub.clone());
    let backend = Arc::new(EngineDouble {
        solve: Box::new(move |request| Box::pin(scripted(to_build.clone(), said.clone(), request))),
        hub: hub.clone(),
        ..EngineDouble::default()
    });
    let all = routes(backend, sessions.clone());
    let (a, of_a) = tokio::io::duplex(1 << 20);
    let (b, of_b) = tokio::io::duplex(1 << 20);
    let incoming = [a, b].map(|io| Ok::<_, std::io::Error>(crate::Connection::new(io)));
    let incoming = futures::stream::iter(incoming).chain(futures::stream::pending());
    task::spawn("daemon", serve(all, incoming, std::future::pending())).detach();
    ([client(of_a).await, client(of_b).await], sessions, hub)
}

async fn client(io: DuplexStream) -> Channel {
    let mut theirs = Some(io);
    let connector = tower::service_fn(move |_| {
        let io = theirs.take();
        async move {
            io.map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("once"))
        }
    });
    Endpoint::from_static("http://x")
        .http2_max_header_list_size(16 << 20)
        .connect_with_connector(connector)
        .await
        .unwrap()
}

/// What the client of the tests serves.
#[derive(Clone)]
struct Served {
    folder: Arc<tempfile::TempDir>,
    written: mpsc::Sender<(Vec<String>, usize)>,
}

type Packets = BoxStream<'static, Result<fsutil::Packet, Status>>;

#[tonic::async_trait]
impl FileSync for Served {
    type DiffCopyStream = Packets;

    async fn diff_copy(
        &self,
        request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Packets>, Status> {
        let text = |key: &str| {
            request
                .metadata()
                .get(key)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        if text(header::DIR_NAME) == small_frames::FOLDER {
            return Ok(Response::new(small_frames::list()));
        }
        let encoded = gostd::strconv::is_true(&text(&format!("{}-encoded", header::DIR_NAME)));
        if header::decode(&text(header::DIR_NAME), encoded) != "context/ü" {
            return Err(Status::not_found("no access allowed to dir"));
        }
        let filter = ::session::diffcopy::Filter {
            exclude: vec![text(header::EXCLUDE)],
            ..Default::default()
        };
        let source = Arc::new(FilteredTree {
            root: fstree_root(self.folder.path()),
            filter,
            map: None,
            change_marks: false,
        });
        let (outgoing, packets) = mpsc::channel(PACKETS_IN_FLIGHT);
        let failed = |e: Status| CallError::Status {
            code: 2,
            message: e.to_string(),
            details: Bytes::new(),
        };
        let incoming = request
            .into_inner()
            .map(move |p| p.map_err(failed).and_then(wire::from_wire))
            .boxed();
        task::spawn("send", async move {
            send(
                PacketStream { incoming, outgoing },
                source,
                SendOptions::default(),
            )
            .await
            .unwrap()
        })
        .detach();
        Ok(Response::new(
            ReceiverStream::new(packets)
                .map(|p| Ok(wire::to_wire(p)))
                .boxed(),
        ))
    }

    type TarStreamStream = Packets;

    async fn tar_stream(
        &self,
        _request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("tar"))
    }
}

#[tonic::async_trait]
impl FileSend for Served {
    type DiffCopyStream = BoxStream<'static, Result<filesync::BytesMessage, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<filesync::BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let text = |key: &str| {
            request
                .metadata()
                .get(key)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let words = vec![
            text(header::EXPORTER_ID),
            text("exporter-md-containerimage.digest"),
        ];
        let mut pieces = request.into_inner();
        let mut size = 0;
        while let Some(piece) = pieces.message().await? {
            size += piece.data.len();
        }
        let _gone = self.written.send((words, size)).await;
        Ok(Response::new(futures::stream::empty().boxed()))
    }
}

#[tonic::async_trait]
impl Secrets for Served {
    async fn get_secret(
        &self,
        request: Request<secrets::GetSecretRequest>,
    ) -> Result<Response<secrets::GetSecretResponse>, Status> {
        if request.into_inner().id == "known" {
            Ok(Response::new(secrets::GetSecretResponse {
                data: b"hush".to_vec(),
            }))
        } else {
            Err(Status::not_found("secret not found"))
        }
    }
}

/// Connects a session whose services run in this process; dropping the handle ends it.
async fn connect(
    channel: &Channel,
    id: &str,
) -> (task::Task<()>, mpsc::Receiver<(Vec<String>, usize)>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("d/hello"), "hello").unwrap();
    std::fs::write(folder.path().join("noise.log"), "x").unwrap();
    let (written, results) = mpsc::channel(1);
    let served = Served {
        folder: Arc::new(folder),
        written,
    };
    let methods = [method::FILE_SYNC, method::FILE_SEND, method::SECRET];
    let server = Server::builder()
        .add_service(FileSyncServer::new(served.clone()))
        .add_service(FileSendServer::new(served.clone()))
        .add_service(SecretsServer::new(served))
        .add_service(HealthServer::new(HealthService));
    let task = open_session(channel, id, &methods, server).await;
    (task, results)
}

/// Connects a session that lists these methods and has `server` behind it; dropping the handle ends it.
async fn open_session(
    channel: &Channel,
    id: &str,
    methods: &[&str],
    server: tonic::transport::server::Router,
) -> task::Task<()> {
    let (outgoing, messages) = mpsc::channel::<control::BytesMessage>(16);
    let mut request = Request::new(ReceiverStream::new(messages));
    let metadata = request.metadata_mut();
    metadata.insert(header::SESSION_ID, id.parse().unwrap());
    metadata.insert(header::SESSION_SHARED_KEY, "key".parse().unwrap());
    for method in methods {
        metadata.append(header::SESSION_METHOD, method.parse().unwrap());
    }
    let mut incoming = ControlClient::new(channel.clone())
        .session(request)
        .await
        .unwrap()
        .into_inner();
    let (inner, outer): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 20);
    task::spawn("client session", async move {
        let (mut read, mut write) = tokio::io::split(outer);
        let up = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                let data = Bytes::copy_from_slice(&buffer[..length]);
                if outgoing.send(control::BytesMessage { data }).await.is_err() {
                    break;
                }
            }
        };
        let down = async {
            while let Some(Ok(message)) = incoming.next().await {
                if write.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        };
        let server = server.serve_with_incoming(
            futures::stream::once(async { Ok::<_, std::io::Error>(inner) })
                .chain(futures::stream::pending()),
        );
        tokio::select! {
            () = up => {}
            () = down => {}
            _ = server => {}
        }
    })
}

fn of_build<T>(message: T, build: &str) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(header::BUILD_ID, build.parse().unwrap());
    request
}

fn solve(session: &str, frontend: &str) -> control::SolveRequest {
    control::SolveRequest {
        r#ref: format!("build-{frontend}"),
        session: session.into(),
        frontend: frontend.into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_serves_files_secrets_and_a_target_in_the_tunnel() {
    let (channel, sessions, _) = daemon().await;
    let (task, mut results) = connect(&channel, "s1").await;
    let mut client = ControlClient::new(channel.clone());
    let synced = client
        .solve(solve("s1", "sync"))
        .await
        .unwrap()
        .into_inner()
        .exporter_response;
    assert_eq!(
        (synced["listed"].as_str(), synced["hello"].as_str()),
        ("2", "hello")
    );
    let secrets = client
        .solve(solve("s1", "secret"))
        .await
        .unwrap()
        .into_inner()
        .exporter_response;
    assert_eq!(
        (secrets["known"].as_str(), secrets["unknown"].as_str()),
        ("hush", "")
    );
    client.solve(solve("s1", "send")).await.unwrap();
    let (words, size) = results.recv().await.unwrap();
    assert_eq!(
        (words, size),
        (vec!["3".to_owned(), "sha256:x".to_owned()], 6_000_000)
    );
    let session = sessions.get("s1").unwrap();
    assert_eq!(
        (session.shared_key(), session.supports(method::UPLOAD)),
        ("key", false)
    );
    drop(task);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_session_with_it() {
    let (channel, sessions, hub) = daemon().await;
    let (task, _results) = connect(&channel, "s1").await;
    let running = task::spawn("solve", {
        let mut client = ControlClient::new(channel.clone());
        async move { client.solve(solve("s1", "hang")).await }
    });
    let session = sessions.wait("s1", Duration::from_secs(5)).await.unwrap();
    // The build has the session before the client leaves.
    hub.subscribe().next().await.unwrap();
    drop(task);
    tokio::time::timeout(Duration::from_secs(5), session.closed())
        .await
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .unwrap();
    assert_eq!(ended.unwrap_err().message(), "the client left");
    let gone = async {
        while !sessions.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_session_of_the_same_id_is_refused_and_one_without_an_id_too() {
    let (channel, sessions, _) = daemon().await;
    let (_task, _results) = connect(&channel, "s1").await;
    sessions.wait("s1", Duration::from_secs(5)).await.unwrap();
    let mut client = ControlClient::new(channel);
    let mut twin = Request::new(tokio_stream::pending());
    twin.metadata_mut()
        .insert(header::SESSION_ID, "s1".parse().unwrap());
    assert_eq!(
        client.session(twin).await.unwrap_err().message(),
        "session s1 already exists"
    );
    assert_eq!(
        client
            .session(Request::new(tokio_stream::pending()))
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_arrives_with_details_that_are_larger_than_usual_headers() {
    let (channel, _sessions, _) = daemon().await;
    let (_task, _results) = connect(&channel, "s1").await;
    let error = ControlClient::new(channel)
        .solve(solve("s1", "fail"))
        .await
        .unwrap_err();
    assert_eq!(
        error.message(),
        "process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7"
    );
    let details = rpc::Status::decode(error.details()).unwrap().details;
    assert_eq!(details.len(), 1);
    assert!(details[0].value.len() > 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_in_the_client_solves_and_returns() {
    let (channel, _sessions, _) = daemon().await;
    // The calls may begin before the build does.
    let calls = task::spawn("frontend", {
        let mut bridge = LlbBridgeClient::new(channel.clone());
        async move {
            let pong = bridge
                .ping(of_build(gateway::PingRequest {}, "b1"))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(pong.workers[0].id, "w");
            assert!(
                pong.frontend_api_caps
                    .iter()
                    .any(|c| c.id == "solve.base" && c.enabled)
            );
            let solved = bridge
                .solve(of_build(
                    gateway::SolveRequest {
                        allow_result_return: true,
                        ..Default::default()
                    },
                    "b1",
                ))
                .await
                .unwrap()
                .into_inner();
            let failed = bridge
                .solve(of_build(
                    gateway::SolveRequest {
                        frontend: "missing".into(),
                        ..Default::default()
                    },
                    "b1",
                ))
                .await
                .unwrap_err();
            assert_eq!(
                (failed.code(), failed.message()),
                (Code::NotFound, "no such frontend")
            );
            bridge
                .r#return(of_build(
                    gateway::ReturnRequest {
                        result: solved.result,
                        error: None,
                    },
                    "b1",
                ))
                .await
                .unwrap();
        }
    });
    let mut client = ControlClient::new(channel.clone());
    let build = control::SolveRequest {
        r#ref: "b1".into(),
        ..Default::default()
    };
    let answer = client.solve(build.clone()).await.unwrap().into_inner();
    calls.await;
    assert_eq!(answer.exporter_response["k"], "v");

    let calls = task::spawn("frontend", async move {
        let theirs = prost_types::Any {
            type_url: "theirs".into(),
            value: vec![1],
        };
        let error = rpc::Status {
            code: 3,
            message: "frontend failed".into(),
            details: vec![theirs],
        };
        let back = of_build(
            gateway::ReturnRequest {
                result: None,
                error: Some(error),
            },
            "b1",
        );
        LlbBridgeClient::new(channel).r#return(back).await.unwrap();
    });
    let error = client.solve(build).await.unwrap_err();
    calls.await;
    assert_eq!(
        (error.code(), error.message()),
        (Code::InvalidArgument, "frontend failed")
    );
    assert_eq!(
        rpc::Status::decode(error.details()).unwrap().details[0].type_url,
        "theirs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_build_and_of_an_unknown_one_is_refused() {
    let (channel, _sessions, _) = daemon().await;
    let mut bridge = LlbBridgeClient::new(channel);
    assert_eq!(
        bridge
            .ping(gateway::PingRequest {})
            .await
            .unwrap_err()
            .message(),
        "no buildid found in context"
    );
    assert_eq!(
        bridge
            .ping(of_build(gateway::PingRequest {}, "nobody"))
            .await
            .unwrap_err()
            .message(),
        "no such job nobody"
    );
    assert_eq!(
        bridge
            .new_container(gateway::NewContainerRequest::default())
            .await
            .unwrap_err()
            .message(),
        "no buildid found in context"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_replays_and_ends_and_logs_are_cut_into_messages() {
    let (channel, _sessions, hub) = daemon().await;
    let vertex = Digest::sha256(b"v");
    hub.publish(progress::Event::Vertex(progress::Vertex::new(
        vertex.clone(),
        "step",
        vec![],
    )));
    let now = task::Clock::real().system();
    for _ in 0..40 {
        let msg = Bytes::from(vec![b'x'; 100_000]);
        hub.publish(progress::Event::Log(progress::Log {
            vertex: vertex.clone(),
            stream: 1,
            msg,
            timestamp: now,
        }));
    }
    hub.close();
    let answer = ControlClient::new(channel)
        .status(control::StatusRequest { r#ref: "b".into() })
        .await
        .unwrap();
    assert!(answer.metadata().contains_key("buildkit-current-timestamp"));
    let messages: Vec<_> = answer.into_inner().map(|m| m.unwrap()).collect().await;
    assert_eq!(
        messages
            .iter()
            .map(|m| m.logs.iter().map(|l| l.msg.len()).sum::<usize>())
            .sum::<usize>(),
        4_000_000
    );
    assert!(messages.iter().all(|m| m.encoded_len() < 2 << 20));
    assert_eq!(messages[0].vertexes[0].name, "step");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_records_are_read_in_ranges_and_never_written() {
    use proto::content::{DeleteContentRequest, ReadContentRequest};
    use services::content::content_client::ContentClient;
    let (channel, _sessions, _) = daemon().await;
    let mut client = ContentClient::new(channel);
    let digest = Digest::sha256(b"x").to_string();
    let read = |offset, size| ReadContentRequest {
        digest: digest.clone(),
        offset,
        size,
    };
    let pieces = client
        .read(read(3, 4))
        .await
        .unwrap()
        .into_inner()
        .map(|m| m.unwrap().data.to_vec())
        .concat()
        .await;
    assert_eq!(pieces, b"3456");
    for (offset, size) in [(-1, 0), (11, 0), (0, 11), (3, -1)] {
        assert_eq!(
            client.read(read(offset, size)).await.unwrap_err().code(),
            Code::OutOfRange
        );
    }
    assert!(
        client
            .read(ReadContentRequest {
                digest: "../../etc/passwd".into(),
                ..Default::default()
            })
            .await
            .is_err()
    );
    assert_eq!(
        client
            .delete(DeleteContentRequest { digest })
            .await
            .unwrap_err()
            .code(),
        Code::Unimplemented
    );
}
