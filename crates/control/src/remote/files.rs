//! Folders that a client reads to us and takes from us, and files that it takes.

use std::collections::BTreeMap;

use ::session::wire;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use proto::filesync;
use proto::fsutil::Packet;
use services::filesync::file_send_client::FileSendClient;
use services::filesync::file_sync_client::FileSyncClient;
use session::stream::PACKETS_IN_FLIGHT;
use session::{
    ByteSink, CallError, Connection, FileSend, FileSync, PacketStream, SyncRequest, header, method,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::{MAX_PACKET_BYTES, MAX_QUEUED_PIECES, RemoteSession, failed, put};

fn put_list(metadata: &mut MetadataMap, key: &str, values: &[String]) -> Result<(), CallError> {
    let (values, encoded) = header::encode_list(values);
    for value in &values {
        put(metadata, key, value)?;
    }
    if encoded {
        put(metadata, &format!("{key}-encoded"), "1")?;
    }
    Ok(())
}

#[async_trait]
impl FileSync for RemoteSession {
    async fn diff_copy(&self, request: SyncRequest) -> Result<PacketStream, CallError> {
        if !self.supports(method::FILE_SYNC) {
            return Err(CallError::NoLocalSources);
        }
        let (outgoing, packets) = mpsc::channel(PACKETS_IN_FLIGHT);
        let mut call = Request::new(ReceiverStream::new(packets).map(wire::to_wire));
        let metadata = call.metadata_mut();
        put_list(metadata, header::DIR_NAME, &[request.name])?;
        put_list(metadata, header::INCLUDE, &request.include)?;
        put_list(metadata, header::EXCLUDE, &request.exclude)?;
        put_list(metadata, header::FOLLOW, &request.follow)?;
        if request.change_marks {
            put(metadata, header::CHANGE_MARKS, "1")?;
        }
        let mut client =
            FileSyncClient::new(self.channel.clone()).max_decoding_message_size(MAX_PACKET_BYTES);
        let opened = async move {
            client
                .diff_copy(call)
                .await
                .map(tonic::Response::into_inner)
        };
        let incoming = futures::stream::once(opened)
            .try_flatten()
            .map(|p| p.map_err(failed).and_then(wire::from_wire))
            .boxed();
        Ok(PacketStream { incoming, outgoing })
    }
}

#[async_trait]
impl FileSend for RemoteSession {
    async fn send_file(
        &self,
        exporter: usize,
        metadata: &BTreeMap<String, String>,
    ) -> Result<ByteSink, CallError> {
        self.need(method::FILE_SEND)?;
        let (outgoing, pieces) = mpsc::channel::<Bytes>(MAX_QUEUED_PIECES);
        let mut call =
            Request::new(ReceiverStream::new(pieces).map(|data| filesync::BytesMessage { data }));
        put(
            call.metadata_mut(),
            header::EXPORTER_ID,
            &exporter.to_string(),
        )?;
        for (key, value) in metadata {
            put(
                call.metadata_mut(),
                &format!("{}{key}", header::EXPORTER_METADATA),
                value,
            )?;
        }
        let mut client =
            FileSendClient::new(self.channel.clone()).max_decoding_message_size(MAX_PACKET_BYTES);
        // The client answers at the end only, so the call runs beside the writes.
        let task = task::spawn("send file", async move {
            let mut answers = client.diff_copy(call).await.map_err(failed)?.into_inner();
            while answers.message().await.map_err(failed)?.is_some() {}
            Ok(())
        });
        Ok(ByteSink::new(outgoing, Box::pin(task)))
    }

    async fn send_tree(
        &self,
        exporter: usize,
        multi_platform: bool,
    ) -> Result<PacketStream, CallError> {
        self.need(method::FILE_SEND)?;
        let (outgoing, packets) = mpsc::channel(PACKETS_IN_FLIGHT);
        // The method is declared with byte messages, but speaks file-sync packets when the client exports into a folder.
        let mut call = Request::new(ReceiverStream::new(packets).map(wire::to_wire));
        put(
            call.metadata_mut(),
            header::EXPORTER_ID,
            &exporter.to_string(),
        )?;
        if multi_platform {
            put(call.metadata_mut(), header::EXPORTER_MULTI_PLATFORM, "1")?;
        }
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(MAX_PACKET_BYTES);
        let opened = async move {
            client
                .ready()
                .await
                .map_err(|e| Status::unavailable(oci::error::chain(&e)))?;
            let path = tonic::codegen::http::uri::PathAndQuery::from_static(method::FILE_SEND);
            let codec = services::codec::Codec::<Packet, Packet>::default();
            client
                .streaming(call, path, codec)
                .await
                .map(tonic::Response::into_inner)
        };
        let incoming = futures::stream::once(opened)
            .try_flatten()
            .map(|p| p.map_err(failed).and_then(wire::from_wire))
            .boxed();
        Ok(PacketStream { incoming, outgoing })
    }
}
