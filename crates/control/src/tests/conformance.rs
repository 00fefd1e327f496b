//! A session in the tunnel against the suite of all sessions: what the client serves is the client in memory, behind gRPC.

use ::session::error::code;
use ::session::{Auth as _, Connection as _, FileSync as _, Secrets as _, Ssh as _};
use proto::{auth, ssh};
use services::auth::auth_server::{Auth, AuthServer};
use services::filesync::file_sync_server::{FileSync, FileSyncServer};
use services::secrets::secrets_server::{Secrets, SecretsServer};
use services::ssh::ssh_server::{Ssh, SshServer};
use testkit::conformance::session as conformance;
use testkit::session::MemorySession;

use super::*;

/// The services of a client in memory.
#[derive(Clone)]
struct Services(Arc<MemorySession>);

fn refused(error: CallError) -> Status {
    match error.code() {
        code::UNIMPLEMENTED => Status::unimplemented(error.to_string()),
        _ => Status::unknown(error.to_string()),
    }
}

#[tonic::async_trait]
impl Secrets for Services {
    async fn get_secret(
        &self,
        request: Request<secrets::GetSecretRequest>,
    ) -> Result<Response<secrets::GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.0.secret(&id).await.map_err(refused)? {
            Some(secret) => Ok(Response::new(secrets::GetSecretResponse {
                data: secret.expose().to_vec(),
            })),
            None => Err(Status::not_found(format!("secret {id} not found"))),
        }
    }
}

#[tonic::async_trait]
impl Auth for Services {
    async fn credentials(
        &self,
        request: Request<auth::CredentialsRequest>,
    ) -> Result<Response<auth::CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let login = self.0.credentials(&host).await.map_err(refused)?;
        let login = login.unwrap_or_default();
        Ok(Response::new(auth::CredentialsResponse {
            username: login.username,
            secret: login.secret,
        }))
    }
    async fn fetch_token(
        &self,
        _request: Request<auth::FetchTokenRequest>,
    ) -> Result<Response<auth::FetchTokenResponse>, Status> {
        Err(Status::unimplemented("no tokens"))
    }
    async fn get_token_authority(
        &self,
        _request: Request<auth::GetTokenAuthorityRequest>,
    ) -> Result<Response<auth::GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("no tokens"))
    }
    async fn verify_token_authority(
        &self,
        _request: Request<auth::VerifyTokenAuthorityRequest>,
    ) -> Result<Response<auth::VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("no tokens"))
    }
}

#[tonic::async_trait]
impl Ssh for Services {
    async fn check_agent(
        &self,
        request: Request<ssh::CheckAgentRequest>,
    ) -> Result<Response<ssh::CheckAgentResponse>, Status> {
        let id = request.into_inner().id;
        self.0.check_ssh(&id).await.map_err(refused)?;
        Ok(Response::new(ssh::CheckAgentResponse {}))
    }

    type ForwardAgentStream = BoxStream<'static, Result<ssh::BytesMessage, Status>>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<ssh::BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        Ok(Response::new(request.into_inner().boxed()))
    }
}

#[tonic::async_trait]
impl FileSync for Services {
    type DiffCopyStream = Packets;

    async fn diff_copy(
        &self,
        request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Packets>, Status> {
        let name = request.metadata().get(header::DIR_NAME);
        let folder = SyncRequest {
            name: name.and_then(|name| name.to_str().ok()).unwrap().to_owned(),
            ..SyncRequest::default()
        };
        let stream = self.0.diff_copy(folder).await.map_err(refused)?;
        let mut packets = request.into_inner();
        task::spawn("packets of the daemon", async move {
            while let Some(Ok(packet)) = packets.next().await {
                let packet = wire::from_wire(packet).unwrap();
                if stream.outgoing.send(packet).await.is_err() {
                    break;
                }
            }
        })
        .detach();
        let answers = stream.incoming.map(|packet| packet.map(wire::to_wire));
        Ok(Response::new(
            answers.map(|packet| packet.map_err(refused)).boxed(),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_the_tunnel_conforms() {
    let (channel, sessions, _) = daemon().await;
    let health = || Server::builder().add_service(HealthServer::new(HealthService::default()));
    let _nothing = open_session(&channel, "nothing", &[], health()).await;
    let services = Services(Arc::new(conformance::served("some")));
    assert_eq!(services.0.id(), "some");
    let methods = [
        method::SECRET,
        method::CREDENTIALS,
        method::SSH_CHECK,
        method::SSH_FORWARD,
        method::FILE_SYNC,
    ];
    let server = health()
        .add_service(SecretsServer::new(services.clone()))
        .add_service(AuthServer::new(services.clone()))
        .add_service(FileSyncServer::new(services.clone()))
        .add_service(SshServer::new(services));
    let _some = open_session(&channel, "some", &methods, server).await;
    let open = |id: &'static str| sessions.wait(id, Duration::from_secs(5));
    let some = open("some").await.unwrap();
    conformance::missing_services_are_told_apart_from_failures(open("nothing").await.unwrap())
        .await;
    conformance::secrets_arrive_as_they_are(Arc::clone(&some)).await;
    conformance::logins_are_those_of_their_host(Arc::clone(&some)).await;
    conformance::agents_are_connected_by_name(Arc::clone(&some)).await;
    conformance::calls_do_not_disturb_each_other(Arc::clone(&some)).await;
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("into");
    std::fs::create_dir(&into).unwrap();
    conformance::broken_folders_are_refused(Arc::clone(&some), &into).await;
    // In a tunnel time cannot be paused.
    let idle = Duration::from_millis(200);
    conformance::folders_that_stop_are_given_up(some, &into, idle).await;
}
