//! `grpc.health.v1.Health`: the daemon answers, so it serves.

use futures::stream::{BoxStream, StreamExt};
use proto::health::health_check_response::ServingStatus;
use proto::health::{HealthCheckRequest, HealthCheckResponse};
use services::health::health_server::Health;
use tonic::{Request, Response, Status};

/// Says `SERVING` for the daemon as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HealthService;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

fn check(service: &str) -> Result<(), Status> {
    if service.is_empty() {
        Ok(())
    } else {
        Err(Status::not_found("unknown service"))
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        check(&request.get_ref().service)?;
        Ok(Response::new(serving()))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        check(&request.get_ref().service)?;
        // It goes on serving until it ends, and the stream ends with it.
        Ok(Response::new(
            futures::stream::once(async { Ok(serving()) })
                .chain(futures::stream::pending())
                .boxed(),
        ))
    }
}
