//! One connected client: a trait for each service that clients offer, and all of them together.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Digest, SessionId};

use crate::error::CallError;
use crate::stream::{ByteSink, ByteStream, Duplex, PacketStream};

/// Identity and methods of a connected client. Every service of a session has it.
#[async_trait]
pub trait Connection: Send + Sync + fmt::Debug {
    /// Id that the client chose when it connected.
    fn id(&self) -> &SessionId;

    /// Key that is the same for sessions of one client with the same folders (made of its working directory and host).
    fn shared_key(&self) -> &str;

    /// Whether the client listed this method; see [`crate::method`].
    fn supports(&self, method: &str) -> bool;

    /// Resolves when the client has disconnected.
    async fn closed(&self);
}

/// Service: folders of the client.
#[async_trait]
pub trait FileSync: Connection {
    /// Opens a folder of the client.
    async fn diff_copy(&self, request: SyncRequest) -> Result<PacketStream, CallError>;
}

/// Service: the client receives files and folders.
#[async_trait]
pub trait FileSend: Connection {
    /// Opens a file to export into. `exporter` is the exporter's index in the request.
    async fn send_file(
        &self,
        exporter: usize,
        metadata: &BTreeMap<String, String>,
    ) -> Result<ByteSink, CallError>;

    /// Opens a folder to export into. With `multi_platform` all platforms are sent as one tree.
    async fn send_tree(
        &self,
        exporter: usize,
        multi_platform: bool,
    ) -> Result<PacketStream, CallError>;
}

/// Service: logins and tokens of the client for registries.
#[async_trait]
pub trait Auth: Connection {
    /// Name and password for a registry; `None` if the client has none.
    async fn credentials(&self, host: &str) -> Result<Option<Login>, CallError>;

    /// Lets the client fetch a token.
    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CallError>;

    /// The public key for which the client fetches tokens; `None` if it does not fetch tokens.
    async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<Bytes>, CallError>;

    /// Has the client sign `payload` with that key.
    async fn verify_token_authority(
        &self,
        host: &str,
        payload: &[u8],
        salt: &[u8],
    ) -> Result<Option<Bytes>, CallError>;
}

/// Service: secrets of the client.
#[async_trait]
pub trait Secrets: Connection {
    /// The secret with an id; `None` if the client does not have it.
    async fn secret(&self, id: &str) -> Result<Option<Secret>, CallError>;
}

/// Service: SSH agents of the client.
#[async_trait]
pub trait Ssh: Connection {
    /// Fails if the client has no SSH agent with this id; an empty id is `default`.
    async fn check_ssh(&self, id: &str) -> Result<(), CallError>;

    /// Connects to an ssh agent of the client.
    async fn forward_ssh(&self, id: &str) -> Result<Duplex, CallError>;
}

/// Service: streams that the client prepared.
#[async_trait]
pub trait Upload: Connection {
    /// Opens a prepared stream, once.
    async fn upload(&self, target: UploadTarget) -> Result<ByteStream, CallError>;
}

/// Service: blobs in stores of the client.
#[async_trait]
pub trait ContentStore: Connection {
    /// Size and labels of a blob in one of the client's stores.
    async fn content_info(&self, store: &str, digest: &Digest) -> Result<BlobInfo, CallError>;

    /// Bytes of a blob from `offset` on; `size` zero is all of them. The receiver verifies the digest.
    async fn content_read(
        &self,
        store: &str,
        digest: &Digest,
        offset: u64,
        size: u64,
    ) -> Result<ByteStream, CallError>;

    /// Writes a blob into one of the client's stores. An existing blob is success.
    async fn content_write(
        &self,
        store: &str,
        blob: BlobWrite,
        bytes: ByteStream,
    ) -> Result<(), CallError>;
}

/// Service: exporters that the client adds to its build.
#[async_trait]
pub trait ClientExports: Connection {
    /// Exporters that the client adds, given the metadata of the result and the names of its refs.
    async fn find_exporters(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, CallError>;

    /// Sends the client the answers of its exporters.
    async fn finalize_export(&self, response: BTreeMap<String, String>) -> Result<(), CallError>;
}

/// Service: the client decides on sources of a build.
#[async_trait]
pub trait SourcePolicy: Connection {
    /// Asks for a verdict on a source: an encoded `CheckPolicyRequest`, answered by an encoded `CheckPolicyResponse`.
    async fn check_policy(&self, request: Bytes) -> Result<Bytes, CallError>;
}

/// One connected client with all its services. Code that needs one service takes that trait: an `Arc<dyn Session>` is an
/// `Arc<dyn Secrets>` too. Dropping the future of a call cancels the call.
pub trait Session:
    FileSync + FileSend + Auth + Secrets + Ssh + Upload + ContentStore + ClientExports + SourcePolicy
{
}

impl<T> Session for T where
    T: FileSync
        + FileSend
        + Auth
        + Secrets
        + Ssh
        + Upload
        + ContentStore
        + ClientExports
        + SourcePolicy
{
}

/// A request for files of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// Name of the folder, such as `context` or `dockerfile`.
    pub name: String,
    /// Patterns of files to send; empty for all.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// Paths to send together with the targets of their symlinks.
    pub follow: Vec<String>,
    /// Requests marks that distinguish a changed file from one that looks the same; see [`crate::diffcopy::marks`]. Clients that do
    /// not know marks send none.
    pub change_marks: bool,
}

/// Name and password for a registry; an empty name means that the password is a refresh token.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// Name of the user; empty if `secret` is a refresh token.
    pub username: String,
    /// Password or token.
    pub secret: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// A request to fetch a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Name of this program for the token server.
    pub client_id: String,
    /// Host of the registry.
    pub host: String,
    /// URL of the token server.
    pub realm: String,
    /// Service in the registry's challenge.
    pub service: String,
    /// Requested scopes.
    pub scopes: Vec<String>,
}

/// A token, fetched by the client.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// Value of the token.
    pub token: String,
    /// Lifetime in seconds, zero if unknown.
    pub expires_in: i64,
    /// Time of issue in seconds since 1970, zero if unknown.
    pub issued_at: i64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Bytes of a secret, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    /// Wraps the bytes.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn expose(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The address of a prepared stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadTarget {
    /// Host part of the URL that names it.
    pub host: String,
    /// Path part of that URL.
    pub path: String,
}

/// Metadata of a client's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Labels of the blob in the store.
    pub labels: BTreeMap<String, String>,
}

/// A blob to be written into a client's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobWrite {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
}

/// An exporter that the client adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExporterRequest {
    /// `image`, `local`, ….
    pub kind: String,
    /// Attributes of that kind.
    pub attrs: BTreeMap<String, String>,
}
