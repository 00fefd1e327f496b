//! Builds whose client leaves, or whose daemon stops, at each stage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use engine::api::{
    Backend, CacheSpec, ExporterSpec, Failure, FailureKind, HistoryQuery, PolicyQuestion,
    PolicyVerdict, PolicyVerifier, SolveInput, SolveRequest,
};
use engine::{Engine, Settings};
use exporter::{
    ExportContext, ExportError, ExportSource, Exported, Exporter, ExporterInstance, Exporters,
    Finalize,
};
use futures::StreamExt as _;
use llb::build::{Constraints, FileChain, MarshalOptions, Run, State, marshal};
use session::SessionManager;
use store::CompressionSpec;
use testkit::executor::{ScriptedExecutor, Step};
use testkit::session::MemorySession;
use tokio::sync::watch;

use crate::{Never, Setup, engine_from, request, two_layers};

/// Signals that its stage was reached, and never returns.
#[derive(Debug, Clone)]
struct Stuck(watch::Sender<bool>);

impl Stuck {
    async fn forever<T>(&self) -> T {
        self.0.send_replace(true);
        std::future::pending().await
    }
}

/// An exporter that blocks in `export` or in its finalizer.
#[derive(Debug, Clone)]
struct StuckExporter {
    stuck: Stuck,
    in_export: bool,
    attrs: BTreeMap<String, String>,
}

impl Exporter for StuckExporter {
    fn kind(&self) -> &'static str {
        "stuck"
    }
    fn resolve(
        &self,
        _: usize,
        _: &BTreeMap<String, String>,
    ) -> Result<Arc<dyn ExporterInstance>, ExportError> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl ExporterInstance for StuckExporter {
    fn id(&self) -> usize {
        0
    }
    fn kind(&self) -> &'static str {
        "stuck"
    }
    fn name(&self) -> String {
        "exporting".into()
    }
    fn attrs(&self) -> &BTreeMap<String, String> {
        &self.attrs
    }
    fn compression(&self) -> Option<CompressionSpec> {
        None
    }
    async fn export(&self, _: &ExportContext, _: &ExportSource) -> Result<Exported, ExportError> {
        if self.in_export {
            return self.stuck.forever().await;
        }
        Ok(Exported {
            finalize: Some(Box::new(self.clone())),
            ..Exported::default()
        })
    }
}

#[async_trait]
impl Finalize for StuckExporter {
    async fn run(self: Box<Self>, _: &ExportContext) -> Result<(), ExportError> {
        self.stuck.forever().await
    }
}

#[async_trait]
impl PolicyVerifier for Stuck {
    async fn check(&self, _: PolicyQuestion) -> Result<PolicyVerdict, Failure> {
        self.forever().await
    }
}

/// The stages in which a build can be blocked from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Frontend,
    Policy,
    Evaluate,
    Attest,
    Export,
    Finalize,
    Cache,
}

const STAGES: [Stage; 7] = [
    Stage::Frontend,
    Stage::Policy,
    Stage::Evaluate,
    Stage::Attest,
    Stage::Export,
    Stage::Finalize,
    Stage::Cache,
];

struct Lab {
    _dir: tempfile::TempDir,
    engine: Arc<Engine>,
    executor: Arc<ScriptedExecutor>,
    reached: watch::Receiver<bool>,
    request: SolveRequest,
    client: Arc<MemorySession>,
    _session: session::Registration,
}

