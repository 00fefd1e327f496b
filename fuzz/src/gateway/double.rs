//! The engine as control sees it, for tests: it does what the test says, and keeps what it was asked.
//!
//! The tests of `control` include this file by its path, so that there is one such engine.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use engine::api::frontend::bridge::{
    FileRange, FileStat, ResolveOpts, SourceMeta, Warning, WorkerInfo,
};
use engine::api::frontend::gateway::{Container, ContainerRequest};
use engine::api::frontend::{
    Bridge, BridgeError, FrontendRequest, FrontendResult, Ref, SolveInput as NestedInput,
    SolveRequest as NestedRequest,
};
use engine::api::{
    Backend, BlobLine, BuildRef, Failure, FailureKind, HistoryBlob, HistoryChange, HistoryEvent,
    HistoryQuery, PruneRequest, SolveInput, SolveRequest, SolveResponse, Span, UsageRecord,
    VersionInfo, WorkerRecord,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use llb::pb;
use oci::{Digest, ErrorKind};
use parking_lot::Mutex;

type Solve =
    dyn Fn(SolveRequest) -> BoxFuture<'static, Result<SolveResponse, Failure>> + Send + Sync;

/// An engine that does what a test says.
pub(crate) struct EngineDouble {
    /// What a build does.
    pub(crate) solve: Box<Solve>,
    /// What builds say.
    pub(crate) hub: Arc<progress::Hub>,
    /// All calls but builds fail with this, if there is one.
    pub(crate) failure: Option<Failure>,
    /// What is kept, and what pruning deletes.
    pub(crate) usage: Vec<UsageRecord>,
    /// What happened to records.
    pub(crate) events: Vec<HistoryEvent>,
    /// The bytes of every blob.
    pub(crate) blob: Vec<u8>,
    /// The blobs that are listed.
    pub(crate) blobs: Vec<BlobLine>,
    /// What was asked, in words.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Default for EngineDouble {
    fn default() -> Self {
        Self {
            solve: Box::new(|request| {
                Box::pin(run_client_frontend(request, BridgeDouble::default()))
            }),
            hub: progress::Hub::new(),
            failure: None,
            usage: Vec::new(),
            events: Vec::new(),
            blob: b"0123456789".to_vec(),
            blobs: Vec::new(),
            asked: Arc::default(),
        }
    }
}

/// Runs the frontend of a client to its end; what its result says is what the client is told.
pub(crate) async fn run_client_frontend(
    request: SolveRequest,
    bridge: BridgeDouble,
) -> Result<SolveResponse, Failure> {
    let SolveInput::ClientFrontend(frontend) = request.input else {
        return Err(Failure::not_built(request.input.frontend_name()));
    };
    let inner = FrontendRequest {
        opts: request.frontend_opts,
        inputs: request.frontend_inputs,
        session_id: request.session,
    };
    match frontend.solve(Arc::new(bridge), inner).await {
        Ok(result) => Ok(SolveResponse {
            exporter_response: result
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), String::from_utf8_lossy(value).into_owned()))
                .collect(),
        }),
        Err(error) => Err(match error.bridge() {
            Some(inner) => Failure::of_bridge(inner),
            None => Failure::of_build(error.kind(), error),
        }),
    }
}

impl EngineDouble {
    /// Takes note of a call, and fails it if all are to fail.
    fn ask(&self, what: String) -> Result<(), Failure> {
        self.asked.lock().push(what);
        self.failure.clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Backend for EngineDouble {
    async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Failure> {
        (self.solve)(request).await
    }

    async fn status(&self, build: &BuildRef) -> Result<progress::Subscription, Failure> {
        self.ask(format!("status {build}"))?;
        Ok(self.hub.subscribe())
    }

    async fn workers(&self, filters: &[String]) -> Result<Vec<WorkerRecord>, Failure> {
        self.ask(format!("workers {filters:?}"))?;
        Ok(vec![WorkerRecord::default()])
    }

    fn version(&self) -> VersionInfo {
        VersionInfo {
            version: "v0".into(),
            ..VersionInfo::default()
        }
    }

    async fn disk_usage(
        &self,
        filters: &[String],
        age: Duration,
    ) -> Result<Vec<UsageRecord>, Failure> {
        self.ask(format!("usage {filters:?} {age:?}"))?;
        Ok(self.usage.clone())
    }

    async fn prune(
        &self,
        request: PruneRequest,
    ) -> Result<BoxStream<'static, Result<UsageRecord, Failure>>, Failure> {
        self.ask(format!("prune {request:?}"))?;
        let late = Failure::new(FailureKind::ResourceExhausted, "no space left on device");
        let freed = self.usage.clone().into_iter().map(Ok).chain([Err(late)]);
        Ok(futures::stream::iter(freed).boxed())
    }

    async fn history(
        &self,
        query: HistoryQuery,
    ) -> Result<BoxStream<'static, Result<HistoryEvent, Failure>>, Failure> {
        self.ask(format!("history {query:?}"))?;
        Ok(futures::stream::iter(self.events.clone().into_iter().map(Ok)).boxed())
    }

    async fn update_history(&self, build: &BuildRef, change: HistoryChange) -> Result<(), Failure> {
        self.ask(format!("update {build} {change:?}"))
    }

