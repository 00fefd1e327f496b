//! Calls of the daemon's services with messages of any bytes, on an engine that does nothing.
//!
//! The first byte of an input chooses the method, the rest is its message. One build of a client's own frontend is always
//! there, so that calls of the gateway meet one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use control::Routes;
use http_body_util::{BodyExt, Full};
use prost::Message as _;
use session::SessionManager;
use tower::ServiceExt;

use crate::filesync::runtime;

mod double;

const BUILD: &str = "build-of-the-fuzzer";

const METHODS: &[&str] = &[
    "moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig",
    "moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta",
    "moby.buildkit.v1.frontend.LLBBridge/Solve",
    "moby.buildkit.v1.frontend.LLBBridge/ReadFile",
    "moby.buildkit.v1.frontend.LLBBridge/ReadDir",
    "moby.buildkit.v1.frontend.LLBBridge/StatFile",
    "moby.buildkit.v1.frontend.LLBBridge/Evaluate",
    "moby.buildkit.v1.frontend.LLBBridge/Ping",
    "moby.buildkit.v1.frontend.LLBBridge/Return",
    "moby.buildkit.v1.frontend.LLBBridge/Inputs",
    "moby.buildkit.v1.frontend.LLBBridge/NewContainer",
    "moby.buildkit.v1.frontend.LLBBridge/ReadFileContainer",
    "moby.buildkit.v1.frontend.LLBBridge/ReadDirContainer",
    "moby.buildkit.v1.frontend.LLBBridge/StatFileContainer",
    "moby.buildkit.v1.frontend.LLBBridge/ReleaseContainer",
    "moby.buildkit.v1.frontend.LLBBridge/ExecProcess",
    "moby.buildkit.v1.frontend.LLBBridge/Warn",
    "moby.buildkit.v1.Control/DiskUsage",
    "moby.buildkit.v1.Control/Prune",
    "moby.buildkit.v1.Control/Solve",
    "moby.buildkit.v1.Control/Status",
    "moby.buildkit.v1.Control/Session",
    "moby.buildkit.v1.Control/ListWorkers",
    "moby.buildkit.v1.Control/Info",
    "moby.buildkit.v1.Control/ListenBuildHistory",
    "moby.buildkit.v1.Control/UpdateBuildHistory",
    "containerd.services.content.v1.Content/Info",
    "containerd.services.content.v1.Content/Read",
    "containerd.services.content.v1.Content/List",
    "containerd.services.content.v1.Content/Write",
    "opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "grpc.health.v1.Health/Check",
];

pub(crate) fn calls(input: &[u8]) {
    let Some((first, message)) = input.split_first() else {
        return;
    };
    let Some(method) = METHODS.get(usize::from(*first) % METHODS.len()) else {
        return;
    };
    runtime().block_on(async {
        let routes = routes();
        let build = task::spawn("client frontend", {
            let solve = proto::control::SolveRequest {
                r#ref: BUILD.to_owned(),
                ..Default::default()
            };
            call(
                routes.clone(),
                "moby.buildkit.v1.Control/Solve",
                solve.encode_to_vec(),
            )
        });
        // Calls wait for a build that has not begun; streams and builds of the input itself may never end.
        let called = call(routes, method, message.to_vec());
        let _ended = tokio::time::timeout(Duration::from_millis(300), called).await;
        drop(build);
    });
}

/// Sends one message and reads what comes, up to a few messages.
async fn call(routes: Routes, method: &str, message: Vec<u8>) {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let request = http::Request::post(format!("/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("buildkit-controlapi-buildid", BUILD)
        .body(Full::new(body.freeze()))
        .expect("the method is a path");
    let Ok(answer) = routes.oneshot(request).await;
    let mut body = answer.into_body();
    for _ in 0..16 {
        match body.frame().await {
            Some(Ok(_frame)) => {}
            Some(Err(_)) | None => return,
        }
    }
}

fn routes() -> Routes {
    static SESSIONS: OnceLock<Arc<SessionManager>> = OnceLock::new();
    let sessions = SESSIONS.get_or_init(SessionManager::new);
    control::routes(
        Arc::new(double::EngineDouble::default()),
        Arc::clone(sessions),
    )
}
