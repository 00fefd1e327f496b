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
use services::gateway::llb_bridge_client::LlbBridgeClient;
use services::health::health_server::HealthServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::health::HealthService;
use crate::{routes, serve};

mod answers;
mod calls;
mod client;
mod conformance;
/// The engine that the fuzzer of gateway calls has too.
#[path = "../../../fuzz/src/gateway/double.rs"]
mod double;
mod exec;
mod limits;
mod policy;
mod small_frames;
mod step_spans;
mod uploads;

use client::{Packets, connect, open_session};

/// What a build does, by the name of its frontend.
async fn scripted(
    sessions: Arc<SessionManager>,
    hub: Arc<progress::Hub>,
    request: SolveRequest,
) -> Result<SolveResponse, Failure> {
    if matches!(request.input, SolveInput::ClientFrontend(_)) {
        return run_client_frontend(request, BridgeDouble::default()).await;
    }
    let group = Group::new(sessions, [request.session.clone()]);
    let failed = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Unknown, e.to_string());
    let session = group.first().await.map_err(|e| failed(&e))?;
    let mut response = BTreeMap::new();
    match request.input.frontend_name() {
        "sync" => {
            let dir = tempfile::tempdir().map_err(|e| failed(&e))?;
            let root = fstree_root(dir.path());
            let request = SyncRequest {
                name: "context/ü".into(),
                exclude: vec!["*.log".into()],
                ..Default::default()
            };
            let stream = session.diff_copy(request).await.map_err(|e| failed(&e))?;
            let received = receive(stream, root, ReceiveOptions::default())
                .await
                .map_err(|e| failed(&e))?;
            response.insert("listed".into(), received.listed.to_string());
            response.insert(
                "hello".into(),
                std::fs::read_to_string(dir.path().join("d/hello")).unwrap_or_default(),
            );
        }
        "late-sync" => {
            let listed = small_frames::read_late(&session).await;
            response.insert("listed".into(), listed.map_err(|e| failed(&e))?.to_string());
        }
        "send" => {
            let metadata = [("containerimage.digest".to_owned(), "sha256:x".to_owned())].into();
            let mut sink = session
                .send_file(3, &metadata)
                .await
                .map_err(|e| failed(&e))?;
            for _ in 0..20 {
                sink.write(Bytes::from(vec![7; 300_000]))
                    .await
                    .map_err(|e| failed(&e))?;
            }
            sink.finish().await.map_err(|e| failed(&e))?;
        }
        "secret" => {
            for id in ["known", "unknown"] {
                let secret = session.secret(id).await.map_err(|e| failed(&e))?;
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
            let vertex = progress::Vertex::new(Digest::sha256(b"hang"), "hang", Vec::new());
            hub.publish(progress::Event::Vertex(vertex));
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
    let (build_sessions, build_hub) = (sessions.clone(), hub.clone());
    let backend = Arc::new(EngineDouble {
        solve: Box::new(move |request| {
            Box::pin(scripted(build_sessions.clone(), build_hub.clone(), request))
        }),
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
    let all_ended = async {
        while !sessions.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), all_ended)
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
