//! `FileSync`: the daemon reads folders that were named.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use proto::filesync::file_sync_server;
use proto::fsutil;
use session::PacketStream;
use session::diffcopy::{Filter, FilteredTree, Root, send};
use session::header;
use session::stream::PACKETS_IN_FLIGHT;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::packet;

/// The folders.
#[derive(Debug)]
pub(crate) struct FileSync {
    folders: BTreeMap<String, PathBuf>,
}

impl FileSync {
    pub(crate) fn new(folders: BTreeMap<String, PathBuf>) -> Self {
        Self { folders }
    }
}

/// All values of a header, with the escapes taken out.
fn list(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let encoded = metadata
        .get(format!("{key}-encoded"))
        .and_then(|v| v.to_str().ok())
        .is_some_and(header::is_true);
    metadata
        .get_all(key)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .map(|v| header::decode(v, encoded))
        .collect()
}

/// The call's two streams as the driver of file sync wants them.
pub(crate) fn packets(
    incoming: Streaming<fsutil::Packet>,
) -> (PacketStream, mpsc::Receiver<session::Packet>) {
    let (outgoing, from_us) = mpsc::channel(PACKETS_IN_FLIGHT);
    let incoming = incoming
        .map(|p| {
            p.map_err(|status| session::CallError::Status {
                code: i32::from(status.code()),
                message: status.message().to_owned(),
                details: bytes::Bytes::new(),
            })
            .and_then(packet::from_wire)
        })
        .boxed();
    (PacketStream { incoming, outgoing }, from_us)
}

#[tonic::async_trait]
impl file_sync_server::FileSync for FileSync {
    type DiffCopyStream = BoxStream<'static, Result<fsutil::Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let metadata = request.metadata();
        let name = list(metadata, header::DIR_NAME)
            .into_iter()
            .next()
            .unwrap_or_default();
        let folder = self
            .folders
            .get(&name)
            .ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
        let filter = Filter {
            include: list(metadata, header::INCLUDE),
            exclude: list(metadata, header::EXCLUDE),
            follow: list(metadata, header::FOLLOW),
        };
        let root = Root::open(folder).map_err(|e| Status::not_found(e.to_string()))?;
        let tree = FilteredTree {
            root,
            filter,
            // Owners of this machine mean nothing in an image.
            map: Some(Arc::new(|stat| {
                stat.uid = 0;
                stat.gid = 0;
                true
            })),
        };
        let (stream, from_us) = packets(request.into_inner());
        let sending = task::spawn("send folder", send(stream, Arc::new(tree), None));
        let end = futures::stream::once(sending).filter_map(|done| async move {
            done.err().map(|e| Err(Status::unknown(e.to_string())))
        });
        Ok(Response::new(
            ReceiverStream::new(from_us)
                .map(|p| Ok(packet::to_wire(p)))
                .chain(end)
                .boxed(),
        ))
    }

    type TarStreamStream = BoxStream<'static, Result<fsutil::Packet, Status>>;

    async fn tar_stream(
        &self,
        _request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("method TarStream not implemented"))
    }
}
