//! `grpc.health.v1.Health`: by this the daemon sees that we are still there.

use futures::stream::{BoxStream, StreamExt};
use proto::health::health_check_response::ServingStatus;
use proto::health::{HealthCheckRequest, HealthCheckResponse};
use services::health::health_server::Health;
use tonic::{Request, Response, Status};

/// Always well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Healthy;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    }
}

#[tonic::async_trait]
impl Health for Healthy {
    async fn check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(serving()))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(
            futures::stream::once(async { Ok(serving()) })
                .chain(futures::stream::pending())
                .boxed(),
        ))
    }
}
