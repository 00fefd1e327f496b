//! A client at the other end of a tunnel, as a [`session::Session`].

mod content;
mod exports;
mod files;
mod keys;

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use session::{CallError, Connection};
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;

/// Pieces of a byte stream that may wait to be sent.
const MAX_QUEUED_PIECES: usize = 16;
/// One message of a client. Packets are small in practice; this bounds what a hostile client makes the daemon hold.
const MAX_PACKET_BYTES: usize = 4 << 20;

/// A client at the other end of a tunnel.
pub(crate) struct RemoteSession {
    id: oci::SessionId,
    shared_key: String,
    methods: HashSet<String>,
    channel: Channel,
    alive: watch::Receiver<()>,
}

impl RemoteSession {
    pub(crate) fn new(
        id: oci::SessionId,
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
    let bad = |reason: String| CallError::protocol("metadata", reason);
    // tonic's errors only repeat that the name or the value is invalid; the sentences are those of the reference.
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

#[async_trait]
impl Connection for RemoteSession {
    fn id(&self) -> &oci::SessionId {
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
