//! `Content`: image layouts of ours that the daemon reads from or writes into.
//!
//! A blob comes into a file of its own below `ingest` and gets its name when its digest is right; one that breaks off
//! leaves nothing. What the daemon may name is a store that was offered and a digest, so no path comes from it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use futures::stream::{BoxStream, StreamExt};
use oci::{Digest, Digester};
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use services::content::content_server::Content;
use session::header;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Bytes in one message.
const MESSAGE_BYTES: usize = 1 << 20;
/// Answers that may wait to be sent.
const MAX_WAITING_ANSWERS: usize = 4;

/// The stores, by name.
#[derive(Debug)]
pub(crate) struct Stores {
    stores: BTreeMap<String, PathBuf>,
}

impl Stores {
    pub(crate) fn new(stores: BTreeMap<String, PathBuf>) -> Self {
        Self { stores }
    }

    fn store(&self, metadata: &MetadataMap) -> Result<&Path, Status> {
        let name = metadata
            .get(header::CONTENT_STORE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        self.stores
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| Status::not_found(format!("unknown store {name:?}")))
    }
}

fn parse(digest: &str) -> Result<Digest, Status> {
    digest
        .parse()
        .map_err(|e| Status::invalid_argument(format!("{digest:?}: {e}")))
}

fn path(store: &Path, digest: &Digest) -> PathBuf {
    store
        .join("blobs")
        .join(digest.algorithm())
        .join(digest.hex())
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Status {
    move |error| {
        if error.kind() == io::ErrorKind::NotFound {
            Status::not_found(format!("{what}: not found"))
        } else {
            Status::unknown(format!("{what}: {error}"))
        }
    }
}

fn not_served(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not served to daemons"))
}

async fn info(store: &Path, digest: &Digest) -> Result<Info, Status> {
    let file = tokio::fs::metadata(path(store, digest))
        .await
        .map_err(failed(format!("content {digest}")))?;
    Ok(Info {
        digest: digest.to_string(),
        size: i64::try_from(file.len()).unwrap_or(i64::MAX),
        ..Info::default()
    })
}

/// A blob that is coming.
struct Ingest {
    store: PathBuf,
    part: tempfile::NamedTempFile,
    file: File,
    sum: Digester,
    offset: u64,
}

impl Ingest {
    async fn begin(store: &Path) -> Result<Self, Status> {
        let folder = store.join("ingest");
        let fail = || failed(format!("writing to {}", store.display()));
        tokio::fs::create_dir_all(&folder).await.map_err(fail())?;
        let part = tempfile::NamedTempFile::new_in(&folder).map_err(fail())?;
        let file = File::from_std(part.reopen().map_err(fail())?);
        Ok(Self {
            store: store.to_owned(),
            part,
            file,
            sum: Digester::new(),
            offset: 0,
        })
    }

    async fn write(&mut self, offset: i64, data: &[u8]) -> Result<(), Status> {
        if u64::try_from(offset) != Ok(self.offset) {
            return Err(Status::out_of_range(format!(
                "write at {offset}, expected {}",
                self.offset
            )));
        }
        self.sum.update(data);
        self.offset += data.len() as u64;
        let fail = failed(format!("writing to {}", self.store.display()));
        self.file.write_all(data).await.map_err(fail)
    }

    async fn commit(mut self, expected: &str, total: i64) -> Result<Digest, Status> {
        let fail = || failed(format!("writing to {}", self.store.display()));
        self.file.flush().await.map_err(fail())?;
        self.file.sync_all().await.map_err(fail())?;
        if total > 0 && u64::try_from(total) != Ok(self.offset) {
            return Err(Status::failed_precondition(format!(
                "unexpected commit size {}, expected {total}",
                self.offset
            )));
        }
        let digest = self.sum.finish();
        if !expected.is_empty() && expected != digest.as_str() {
            return Err(Status::failed_precondition(format!(
                "unexpected commit digest {digest}, expected {expected}"
            )));
        }
        let target = path(&self.store, &digest);
        if let Some(folder) = target.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(fail())?;
        }
        let readable = std::fs::Permissions::from_mode(0o644);
        tokio::fs::set_permissions(self.part.path(), readable)
            .await
            .map_err(fail())?;
        self.part
            .persist(&target)
            .map_err(|e| failed(format!("writing to {}", self.store.display()))(e.error))?;
        Ok(digest)
    }
}

