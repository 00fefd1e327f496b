//! Builds without containers: definitions in, files and messages out.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use engine::api::{
    Backend, Detail, Failure, FailureKind, HistoryQuery, SolveInput, SolveRequest, VersionInfo,
};
use engine::{Engine, EngineParts, Settings};
use executor::{
    ContainerId, ContainerSpec, ExecError, Executor, ExitStatus, ProcessIo, ProcessSpec,
};
use frontend::bridge::WorkerInfo;
use frontend::{Bridge, Frontend, FrontendError, FrontendRequest, FrontendResult};
use futures::StreamExt;
use llb::build::{Constraints, FileChain, MarshalOptions, MissingPath, RmPath, State, marshal};
use llb::pb;
use progress::Event;
use tokio::sync::oneshot;

#[path = "build/attacks.rs"]
mod attacks;
#[path = "build/attestations.rs"]
mod attestations;
#[path = "build/caches.rs"]
mod caches;
#[path = "build/cancel.rs"]
mod cancel;
#[path = "build/closing.rs"]
mod closing;
#[path = "build/exports.rs"]
mod exports;
#[path = "build/frontends.rs"]
mod frontends;
#[path = "build/nested.rs"]
mod nested;
#[path = "build/policies.rs"]
mod policies;
#[path = "build/usage.rs"]
mod usage;

#[derive(Debug)]
struct NoContainers;

#[async_trait]
impl Executor for NoContainers {
    async fn run(
        &self,
        _: ContainerSpec,
        _: ProcessIo,
        _: Option<oneshot::Sender<()>>,
    ) -> Result<ExitStatus, ExecError> {
        unreachable!("no test runs a process")
    }

    async fn exec(
        &self,
        _: &ContainerId,
        _: ProcessSpec,
        _: ProcessIo,
    ) -> Result<ExitStatus, ExecError> {
        unreachable!("no test runs a process")
    }
}

fn engine(dir: &tempfile::TempDir) -> Arc<Engine> {
    engine_with(dir, Settings::default())
}

fn engine_with(dir: &tempfile::TempDir, settings: Settings) -> Arc<Engine> {
    engine_of(dir, settings, exporter::Exporters::new())
}

fn engine_of(
    dir: &tempfile::TempDir,
    settings: Settings,
    exporters: exporter::Exporters,
) -> Arc<Engine> {
    let setup = Setup {
        settings,
        exporters,
        ..Setup::default()
    };
    engine_from(dir, setup)
}

/// The parts of a test's engine that tests vary.
struct Setup {
    settings: Settings,
    exporters: exporter::Exporters,
    executor: Arc<dyn Executor>,
    sessions: Arc<session::SessionManager>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            exporters: exporter::Exporters::new(),
            executor: Arc::new(NoContainers),
            sessions: session::SessionManager::new(),
        }
    }
}

fn engine_from(dir: &tempfile::TempDir, setup: Setup) -> Arc<Engine> {
    let Setup {
        settings,
        exporters,
        executor,
        sessions,
    } = setup;
    let store = store::Store::open(store::Config::new(dir.path().join("state"))).unwrap();
    let client = registry::Client::new(registry::Config::new("test"));
    let nobody: remotecache::CredentialsOf = Arc::new(|_| Arc::new(registry::Anonymous));
    let caches = remotecache::Caches::new(
        Arc::clone(&store),
        client.clone(),
        nobody,
        Arc::clone(&sessions),
    );
    let parts = ops::Parts::new(
        Arc::clone(&store),
        executor,
        Arc::new(source::Sources::new()),
        sessions,
        ops::StepLimits {
            platforms: vec![oci::Platform::host()],
            devices: None,
            max_parallelism: 0,
            ..ops::StepLimits::default()
        },
    );
    Engine::new(EngineParts {
        parts,
        exporters,
        caches,
        images: source::image::ImageSource::new(Arc::clone(&store), client),
        layouts: source::oci_layout::OciLayoutSource::new(store),
        worker: WorkerInfo {
            id: "w".into(),
            ..WorkerInfo::default()
        },
        version: VersionInfo::default(),
        settings,
    })
}

fn definition(chain: FileChain) -> Arc<pb::Definition> {
    let state = chain.on(&State::scratch(), Constraints::default());
    Arc::new(marshal(state.output(), &MarshalOptions::default()).unwrap())
}

/// A definition of two steps; the second has an input, so its cache key follows from another.
fn two_layers() -> Arc<pb::Definition> {
    let file = |path| FileChain::new().mkfile(path, 0o644, "x");
    let base = file("/a").on(&State::scratch(), Constraints::default());
    let state = file("/b").on(&base, Constraints::default());
    Arc::new(marshal(state.output(), &MarshalOptions::default()).unwrap())
}

fn request(build: &str, definition: Arc<pb::Definition>) -> SolveRequest {
    SolveRequest {
        build: build.into(),
        input: SolveInput::Definition(definition),
        ..SolveRequest::default()
    }
}

struct Reader(Arc<pb::Definition>);

