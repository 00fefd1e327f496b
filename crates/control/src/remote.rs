//! A client at the other end of a tunnel, as a [`session::Session`].

use ::session::wire;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use oci::Digest;
use prost::Message as _;
use proto::{auth, content, exporter, filesync, policysession, secrets, ssh, upload};
use services::auth::auth_client::AuthClient;
use services::content::content_client::ContentClient;
use services::filesync::file_send_client::FileSendClient;
use services::filesync::file_sync_client::FileSyncClient;
use services::secrets::secrets_client::SecretsClient;
use services::ssh::ssh_client::SshClient;
use services::upload::upload_client::UploadClient;
use session::error::code;
use session::stream::PACKETS_IN_FLIGHT;
use session::{
    Auth, BlobInfo, BlobWrite, ByteSink, ByteStream, CallError, ClientExports, Connection,
    ContentStore, Duplex, ExporterRequest, FileSend, FileSync, Login, PacketStream, Secret,
    Secrets, SourcePolicy, Ssh, SyncRequest, Token, TokenRequest, Upload, UploadTarget, header,
    method,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// How many pieces of a byte stream may wait.
const PIECES: usize = 16;
/// Packets are small in practice; this bounds what a hostile client can make us hold.
const MAX_PACKET: usize = 4 << 20;

/// A client at the other end of a tunnel.
pub(crate) struct RemoteSession {
    id: String,
    shared_key: String,
    methods: HashSet<String>,
    channel: Channel,
    alive: watch::Receiver<()>,
}

impl RemoteSession {
    pub(crate) fn new(
        id: String,
        shared_key: String,
        methods: HashSet<String>,
        channel: Channel,
        alive: watch::Receiver<()>,
    ) -> Self {
        Self {
            id,
            shared_key,
            methods,
            channel,
            alive,
        }
    }

    fn need(&self, method: &'static str) -> Result<(), CallError> {
        if self.supports(method) {
            Ok(())
        } else {
            Err(CallError::Unsupported { method })
        }
    }

    fn in_store<T>(&self, store: &str, message: T) -> Result<Request<T>, CallError> {
        if !store.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            let key = header::CONTENT_STORE;
            return Err(CallError::Protocol {
                method: "metadata",
                reason: format!(
                    "header key {key:?} contains value with non-printable ASCII characters"
                ),
            });
        }
        let mut request = Request::new(message);
        put(request.metadata_mut(), header::CONTENT_STORE, store)?;
        Ok(request)
    }

    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(proto::MAX_MESSAGE)
    }

    fn file_send(&self) -> FileSendClient<Channel> {
        FileSendClient::new(self.channel.clone()).max_decoding_message_size(MAX_PACKET)
    }
}

impl fmt::Debug for RemoteSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSession")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The error of a call, with its details kept.
pub(crate) fn call_error(status: &Status) -> CallError {
    CallError::Status {
        code: i32::from(status.code()),
        message: status.message().to_owned(),
        details: Bytes::copy_from_slice(status.details()),
    }
}

fn failed(status: Status) -> CallError {
    call_error(&status)
}

fn put(metadata: &mut MetadataMap, key: &str, value: &str) -> Result<(), CallError> {
    let bad = |reason: String| CallError::Protocol {
        method: "metadata",
        reason,
    };
    let name = AsciiMetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes())
        .map_err(|_| bad(format!("invalid header name {key:?}")))?;
    let value = AsciiMetadataValue::try_from(value).map_err(|_| {
        bad(format!(
            "header key {key:?} contains value with non-printable ASCII characters"
        ))
    })?;
    metadata.append(name, value);
    Ok(())
}

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

fn absent<T>(error: CallError) -> Result<Option<T>, CallError> {
    if error.is_absent() {
        Ok(None)
    } else {
        Err(error)
    }
}

fn digest_of(text: &str, method: &'static str) -> Result<Digest, CallError> {
    text.parse().map_err(|e| CallError::Protocol {
        method,
        reason: format!("{e}"),
    })
}

