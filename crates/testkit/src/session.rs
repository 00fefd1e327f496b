//! A client in this process: what it serves is data, and the calls that it gets are recorded.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fstree::Root;
use fstree::walk::Filter;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use oci::Digest;
use parking_lot::Mutex;
use session::diffcopy::{FilteredTree, SendOptions, send};
use session::error::code;
use session::stream::PACKETS_IN_FLIGHT;
use session::{
    Auth, BlobInfo, BlobWrite, ByteSink, ByteStream, CallError, ClientExports, Connection,
    ContentStore, Duplex, ExporterRequest, FileSend, FileSync, Login, Packet, PacketStream,
    Registration, Secret, Secrets, SessionManager, SourcePolicy, Ssh, SyncRequest, Token,
    TokenRequest, Upload, UploadTarget,
};
use tokio::sync::{mpsc, watch};

/// A session without a connection. Build it with the methods that take `self`, then [`MemorySession::connect`] it.
#[derive(Debug)]
pub struct MemorySession {
    id: oci::SessionId,
    secrets: Option<BTreeMap<String, Bytes>>,
    agents: Option<Vec<String>>,
    folders: BTreeMap<String, PathBuf>,
    scripts: BTreeMap<String, Script<Packet>>,
    uploads: BTreeMap<String, Script<Bytes>>,
    logins: BTreeMap<String, Login>,
    silent: bool,
    calls: Mutex<Vec<String>>,
    called: watch::Sender<usize>,
}

/// How a scripted stream goes on after its last item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The client closes it.
    Closed,
    /// The client sends nothing more and leaves it open.
    Silent,
}

/// What a client sends on one stream.
#[derive(Debug, Clone)]
struct Script<T> {
    items: Vec<T>,
    /// The time before each item.
    pause: Duration,
    end: StreamEnd,
}

impl<T: Clone + Send + Sync + 'static> Script<T> {
    fn stream(&self) -> BoxStream<'static, Result<T, CallError>> {
        let (items, pause, end) = (self.items.clone(), self.pause, self.end);
        let items = futures::stream::iter(items).then(move |item| async move {
            if !pause.is_zero() {
                task::clock::sleep(pause).await;
            }
            Ok(item)
        });
        match end {
            StreamEnd::Closed => items.boxed(),
            StreamEnd::Silent => items.chain(futures::stream::pending()).boxed(),
        }
    }
}

impl MemorySession {
    /// A client that serves nothing: each call is one that it does not support.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            secrets: None,
            agents: None,
            folders: BTreeMap::new(),
            scripts: BTreeMap::new(),
            uploads: BTreeMap::new(),
            logins: BTreeMap::new(),
            silent: false,
            calls: Mutex::default(),
            called: watch::Sender::new(0),
        }
    }

    /// It has these secrets, and says of others that it has none.
    #[must_use]
    pub fn secrets<const N: usize>(mut self, secrets: [(&str, &[u8]); N]) -> Self {
        let secret = |(id, bytes): (&str, &[u8])| (id.to_owned(), Bytes::copy_from_slice(bytes));
        self.secrets = Some(secrets.map(secret).into());
        self
    }

    /// It has these ssh agents, whose answer to anything is the same bytes.
    #[must_use]
    pub fn agents<const N: usize>(mut self, ids: [&str; N]) -> Self {
        self.agents = Some(ids.map(str::to_owned).into());
        self
    }

    /// It serves a folder under `name`.
    #[must_use]
    pub fn folder(mut self, name: &str, path: impl Into<PathBuf>) -> Self {
        self.folders.insert(name.into(), path.into());
        self
    }

    /// It sends these packets for the folder `name`, whatever it is asked for.
    #[must_use]
    pub fn scripted_folder(mut self, name: &str, packets: Vec<Packet>, end: StreamEnd) -> Self {
        let script = Script {
            items: packets,
            pause: Duration::ZERO,
            end,
        };
        self.scripts.insert(name.into(), script);
        self
    }

    /// It sends these pieces as the upload of `path`, with a pause before each.
    #[must_use]
    pub fn slow_upload<const N: usize>(
        mut self,
        path: &str,
        pieces: [&'static str; N],
        pause: Duration,
        end: StreamEnd,
    ) -> Self {
        let items = pieces.map(Bytes::from).into();
        let script = Script { items, pause, end };
        self.uploads.insert(path.into(), script);
        self
    }

    /// It has a login for a registry.
    #[must_use]
    pub fn login(mut self, host: &str, username: &str, secret: &str) -> Self {
        let login = Login {
            username: username.into(),
            secret: secret.into(),
        };
        self.logins.insert(host.into(), login);
        self
    }

    /// It answers nothing at all, and stays connected.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Connects it until the registration is dropped.
    pub fn connect(self, manager: &Arc<SessionManager>) -> (Arc<Self>, Registration) {
        let session = Arc::new(self);
        let registration = manager.register(Arc::clone(&session) as _).unwrap();
        (session, registration)
    }

    /// The calls of the daemon so far, such as `secret token`.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().clone()
    }

    /// Waits until it was asked `count` times in all.
    pub async fn wait_for_calls(&self, count: usize) {
        let mut called = self.called.subscribe();
        called.wait_for(|calls| *calls >= count).await.unwrap();
    }

    async fn record_call(&self, call: String) {
        self.calls.lock().push(call);
        self.called.send_modify(|calls| *calls += 1);
        if self.silent {
            std::future::pending::<()>().await;
        }
    }
}

fn unsupported<T>(method: &'static str) -> Result<T, CallError> {
    Err(CallError::Unsupported { method })
}

