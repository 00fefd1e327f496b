//! `Upload`: streams that are handed over once.

use std::collections::BTreeMap;

use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use proto::upload::BytesMessage;
use services::upload::upload_server;
use session::header;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::attach::Upload;

const CHUNK_BYTES: usize = 256 << 10;

/// The streams not handed over yet.
#[derive(Debug)]
pub(crate) struct Uploads {
    waiting: Mutex<BTreeMap<String, Upload>>,
}

impl Uploads {
    pub(crate) fn new(uploads: BTreeMap<String, Upload>) -> Self {
        Self {
            waiting: Mutex::new(uploads),
        }
    }
}

#[tonic::async_trait]
impl upload_server::Upload for Uploads {
    type PullStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = request
            .metadata()
            .get(header::UPLOAD_PATH)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let upload =
            self.waiting.lock().remove(name).ok_or_else(|| {
                Status::unknown(format!("no http response from session for {name}"))
            })?;
        let pieces = ReaderStream::with_capacity(upload.0, CHUNK_BYTES).map(|piece| {
            piece
                .map(|data| BytesMessage { data })
                .map_err(|e| Status::unknown(format!("cannot read the context: {e}")))
        });
        Ok(Response::new(pieces.boxed()))
    }
}
