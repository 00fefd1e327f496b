//! Records of builds, what was logged of them, and blobs that they name.

use std::ops::ControlFlow;

use proto::{content as content_messages, control};
use services::content::content_client::ContentClient;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

pub use prost_types::Timestamp as Time;
pub use proto::control::{
    BuildHistoryEvent as HistoryEvent, BuildHistoryEventType as HistoryEventType,
    BuildHistoryRecord as HistoryRecord, BuildHistoryRequest as HistoryRequest, BuildResultInfo,
    Descriptor as HistoryDescriptor, Exporter as HistoryExporter,
};

use crate::connect::Client;
use crate::failure::Failure;
use crate::status::{SolveStatus, from_wire};

impl Client {
    /// Tells of builds: of those that are recorded, and, unless the request ends early, of those that begin and end until `each`
    /// has heard enough.
    pub async fn history(
        &self,
        request: HistoryRequest,
        mut each: impl FnMut(HistoryEvent) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let mut events = self
            .control()
            .listen_build_history(request)
            .await?
            .into_inner();
        while let Some(event) = events.message().await? {
            if each(event).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Removes the record of a build.
    pub async fn delete_record(&self, build: String) -> Result<(), Failure> {
        self.update_record(control::UpdateBuildHistoryRequest {
            r#ref: build,
            delete: true,
            ..Default::default()
        })
        .await
    }

    /// Keeps the record of a build from expiring, or lets it expire again.
    pub async fn pin_record(&self, build: String, pinned: bool) -> Result<(), Failure> {
        self.update_record(control::UpdateBuildHistoryRequest {
            r#ref: build,
            pinned,
            ..Default::default()
        })
        .await
    }

    async fn update_record(
        &self,
        request: control::UpdateBuildHistoryRequest,
    ) -> Result<(), Failure> {
        self.control().update_build_history(request).await?;
        Ok(())
    }

    /// Tells what happened in a build, from its beginning to its end, also when that is past.
    pub async fn logs(&self, build: String, to: mpsc::Sender<SolveStatus>) -> Result<(), Failure> {
        let request = control::StatusRequest { r#ref: build };
        let mut messages = self.control().status(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            if to.send(from_wire(message)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Writes a blob of the daemon's content store.
    pub async fn read_blob(
        &self,
        digest: &oci::Digest,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        let mut content =
            ContentClient::new(self.channel()).max_decoding_message_size(proto::MAX_MESSAGE);
        let request = content_messages::ReadContentRequest {
            digest: digest.to_string(),
            ..Default::default()
        };
        let mut parts = content.read(request).await?.into_inner();
        let failed =
            |error: std::io::Error| Failure::local(format!("cannot write the blob: {error}"));
        while let Some(part) = parts.message().await? {
            to.write_all(&part.data).await.map_err(failed)?;
        }
        to.flush().await.map_err(failed)
    }
}
