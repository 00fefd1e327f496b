//! What a client adds to its build: exporters, and verdicts on sources.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use proto::{exporter, policysession};
use session::{CallError, ClientExports, Connection, ExporterRequest, SourcePolicy, method};

use super::{RemoteSession, failed};

#[async_trait]
impl ClientExports for RemoteSession {
    async fn find_exporters(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, CallError> {
        if !self.supports(method::FIND_EXPORTERS) {
            return Ok(Vec::new());
        }
        let mut client =
            services::exporter::exporter_client::ExporterClient::new(self.channel.clone());
        let metadata = metadata.into_iter().map(|(k, v)| (k, v.to_vec())).collect();
        let answer = client
            .find_exporters(exporter::FindExportersRequest { metadata, refs })
            .await
            .map_err(failed)?
            .into_inner();
        Ok(answer
            .exporters
            .into_iter()
            .map(|e| ExporterRequest {
                kind: e.r#type,
                attrs: e.attrs,
            })
            .collect())
    }

    async fn finalize_export(&self, response: BTreeMap<String, String>) -> Result<(), CallError> {
        if !self.supports(method::FINALIZE_EXPORT) {
            return Ok(());
        }
        let mut client =
            services::exporter::exporter_client::ExporterClient::new(self.channel.clone());
        client
            .finalize_export(exporter::FinalizeExportRequest {
                exporter_response: response,
            })
            .await
            .map_err(failed)?;
        Ok(())
    }
}

#[async_trait]
impl SourcePolicy for RemoteSession {
    async fn check_policy(&self, request: Bytes) -> Result<Bytes, CallError> {
        self.need(method::CHECK_POLICY)?;
        let request = policysession::CheckPolicyRequest::decode(request)
            .map_err(|error| CallError::protocol(method::CHECK_POLICY, error))?;
        let mut client = services::policysession::policy_verifier_client::PolicyVerifierClient::new(
            self.channel.clone(),
        );
        let answer = client
            .check_policy(request)
            .await
            .map_err(failed)?
            .into_inner();
        Ok(answer.encode_to_vec().into())
    }
}
