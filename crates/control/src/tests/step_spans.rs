//! The socket of steps, with a client like the programs in them and with worse ones.

use std::path::Path;
use std::sync::Arc;

use engine::api::Failure;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use proto::otlp;
use proto::otlp::any_value::Value;
use proto::trace::ExportTraceServiceRequest;
use services::trace::trace_service_client::TraceServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::double::EngineDouble;
use crate::StepSpans;

async fn client(socket: &Path) -> TraceServiceClient<Channel> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://x");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    TraceServiceClient::new(channel)
}

fn attribute(key: &str, value: Value) -> otlp::KeyValue {
    otlp::KeyValue {
        key: key.into(),
        value: Some(otlp::AnyValue { value: Some(value) }),
    }
}

fn span(name: &str, trace: &[u8]) -> otlp::Span {
    otlp::Span {
        trace_id: trace.to_vec(),
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        name: name.into(),
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 2_000_000_000,
        attributes: vec![
            attribute("file", Value::StringValue("a.c".into())),
            attribute("line", Value::IntValue(7)),
        ],
        ..otlp::Span::default()
    }
}

fn request(spans: Vec<otlp::Span>) -> ExportTraceServiceRequest {
    let message = otlp::ResourceSpans {
        resource: Some(otlp::Resource {
            attributes: vec![attribute("service.name", Value::StringValue("make".into()))],
        }),
        scope_spans: vec![otlp::ScopeSpans {
            spans,
            ..otlp::ScopeSpans::default()
        }],
    };
    ExportTraceServiceRequest {
        resource_spans: vec![message.encode_to_vec()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_sends_reaches_the_engine_as_spans_and_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("below/otel.sock");
    let engine = EngineDouble::default();
    let asked = Arc::clone(&engine.asked);
    let listening = StepSpans::listen(&socket, Arc::new(engine)).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o666, "steps run as any user");
    let message = request(vec![span("compile", &[1; 16]), span("no trace", &[1; 3])]);
    let length = message.resource_spans[0].len();
    client(&socket).await.export(message).await.unwrap();
    let asked = asked.lock().join("\n");
    assert!(
        asked.starts_with(&format!("{length} bytes of [Span")),
        "{asked}"
    );
    for part in [
        "name: \"compile\"",
        "service: \"make\"",
        "(\"file\", \"a.c\"), (\"line\", \"7\")",
        "parent: Some([3, 3, 3, 3, 3, 3, 3, 3])",
    ] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    assert!(!asked.contains("no trace"), "{asked}");
    drop(listening);
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_or_large_or_of_no_build_is_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("otel.sock");
    // A socket that another daemon left is replaced; anything else is not.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let engine = EngineDouble {
        failure: Some(Failure::not_built("this build")),
        ..EngineDouble::default()
    };
    let asked = Arc::clone(&engine.asked);
    let _listening = StepSpans::listen(&socket, Arc::new(engine)).unwrap();
    let bytes = |resource_spans| ExportTraceServiceRequest { resource_spans };
    let mut program = client(&socket).await;
    let refused = program
        .export(bytes(vec![vec![0xff; 9]]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let refused = program
        .export(bytes(vec![vec![0; 3 << 20]]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    // A million spans of two bytes each would take much more than that in memory.
    let scope: Vec<u8> = [0x12, 0x00].repeat(400_000);
    let mut resource = vec![0x12];
    prost::encoding::encode_varint(scope.len() as u64, &mut resource);
    resource.extend(scope);
    let refused = program.export(bytes(vec![resource])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(asked.lock().is_empty());
    let long = span(&"x".repeat(100_000), &[1; 16]);
    program.export(request(vec![long])).await.unwrap();
    let asked = asked.lock().join("\n");
    assert!(asked.len() < 4_000, "{}", asked.len());

    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let error = StepSpans::listen(&file, Arc::new(EngineDouble::default())).unwrap_err();
    let words = format!(
        "cannot listen for spans of steps at {} (otel.socketPath): ",
        file.display()
    );
    assert!(error.to_string().starts_with(&words), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

/// The state directory of a tenant alone has a name longer than the address of a socket.
#[tokio::test]
async fn steps_reach_a_socket_whose_path_is_longer_than_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let tenant = folder.path().join("certificate".repeat(12));
    let socket = tenant.join("otel-grpc.sock");
    let listening = StepSpans::listen(&socket, Arc::new(EngineDouble::default())).unwrap();
    let tenant = std::fs::File::open(&tenant).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&tenant);
    let short = format!("/proc/self/fd/{fd}/otel-grpc.sock");
    tokio::net::UnixStream::connect(short).await.unwrap();
    drop(listening);
    assert!(!socket.exists());
}
