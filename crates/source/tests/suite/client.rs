//! A client in this process, and the rest of what a source needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use fstree::Root;
use fstree::walk::Filter;
use oci::Digest;
use session::diffcopy::{FilteredTree, SendOptions, send};
use session::{
    Auth, BlobInfo, BlobWrite, ByteSink, ByteStream, CallError, ClientExports, Connection,
    ContentStore, Duplex, ExporterRequest, FileSend, FileSync, Group, Login, PacketStream,
    Registration, Secret, Secrets, SessionManager, SourcePolicy, Ssh, SyncRequest, Token,
    TokenRequest, Upload, UploadTarget,
};
use source::Context;
use store::{Config, ImmutableRef, Store};

#[derive(Debug)]
pub(crate) struct Client {
    id: oci::SessionId,
    pub(crate) dir: PathBuf,
    pub(crate) secrets: BTreeMap<String, String>,
    /// Bytes of files and lists that were sent.
    pub(crate) sent: Arc<AtomicU64>,
    /// Whether it is a client of ours.
    pub(crate) tells_changes: bool,
}

impl Client {
    pub(crate) fn new(id: &str, dir: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            dir: dir.into(),
            secrets: BTreeMap::new(),
            sent: Arc::default(),
            tells_changes: false,
        }
    }
}

fn unsupported<T>() -> Result<T, CallError> {
    Err(CallError::Unsupported { method: "test" })
}

#[async_trait]
impl Connection for Client {
    fn id(&self) -> &oci::SessionId {
        &self.id
    }

    fn shared_key(&self) -> &str {
        "shared"
    }

    fn supports(&self, _method: &str) -> bool {
        true
    }

    async fn closed(&self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl FileSync for Client {
    async fn diff_copy(&self, request: SyncRequest) -> Result<PacketStream, CallError> {
        let (ours, theirs) = PacketStream::pair();
        let filter = Filter {
            include: request.include,
            exclude: request.exclude,
            follow: request.follow,
        };
        let tree = FilteredTree {
            root: Root::open(&self.dir).unwrap(),
            filter,
            map: None,
            change_marks: request.change_marks && self.tells_changes,
        };
        let sent = self.sent.clone();
        sent.store(0, Ordering::SeqCst);
        task::spawn("client", async move {
            let count: Arc<dyn Fn(u64) + Send + Sync> =
                Arc::new(move |n| sent.store(n, Ordering::SeqCst));
            let options = SendOptions {
                progress: Some(count),
                ..SendOptions::default()
            };
            let _sent = send(theirs, Arc::new(tree), options).await;
        })
        .detach();
        Ok(ours)
    }
}

#[async_trait]
impl FileSend for Client {
    async fn send_file(
        &self,
        _exporter: usize,
        _metadata: &BTreeMap<String, String>,
    ) -> Result<ByteSink, CallError> {
        unsupported()
    }

    async fn send_tree(
        &self,
        _exporter: usize,
        _multi_platform: bool,
    ) -> Result<PacketStream, CallError> {
        unsupported()
    }
}

#[async_trait]
impl Auth for Client {
    async fn credentials(&self, _host: &str) -> Result<Option<Login>, CallError> {
        Ok(None)
    }

    async fn fetch_token(&self, _request: TokenRequest) -> Result<Token, CallError> {
        unsupported()
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
impl Secrets for Client {
    async fn secret(&self, id: &str) -> Result<Option<Secret>, CallError> {
        Ok(self
            .secrets
            .get(id)
            .map(|s| Secret::new(Bytes::from(s.clone()))))
    }
}

#[async_trait]
impl Ssh for Client {
    async fn check_ssh(&self, _id: &str) -> Result<(), CallError> {
        unsupported()
    }

    async fn forward_ssh(&self, _id: &str) -> Result<Duplex, CallError> {
        unsupported()
    }
}

#[async_trait]
impl Upload for Client {
    async fn upload(&self, target: UploadTarget) -> Result<ByteStream, CallError> {
        assert_eq!(target.host, "buildkit-session");
        let bytes = Bytes::from(format!("uploaded {}", target.path));
        Ok(Box::pin(futures::stream::iter([Ok(bytes)])))
    }
}

#[async_trait]
impl ContentStore for Client {
    async fn content_info(&self, _store: &str, digest: &Digest) -> Result<BlobInfo, CallError> {
        Ok(BlobInfo {
            digest: digest.clone(),
            size: 0,
            labels: BTreeMap::new(),
        })
    }

    async fn content_read(
        &self,
        store: &str,
        digest: &Digest,
        _offset: u64,
        _size: u64,
    ) -> Result<ByteStream, CallError> {
        assert_eq!(store, "oci:layout");
        let file = self.dir.join(digest.hex());
        let not_found = CallError::Status {
            code: 5,
            message: format!("{digest}: not found"),
            details: Bytes::new(),
        };
        let bytes = std::fs::read(file).map_err(|_| not_found)?;
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(bytes))])))
    }

    async fn content_write(
        &self,
        _store: &str,
        _blob: BlobWrite,
        _bytes: ByteStream,
    ) -> Result<(), CallError> {
        unsupported()
    }
}

#[async_trait]
impl ClientExports for Client {
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
impl SourcePolicy for Client {
    async fn check_policy(&self, _request: Bytes) -> Result<Bytes, CallError> {
        unsupported()
    }
}

/// A store, and clients that are connected to it.
pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) manager: Arc<SessionManager>,
    registered: Vec<Registration>,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    /// `None` where the test cannot run.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            testkit::skip::skip("needs root for mounts");
            return None;
        }
        let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let store = Store::open(Config::new(state)).unwrap();
        Some(Self {
            store,
            manager: SessionManager::new(),
            registered: Vec::new(),
            dir,
        })
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn connect(&mut self, client: Client) -> Context {
        let id = client.id.clone();
        self.registered
            .push(self.manager.register(Arc::new(client)).unwrap());
        Context::new(Group::new(self.manager.clone(), [id]), writer())
    }

    pub(crate) fn alone(&self) -> Context {
        Context::new(Group::none(), writer())
    }
}

fn writer() -> progress::Writer {
    progress::Writer::null()
}

pub(crate) fn attrs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

pub(crate) fn write(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// The files of a result: path and text.
pub(crate) fn files(snapshot: &ImmutableRef) -> Vec<(String, String)> {
    let root = snapshot.root().unwrap();
    let mut out = Vec::new();
    for stat in fstree::walk::Walk::new(&root, &Filter::default()).unwrap() {
        let stat = stat.unwrap();
        if stat.is_file() {
            let text = String::from_utf8(root.read(&stat.path, 1 << 20).unwrap()).unwrap();
            out.push((stat.path.to_string_lossy().into_owned(), text));
        }
    }
    out
}

pub(crate) fn listed(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}
