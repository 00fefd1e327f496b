//! Logins, secrets and agents of a client.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use proto::{auth, secrets, ssh};
use services::auth::auth_client::AuthClient;
use services::secrets::secrets_client::SecretsClient;
use services::ssh::ssh_client::SshClient;
use session::error::code;
use session::{
    Auth, CallError, Duplex, Login, Secret, Secrets, Ssh, Token, TokenRequest, header, method,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{MAX_QUEUED_PIECES, RemoteSession, failed, put};

fn absent<T>(error: CallError) -> Result<Option<T>, CallError> {
    if error.is_absent() {
        Ok(None)
    } else {
        Err(error)
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
        let (outgoing, pieces) = mpsc::channel::<Bytes>(MAX_QUEUED_PIECES);
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
