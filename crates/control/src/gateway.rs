//! `moby.buildkit.v1.frontend.LLBBridge` on the control port: frontends that run in the client.
//!
//! ```text
//!   Control.Solve without a frontend ──► engine runs a ClientFrontend ──► registers its bridge under the build's name
//!   LLBBridge.* with that name in the metadata ──► the bridge;   Return ──► the ClientFrontend's result
//! ```
//!
//! A call may come a little before the solve is there, so it waits for it.

mod build;
mod container;
mod meta;
pub(crate) mod result;
mod stdio;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use engine::api::frontend::bridge::{
    CacheImport, FileRange, ImageResolveOpts, OciLayoutResolveOpts, ResolveOpts, Warning,
};
use engine::api::frontend::gateway::Container;
use engine::api::frontend::{FrontendCall, Ref, SolveInput, SolveRequest};
use engine::api::{Failure, FailureKind};
use futures::stream::{BoxStream, StreamExt};
use oci::Digest;
use parking_lot::Mutex;
use proto::gateway as wire;
use proto::{caps, pb, types};
use services::gateway::llb_bridge_server::LlbBridge;
use session::header;
use tokio::sync::Notify;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::errors::{bridge_status, encoded, from_wire, missing, not_built, status};
use crate::gateway::build::Build;
pub(crate) use crate::gateway::build::ClientFrontend;
pub(crate) use crate::gateway::meta::{http_checksum, source_meta};
pub use crate::gateway::stdio::StdioHost;
use crate::limits::MemoryShare;
use crate::{convert, gateway};

/// How long a call waits for its build: clients start both at the same time.
const BUILD_WAIT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest part of a file in one answer: a message, less room for its other fields.
const MAX_FILE_PIECE_BYTES: usize = proto::MAX_MESSAGE - (64 << 10);

/// The connection that a build was asked for on. Names of builds are no secret, so calls for one are answered there only.
///
/// DIFFERS: BuildKit answers whoever names the build.
pub(crate) type Owner = Option<Arc<MemoryShare>>;

fn is_same_connection(a: &Owner, b: &Owner) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// The builds whose frontend runs in a client, by name.
#[derive(Default)]
pub(crate) struct Builds {
    running: Mutex<HashMap<String, (Arc<Build>, Owner)>>,
    changed: Notify,
}

impl Builds {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The frontend that stands for the client in a build.
    pub(crate) fn frontend(self: &Arc<Self>, build: &str, owner: Owner) -> ClientFrontend {
        ClientFrontend::new(self.clone(), build.to_owned(), owner)
    }

    fn insert(&self, name: String, build: Arc<Build>, owner: Owner) -> bool {
        let mut running = self.running.lock();
        if running.contains_key(&name) {
            return false;
        }
        running.insert(name, (build, owner));
        drop(running);
        self.changed.notify_waiters();
        true
    }

    fn remove(&self, name: &str) {
        let removed = self.running.lock().remove(name);
        drop(removed);
    }

    async fn find(&self, metadata: &MetadataMap, caller: Owner) -> Result<Arc<Build>, Status> {
        let name = metadata
            .get(header::BUILD_ID)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        if name.is_empty() {
            return Err(Status::unknown("no buildid found in context"));
        }
        let build = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some((build, owner)) = self.running.lock().get(name)
                    && is_same_connection(owner, &caller)
                {
                    return Arc::clone(build);
                }
                changed.await;
            }
        };
        tokio::time::timeout(BUILD_WAIT_TIMEOUT, build)
            .await
            // `Elapsed` says only that the time is over.
            .map_err(|_| Status::not_found(format!("no such job {name}")))
    }
}

/// The calls of frontends that run in clients.
pub(crate) struct GatewayService {
    builds: Arc<Builds>,
    /// The build of all calls on a connection that serves one build; none if each call names its build.
    fixed_build: Option<Arc<Build>>,
}

impl std::fmt::Debug for GatewayService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayService").finish_non_exhaustive()
    }
}

impl GatewayService {
    /// A service whose calls name a build of `builds` in their metadata.
    pub(crate) fn new(builds: Arc<Builds>) -> Self {
        Self {
            builds,
            fixed_build: None,
        }
    }

    /// A service whose calls are all for `build`.
    fn of(build: Arc<Build>) -> Self {
        Self {
            builds: Builds::new(),
            fixed_build: Some(build),
        }
    }

    async fn open<T>(&self, request: Request<T>) -> Result<(Arc<Build>, T), Status> {
        let build = match &self.fixed_build {
            Some(build) => Arc::clone(build),
            None => {
                let caller = request.extensions().get::<Arc<MemoryShare>>().cloned();
                self.builds.find(request.metadata(), caller).await?
            }
        };
        Ok((build, request.into_inner()))
    }

