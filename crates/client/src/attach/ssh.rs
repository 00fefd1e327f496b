//! `SSH`: steps may use our ssh agent, but not change it.
//!
//! Listing identities and signing pass; everything else is answered with a refusal here and does not reach the agent.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use proto::ssh::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use services::ssh::ssh_server::Ssh;
use session::header;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tonic::{Request, Response, Status, Streaming};

const REFUSAL: &[u8] = &[0, 0, 0, 1, 5];
const LIST_IDENTITIES: u8 = 11;
const SIGN: u8 = 13;
const MAX_FRAME_BYTES: usize = 256 << 10;
const MAX_WAITING_ANSWERS: usize = 8;

/// Sockets of agents by id.
#[derive(Debug)]
pub(crate) struct Agents {
    sockets: BTreeMap<String, PathBuf>,
}

impl Agents {
    pub(crate) fn new(sockets: BTreeMap<String, PathBuf>) -> Self {
        Self { sockets }
    }

    fn socket(&self, id: &str) -> Result<&PathBuf, Status> {
        // Daemons tell a client without agents from one without this agent, in words of their own.
        if self.sockets.is_empty() {
            return Err(Status::unimplemented("no ssh agent was offered"));
        }
        let id = if id.is_empty() { "default" } else { id };
        self.sockets
            .get(id)
            .ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.get_ref().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request
            .metadata()
            .get(header::SSH_ID)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let socket = self.socket(id)?;
        let agent = UnixStream::connect(socket).await.map_err(|e| {
            Status::unknown(format!("failed to connect to {}: {e}", socket.display()))
        })?;
        let requests = StreamReader::new(
            request
                .into_inner()
                .map(|m| m.map(|m| m.data).map_err(io::Error::other))
                .boxed(),
        );
        let (answers, from_us) = mpsc::channel(MAX_WAITING_ANSWERS);
        let serving = task::spawn("ssh agent", serve(requests, agent, answers));
        let end = futures::stream::once(serving).filter_map(|served| async move {
            served
                .err()
                .filter(|e| e.kind() != io::ErrorKind::UnexpectedEof)
                .map(|e| Err(Status::unknown(e.to_string())))
        });
        Ok(Response::new(
            ReceiverStream::new(from_us)
                .map(|data| Ok(BytesMessage { data }))
                .chain(end)
                .boxed(),
        ))
    }
}

async fn frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let size = usize::try_from(length).unwrap_or(usize::MAX);
    if size > MAX_FRAME_BYTES {
        return Err(io::Error::other("message of the ssh agent is too large"));
    }
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.resize(size + 4, 0);
    if let Some(body) = bytes.get_mut(4..) {
        from.read_exact(body).await?;
    }
    Ok(bytes)
}

async fn serve(
    mut requests: impl AsyncRead + Unpin,
    mut agent: UnixStream,
    answers: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    loop {
        let request = frame(&mut requests).await?;
        let answer = match request.get(4) {
            Some(&(LIST_IDENTITIES | SIGN)) => {
                agent.write_all(&request).await?;
                frame(&mut agent).await?
            }
            _ => REFUSAL.to_vec(),
        };
        if answers.send(answer.into()).await.is_err() {
            return Ok(());
        }
    }
}