    async fn history_blob(&self, digest: &Digest) -> Result<HistoryBlob, Failure> {
        self.ask(format!("blob {digest}"))?;
        let bytes = Bytes::from(self.blob.clone());
        Ok(HistoryBlob {
            size: bytes.len() as u64,
            read: Box::new(move |offset| {
                Box::pin(async move {
                    let from = usize::try_from(offset)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len());
                    // In pieces of one byte, so that who reads has to put them together.
                    let pieces = bytes
                        .slice(from..)
                        .into_iter()
                        .map(|byte| Ok(vec![byte].into()));
                    Ok(futures::stream::iter(pieces).boxed())
                })
            }),
        })
    }

    async fn list_blobs(&self, after: &str, limit: u32) -> Result<Vec<BlobLine>, Failure> {
        self.ask(format!("blobs {after:?} {limit}"))?;
        let rest = self
            .blobs
            .iter()
            .filter(|blob| blob.digest.as_str() > after);
        Ok(rest.take(limit as usize).cloned().collect())
    }

    async fn export_spans(&self, spans: Vec<Bytes>) -> Result<(), Failure> {
        self.ask(format!("spans {}", spans.len()))
    }

    fn add_step_spans(&self, spans: Vec<Span>, encoded: Bytes) -> bool {
        self.ask(format!("{} bytes of {spans:?}", encoded.len()))
            .is_ok()
    }
}

/// A bridge of a build in which nothing is built.
#[derive(Debug, Clone, Default)]
pub(crate) struct BridgeDouble {
    /// What sources are resolved to, by identifier.
    pub(crate) sources: BTreeMap<String, SourceMeta>,
    /// The files of each result.
    pub(crate) files: BTreeMap<String, Bytes>,
    /// Every container of the build; without one there are no containers.
    pub(crate) container: Option<Arc<dyn Container>>,
}

#[async_trait]
impl Bridge for BridgeDouble {
    fn workers(&self) -> Vec<WorkerInfo> {
        vec![WorkerInfo {
            id: "w".into(),
            ..WorkerInfo::default()
        }]
    }

    async fn solve(&self, request: NestedRequest) -> Result<FrontendResult, BridgeError> {
        let definition = match request.input {
            NestedInput::Frontend(call) if call.frontend == "missing" => {
                return Err(Failure::new(FailureKind::NotFound, "no such frontend").into());
            }
            NestedInput::Frontend(_) => Arc::default(),
            NestedInput::Definition(definition) => definition,
        };
        let single = (!definition.def.is_empty()).then(|| {
            Arc::new(RefDouble {
                definition,
                files: self.files.clone(),
            }) as Arc<dyn Ref>
        });
        Ok(FrontendResult {
            single,
            metadata: [("k".to_owned(), Bytes::from_static(b"v"))].into(),
            ..FrontendResult::default()
        })
    }

    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        _opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError> {
        if let Some(meta) = self.sources.get(&source.identifier) {
            return Ok(meta.clone());
        }
        match llb::source_id::SourceId::parse(&source, None) {
            Ok(_) => Err(BridgeError::message("not here")),
            Err(error) => Err(BridgeError::new(ErrorKind::Invalid, error)),
        }
    }

    async fn warn(&self, _vertex: &Digest, _warning: Warning) -> Result<(), BridgeError> {
        Ok(())
    }

    async fn new_container(
        &self,
        _request: ContainerRequest,
    ) -> Result<Arc<dyn Container>, BridgeError> {
        let container = self.container.clone();
        container.ok_or_else(|| BridgeError::new(ErrorKind::Unsupported, "no containers"))
    }
}

/// A result with files.
#[derive(Debug)]
pub(crate) struct RefDouble {
    pub(crate) definition: Arc<pb::Definition>,
    pub(crate) files: BTreeMap<String, Bytes>,
}

impl RefDouble {
    fn file(&self, path: &str) -> Result<&Bytes, BridgeError> {
        self.files.get(path).ok_or_else(|| {
            let sentence = format!("open {path}: no such file or directory");
            BridgeError::new(ErrorKind::NotFound, sentence)
        })
    }
}

fn stat(path: &str, bytes: &Bytes) -> FileStat {
    FileStat {
        path: path.to_owned(),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        ..FileStat::default()
    }
}

#[async_trait]
impl Ref for RefDouble {
    fn definition(&self) -> Option<Arc<pb::Definition>> {
        Some(Arc::clone(&self.definition))
    }

    async fn evaluate(&self) -> Result<(), BridgeError> {
        Ok(())
    }

    async fn read_file(&self, path: &str, range: Option<FileRange>) -> Result<Bytes, BridgeError> {
        let bytes = self.file(path)?;
        let Some(range) = range else {
            return Ok(bytes.clone());
        };
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let from = number(range.offset).min(bytes.len());
        let to = from.saturating_add(number(range.length)).min(bytes.len());
        Ok(bytes.slice(from..to))
    }

    async fn read_dir(&self, _path: &str, include: &str) -> Result<Vec<FileStat>, BridgeError> {
        let fits = |path: &str| include.is_empty() || path == include;
        let files = self.files.iter().filter(|(path, _)| fits(path));
        Ok(files.map(|(path, bytes)| stat(path, bytes)).collect())
    }

    async fn stat_file(&self, path: &str) -> Result<FileStat, BridgeError> {
        Ok(stat(path, self.file(path)?))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
