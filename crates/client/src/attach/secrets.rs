//! `Secrets`: looked up when they are asked for, and never kept.

use std::collections::BTreeMap;

use proto::secrets::{GetSecretRequest, GetSecretResponse};
use services::secrets::secrets_server::Secrets;
use tonic::{Request, Response, Status};

use crate::attach::SecretSource;

/// The limit that daemons put on a secret.
const MAX_SECRET_BYTES: u64 = 500 << 10;

/// The secrets.
#[derive(Debug)]
pub(crate) struct SecretShelf {
    secrets: BTreeMap<String, SecretSource>,
}

impl SecretShelf {
    pub(crate) fn new(secrets: BTreeMap<String, SecretSource>) -> Self {
        Self { secrets }
    }
}

#[tonic::async_trait]
impl Secrets for SecretShelf {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let data = match self.secrets.get(&id) {
            None => return Err(Status::not_found(format!("secret {id} not found"))),
            Some(SecretSource::Value(value)) => value.clone(),
            Some(SecretSource::File(path)) => {
                let failed = |e: std::io::Error| {
                    Status::not_found(format!("secret {id}: cannot read {}: {e}", path.display()))
                };
                let size = std::fs::metadata(path).map_err(failed)?.len();
                if size > MAX_SECRET_BYTES {
                    return Err(Status::invalid_argument(format!(
                        "secret {id} too big. max size 500KB"
                    )));
                }
                std::fs::read(path).map_err(failed)?
            }
        };
        Ok(Response::new(GetSecretResponse { data }))
    }
}