    async fn open_ref<T>(
        &self,
        request: Request<T>,
        id: impl FnOnce(&T) -> &str,
    ) -> Result<(Arc<dyn Ref>, T), Status> {
        let (build, message) = self.open(request).await?;
        let reference = build.find(id(&message))?;
        Ok((reference, message))
    }

    async fn open_container<T>(
        &self,
        request: Request<T>,
        names: impl FnOnce(&T) -> (&str, i32),
    ) -> Result<(Arc<dyn Container>, usize, T), Status> {
        let (build, message) = self.open(request).await?;
        let (name, mount) = names(&message);
        let container = build
            .container(name)
            .ok_or_else(|| container::missing(&format!("{name}@{mount}")))?;
        // A failed conversion has one reason: the number is negative.
        let mount = usize::try_from(mount)
            .map_err(|_| Status::unknown(format!("mount index {mount} is out of bounds")))?;
        Ok((container, mount, message))
    }
}

#[tonic::async_trait]
impl LlbBridge for GatewayService {
    async fn ping(
        &self,
        request: Request<wire::PingRequest>,
    ) -> Result<Response<wire::PongResponse>, Status> {
        let (build, _) = self.open(request).await?;
        let workers = build
            .bridge
            .workers()
            .into_iter()
            .map(|w| types::WorkerRecord {
                id: w.id,
                labels: w.labels,
                platforms: w.platforms.into_iter().map(convert::platform).collect(),
                ..Default::default()
            });
        Ok(Response::new(wire::PongResponse {
            frontend_api_caps: llb::caps::GATEWAY.iter().map(|id| cap(id)).collect(),
            llb_caps: llb::caps::LLB.iter().map(|id| cap(id)).collect(),
            workers: workers.collect(),
        }))
    }