#[async_trait]
impl Connection for RemoteSession {
    fn id(&self) -> &str {
        &self.id
    }

    fn shared_key(&self) -> &str {
        &self.shared_key
    }

    fn supports(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    async fn closed(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }
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
            FileSyncClient::new(self.channel.clone()).max_decoding_message_size(MAX_PACKET);
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
        let (outgoing, pieces) = mpsc::channel::<Bytes>(PIECES);
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
        let mut client = self.file_send();
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
        let mut client =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_PACKET);
        let opened = async move {
            client
                .ready()
                .await
                .map_err(|e| Status::unavailable(e.to_string()))?;
            let path = tonic::codegen::http::uri::PathAndQuery::from_static(method::FILE_SEND);
            let codec =
                tonic_prost::ProstCodec::<proto::fsutil::Packet, proto::fsutil::Packet>::default();
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

#[async_trait]
impl Auth for RemoteSession {
    async fn credentials(&self, host: &str) -> Result<Option<Login>, CallError> {
        let mut client = AuthClient::new(self.channel.clone());
        match client
            .credentials(auth::CredentialsRequest {
                host: host.to_owned(),
            })
            .await
            .map_err(failed)
        {
            Ok(answer) => {
                let answer = answer.into_inner();
                let empty = answer.username.is_empty() && answer.secret.is_empty();
                Ok((!empty).then_some(Login {
                    username: answer.username,
                    secret: answer.secret,
                }))
            }
            Err(error) if error.code() == code::UNIMPLEMENTED => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CallError> {
        let mut client = AuthClient::new(self.channel.clone());
        let TokenRequest {
            client_id,
            host,
            realm,
            service,
            scopes,
        } = request;
        let wire = auth::FetchTokenRequest {
            client_id,
            host,
            realm,
            service,
            scopes,
        };
        let answer = client.fetch_token(wire).await.map_err(failed)?.into_inner();
        Ok(Token {
            token: answer.token,
            expires_in: answer.expires_in,
            issued_at: answer.issued_at,
        })
    }

    async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<Bytes>, CallError> {
        let mut client = AuthClient::new(self.channel.clone());
        let wire = auth::GetTokenAuthorityRequest {
            host: host.to_owned(),
            salt: salt.to_vec(),
        };
        match client.get_token_authority(wire).await.map_err(failed) {
            Ok(answer) => Ok(Some(answer.into_inner().public_key.into())),
            Err(error) if matches!(error.code(), code::UNIMPLEMENTED | code::UNAVAILABLE) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn verify_token_authority(
        &self,
        host: &str,
        payload: &[u8],
        salt: &[u8],
    ) -> Result<Option<Bytes>, CallError> {
        let mut client = AuthClient::new(self.channel.clone());
        let wire = auth::VerifyTokenAuthorityRequest {
            host: host.to_owned(),
            payload: payload.to_vec(),
            salt: salt.to_vec(),
        };
        match client.verify_token_authority(wire).await.map_err(failed) {
            Ok(answer) => Ok(Some(answer.into_inner().signed.into())),
            Err(error) if error.code() == code::UNIMPLEMENTED => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Secrets for RemoteSession {
    async fn secret(&self, id: &str) -> Result<Option<Secret>, CallError> {
        let mut client = SecretsClient::new(self.channel.clone());
        let wire = secrets::GetSecretRequest {
            id: id.to_owned(),
            annotations: BTreeMap::new(),
        };
        match client.get_secret(wire).await.map_err(failed) {
            Ok(answer) => Ok(Some(Secret::new(answer.into_inner().data.into()))),
            Err(error) => absent(error),
        }
    }
}

#[async_trait]
impl Ssh for RemoteSession {
    async fn check_ssh(&self, id: &str) -> Result<(), CallError> {
        self.need(method::SSH_CHECK)?;
        let mut client = SshClient::new(self.channel.clone());
        client
            .check_agent(ssh::CheckAgentRequest { id: id.to_owned() })
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn forward_ssh(&self, id: &str) -> Result<Duplex, CallError> {
        let (outgoing, pieces) = mpsc::channel::<Bytes>(PIECES);
        let mut call =
            Request::new(ReceiverStream::new(pieces).map(|data| ssh::BytesMessage { data }));
        put(
            call.metadata_mut(),
            header::SSH_ID,
            if id.is_empty() { "default" } else { id },
        )?;
        let mut client = SshClient::new(self.channel.clone());
        let opened = async move {
            client
                .forward_agent(call)
                .await
                .map(tonic::Response::into_inner)
        };
        let incoming = futures::stream::once(opened)
            .try_flatten()
            .map(|m| m.map(|m| m.data).map_err(failed))
            .boxed();
        Ok(Duplex { incoming, outgoing })
    }
}

#[async_trait]
impl Upload for RemoteSession {
    async fn upload(&self, target: UploadTarget) -> Result<ByteStream, CallError> {
        let mut call = Request::new(tokio_stream::pending::<upload::BytesMessage>());
        put(call.metadata_mut(), header::UPLOAD_PATH, &target.path)?;
        put(call.metadata_mut(), header::UPLOAD_HOST, &target.host)?;
        let mut client =
            UploadClient::new(self.channel.clone()).max_decoding_message_size(MAX_PACKET);
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
        let bad = |reason: &str| CallError::Protocol {
            method: method::CONTENT_INFO,
            reason: reason.to_owned(),
        };
        let info = answer.info.ok_or_else(|| bad("no info"))?;
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
        let number = |n: u64| {
            i64::try_from(n).map_err(|_| CallError::Protocol {
                method: method::CONTENT_READ,
                reason: format!("offset {n}"),
            })
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
        let bad = |reason: &str| CallError::Protocol {
            method: method::CONTENT_WRITE,
            reason: reason.to_owned(),
        };
        let total = i64::try_from(blob.size).map_err(|_| bad("size"))?;
        let name = format!("rbuild-{}", blob.digest);
        let message = |action: content::WriteAction| content::WriteContentRequest {
            action: action.into(),
            r#ref: name.clone(),
            total,
            expected: blob.digest.to_string(),
            ..Default::default()
        };
        let (outgoing, messages) = mpsc::channel(PIECES);
        let request = self.in_store(store, ReceiverStream::new(messages))?;
        let gone = |_| CallError::Ended {
            id: self.id.clone(),
        };
        outgoing.send(message(Stat)).await.map_err(gone)?;
        let there = |error: CallError| {
            if error.code() == code::ALREADY_EXISTS {
                Ok(())
            } else {
                Err(error)
            }
        };
        let mut answers = match self.content().write(request).await.map_err(failed) {
            Ok(answers) => answers.into_inner(),
            Err(error) => return there(error),
        };
        let state = match answers.message().await.map_err(failed) {
            Ok(state) => state.ok_or_else(|| bad("no state"))?,
            Err(error) => return there(error),
        };
        // An earlier attempt that broke off left bytes of the same digest: go on where it stopped.
        let mut skip = u64::try_from(state.offset).map_err(|_| bad("offset"))?;
        let mut offset = state.offset;
        while let Some(piece) = bytes.next().await {
            let mut piece = piece?;
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= known as u64;
            drop(piece.split_to(known));
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
                    .map_err(gone)?;
                offset += length;
                if let Err(error) = answers.message().await.map_err(failed) {
                    return there(error);
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
            .map_err(gone)?;
        match answers.message().await.map_err(failed) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(bad("no answer to the commit")),
            Err(error) => there(error),
        }
    }
}

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
        let request = policysession::CheckPolicyRequest::decode(request).map_err(|e| {
            CallError::Protocol {
                method: method::CHECK_POLICY,
                reason: e.to_string(),
            }
        })?;
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
