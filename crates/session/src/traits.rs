//! One connected client: a trait for each service that clients offer, and all of them together.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use oci::Digest;

use crate::error::CallError;
use crate::stream::{ByteSink, ByteStream, Duplex, PacketStream};

/// Who is connected, and what it offers. Every service of a session has it.
#[async_trait]
pub trait Connection: Send + Sync + fmt::Debug {
    /// The id under which the client connected.
    fn id(&self) -> &str;

    /// What makes folders of different sessions of one client the same (its working directory and host).
    fn shared_key(&self) -> &str;

    /// Whether the client listed this method; see [`crate::method`].
    fn supports(&self, method: &str) -> bool;

    /// Resolves when the client is gone.
    async fn closed(&self);
}

/// Folders of the client.
#[async_trait]
pub trait FileSync: Connection {
    /// Opens a folder of the client.
    async fn diff_copy(&self, request: SyncRequest) -> Result<PacketStream, CallError>;
}

/// Files and folders that the client takes.
#[async_trait]
pub trait FileSend: Connection {
    /// Opens a file to export into. `exporter` numbers the exporters of the request.
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

/// Logins and tokens of the client for registries.
#[async_trait]
pub trait Auth: Connection {
    /// Name and password for a registry; `None` when the client has none to give.
    async fn credentials(&self, host: &str) -> Result<Option<Login>, CallError>;

    /// Lets the client fetch a token.
    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CallError>;

    /// The public key for which the client will fetch tokens; `None` when it does not do that.
    async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<Bytes>, CallError>;

    /// `payload`, signed by the client with that key.
    async fn verify_token_authority(
        &self,
        host: &str,
        payload: &[u8],
        salt: &[u8],
    ) -> Result<Option<Bytes>, CallError>;
}

/// Secrets of the client.
#[async_trait]
pub trait Secrets: Connection {
    /// A secret; `None` when the client has none of that id.
    async fn secret(&self, id: &str) -> Result<Option<Secret>, CallError>;
}

/// SSH agents of the client.
#[async_trait]
pub trait Ssh: Connection {
    /// Fails when the client has no ssh agent of that id; an empty id is `default`.
    async fn check_ssh(&self, id: &str) -> Result<(), CallError>;

    /// Connects to an ssh agent of the client.
    async fn forward_ssh(&self, id: &str) -> Result<Duplex, CallError>;
}

/// Streams that the client prepared.
#[async_trait]
pub trait Upload: Connection {
    /// Takes a stream that the client prepared.
    async fn upload(&self, target: UploadTarget) -> Result<ByteStream, CallError>;
}

/// Blobs in stores of the client.
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

    /// Writes a blob into one of the client's stores. That it is there already is success.
    async fn content_write(
        &self,
        store: &str,
        blob: BlobWrite,
        bytes: ByteStream,
    ) -> Result<(), CallError>;
}

/// Exporters that the client adds to its build.
#[async_trait]
pub trait ClientExports: Connection {
    /// Exporters that the client wants to add, given the metadata of the result and its ref names.
    async fn find_exporters(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, CallError>;

    /// Tells the client what its exporters gave.
    async fn finalize_export(&self, response: BTreeMap<String, String>) -> Result<(), CallError>;
}

/// The client's say in the sources of a build.
#[async_trait]
pub trait SourcePolicy: Connection {
    /// Asks for a verdict on a source: an encoded `CheckPolicyRequest`, answered by an encoded `CheckPolicyResponse`.
    async fn check_policy(&self, request: Bytes) -> Result<Bytes, CallError>;
}

/// One connected client with all its services. Whoever needs one of them takes that one: an `Arc<dyn Session>` is an
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

/// Which files of which folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// Name of the folder, such as `context` or `dockerfile`.
    pub name: String,
    /// Only these; everything when empty.
    pub include: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// These and what their links lead to.
    pub follow: Vec<String>,
    /// Asks for what tells a changed file from one that looks the same; see [`crate::diffcopy::marks`]. Clients that do
    /// not know it leave it out.
    pub change_marks: bool,
}

/// Name and password for a registry; an empty name means that the password is a refresh token.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password or token.
    pub secret: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// What the client needs to fetch a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// Names us to the token server.
    pub client_id: String,
    /// The registry.
    pub host: String,
    /// The token server.
    pub realm: String,
    /// The service name of the challenge.
    pub service: String,
    /// The scopes.
    pub scopes: Vec<String>,
}

/// A token, fetched by the client.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token {
    /// The token.
    pub token: String,
    /// Seconds it is good for, zero if not said.
    pub expires_in: i64,
    /// Seconds since 1970, zero if not said.
    pub issued_at: i64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Bytes that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
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

/// Which prepared stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadTarget {
    /// Host part of the URL that names it.
    pub host: String,
    /// Path part of that URL.
    pub path: String,
}

/// What is known of a blob of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A blob to be written at the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobWrite {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
}

/// An exporter that the client adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExporterRequest {
    /// `image`, `local`, ….
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
}
