//! Calls of the daemon's services with messages of any bytes, on an engine that does nothing.
//!
//! The first byte of an input chooses the method, the rest is its message. One build of a client's own frontend is always
//! there, so that calls of the gateway meet one.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use control::Routes;
use engine::api::{
    Backend, BlobLine, BuildRef, Failure, FailureKind, HistoryBlob, HistoryChange, HistoryEvent,
    HistoryQuery, PruneRequest, SolveInput, SolveRequest, SolveResponse, UsageRecord, VersionInfo,
    WorkerRecord,
};
use frontend::bridge::{FileRange, FileStat, ResolveOpts, SourceMeta, Warning, WorkerInfo};
use frontend::{Bridge, BridgeError, FrontendRequest, FrontendResult, Ref};
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::{BodyExt, Full};
use llb::pb;
use oci::Digest;
use prost::Message as _;
use session::SessionManager;
use tower::ServiceExt;

use crate::filesync::runtime;

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
    control::routes(Arc::new(Idle), Arc::clone(sessions))
}

/// An engine that runs a client's frontend and nothing else.
struct Idle;

fn nothing<T>() -> Result<T, Failure> {
    Err(Failure::new(FailureKind::NotFound, "there is nothing here"))
}

#[async_trait]
impl Backend for Idle {
    async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Failure> {
        let SolveInput::ClientFrontend(frontend) = request.input else {
            return nothing();
        };
        let request = FrontendRequest {
            opts: request.frontend_opts,
            inputs: request.frontend_inputs,
            session_id: request.session.into(),
        };
        match frontend.solve(Arc::new(Idle), request).await {
            Ok(_result) => Ok(SolveResponse {
                exporter_response: BTreeMap::new(),
            }),
            Err(error) => Err(Failure::new(FailureKind::Unknown, error)),
        }
    }

    async fn status(&self, _build: &BuildRef) -> Result<progress::Subscription, Failure> {
        nothing()
    }

    async fn workers(&self, _filters: &[String]) -> Result<Vec<WorkerRecord>, Failure> {
        Ok(vec![WorkerRecord::default()])
    }

    fn version(&self) -> VersionInfo {
        VersionInfo::default()
    }

    async fn disk_usage(
        &self,
        _filters: &[String],
        _age: Duration,
    ) -> Result<Vec<UsageRecord>, Failure> {
        nothing()
    }

    async fn prune(
        &self,
        _request: PruneRequest,
    ) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure> {
        Ok(futures::stream::empty().boxed())
    }

    async fn history(
        &self,
        _query: HistoryQuery,
    ) -> Result<BoxStream<'static, Result<HistoryEvent, Failure>>, Failure> {
        Ok(futures::stream::empty().boxed())
    }

    async fn update_history(
        &self,
        _build: &BuildRef,
        _change: HistoryChange,
    ) -> Result<(), Failure> {
        nothing()
    }

    async fn history_blob(&self, _digest: &Digest) -> Result<HistoryBlob, Failure> {
        nothing()
    }

    async fn list_blobs(&self, _after: &str, _limit: u32) -> Result<Vec<BlobLine>, Failure> {
        Ok(Vec::new())
    }

    async fn export_spans(&self, _spans: Vec<Bytes>) -> Result<(), Failure> {
        Ok(())
    }
}

#[async_trait]
impl Bridge for Idle {
    fn workers(&self) -> Vec<WorkerInfo> {
        vec![WorkerInfo::default()]
    }

    async fn solve(&self, request: frontend::SolveRequest) -> Result<FrontendResult, BridgeError> {
        Ok(FrontendResult {
            single: Some(Arc::new(Nothing(match request.input {
                frontend::SolveInput::Definition(definition) => Some(definition),
                frontend::SolveInput::Frontend(_) => None,
            }))),
            ..FrontendResult::default()
        })
    }

    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        _opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError> {
        match llb::source_id::SourceId::parse(&source, None) {
            Ok(_) => Err(BridgeError::message("there is nothing here")),
            Err(error) => Err(BridgeError::message(error.to_string())),
        }
    }

    async fn warn(&self, _vertex: &Digest, _warning: Warning) -> Result<(), BridgeError> {
        Ok(())
    }
}

/// A result without files.
#[derive(Debug)]
struct Nothing(Option<Arc<pb::Definition>>);

#[async_trait]
impl Ref for Nothing {
    fn definition(&self) -> Option<Arc<pb::Definition>> {
        self.0.clone()
    }

    async fn evaluate(&self) -> Result<(), BridgeError> {
        Ok(())
    }

    async fn read_file(
        &self,
        _path: &str,
        _range: Option<FileRange>,
    ) -> Result<Bytes, BridgeError> {
        Ok(Bytes::new())
    }

    async fn read_dir(&self, _path: &str, _include: &str) -> Result<Vec<FileStat>, BridgeError> {
        Ok(Vec::new())
    }

    async fn stat_file(&self, path: &str) -> Result<FileStat, BridgeError> {
        Ok(FileStat {
            path: path.to_owned(),
            ..FileStat::default()
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
