//! A session: the daemon calls back through a stream that we opened.

use std::sync::Arc;

use proto::MAX_MESSAGE;
use services::auth::auth_server::AuthServer;
use services::content::content_server::ContentServer;
use services::filesync::file_sync_server::FileSyncServer;
use services::health::health_server::HealthServer;
use services::secrets::secrets_server::SecretsServer;
use services::ssh::ssh_server::SshServer;
use services::upload::upload_server::UploadServer;
use session::{header, method};
use task::Task;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::service::Routes;
use tonic::transport::server::Server;

use crate::attach::Attachables;
use crate::attach::content::Stores;
use crate::attach::filesend::FileSend;
use crate::attach::filesync::FileSync;
use crate::attach::health::Healthy;
use crate::attach::secrets::SecretShelf;
use crate::attach::ssh::Agents;
use crate::attach::upload::Uploads;
use crate::auth::Logins;
use crate::connect::Client;
use crate::failure::Failure;
use crate::tunnel::{MAX_WAITING_MESSAGES, Tunnel};

/// What a daemon may send on one call, and on all of a connection, before it is read. A full window of small frames must cost less
/// than half of the connection's window, which is what the `h2` crate grants such frames before it ends the connection.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 256 << 20;

/// Opens a session. The task serves it until it is dropped.
pub(crate) async fn serve(
    client: &Client,
    id: &str,
    shared_key: &str,
    attachables: Attachables,
) -> Result<Task<Result<(), Failure>>, Failure> {
    let (outgoing, messages) = mpsc::channel(MAX_WAITING_MESSAGES);
    let mut call = tonic::Request::new(ReceiverStream::new(messages));
    let metadata = call.metadata_mut();
    put(metadata, header::SESSION_ID, id)?;
    let (key, encoded) = header::encode(shared_key);
    put(metadata, header::SESSION_SHARED_KEY, &key)?;
    if encoded {
        put(metadata, header::SESSION_SHARED_KEY_ENCODED, "1")?;
    }
    for name in methods(&attachables) {
        put(metadata, header::SESSION_METHOD, name)?;
    }
    let incoming = client.control().session(call).await?.into_inner();
    let (alive, is_alive) = oneshot::channel();
    let tunnel = Tunnel::new(incoming, outgoing, is_alive);
    let routes = routes(attachables);
    Ok(task::spawn("session", async move {
        let _alive = alive;
        let connections =
            tokio_stream::once(Ok::<_, std::io::Error>(tunnel)).chain(tokio_stream::pending());
        Server::builder()
            .http2_max_header_list_size(u32::try_from(MAX_MESSAGE).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(None)
            .add_routes(routes)
            .serve_with_incoming(connections)
            .await
            .map_err(|error| Failure::because("the session broke", error))
    }))
}

fn methods(attachables: &Attachables) -> Vec<&'static str> {
    let mut list = vec![method::CREDENTIALS];
    if !attachables.folders.is_empty() {
        list.push(method::FILE_SYNC);
    }
    if !attachables.targets.is_empty() {
        list.push(method::FILE_SEND);
    }
    if !attachables.secrets.is_empty() {
        list.push(method::SECRET);
    }
    if !attachables.ssh.is_empty() {
        list.extend([method::SSH_CHECK, method::SSH_FORWARD]);
    }
    if !attachables.uploads.is_empty() {
        list.push(method::UPLOAD);
    }
    if !attachables.stores.is_empty() {
        list.extend([
            method::CONTENT_INFO,
            method::CONTENT_READ,
            method::CONTENT_WRITE,
        ]);
    }
    list
}

fn routes(attachables: Attachables) -> Routes {
    let Attachables {
        folders,
        targets,
        owner,
        secrets,
        ssh,
        uploads,
        stores,
        docker_config,
    } = attachables;
    Routes::new(HealthServer::new(Healthy))
        .add_service(
            FileSyncServer::new(FileSync::new(folders)).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(FileSend::new(targets, owner))
        .add_service(AuthServer::new(Logins::new(Arc::new(docker_config))))
        .add_service(SecretsServer::new(SecretShelf::new(secrets)))
        .add_service(SshServer::new(Agents::new(ssh)))
        .add_service(UploadServer::new(Uploads::new(uploads)))
        .add_service(ContentServer::new(Stores::new(stores)).max_decoding_message_size(MAX_MESSAGE))
}

fn put(metadata: &mut MetadataMap, key: &'static str, value: &str) -> Result<(), Failure> {
    let value = AsciiMetadataValue::try_from(value)
        .map_err(|error| Failure::because(format!("invalid value of header {key}"), error))?;
    metadata.append(AsciiMetadataKey::from_static(key), value);
    Ok(())
}
