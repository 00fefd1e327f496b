//! Blobs: the content stores of a client, and what it uploads.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use oci::Digest;
use proto::{content, upload};
use services::content::content_client::ContentClient;
use services::upload::upload_client::UploadClient;
use session::error::code;
use session::{
    BlobInfo, BlobWrite, ByteStream, CallError, ContentStore, Upload, UploadTarget, header, method,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::Channel;

use super::{MAX_PACKET_BYTES, MAX_QUEUED_PIECES, RemoteSession, failed, put};

fn digest_of(text: &str, method: &'static str) -> Result<Digest, CallError> {
    text.parse()
        .map_err(|error: oci::DigestError| CallError::protocol(method, error))
}

impl RemoteSession {
    fn in_store<T>(&self, store: &str, message: T) -> Result<Request<T>, CallError> {
        if !store.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            let key = header::CONTENT_STORE;
            return Err(CallError::protocol(
                "metadata",
                format!("header key {key:?} contains value with non-printable ASCII characters"),
            ));
        }
        let mut request = Request::new(message);
        put(request.metadata_mut(), header::CONTENT_STORE, store)?;
        Ok(request)
    }

    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(proto::MAX_MESSAGE)
    }
}

#[async_trait]
impl Upload for RemoteSession {
    async fn upload(&self, target: UploadTarget) -> Result<ByteStream, CallError> {
        let mut call = Request::new(tokio_stream::pending::<upload::BytesMessage>());
        put(call.metadata_mut(), header::UPLOAD_PATH, &target.path)?;
        put(call.metadata_mut(), header::UPLOAD_HOST, &target.host)?;
        let mut client =
            UploadClient::new(self.channel.clone()).max_decoding_message_size(MAX_PACKET_BYTES);
        let opened = async move { client.pull(call).await.map(tonic::Response::into_inner) };
        Ok(futures::stream::once(opened)
            .try_flatten()
            .map(|m| m.map(|m| m.data).map_err(failed))
            .boxed())
    }
}

#[async_trait]
impl ContentStore for RemoteSession {
    async fn content_info(&self, store: &str, digest: &Digest) -> Result<BlobInfo, CallError> {
        let request = self.in_store(
            store,
            content::InfoRequest {
                digest: digest.to_string(),
            },
        )?;
        let answer = self
            .content()
            .info(request)
            .await
            .map_err(failed)?
            .into_inner();
        let bad = |reason: &str| CallError::protocol(method::CONTENT_INFO, reason);
        let info = answer.info.ok_or_else(|| bad("no info"))?;
        // A failed conversion has one reason: the number is negative.
        let size = u64::try_from(info.size).map_err(|_| bad("negative size"))?;
        Ok(BlobInfo {
            digest: digest_of(&info.digest, method::CONTENT_INFO)?,
            size,
            labels: info.labels,
        })
    }

    async fn content_read(
        &self,
        store: &str,
        digest: &Digest,
        offset: u64,
        size: u64,
    ) -> Result<ByteStream, CallError> {
        // A failed conversion has one reason: the number exceeds what the message can carry.
        let number = |n: u64| {
            i64::try_from(n)
                .map_err(|_| CallError::protocol(method::CONTENT_READ, format!("offset {n}")))
        };
        let message = content::ReadContentRequest {
            digest: digest.to_string(),
            offset: number(offset)?,
            size: number(size)?,
        };
        let request = self.in_store(store, message)?;
        let answer = self
            .content()
            .read(request)
            .await
            .map_err(failed)?
            .into_inner();
        Ok(answer.map(|m| m.map(|m| m.data).map_err(failed)).boxed())
    }

    async fn content_write(
        &self,
        store: &str,
        blob: BlobWrite,
        mut bytes: ByteStream,
    ) -> Result<(), CallError> {
        use content::WriteAction::{Commit, Stat, Write};
        let bad = |reason: &str| CallError::protocol(method::CONTENT_WRITE, reason);
        // Conversions of sizes and offsets below fail for one reason: the number exceeds 63 bits or is negative.
        let total = i64::try_from(blob.size).map_err(|_| bad("size"))?;
        let name = format!("rbuild-{}", blob.digest);
        let message = |action: content::WriteAction| content::WriteContentRequest {
            action: action.into(),
            r#ref: name.clone(),
            total,
            expected: blob.digest.to_string(),
            ..Default::default()
        };
        let (outgoing, messages) = mpsc::channel(MAX_QUEUED_PIECES);
        let request = self.in_store(store, ReceiverStream::new(messages))?;
        let ended = |_| CallError::Ended {
            id: self.id.clone(),
        };
        outgoing.send(message(Stat)).await.map_err(ended)?;
        let unless_exists = |error: CallError| {
            if error.code() == code::ALREADY_EXISTS {
                Ok(())
            } else {
                Err(error)
            }
        };
        let mut answers = match self.content().write(request).await.map_err(failed) {
            Ok(answers) => answers.into_inner(),
            Err(error) => return unless_exists(error),
        };
        let state = match answers.message().await.map_err(failed) {
            Ok(state) => state.ok_or_else(|| bad("no state"))?,
            Err(error) => return unless_exists(error),
        };
        // The store may hold the first bytes of this blob from an upload that broke off: the upload continues behind them.
        let mut skip = u64::try_from(state.offset).map_err(|_| bad("offset"))?;
        let mut offset = state.offset;
        while let Some(piece) = bytes.next().await {
            let mut piece = piece?;
            let already_there = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= already_there as u64;
            drop(piece.split_to(already_there));
            while !piece.is_empty() {
                let data = piece.split_to(piece.len().min(1 << 20));
                let length = i64::try_from(data.len()).map_err(|_| bad("size"))?;
                outgoing
                    .send(content::WriteContentRequest {
                        offset,
                        data: data.to_vec(),
                        ..message(Write)
                    })
                    .await
                    .map_err(ended)?;
                offset += length;
                if let Err(error) = answers.message().await.map_err(failed) {
                    return unless_exists(error);
                }
            }
        }
        outgoing
            .send(content::WriteContentRequest {
                offset,
                labels: blob.labels.clone(),
                ..message(Commit)
            })
            .await
            .map_err(ended)?;
        match answers.message().await.map_err(failed) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(bad("no answer to the commit")),
            Err(error) => unless_exists(error),
        }
    }
}