#[async_trait]
impl Frontend for Reader {
    async fn solve(
        &self,
        bridge: Arc<dyn Bridge>,
        _: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let request = frontend::SolveRequest::of_definition(Arc::clone(&self.0));
        let mut result = bridge.solve(request).await?;
        let reference = result.single_ref()?.cloned().unwrap();
        let text = reference.read_file("a", None).await?;
        assert_eq!(reference.stat_file("/a").await?.size, 5);
        let names: Vec<String> = reference
            .read_dir("/", "")
            .await?
            .into_iter()
            .map(|f| f.path)
            .collect();
        assert_eq!(names, ["a", "b"]);
        let missing = reference.read_file("none", None).await.unwrap_err();
        assert_eq!(missing.to_string(), "open none: no such file or directory");
        assert_eq!(missing.kind(), oci::ErrorKind::NotFound);
        result.metadata.insert("frontend.text".into(), text);
        result.metadata.insert("other".into(), "not told".into());
        Ok(result)
    }
}

#[tokio::test]
async fn a_frontend_reads_its_result_and_its_metadata_reach_the_client() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let definition_of_files = definition(
        FileChain::new()
            .mkfile("/a", 0o644, "hello")
            .mkfile("/b", 0o600, ""),
    );
    let request = SolveRequest {
        build: "one".into(),
        input: SolveInput::ClientFrontend(Arc::new(Reader(Arc::clone(&definition_of_files)))),
        ..SolveRequest::default()
    };
    let name = "one".into();
    let mut status = Box::pin(engine.status(&name));
    let (status, answer) = tokio::join!(&mut status, engine.solve(request));
    let response = answer.unwrap().exporter_response;
    assert_eq!(
        response,
        BTreeMap::from([("frontend.text".to_owned(), "hello".to_owned())])
    );
    let mut status = status.unwrap();
    let mut completed = Vec::new();
    while let Some(event) = status.next().await {
        if let Event::Vertex(vertex) = event
            && vertex.completed.is_some()
        {
            completed.push((vertex.name, vertex.cached));
        }
    }
    // Its cache map is computed first and shown too, as in the reference.
    completed.dedup();
    assert_eq!(completed, [("mkfile /a, mkfile /b".to_owned(), false)]);

    // The same once more is cached, and its progress can be had when it is over.
    engine
        .solve(self::request("two", definition_of_files))
        .await
        .unwrap();
    let mut status = engine.status(&"two".into()).await.unwrap();
    let mut cached = false;
    while let Some(event) = status.next().await {
        cached |= matches!(event, Event::Vertex(v) if v.cached && v.completed.is_some());
    }
    assert!(cached);
    let query = HistoryQuery {
        end: engine::api::HistoryEnd::AfterList,
        ..HistoryQuery::default()
    };
    let records: Vec<_> = engine.history(query).await.unwrap().collect().await;
    assert_eq!(records.len(), 2);
}

#[tokio::test]
async fn a_failed_step_names_its_vertex_and_action() {
    testkit::requires!(root);
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let definition_of_files = definition(FileChain::new().mkfile("/a", 0o644, "x").rm(
        "/none",
        RmPath::Literal,
        MissingPath::Fails,
    ));
    let head = llb::definition::head(&definition_of_files).unwrap();
    let failure: Failure = engine
        .solve(request("one", definition_of_files))
        .await
        .unwrap_err();
    assert!(
        failure.message().contains("no such file or directory"),
        "{failure}"
    );
    assert_eq!(
        failure.details.first(),
        Some(&Detail::Vertex { digest: head })
    );
    assert!(
        failure.details.iter().any(|d| matches!(
            d,
            Detail::Solve {
                file_action: Some(1),
                op: Some(_),
                ..
            }
        )),
        "{failure:?}"
    );
}

struct Never;

#[async_trait]
impl Frontend for Never {
    async fn solve(
        &self,
        _: Arc<dyn Bridge>,
        _: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_name_in_use_is_refused_until_its_build_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let request = || SolveRequest {
        build: "one".into(),
        input: SolveInput::ClientFrontend(Arc::new(Never)),
        ..SolveRequest::default()
    };
    let mut running = engine.solve(request());
    assert!(futures::poll!(&mut running).is_pending());
    let again = engine.solve(request()).await.unwrap_err();
    assert_eq!(again.message(), "job ID one exists");
    drop(running);
    let mut status = engine.status(&"one".into()).await.unwrap();
    assert!(status.next().await.is_none());
    let empty = SolveRequest {
        build: "one".into(),
        ..SolveRequest::default()
    };
    engine.solve(empty).await.unwrap();
}

#[tokio::test]
async fn a_service_beside_a_build_is_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let with_service = SolveRequest {
        frontend_opts: [("service:db".to_owned(), "postgres".to_owned())].into(),
        ..SolveRequest::default()
    };
    let failure = engine.solve(with_service).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unimplemented);
    assert_eq!(
        failure.message(),
        "a service beside a build (--service) is not supported by this daemon"
    );
}

#[tokio::test]
async fn the_host_network_needs_its_entitlement() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(&dir);
    let with_host_network = SolveRequest {
        entitlements: vec!["network.host".into()],
        ..SolveRequest::default()
    };
    let failure = engine.solve(with_host_network).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unknown);
    assert_eq!(
        failure.message(),
        "granting entitlement network.host is not allowed by build daemon configuration"
    );
}
