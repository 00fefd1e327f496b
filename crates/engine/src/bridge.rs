//! What a frontend may ask of the build it runs in.

use std::sync::Arc;

use async_trait::async_trait;
use frontend::bridge::{ResolveOpts, SourceMeta, Warning, WorkerInfo};
use frontend::gateway::{Container, ContainerRequest};
use frontend::gateway_image::{FrontendHost, ImageFrontend};
use frontend::{
    Bridge, BridgeError, Dockerfile, Frontend, FrontendError, FrontendRequest, FrontendResult, Ref,
    SolveRequest, SourceLocation,
};
use futures::future::BoxFuture;
use llb::pb;
use oci::Digest;
use ops::Parts;
use progress::{Event, Position, Range, SourceInfo};

use crate::api::{Failure, FailureKind};
use crate::attestation::{CallScope, FrontendCall};
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
    /// Dockerfiles are built.
    On {
        /// Whether it answers `# syntax=docker/dockerfile:…` itself; else the named image is run.
        answers_syntax: bool,
    },
}

/// The builtin frontend's name.
const DOCKERFILE: &str = "dockerfile.v0";
/// The name of frontends that come as images.
const GATEWAY: &str = "gateway.v0";

/// Which frontends a daemon runs, and how.
#[derive(Debug, Clone)]
pub(crate) struct Frontends {
    /// The Dockerfile frontend that is built in.
    pub(crate) dockerfile: DockerfileFrontend,
    /// Speaks to frontends from images; none if there are none.
    pub(crate) host: Option<Arc<dyn FrontendHost>>,
    /// Repositories that frontends may come from; none for all.
    pub(crate) repositories: Vec<String>,
}

/// What the bridges of one build work with.
pub(crate) struct BridgeParts {
    /// The build.
    pub(crate) scope: Arc<BuildScope>,
    /// Computes definitions.
    pub(crate) evaluator: Arc<Evaluator>,
    /// Resolves sources as the build's policies allow.
    pub(crate) policies: Arc<SourcePolicies>,
    /// What containers are made with.
    pub(crate) parts: Arc<Parts>,
    /// Which frontends there are.
    pub(crate) frontends: Frontends,
    /// The worker, as frontends are told of it.
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
        mut request: SolveRequest,
    ) -> BoxFuture<'_, Result<FrontendResult, Failure>> {
        Box::pin(async move {
            let policies = Policy::decode_all(&request.source_policies).await?;
            let definition = request.definition.take().filter(|d| !d.def.is_empty());
            let result = match definition {
                Some(_) if !request.frontend.is_empty() => {
                    let message = "cannot solve with both Definition and Frontend specified";
                    return Err(Failure::new(FailureKind::Unknown, message));
                }
                Some(definition) => {
                    self.calls.spend(&definition)?;
                    let single: Arc<dyn Ref> = LazyRef::importing(
                        Arc::clone(&self.parts.evaluator),
                        definition,
                        policies,
                        request.cache_imports.clone(),
                    );
                    let result = FrontendResult {
                        single: Some(single),
                        ..FrontendResult::default()
                    };
                    self.calls.add_results(&result);
                    result
                }
                None if request.frontend.is_empty() => FrontendResult::default(),
                None => {
                    let call = FrontendCall {
                        frontend: request.frontend.clone(),
                        opts: request.frontend_opts.clone(),
                        inputs: request.frontend_inputs.clone(),
                    };
                    let inner = Self::new(Arc::clone(&self.parts), self.calls.inner(call)?);
                    let result = inner.frontend(&mut request).await?;
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

    async fn frontend(&self, request: &mut SolveRequest) -> Result<FrontendResult, Failure> {
        let source = request
            .frontend_opts
            .get("source")
            .cloned()
            .unwrap_or_default();
        let mut name = request.frontend.as_str();
        if name == GATEWAY && source == DOCKERFILE {
            request.frontend_opts.remove("source");
            name = DOCKERFILE;
        }
        if request.frontend_inputs.values().any(|d| d.def.is_empty()) {
            let message = "invalid nil input definition to definition op";
            return Err(Failure::new(FailureKind::Unknown, message));
        }
        let done = match (name, self.parts.frontends.dockerfile) {
            (DOCKERFILE, DockerfileFrontend::On { answers_syntax }) => {
                let dockerfile = Dockerfile { answers_syntax };
                let mut inner = FrontendRequest {
                    opts: std::mem::take(&mut request.frontend_opts),
                    inputs: std::mem::take(&mut request.frontend_inputs),
                    session_id: self.parts.scope.session().to_owned(),
                };
                match self.dockerfile(dockerfile, inner.clone()).await {
                    Err(FrontendError::GatewayFrontend { image, at }) => {
                        inner.opts.insert("cmdline".into(), image.clone());
                        inner.opts.insert("source".into(), image.clone());
                        self.image(image, at, inner).await
                    }
                    done => done,
                }
            }
            (GATEWAY, _) => {
                let inner = FrontendRequest {
                    opts: std::mem::take(&mut request.frontend_opts),
                    inputs: std::mem::take(&mut request.frontend_inputs),
                    session_id: self.parts.scope.session().to_owned(),
                };
                self.image(source.clone(), Vec::new(), inner).await
            }
            _ => {
                return Err(Failure::new(
                    FailureKind::Unknown,
                    format!("invalid frontend: {name}"),
                ));
            }
        };
        done.map_err(|error| of_frontend(error, Some((name, &source))))
    }

    /// Runs the built-in frontend, where the time that a long Dockerfile takes is nobody else's.
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

    /// Runs a frontend from an image, wanted at a place in the user's files.
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
        Some(LazyRef::computed_already(evaluator, tree))
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