impl Lab {
    /// A build that blocks in `stage`.
    fn new(stage: Stage) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, reached) = watch::channel(false);
        let stuck = Stuck(sender);
        let mut exporters = Exporters::new();
        exporters.register(Arc::new(StuckExporter {
            stuck: stuck.clone(),
            in_export: stage == Stage::Export,
            attrs: BTreeMap::new(),
        }));
        let executor = ScriptedExecutor::new([Step::never_ends()]);
        let sessions = SessionManager::new();
        let (client, session) = MemorySession::new("s1").silent().connect(&sessions);
        let setup = Setup {
            settings: Settings::default(),
            exporters,
            executor: Arc::clone(&executor) as _,
            sessions,
        };
        let engine = engine_from(&dir, setup);
        let files = two_layers();
        let mut request = request("one", files);
        request.session = "s1".into();
        let pair = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        match stage {
            Stage::Frontend => request.input = SolveInput::ClientFrontend(Arc::new(Never)),
            Stage::Policy => {
                let image = llb::build::image(
                    "docker.io/library/x:1",
                    &llb::build::ImageOpts::default(),
                    Constraints::new(),
                );
                let state = image.unwrap();
                let image = marshal(state.output(), &MarshalOptions::default()).unwrap();
                request.input = SolveInput::Definition(Arc::new(image));
                request.policy_verifier = Some(Arc::new(stuck));
            }
            Stage::Evaluate => {
                let base = FileChain::new()
                    .mkfile("/a", 0o644, "x")
                    .on(&State::scratch(), Constraints::new());
                let run = Run::new(&base, vec!["sleep".into()], Constraints::new());
                let (root, _) = run.outputs();
                let step = marshal(root.as_ref(), &MarshalOptions::default()).unwrap();
                request.input = SolveInput::Definition(Arc::new(step));
            }
            Stage::Attest => {
                // The image of the scanner is a source like any other.
                request.frontend_opts = pair("attest:sbom", "generator=scanner:1");
                request.policy_verifier = Some(Arc::new(stuck));
            }
            Stage::Export | Stage::Finalize => request.exporters.push(ExporterSpec {
                kind: "stuck".into(),
                attrs: BTreeMap::new(),
            }),
            Stage::Cache => request.cache_exports.push(CacheSpec {
                kind: "local".into(),
                attrs: [("dest", "/cache"), ("mode", "max")]
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into(),
            }),
        }
        Self {
            _dir: dir,
            engine,
            executor,
            reached,
            request,
            client,
            _session: session,
        }
    }

    /// Resolves when the build has reached the stage in which it blocks.
    async fn reached(&self, stage: Stage) {
        match stage {
            // The frontend's own future signals it: it is polled once.
            Stage::Frontend => {}
            Stage::Evaluate => {
                while self.executor.runs().is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            Stage::Cache => {
                while self.client.calls().is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            Stage::Policy | Stage::Attest | Stage::Export | Stage::Finalize => {
                let mut reached = self.reached.clone();
                reached.wait_for(|reached| *reached).await.unwrap();
            }
        }
    }

    async fn status(&self) -> Vec<String> {
        let mut statuses = Vec::new();
        for status in ["running", "completed", "error", "canceled"] {
            let query = HistoryQuery {
                end: engine::api::HistoryEnd::AfterList,
                filters: vec![format!("status={status}")],
                ..HistoryQuery::default()
            };
            let events = self.engine.history(query).await.unwrap();
            statuses.extend(std::iter::repeat_n(status.to_owned(), events.count().await));
        }
        statuses
    }
}

#[tokio::test]
async fn a_build_whose_client_leaves_at_any_stage_is_cancelled_and_frees_its_name() {
    testkit::requires!(root);
    for stage in STAGES {
        let lab = Lab::new(stage);
        {
            let solve = lab.engine.solve(lab.request.clone());
            tokio::select! {
                biased;
                ended = solve => panic!("{stage:?}: {ended:?}"),
                () = lab.reached(stage) => {}
            }
        }
        // The client is gone. Closing waits for the record, and refuses later builds.
        lab.engine.close().await;
        assert_eq!(lab.status().await, ["canceled"], "{stage:?}");
        if stage == Stage::Evaluate {
            while lab.executor.killed() == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn a_daemon_that_stops_ends_builds_at_any_stage_and_answers_their_clients() {
    testkit::requires!(root);
    for stage in STAGES {
        let lab = Lab::new(stage);
        let stop = async {
            let reached = tokio::time::timeout(Duration::from_secs(20), lab.reached(stage));
            reached
                .await
                .unwrap_or_else(|_| panic!("{stage:?} is not reached"));
            lab.engine.close().await;
        };
        let (ended, ()) = tokio::join!(lab.engine.solve(lab.request.clone()), stop);
        let failure = ended.unwrap_err();
        assert_eq!(
            (failure.kind, failure.message().as_str()),
            (FailureKind::Canceled, "context canceled"),
            "{stage:?}"
        );
        assert_eq!(lab.status().await, ["canceled"], "{stage:?}");
        let late = lab.engine.solve(lab.request.clone()).await.unwrap_err();
        assert_eq!(late.kind, FailureKind::Unavailable, "{stage:?}");
    }
}

#[tokio::test]
async fn a_cancelled_build_does_not_hold_up_another_with_the_same_step() {
    testkit::requires!(root);
    let lab = Lab::new(Stage::Evaluate);
    let second_request = SolveRequest {
        build: "two".into(),
        ..lab.request.clone()
    };
    let mut first = lab.engine.solve(lab.request.clone());
    tokio::select! {
        biased;
        ended = &mut first => panic!("{ended:?}"),
        () = lab.reached(Stage::Evaluate) => {}
    }
    let mut second = lab.engine.solve(second_request);
    assert!(futures::poll!(&mut second).is_pending());
    let mut status = lab.engine.status(&"two".into()).await.unwrap();
    // The step is shown to both builds.
    let shares = async {
        while let Some(event) = status.next().await {
            if matches!(event, progress::Event::Vertex(v) if v.name == "sleep") {
                return;
            }
        }
    };
    tokio::select! {
        ended = &mut second => panic!("{ended:?}"),
        () = shares => {}
    }
    drop(first);
    for _ in 0..50 {
        assert!(futures::poll!(&mut second).is_pending());
        tokio::task::yield_now().await;
    }
    // The step continues for the second build without a restart.
    assert_eq!((lab.executor.runs().len(), lab.executor.killed()), (1, 0));
    drop(second);
    while lab.executor.killed() == 0 {
        tokio::task::yield_now().await;
    }
}