fn echo() -> Duplex {
    let (outgoing, mut from_us) = mpsc::channel::<Bytes>(16);
    let incoming =
        futures::stream::poll_fn(move |cx| from_us.poll_recv(cx).map(|chunk| chunk.map(Ok)));
    Duplex {
        incoming: Box::pin(incoming),
        outgoing,
    }
}

#[async_trait]
impl Connection for MemorySession {
    fn id(&self) -> &oci::SessionId {
        &self.id
    }

    fn shared_key(&self) -> &str {
        self.id.as_str()
    }

    fn supports(&self, _method: &str) -> bool {
        true
    }

    async fn closed(&self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl FileSync for MemorySession {
    async fn diff_copy(&self, request: SyncRequest) -> Result<PacketStream, CallError> {
        self.record_call(format!("folder {}", request.name)).await;
        if let Some(script) = self.scripts.get(&request.name) {
            let (outgoing, requests) = mpsc::channel(PACKETS_IN_FLIGHT);
            let packets = script.stream().map(move |packet| {
                // Requests are taken and not answered.
                let _taken = &requests;
                packet
            });
            return Ok(PacketStream {
                incoming: packets.boxed(),
                outgoing,
            });
        }
        let Some(folder) = self.folders.get(&request.name) else {
            return Err(CallError::NoLocalSources);
        };
        let (ours, theirs) = PacketStream::pair();
        let tree = FilteredTree {
            root: Root::open(folder).unwrap(),
            filter: Filter {
                include: request.include,
                exclude: request.exclude,
                follow: request.follow,
            },
            map: None,
            change_marks: request.change_marks,
        };
        task::spawn("client in memory", async move {
            // The receiver may have had enough.
            drop(send(theirs, Arc::new(tree), SendOptions::default()).await);
        })
        .detach();
        Ok(ours)
    }
}

#[async_trait]
impl FileSend for MemorySession {
    async fn send_file(
        &self,
        exporter: usize,
        _metadata: &BTreeMap<String, String>,
    ) -> Result<ByteSink, CallError> {
        self.record_call(format!("file {exporter}")).await;
        unsupported("send_file")
    }

    async fn send_tree(
        &self,
        exporter: usize,
        _multi_platform: bool,
    ) -> Result<PacketStream, CallError> {
        self.record_call(format!("tree {exporter}")).await;
        unsupported("send_tree")
    }
}

#[async_trait]
impl Auth for MemorySession {
    async fn credentials(&self, host: &str) -> Result<Option<Login>, CallError> {
        self.record_call(format!("login {host}")).await;
        Ok(self.logins.get(host).cloned())
    }

    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, CallError> {
        self.record_call(format!("token {}", request.host)).await;
        unsupported("fetch_token")
    }

    async fn token_authority(&self, _host: &str, _salt: &[u8]) -> Result<Option<Bytes>, CallError> {
        Ok(None)
    }

    async fn verify_token_authority(
        &self,
        _host: &str,
        _payload: &[u8],
        _salt: &[u8],
    ) -> Result<Option<Bytes>, CallError> {
        Ok(None)
    }
}

#[async_trait]
impl Secrets for MemorySession {
    async fn secret(&self, id: &str) -> Result<Option<Secret>, CallError> {
        self.record_call(format!("secret {id}")).await;
        match &self.secrets {
            None => unsupported("secret"),
            Some(secrets) => Ok(secrets.get(id).cloned().map(Secret::new)),
        }
    }
}

#[async_trait]
impl Ssh for MemorySession {
    async fn check_ssh(&self, id: &str) -> Result<(), CallError> {
        self.record_call(format!("agent {id}")).await;
        match &self.agents {
            None => unsupported("check_ssh"),
            Some(agents) if agents.iter().any(|agent| agent == id) => Ok(()),
            Some(_) => Err(CallError::Status {
                code: code::UNKNOWN,
                message: format!("unset ssh forward key {id}"),
                details: Bytes::new(),
            }),
        }
    }

    async fn forward_ssh(&self, id: &str) -> Result<Duplex, CallError> {
        self.record_call(format!("connection {id}")).await;
        Ok(echo())
    }
}

#[async_trait]
impl Upload for MemorySession {
    async fn upload(&self, target: UploadTarget) -> Result<ByteStream, CallError> {
        self.record_call(format!("upload {}", target.path)).await;
        match self.uploads.get(&target.path) {
            None => unsupported("upload"),
            Some(script) => Ok(script.stream()),
        }
    }
}

#[async_trait]
impl ContentStore for MemorySession {
    async fn content_info(&self, store: &str, digest: &Digest) -> Result<BlobInfo, CallError> {
        self.record_call(format!("blob {store} {digest}")).await;
        unsupported("content_info")
    }

    async fn content_read(
        &self,
        store: &str,
        digest: &Digest,
        _offset: u64,
        _size: u64,
    ) -> Result<ByteStream, CallError> {
        self.record_call(format!("read {store} {digest}")).await;
        unsupported("content_read")
    }

    async fn content_write(
        &self,
        store: &str,
        blob: BlobWrite,
        _bytes: ByteStream,
    ) -> Result<(), CallError> {
        self.record_call(format!("write {store} {}", blob.digest))
            .await;
        unsupported("content_write")
    }
}

#[async_trait]
impl ClientExports for MemorySession {
    async fn find_exporters(
        &self,
        _metadata: BTreeMap<String, Bytes>,
        _refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, CallError> {
        Ok(Vec::new())
    }

    async fn finalize_export(&self, _response: BTreeMap<String, String>) -> Result<(), CallError> {
        Ok(())
    }
}

#[async_trait]
impl SourcePolicy for MemorySession {
    async fn check_policy(&self, _request: Bytes) -> Result<Bytes, CallError> {
        self.record_call("policy".into()).await;
        unsupported("check_policy")
    }
}
