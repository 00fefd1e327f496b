//! The bridge between a frontend and its build.

use std::sync::Arc;

use async_trait::async_trait;
use frontend::bridge::{ResolveOpts, SourceMeta, Warning, WorkerInfo};
use frontend::gateway::{Container, ContainerRequest};
use frontend::gateway_image::{FrontendHost, ImageFrontend};
use frontend::{
    Bridge, BridgeError, Dockerfile, Frontend, FrontendCall, FrontendError, FrontendRequest,
    FrontendResult, Ref, SolveInput, SolveRequest, SourceLocation,
};
use futures::future::BoxFuture;
use llb::pb;
use oci::Digest;
use ops::Parts;
use progress::{Event, Position, Range, SourceInfo};

use crate::api::{Failure, FailureKind};
use crate::attestation::CallScope;
use crate::container::BuildContainer;
use crate::evaluate::Evaluator;
use crate::failure::of_frontend;
use crate::policy::{Policy, SourcePolicies};
use crate::reference::{LazyRef, evaluate};
use crate::scope::BuildScope;

/// The Dockerfile frontend that is built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DockerfileFrontend {
    /// Builds of Dockerfiles are refused, unless their frontend comes from an image.
    Off,
    /// The daemon builds Dockerfiles itself.
    On {
        /// Whether it answers `# syntax=docker/dockerfile:…` itself; else the named image is run.
        answers_syntax: bool,
    },
}

/// The name of the built-in frontend.
const DOCKERFILE_FRONTEND: &str = "dockerfile.v0";
/// The name of frontends that come as images.
const GATEWAY_FRONTEND: &str = "gateway.v0";

/// Which frontends a daemon runs, and how.
#[derive(Debug, Clone)]
pub(crate) struct Frontends {
    /// The Dockerfile frontend that is built in.
    pub(crate) dockerfile: DockerfileFrontend,
    /// Serves the bridge to frontends from images; none if the daemon does not run them.
    pub(crate) host: Option<Arc<dyn FrontendHost>>,
    /// Repositories that frontends may come from; empty for all.
    pub(crate) repositories: Vec<String>,
}

/// The parts of a build that its bridges use.
pub(crate) struct BridgeParts {
    /// The build.
    pub(crate) scope: Arc<BuildScope>,
    /// Computes definitions.
    pub(crate) evaluator: Arc<Evaluator>,
    /// Resolves sources as the build's policies allow.
    pub(crate) policies: Arc<SourcePolicies>,
    /// The executor and the stores, for containers.
    pub(crate) parts: Arc<Parts>,
    /// Which frontends there are.
    pub(crate) frontends: Frontends,
    /// The worker as frontends see it.
    pub(crate) worker: WorkerInfo,
}

/// The bridge of one request of a build.
pub(crate) struct BuildBridge {
    parts: Arc<BridgeParts>,
    calls: Arc<CallScope>,
}

impl BuildBridge {
    pub(crate) fn new(parts: Arc<BridgeParts>, calls: Arc<CallScope>) -> Arc<Self> {
        Arc::new(Self { parts, calls })
    }

