//! What a frontend may ask of the build it runs in.

use std::sync::Arc;

use async_trait::async_trait;
use frontend::bridge::{ResolveOpts, SourceMeta, Warning, WorkerInfo};
use frontend::gateway::{Container, ContainerRequest};
use frontend::gateway_image::ImageFrontend;
use frontend::{
    Bridge, BridgeError, Dockerfile, Frontend, FrontendError, FrontendRequest, FrontendResult, Ref,
    SolveRequest, SourceLocation,
};
use futures::future::{BoxFuture, try_join_all};
use llb::pb;
use oci::Digest;
use progress::{Event, Position, Range, SourceInfo};

use crate::api::{Failure, FailureKind};
use crate::build::Build;
use crate::container::BuildContainer;
use crate::failure::{of_bridge, of_frontend};
use crate::policy::Policy;
use crate::provenance::{Asked, Scope};
use crate::reference::LazyRef;

/// The builtin frontend's name.
const DOCKERFILE: &str = "dockerfile.v0";
/// The name of frontends that come as images.
const GATEWAY: &str = "gateway.v0";

/// The bridge of one build.
pub(crate) struct BuildBridge {
    build: Arc<Build>,
    scope: Arc<Scope>,
}

impl BuildBridge {
    pub(crate) fn new(build: Arc<Build>, scope: Arc<Scope>) -> Arc<Self> {
        Arc::new(Self { build, scope })
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
                    self.scope.spend(&definition)?;
                    let single: Arc<dyn Ref> = LazyRef::importing(
                        Arc::clone(&self.build),
                        definition,
                        policies,
                        request.cache_imports.clone(),
                    );
                    let result = FrontendResult {
                        single: Some(single),
                        ..FrontendResult::default()
                    };
                    self.scope.made(&result);
                    result
                }
                None if request.frontend.is_empty() => FrontendResult::default(),
                None => {
                    let asked = Asked {
                        frontend: request.frontend.clone(),
                        opts: request.frontend_opts.clone(),
                        inputs: request.frontend_inputs.clone(),
                    };
                    let inner = Self::new(Arc::clone(&self.build), self.scope.inner(asked)?);
                    let result = inner.frontend(&mut request).await?;
                    inner.scope.made(&result);
                    self.scope.answered(Arc::clone(&inner.scope));
                    result
                }
            };
            if request.evaluate {
                evaluate(&result).await?;
            }
            self.scope.register(&result).await;
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
        let settings = &self.build.engine.settings;
        let done = match name {
            DOCKERFILE if settings.dockerfile => {
                let dockerfile = Dockerfile {
                    answers_syntax: settings.answers_syntax,
                };
                let mut inner = FrontendRequest {
                    opts: std::mem::take(&mut request.frontend_opts),
                    inputs: std::mem::take(&mut request.frontend_inputs),
                    session_id: self.build.session.clone(),
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
            GATEWAY => {
                let inner = FrontendRequest {
                    opts: std::mem::take(&mut request.frontend_opts),
                    inputs: std::mem::take(&mut request.frontend_inputs),
                    session_id: self.build.session.clone(),
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
        done.map_err(|error| of_frontend(&error, Some((name, &source))))
    }

    /// Runs the built-in frontend, where the time that a long Dockerfile takes is nobody else's.
    async fn dockerfile(
        &self,
        frontend: Dockerfile,
        request: FrontendRequest,
    ) -> Result<FrontendResult, FrontendError> {
        let bridge: Arc<dyn Bridge> = Self::new(Arc::clone(&self.build), Arc::clone(&self.scope));
        let run = async move { frontend.solve(bridge, request).await };
        let run = async { Ok(task::apart("dockerfile", run).await) };
        self.build
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
        let settings = &self.build.engine.settings;
        let Some(host) = settings.frontend_host.clone() else {
            return Err(FrontendError::GatewayFrontend { image, at });
        };
        let frontend = ImageFrontend {
            image,
            allowed: settings.frontend_repositories.clone(),
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
        let bridge: Arc<dyn Bridge> = Self::new(Arc::clone(&self.build), Arc::clone(&self.scope));
        let run = async { Ok(frontend.solve(bridge, request).await) };
        self.build
            .alive(run)
            .await
            .map_err(|ended| FrontendError::from(BridgeError::from(ended)))?
    }
}

/// All refs of a result.
pub(crate) fn refs(result: &FrontendResult) -> impl Iterator<Item = &Arc<dyn Ref>> {
    result.single.iter().chain(result.refs.values().flatten())
}

/// Computes all refs of a result.
pub(crate) async fn evaluate(result: &FrontendResult) -> Result<(), Failure> {
    let all =
        refs(result).map(|found| async move { found.evaluate().await.map_err(|e| of_bridge(&e)) });
    try_join_all(all).await?;
    Ok(())
}

#[async_trait]
impl Bridge for BuildBridge {
    fn workers(&self) -> Vec<WorkerInfo> {
        vec![self.build.engine.worker.clone()]
    }

    async fn solve(&self, request: SolveRequest) -> Result<FrontendResult, BridgeError> {
        Ok(self.run(request).await?)
    }

    async fn resolve_source(
        &self,
        source: pb::SourceOp,
        opts: ResolveOpts,
    ) -> Result<SourceMeta, BridgeError> {
        let meta = crate::resolve::source(&self.build, source, opts.clone()).await?;
        self.scope.resolved(&opts, &meta);
        Ok(meta)
    }

    async fn new_container(
        &self,
        request: ContainerRequest,
    ) -> Result<Arc<dyn Container>, BridgeError> {
        Ok(BuildContainer::new(Arc::clone(&self.build), request).await?)
    }

    fn kept(&self, id: &str) -> Option<Arc<dyn Ref>> {
        let found = self.build.kept(id)?;
        Some(LazyRef::known(Arc::clone(&self.build), found))
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
        self.build.hub.publish(Event::Warning(progress::Warning {
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
