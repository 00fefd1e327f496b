//! `containerd.services.content.v1.Content`: blobs of build records, read-only.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::api::{Backend, BlobLine, HistoryBlob};
use futures::stream::{BoxStream, StreamExt};
use oci::Digest;
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse,
    WriteContentRequest, WriteContentResponse,
};
use services::content::content_server::Content;
use tonic::{Request, Response, Status, Streaming};

use crate::errors::{not_built, status};

/// Bytes of a blob in one message.
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// Blobs in one message of a list.
const PAGE_BLOBS: u32 = 512;

/// Serves the blobs that build records name.
pub(crate) struct ContentService {
    backend: Arc<dyn Backend>,
}

impl ContentService {
    /// Serves the blobs of `backend`'s records.
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    async fn blob(&self, digest: &str) -> Result<HistoryBlob, Status> {
        let digest: Digest = digest
            .parse()
            .map_err(|e| Status::invalid_argument(format!("{digest:?}: {e}")))?;
        self.backend
            .history_blob(&digest)
            .await
            .map_err(|e| status(&e))
    }
}

impl std::fmt::Debug for ContentService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentService").finish_non_exhaustive()
    }
}

fn line(blob: BlobLine) -> Info {
    let created = Some(crate::convert::timestamp(blob.created));
    Info {
        digest: blob.digest.to_string(),
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        created_at: created,
        updated_at: created,
        labels: BTreeMap::new(),
    }
}

fn read_only() -> Status {
    not_built("writing to the content store of build records")
}

#[tonic::async_trait]
impl Content for ContentService {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let digest = request.into_inner().digest;
        let blob = self.blob(&digest).await?;
        let size = i64::try_from(blob.size).unwrap_or(i64::MAX);
        let info = Info {
            digest,
            size,
            created_at: None,
            updated_at: None,
            labels: BTreeMap::new(),
        };
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    type ReadStream = BoxStream<'static, Result<ReadContentResponse, Status>>;

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let blob = self.blob(&request.digest).await?;
        let out_of_range =
            || Status::out_of_range(format!("offset {} of {} bytes", request.offset, blob.size));
        let start = u64::try_from(request.offset)
            .ok()
            .filter(|o| *o <= blob.size)
            .ok_or_else(out_of_range)?;
        let length_left = match u64::try_from(request.size) {
            Ok(0) => blob.size - start,
            Ok(size) if size <= blob.size - start => size,
            _ => return Err(out_of_range()),
        };
        let bytes = (blob.read)(start).await.map_err(|e| status(&e))?;
        let state = (bytes, bytes::Bytes::new(), start, length_left);
        let pieces =
            futures::stream::unfold(state, |(mut bytes, mut piece, offset, left)| async move {
                while piece.is_empty() && left > 0 {
                    match bytes.next().await {
                        Some(Ok(next)) => piece = next,
                        Some(Err(error)) => {
                            return Some((Err(status(&error)), (bytes, piece, offset, 0)));
                        }
                        None => return None,
                    }
                }
                if left == 0 {
                    return None;
                }
                let length = piece
                    .len()
                    .min(MAX_CHUNK_BYTES)
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                let data = piece.split_to(length);
                let message = ReadContentResponse {
                    offset: i64::try_from(offset).unwrap_or(i64::MAX),
                    data,
                };
                Some((
                    Ok(message),
                    (bytes, piece, offset + length as u64, left - length as u64),
                ))
            });
        Ok(Response::new(pieces.boxed()))
    }

    type ListStream = BoxStream<'static, Result<ListContentResponse, Status>>;

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        if request.get_ref().filters.iter().any(|f| !f.is_empty()) {
            return Err(not_built("filtering the list of blobs"));
        }
        let state = (self.backend.clone(), Some(String::new()));
        let pages = futures::stream::unfold(state, |(backend, after)| async move {
            let after = after?;
            match backend.list_blobs(&after, PAGE_BLOBS).await {
                Ok(page) if page.is_empty() => None,
                Ok(page) => {
                    let last = page.last().map(|blob| blob.digest.to_string());
                    let info = page.into_iter().map(line).collect();
                    Some((Ok(ListContentResponse { info }), (backend, last)))
                }
                Err(error) => Some((Err(status(&error)), (backend, None))),
            }
        });
        Ok(Response::new(pages.boxed()))
    }

    async fn update(
        &self,
        _request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        Err(read_only())
    }

    async fn delete(
        &self,
        _request: Request<DeleteContentRequest>,
    ) -> Result<Response<()>, Status> {
        Err(read_only())
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Err(read_only())
    }

    async fn list_statuses(
        &self,
        _request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Err(read_only())
    }

    type WriteStream = BoxStream<'static, Result<WriteContentResponse, Status>>;

    async fn write(
        &self,
        _request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Err(read_only())
    }

    async fn abort(&self, _request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Err(read_only())
    }
}
