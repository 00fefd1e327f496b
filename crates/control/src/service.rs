//! `moby.buildkit.v1.Control`: the daemon's front door.

use std::sync::Arc;

use ::session::SessionManager;
use engine::api::frontend::Frontend;
use engine::api::{Backend, BuildRef, PolicyVerifier, ResultHost, TraceContext};
use futures::stream::{BoxStream, StreamExt};
use proto::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse,
    InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord,
};
use services::control::control_server::Control;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::convert::ClientSide;
use crate::errors::status;
use crate::gateway::Builds;
use crate::limits::MemoryShare;
use crate::policy::SessionVerifier;
use crate::session::{self, SessionStream};
use crate::{convert, status as progress_status};

/// The daemon's front door.
#[derive(Clone)]
pub(crate) struct ControlService {
    backend: Arc<dyn Backend>,
    sessions: Arc<SessionManager>,
    builds: Arc<Builds>,
}

impl std::fmt::Debug for ControlService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlService")
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

impl ControlService {
    /// The front door of `backend`. `builds` is shared with the gateway service.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        sessions: Arc<SessionManager>,
        builds: Arc<Builds>,
    ) -> Self {
        Self {
            backend,
            sessions,
            builds,
        }
    }
}

/// The client that called, as what it may have to do for its request.
struct Caller<'a> {
    builds: &'a Arc<Builds>,
    sessions: &'a Arc<SessionManager>,
    /// The connection that the build is counted for.
    owner: Option<Arc<MemoryShare>>,
}

impl ClientSide for Caller<'_> {
    fn frontend(&self, build: &str) -> Arc<dyn Frontend> {
        Arc::new(self.builds.frontend(build, self.owner.clone()))
    }

    fn result_host(&self, build: &str) -> Arc<dyn ResultHost> {
        Arc::new(self.builds.frontend(build, self.owner.clone()))
    }

    fn policy_verifier(&self, session: &str) -> Arc<dyn PolicyVerifier> {
        Arc::new(SessionVerifier::new(
            Arc::clone(self.sessions),
            session.to_owned(),
        ))
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let request = request.into_inner();
        let age = convert::duration(request.age_limit);
        let records = self
            .backend
            .disk_usage(&request.filter, age)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(DiskUsageResponse {
            record: records.into_iter().map(convert::usage_record).collect(),
        }))
    }

    type PruneStream = BoxStream<'static, Result<UsageRecord, Status>>;

    async fn prune(
        &self,
        request: Request<PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let records = self
            .backend
            .prune(convert::prune_request(request.into_inner()))
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(
            records
                .map(|r| r.map(convert::usage_record).map_err(|e| status(&e)))
                .boxed(),
        ))
    }

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let owner = request.extensions().get::<Arc<MemoryShare>>().cloned();
        let client = Caller {
            builds: &self.builds,
            sessions: &self.sessions,
            owner,
        };
        let parent = request.metadata().get("traceparent");
        let trace = parent.and_then(|parent| TraceContext::parse(parent.to_str().ok()?));
        let request = convert::solve_request(request.into_inner(), &client);
        let mut request = request.map_err(|e| status(&e))?;
        request.trace = trace;
        let answer = self.backend.solve(request).await.map_err(|e| status(&e))?;
        Ok(Response::new(SolveResponse {
            exporter_response: answer.exporter_response,
        }))
    }

    type StatusStream = BoxStream<'static, Result<StatusResponse, Status>>;

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        // The headers leave at once, so that the client knows our clock before the first event.
        let backend = self.backend.clone();
        let build = BuildRef::from(request.into_inner().r#ref);
        let opened = async move {
            match backend.status(&build).await {
                Ok(subscription) => progress_status::responses(subscription),
                Err(error) => futures::stream::once(async move { Err(status(&error)) }).boxed(),
            }
        };
        Ok(with_time(Response::new(
            futures::stream::once(opened).flatten().boxed(),
        )))
    }

    type SessionStream = SessionStream;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        session::start(self.sessions.clone(), &metadata, incoming)
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let workers = self
            .backend
            .workers(&request.into_inner().filter)
            .await
            .map_err(|e| status(&e))?;
        let version = self.backend.version();
        Ok(Response::new(ListWorkersResponse {
            record: workers
                .into_iter()
                .map(|w| convert::worker(w, &version))
                .collect(),
        }))
    }

    async fn info(&self, _request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            buildkit_version: Some(convert::version(&self.backend.version())),
        }))
    }

    type ListenBuildHistoryStream = BoxStream<'static, Result<BuildHistoryEvent, Status>>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let query = convert::history_query(request.into_inner()).map_err(|e| status(&e))?;
        let events = self.backend.history(query).await.map_err(|e| status(&e))?;
        Ok(with_time(Response::new(
            events
                .map(|e| e.map(convert::history_event).map_err(|e| status(&e)))
                .boxed(),
        )))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let request = request.into_inner();
        let change = convert::history_change(&request);
        self.backend
            .update_history(&request.r#ref.into(), change)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

// Clients correct for a clock that differs from theirs.
fn with_time<T>(mut response: Response<T>) -> Response<T> {
    let now = gostd::Timestamp::from(task::Clock::real().system());
    if let Ok(value) = AsciiMetadataValue::try_from(now.to_string()) {
        response
            .metadata_mut()
            .insert("buildkit-current-timestamp", value);
    }
    response
}