    async fn solve(
        &self,
        request: Request<wire::SolveRequest>,
    ) -> Result<Response<wire::SolveResponse>, Status> {
        let (build, request) = self.open(request).await?;
        if request.r#final {
            return Err(not_built("gateway solve with Final (clients before v0.4)"));
        }
        let is_definition = request
            .definition
            .as_ref()
            .is_some_and(|d| !d.def.is_empty());
        let input = if request.frontend.is_empty() {
            SolveInput::Definition(request.definition.map(Arc::new).unwrap_or_default())
        } else if is_definition {
            let message = "cannot solve with both Definition and Frontend specified";
            return Err(Status::unknown(message));
        } else {
            let inputs = request.frontend_inputs.into_iter();
            SolveInput::Frontend(FrontendCall {
                frontend: request.frontend,
                opts: request.frontend_opt,
                inputs: inputs.map(|(k, v)| (k, Arc::new(v))).collect(),
            })
        };
        let result = build
            .bridge
            .solve(SolveRequest {
                input,
                cache_imports: request
                    .cache_imports
                    .into_iter()
                    .map(|c| CacheImport {
                        kind: c.r#type,
                        attrs: c.attrs,
                    })
                    .collect(),
                evaluate: request.evaluate,
                source_policies: request.source_policies.iter().map(encoded).collect(),
            })
            .await
            .map_err(|e| bridge_status(&e))?;
        if !result.refs.is_empty() && !request.allow_result_return {
            return Err(Status::unknown("solve did not return default result"));
        }
        let (result, default) =
            gateway::result::to_wire(&build, result, request.allow_result_array_ref);
        let r#ref = if request.allow_result_return {
            String::new()
        } else {
            default
        };
        Ok(Response::new(wire::SolveResponse {
            r#ref,
            result: Some(result),
        }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<wire::ResolveImageConfigRequest>,
    ) -> Result<Response<wire::ResolveImageConfigResponse>, Status> {
        let (build, request) = self.open(request).await?;
        let bad = |e: oci::reference::ReferenceError| {
            Status::unknown(format!(
                "could not parse reference {:?}: {e}",
                request.r#ref
            ))
        };
        let name = oci::reference::Reference::parse(&request.r#ref)
            .map_err(bad)?
            .to_string();
        let platform = request.platform.map(convert::from_platform);
        let mut opts = ResolveOpts {
            log_name: request.log_name,
            source_policies: request.source_policies.iter().map(encoded).collect(),
            ..ResolveOpts::default()
        };
        let mut source = pb::SourceOp {
            identifier: format!("docker-image://{name}"),
            ..Default::default()
        };
        // 0 is a registry, 1 an OCI layout of the client.
        if request.resolver_type == 1 {
            source.identifier = format!("oci-layout://{name}");
            for (key, value) in [
                ("oci.session", &request.session_id),
                ("oci.store", &request.store_id),
            ] {
                if !value.is_empty() {
                    source.attrs.insert(key.into(), value.clone());
                }
            }
            opts.oci_layout = Some(OciLayoutResolveOpts {
                platform,
                session_id: request.session_id.into(),
                store_id: request.store_id,
            });
        } else {
            opts.image = Some(ImageResolveOpts {
                platform,
                resolve_mode: request.resolve_mode,
                ..Default::default()
            });
        }
        let meta = build
            .bridge
            .resolve_source(source, opts)
            .await
            .map_err(|e| bridge_status(&e))?;
        let resolved = meta
            .op
            .identifier
            .trim_start_matches("docker-image://")
            .trim_start_matches("oci-layout://")
            .to_owned();
        let Some(image) = meta.image else {
            return Err(Status::unknown(format!(
                "ref {name} resolved to non-image source {}",
                meta.op.identifier
            )));
        };
        Ok(Response::new(wire::ResolveImageConfigResponse {
            digest: image.digest.to_string(),
            config: image.config.to_vec(),
            r#ref: resolved,
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<wire::ResolveSourceMetaRequest>,
    ) -> Result<Response<wire::ResolveSourceMetaResponse>, Status> {
        let (build, request) = self.open(request).await?;
        let source = request.source.ok_or_else(|| missing("source"))?;
        let http_checksum = meta::http_checksum(request.http)
            .map_err(|n| Status::unknown(format!("unsupported checksum algorithm {n}")))?;
        let platform = request.platform.map(convert::from_platform);
        let image = request.image.unwrap_or_default();
        let opts = ResolveOpts {
            log_name: request.log_name,
            image: Some(ImageResolveOpts {
                platform: platform.clone(),
                resolve_mode: request.resolve_mode,
                no_config: image.no_config,
                attestation_chain: image.attestation_chain,
                resolve_attestations: image.resolve_attestations,
            }),
            oci_layout: Some(OciLayoutResolveOpts {
                platform,
                ..Default::default()
            }),
            git_return_object: request.git.is_some_and(|g| g.return_object),
            http_checksum,
            source_policies: request.source_policies.iter().map(encoded).collect(),
        };
        let meta = build
            .bridge
            .resolve_source(source, opts)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(source_meta(meta)))
    }

    async fn read_file(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Result<Response<wire::ReadFileResponse>, Status> {
        let (reference, request) = self.open_ref(request, |r| &r.r#ref).await?;
        let range = file_range(request.range, &request.file_path)?;
        let data = reference
            .read_file(&request.file_path, range)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::ReadFileResponse {
            data: check_piece_size(data, &request.file_path)?,
        }))
    }

    async fn read_dir(
        &self,
        request: Request<wire::ReadDirRequest>,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        let (reference, request) = self.open_ref(request, |r| &r.r#ref).await?;
        let entries = reference
            .read_dir(&request.dir_path, &request.include_pattern)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::ReadDirResponse {
            entries: entries.into_iter().map(convert::file_stat).collect(),
        }))
    }

    async fn stat_file(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        let (reference, request) = self.open_ref(request, |r| &r.r#ref).await?;
        let stat = reference
            .stat_file(&request.path)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::StatFileResponse {
            stat: Some(convert::file_stat(stat)),
        }))
    }

    async fn evaluate(
        &self,
        request: Request<wire::EvaluateRequest>,
    ) -> Result<Response<wire::EvaluateResponse>, Status> {
        let (reference, _) = self.open_ref(request, |r| &r.r#ref).await?;
        reference.evaluate().await.map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::EvaluateResponse {}))
    }

    async fn r#return(
        &self,
        request: Request<wire::ReturnRequest>,
    ) -> Result<Response<wire::ReturnResponse>, Status> {
        let (build, request) = self.open(request).await?;
        let outcome = match request {
            wire::ReturnRequest {
                error: Some(error), ..
            } => Err(from_wire(error)),
            wire::ReturnRequest {
                result: Some(result),
                ..
            } => Ok(gateway::result::from_wire(&build, result)?),
            wire::ReturnRequest { .. } => return Err(missing("result")),
        };
        build.finish(outcome);
        Ok(Response::new(wire::ReturnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<wire::InputsRequest>,
    ) -> Result<Response<wire::InputsResponse>, Status> {
        let (build, _) = self.open(request).await?;
        let definitions = build
            .inputs
            .iter()
            .map(|(key, definition)| wire::InputEntry {
                key: key.clone(),
                value: Some(llb::definition::to_wire(definition)),
            })
            .collect();
        Ok(Response::new(wire::InputsResponse { definitions }))
    }

    async fn warn(
        &self,
        request: Request<wire::WarnRequest>,
    ) -> Result<Response<wire::WarnResponse>, Status> {
        let (build, request) = self.open(request).await?;
        let vertex: Digest = request.digest.parse().map_err(|e| {
            status(&Failure::new(
                FailureKind::InvalidArgument,
                format!("invalid vertex digest {:?}: {e}", request.digest),
            ))
        })?;
        let warning = Warning {
            level: request.level,
            short: request.short.into(),
            detail: request.detail.into_iter().map(Into::into).collect(),
            url: request.url,
            source_info: request.info,
            ranges: request.ranges,
        };
        build
            .bridge
            .warn(&vertex, warning)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::WarnResponse {}))
    }

    async fn new_container(
        &self,
        request: Request<wire::NewContainerRequest>,
    ) -> Result<Response<wire::NewContainerResponse>, Status> {
        let (build, request) = self.open(request).await?;
        container::create(&build, request).await?;
        Ok(Response::new(wire::NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<wire::ReleaseContainerRequest>,
    ) -> Result<Response<wire::ReleaseContainerResponse>, Status> {
        let (build, request) = self.open(request).await?;
        let container = build
            .remove_container(&request.container_id)
            .ok_or_else(|| container::missing(&request.container_id))?;
        container.release().await.map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::ReleaseContainerResponse {}))
    }

    type ExecProcessStream = BoxStream<'static, Result<wire::ExecMessage, Status>>;

    async fn exec_process(
        &self,
        request: Request<Streaming<wire::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let (build, incoming) = self.open(request).await?;
        let (answers, messages) = tokio::sync::mpsc::channel(8);
        let work = task::spawn("exec processes", container::serve(build, incoming, answers));
        let answers =
            futures::stream::unfold((messages, work), |(mut messages, work)| async move {
                Some((messages.recv().await?, (messages, work)))
            });
        Ok(Response::new(answers.boxed()))
    }

    async fn read_file_container(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Result<Response<wire::ReadFileResponse>, Status> {
        let (container, mount, request) = self
            .open_container(request, |r| (&r.r#ref, r.mount_index))
            .await?;
        let range = file_range(request.range, &request.file_path)?;
        let data = container
            .read_file(mount, &request.file_path, range)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::ReadFileResponse {
            data: check_piece_size(data, &request.file_path)?,
        }))
    }

    async fn read_dir_container(
        &self,
        request: Request<wire::ReadDirRequest>,
    ) -> Result<Response<wire::ReadDirResponse>, Status> {
        let (container, mount, request) = self
            .open_container(request, |r| (&r.r#ref, r.mount_index))
            .await?;
        let entries = container
            .read_dir(mount, &request.dir_path, &request.include_pattern)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::ReadDirResponse {
            entries: entries.into_iter().map(convert::file_stat).collect(),
        }))
    }

    async fn stat_file_container(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Result<Response<wire::StatFileResponse>, Status> {
        let (container, mount, request) = self
            .open_container(request, |r| (&r.r#ref, r.mount_index))
            .await?;
        let stat = container
            .stat_file(mount, &request.path)
            .await
            .map_err(|e| bridge_status(&e))?;
        Ok(Response::new(wire::StatFileResponse {
            stat: Some(convert::file_stat(stat)),
        }))
    }
}

fn file_range(range: Option<wire::FileRange>, path: &str) -> Result<Option<FileRange>, Status> {
    // A failed conversion has one reason: the number is negative.
    let number =
        |n: i64| u64::try_from(n).map_err(|_| Status::unknown(format!("invalid range for {path}")));
    range
        .map(|range| {
            Ok(FileRange {
                offset: number(range.offset)?,
                length: number(range.length)?,
            })
        })
        .transpose()
}

fn check_piece_size(data: bytes::Bytes, path: &str) -> Result<bytes::Bytes, Status> {
    if data.len() > MAX_FILE_PIECE_BYTES {
        return Err(Status::unknown(format!(
            "file {path} is too large to be read in one message; read it in ranges"
        )));
    }
    Ok(data)
}

fn cap(id: &str) -> caps::ApiCap {
    caps::ApiCap {
        id: id.to_owned(),
        enabled: true,
        ..Default::default()
    }
}

/// A build that is not registered anywhere, for tests of the conversion of results.
#[cfg(test)]
pub(crate) fn test_build(bridge: Arc<dyn engine::api::frontend::Bridge>) -> Build {
    Build::new(bridge, std::collections::BTreeMap::new(), None)
}