// Answers the messages of one write until it is committed.
async fn take(
    store: PathBuf,
    mut messages: Streaming<WriteContentRequest>,
    answers: &mpsc::Sender<Result<WriteContentResponse, Status>>,
) -> Result<(), Status> {
    let mut ingest = None;
    while let Some(message) = messages.message().await? {
        let action = message.action();
        let mut answer = WriteContentResponse {
            action: action.into(),
            total: message.total,
            ..WriteContentResponse::default()
        };
        if !message.expected.is_empty() && ingest.is_none() {
            let digest = parse(&message.expected)?;
            if info(&store, &digest).await.is_ok() {
                return Err(Status::already_exists(format!(
                    "content {digest}: already exists"
                )));
            }
        }
        let mut now = match ingest.take() {
            Some(now) => now,
            None => Ingest::begin(&store).await?,
        };
        if action != WriteAction::Stat && !message.data.is_empty() {
            now.write(message.offset, &message.data).await?;
        }
        answer.offset = i64::try_from(now.offset).unwrap_or(i64::MAX);
        if action == WriteAction::Commit {
            answer.digest = now
                .commit(&message.expected, message.total)
                .await?
                .to_string();
        } else {
            ingest = Some(now);
        }
        if answers.send(Ok(answer)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl Content for Stores {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let store = self.store(request.metadata())?;
        let digest = parse(&request.get_ref().digest)?;
        let info = info(store, &digest).await?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    type ReadStream = BoxStream<'static, Result<ReadContentResponse, Status>>;

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let store = self.store(request.metadata())?;
        let range = request.get_ref();
        let digest = parse(&range.digest)?;
        let fail = || failed(format!("content {digest}"));
        let mut file = File::open(path(store, &digest)).await.map_err(fail())?;
        let size = file.metadata().await.map_err(fail())?.len();
        let start = u64::try_from(range.offset)
            .ok()
            .filter(|o| *o <= size)
            .ok_or_else(|| {
                Status::out_of_range(format!("offset {} of {size} bytes", range.offset))
            })?;
        let _at = file
            .seek(io::SeekFrom::Start(start))
            .await
            .map_err(fail())?;
        let length = match u64::try_from(range.size) {
            Ok(n) if n > 0 => n.min(size - start),
            _ => size - start,
        };
        let pieces = futures::stream::try_unfold(
            (file.take(length), start),
            |(mut file, offset)| async move {
                let mut piece = bytes::BytesMut::with_capacity(MESSAGE_BYTES);
                let read = file
                    .read_buf(&mut piece)
                    .await
                    .map_err(failed("reading content"))?;
                let message = ReadContentResponse {
                    offset: i64::try_from(offset).unwrap_or(i64::MAX),
                    data: piece.freeze(),
                };
                Ok((read > 0).then(|| (message, (file, offset + read as u64))))
            },
        );
        Ok(Response::new(pieces.boxed()))
    }

    type WriteStream = BoxStream<'static, Result<WriteContentResponse, Status>>;

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.store(request.metadata())?.to_owned();
        let messages = request.into_inner();
        let (answers, stream) = mpsc::channel(MAX_WAITING_ANSWERS);
        let taking = task::spawn("take content", async move {
            take(store, messages, &answers).await
        });
        let end =
            futures::stream::once(taking).filter_map(|taken| async move { taken.err().map(Err) });
        Ok(Response::new(
            ReceiverStream::new(stream).chain(end).boxed(),
        ))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        // Nothing that broke off is kept, so that there is nothing to go on from.
        Err(Status::not_found("no such write"))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        // Layouts have no labels: they are taken and forgotten.
        let info = request.into_inner().info;
        Ok(Response::new(UpdateResponse { info }))
    }

    type ListStream = BoxStream<'static, Result<ListContentResponse, Status>>;

    async fn list(
        &self,
        _: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        Err(not_served("listing blobs"))
    }

    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        Err(not_served("deleting blobs"))
    }

    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Ok(Response::new(ListStatusesResponse::default()))
    }
}