    /// Solves a definition or runs a frontend. Boxed, because frontends may solve with frontends.
    pub(crate) fn run(
        &self,
        request: SolveRequest,
    ) -> BoxFuture<'_, Result<FrontendResult, Failure>> {
        Box::pin(async move {
            let policies = Policy::decode_all(&request.source_policies).await?;
            let result = match request.input {
                SolveInput::Definition(definition) if definition.def.is_empty() => {
                    FrontendResult::default()
                }
                SolveInput::Definition(definition) => {
                    self.calls.spend(&definition)?;
                    let single: Arc<dyn Ref> = LazyRef::importing(
                        Arc::clone(&self.parts.evaluator),
                        definition,
                        policies,
                        request.cache_imports,
                    );
                    let result = FrontendResult {
                        single: Some(single),
                        ..FrontendResult::default()
                    };
                    self.calls.add_results(&result);
                    result
                }
                SolveInput::Frontend(call) => {
                    let inner = Self::new(Arc::clone(&self.parts), self.calls.inner(call.clone())?);
                    let result = inner.frontend(call).await?;
                    inner.calls.add_results(&result);
                    self.calls.answered(Arc::clone(&inner.calls));
                    result
                }
            };
            if request.evaluate {
                evaluate(&result).await?;
            }
            self.calls.register(&result).await;
            Ok(result)
        })
    }

    async fn frontend(&self, mut call: FrontendCall) -> Result<FrontendResult, Failure> {
        let source = call.opts.get("source").cloned().unwrap_or_default();
        let mut name = call.frontend.as_str();
        if name == GATEWAY_FRONTEND && source == DOCKERFILE_FRONTEND {
            call.opts.remove("source");
            name = DOCKERFILE_FRONTEND;
        }
        if call.inputs.values().any(|d| d.def.is_empty()) {
            let message = "invalid nil input definition to definition op";
            return Err(Failure::new(FailureKind::Unknown, message));
        }
        let mut request = FrontendRequest {
            opts: call.opts,
            inputs: call.inputs,
            session_id: self.parts.scope.session().clone(),
        };
        let outcome = match (name, self.parts.frontends.dockerfile) {
            (DOCKERFILE_FRONTEND, DockerfileFrontend::On { answers_syntax }) => {
                let dockerfile = Dockerfile { answers_syntax };
                match self.dockerfile(dockerfile, request.clone()).await {
                    Err(FrontendError::GatewayFrontend { image, at }) => {
                        request.opts.insert("cmdline".into(), image.clone());
                        request.opts.insert("source".into(), image.clone());
                        self.image(image, at, request).await
                    }
                    outcome => outcome,
                }
            }
            (GATEWAY_FRONTEND, _) => self.image(source.clone(), Vec::new(), request).await,
            _ => {
                return Err(Failure::new(
                    FailureKind::Unknown,
                    format!("invalid frontend: {name}"),
                ));
            }
        };
        outcome.map_err(|error| of_frontend(error, Some((name, &source))))
    }

    /// Runs the built-in frontend in a thread of its own, so that a long Dockerfile holds up no other build.
    async fn dockerfile(
        &self,
        frontend: Dockerfile,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let bridge: Arc<dyn Bridge> = Self::new(Arc::clone(&self.parts), Arc::clone(&self.calls));
        let run = async move { frontend.solve(bridge, request).await };
        let run = async { Ok(task::apart("dockerfile", run).await) };
        self.parts
            .scope
            .alive(run)
            .await
            .map_err(|ended| FrontendError::from(BridgeError::from(ended)))?
    }

    /// Runs a frontend from an image. `at` is the place in the user's files that names the image.
    async fn image(
        &self,
        image: String,
        at: Vec<SourceLocation>,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let frontends = &self.parts.frontends;
        let Some(host) = frontends.host.clone() else {
            return Err(FrontendError::GatewayFrontend { image, at });
        };
        let frontend = ImageFrontend {
            image,
            allowed: frontends.repositories.clone(),
            host,
        };
        self.client(&frontend, request).await
    }

    /// Runs a frontend in the build.
    pub(crate) async fn client(
        &self,
        frontend: &dyn Frontend,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let bridge: Arc<dyn Bridge> = Self::new(Arc::clone(&self.parts), Arc::clone(&self.calls));
        let run = async { Ok(frontend.solve(bridge, request).await) };
        self.parts
            .scope
            .alive(run)
            .await
            .map_err(|ended| FrontendError::from(BridgeError::from(ended)))?
    }
}

#[async_trait]
impl Bridge for BuildBridge {
    fn workers(&self) -> Vec<WorkerInfo> {
        vec![self.parts.worker.clone()]
    }

    async fn solve(&self, request: SolveRequest) -> Result<FrontendResult, BridgeError> {
        Ok(self.run(request).await?)
    }

    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError> {
        let meta = self.parts.policies.resolve(source, opts.clone()).await?;
        self.calls.resolved(&opts, &meta);
        Ok(meta)
    }

    async fn new_container(
        &self,
        request: ContainerRequest,
    ) -> Result<Arc<dyn Container>, BridgeError> {
        Ok(BuildContainer::new(
            Arc::clone(&self.parts.scope),
            Arc::clone(&self.parts.parts),
            request,
        )
        .await?)
    }

    fn kept(&self, id: &str) -> Option<Arc<dyn Ref>> {
        let tree = self.parts.scope.failed_ref(id)?;
        let evaluator = Arc::clone(&self.parts.evaluator);
        Some(LazyRef::of_tree(evaluator, tree))
    }

    async fn warn(&self, vertex: &Digest, warning: Warning) -> Result<(), BridgeError> {
        let position = |at: Option<&pb::Position>| {
            at.map_or(
                Position {
                    line: 0,
                    character: 0,
                },
                |at| Position {
                    line: at.line,
                    character: at.character,
                },
            )
        };
        self.parts.scope.publish(Event::Warning(progress::Warning {
            vertex: vertex.clone(),
            level: if warning.level == 0 { 1 } else { warning.level },
            short: warning.short,
            detail: warning.detail,
            url: warning.url,
            source_info: warning.source_info.map(|info| SourceInfo {
                filename: info.filename,
                data: info.data.into(),
                language: info.language,
            }),
            ranges: warning
                .ranges
                .iter()
                .map(|r| Range {
                    start: position(r.start.as_ref()),
                    end: position(r.end.as_ref()),
                })
                .collect(),
        }));
        Ok(())
    }
}
