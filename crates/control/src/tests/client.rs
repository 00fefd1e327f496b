//! The client of the tests: its services, and the tunnel in which it serves them.

use services::filesync::file_send_server::{FileSend, FileSendServer};
use services::filesync::file_sync_server::{FileSync, FileSyncServer};
use services::secrets::secrets_server::{Secrets, SecretsServer};

use super::*;

/// What the client of the tests serves.
#[derive(Clone)]
pub(super) struct Served {
    folder: Arc<tempfile::TempDir>,
    written: mpsc::Sender<(Vec<String>, usize)>,
}

pub(super) type Packets = BoxStream<'static, Result<fsutil::Packet, Status>>;

#[tonic::async_trait]
impl FileSync for Served {
    type DiffCopyStream = Packets;

    async fn diff_copy(
        &self,
        request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Packets>, Status> {
        let text = |key: &str| {
            request
                .metadata()
                .get(key)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        if text(header::DIR_NAME) == small_frames::FOLDER {
            return Ok(Response::new(small_frames::list()));
        }
        let encoded = gostd::strconv::is_true(&text(&format!("{}-encoded", header::DIR_NAME)));
        if header::decode(&text(header::DIR_NAME), encoded) != "context/ü" {
            return Err(Status::not_found("no access allowed to dir"));
        }
        let filter = ::session::diffcopy::Filter {
            exclude: vec![text(header::EXCLUDE)],
            ..Default::default()
        };
        let source = Arc::new(FilteredTree {
            root: fstree_root(self.folder.path()),
            filter,
            map: None,
            change_marks: false,
        });
        let (outgoing, packets) = mpsc::channel(PACKETS_IN_FLIGHT);
        let failed = |e: Status| CallError::Status {
            code: 2,
            message: e.to_string(),
            details: Bytes::new(),
        };
        let incoming = request
            .into_inner()
            .map(move |p| p.map_err(failed).and_then(wire::from_wire))
            .boxed();
        task::spawn("send", async move {
            send(
                PacketStream { incoming, outgoing },
                source,
                SendOptions::default(),
            )
            .await
            .unwrap()
        })
        .detach();
        Ok(Response::new(
            ReceiverStream::new(packets)
                .map(|p| Ok(wire::to_wire(p)))
                .boxed(),
        ))
    }

    type TarStreamStream = Packets;

    async fn tar_stream(
        &self,
        _request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("tar"))
    }
}

#[tonic::async_trait]
impl FileSend for Served {
    type DiffCopyStream = BoxStream<'static, Result<filesync::BytesMessage, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<filesync::BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let text = |key: &str| {
            request
                .metadata()
                .get(key)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let words = vec![
            text(header::EXPORTER_ID),
            text("exporter-md-containerimage.digest"),
        ];
        let mut pieces = request.into_inner();
        let mut size = 0;
        while let Some(piece) = pieces.message().await? {
            size += piece.data.len();
        }
        let _gone = self.written.send((words, size)).await;
        Ok(Response::new(futures::stream::empty().boxed()))
    }
}

#[tonic::async_trait]
impl Secrets for Served {
    async fn get_secret(
        &self,
        request: Request<secrets::GetSecretRequest>,
    ) -> Result<Response<secrets::GetSecretResponse>, Status> {
        if request.into_inner().id == "known" {
            Ok(Response::new(secrets::GetSecretResponse {
                data: b"hush".to_vec(),
            }))
        } else {
            Err(Status::not_found("secret not found"))
        }
    }
}

/// Connects a session whose services run in this process; dropping the handle ends it.
pub(super) async fn connect(
    channel: &Channel,
    id: &str,
) -> (task::Task<()>, mpsc::Receiver<(Vec<String>, usize)>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("d/hello"), "hello").unwrap();
    std::fs::write(folder.path().join("noise.log"), "x").unwrap();
    let (written, results) = mpsc::channel(1);
    let served = Served {
        folder: Arc::new(folder),
        written,
    };
    let methods = [method::FILE_SYNC, method::FILE_SEND, method::SECRET];
    let server = Server::builder()
        .add_service(FileSyncServer::new(served.clone()))
        .add_service(FileSendServer::new(served.clone()))
        .add_service(SecretsServer::new(served))
        .add_service(HealthServer::new(HealthService::default()));
    let task = open_session(channel, id, &methods, server).await;
    (task, results)
}

/// Connects a session that lists these methods and has `server` behind it; dropping the handle ends it.
pub(super) async fn open_session(
    channel: &Channel,
    id: &str,
    methods: &[&str],
    server: tonic::transport::server::Router,
) -> task::Task<()> {
    let (outgoing, messages) = mpsc::channel::<control::BytesMessage>(16);
    let mut request = Request::new(ReceiverStream::new(messages));
    let metadata = request.metadata_mut();
    metadata.insert(header::SESSION_ID, id.parse().unwrap());
    metadata.insert(header::SESSION_SHARED_KEY, "key".parse().unwrap());
    for method in methods {
        metadata.append(header::SESSION_METHOD, method.parse().unwrap());
    }
    let mut incoming = ControlClient::new(channel.clone())
        .session(request)
        .await
        .unwrap()
        .into_inner();
    let (inner, outer): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 20);
    task::spawn("client session", async move {
        let (mut read, mut write) = tokio::io::split(outer);
        let up = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                let data = Bytes::copy_from_slice(&buffer[..length]);
                if outgoing.send(control::BytesMessage { data }).await.is_err() {
                    break;
                }
            }
        };
        let down = async {
            while let Some(Ok(message)) = incoming.next().await {
                if write.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        };
        let server = server.serve_with_incoming(
            futures::stream::once(async { Ok::<_, std::io::Error>(inner) })
                .chain(futures::stream::pending()),
        );
        tokio::select! {
            () = up => {}
            () = down => {}
            _ = server => {}
        }
    })
}
