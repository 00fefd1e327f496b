//! `opentelemetry.proto.collector.trace.v1.TraceService`: takes spans of clients.

use std::sync::Arc;

use engine::api::Backend;
use proto::trace::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use services::trace::trace_service_server::TraceService;
use tonic::{Request, Response, Status};

use crate::errors::status;

/// Takes spans of clients and hands them to the engine.
pub(crate) struct SpanService {
    backend: Arc<dyn Backend>,
}

impl SpanService {
    /// Spans for `backend`.
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }
}

impl std::fmt::Debug for SpanService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpanService").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl TraceService for SpanService {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let spans = request
            .into_inner()
            .resource_spans
            .into_iter()
            .map(Into::into)
            .collect();
        self.backend
            .export_spans(spans)
            .await
            .map_err(|e| status(&e))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
