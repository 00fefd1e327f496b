//! `grpc.health.v1.Health`: the daemon serves until it stops.

use futures::stream::{BoxStream, StreamExt};
use proto::health::health_check_response::ServingStatus;
use proto::health::{HealthCheckRequest, HealthCheckResponse};
use services::health::health_server::Health;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

/// Says `SERVING` for the daemon as a whole, until it stops.
#[derive(Debug, Clone, Default)]
pub(crate) struct HealthService {
    draining: Option<watch::Receiver<bool>>,
}

impl HealthService {
    /// `draining` says when the daemon takes no builds any more; without it, it always serves.
    pub(crate) fn new(draining: Option<watch::Receiver<bool>>) -> Self {
        Self { draining }
    }
}

fn answer(is_draining: bool) -> HealthCheckResponse {
    let status = if is_draining {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    };
    HealthCheckResponse {
        status: status.into(),
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
        let is_draining = self.draining.as_ref().is_some_and(|d| *d.borrow());
        Ok(Response::new(answer(is_draining)))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        check(&request.get_ref().service)?;
        let Some(draining) = self.draining.clone() else {
            let once = futures::stream::once(async { Ok(answer(false)) });
            return Ok(Response::new(
                once.chain(futures::stream::pending()).boxed(),
            ));
        };
        // The stream ends with the daemon.
        let changes = WatchStream::new(draining).map(|is_draining| Ok(answer(is_draining)));
        Ok(Response::new(
            changes.chain(futures::stream::pending()).boxed(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_that_stops_does_not_serve_and_watchers_are_told() {
        let (drain, draining) = watch::channel(false);
        let service = HealthService::new(Some(draining));
        let whole = || Request::new(HealthCheckRequest::default());
        let status = |response: HealthCheckResponse| response.status();
        let mut watched = service.watch(whole()).await.unwrap().into_inner();
        let current = watched.next().await.unwrap().unwrap();
        assert_eq!(status(current), ServingStatus::Serving);
        drain.send(true).unwrap();
        let changed = watched.next().await.unwrap().unwrap();
        assert_eq!(status(changed), ServingStatus::NotServing);
        let answer = service.check(whole()).await.unwrap().into_inner();
        assert_eq!(status(answer), ServingStatus::NotServing);
        let always = HealthService::default();
        let answer = always.check(whole()).await.unwrap().into_inner();
        assert_eq!(status(answer), ServingStatus::Serving);
    }
}
