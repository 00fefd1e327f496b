//! A client that takes exports, and a result to export.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use exporter::{ExportContext, ExportSource};
use fstree::Root;
use futures::{FutureExt, StreamExt};
use oci::Digest;
use parking_lot::Mutex;
use session::diffcopy::{ReceiveOptions, receive};
use session::{
    Auth, BlobInfo, BlobWrite, ByteSink, ByteStream, CallError, ClientExports, Connection,
    ContentStore, Duplex, ExporterRequest, FileSend, FileSync, Group, Login, PacketStream,
    Registration, Secret, Secrets, SessionManager, SourcePolicy, Ssh, SyncRequest, Token,
    TokenRequest, Upload, UploadTarget,
};
use store::{Config, ImmutableRef, RefOptions, Store};

#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) file: Vec<u8>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) blobs: Vec<(Digest, u64)>,
    pub(crate) trees: usize,
    /// Streams that were opened.
    pub(crate) opened: usize,
    /// The client takes nothing any more.
    pub(crate) stalls: bool,
}

#[derive(Debug)]
struct Client {
    id: oci::SessionId,
    dir: PathBuf,
    received: Arc<Mutex<Received>>,
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
        ""
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
    async fn diff_copy(&self, _request: SyncRequest) -> Result<PacketStream, CallError> {
        unsupported()
    }
}

#[async_trait]
impl FileSend for Client {
    async fn send_file(
        &self,
        _exporter: usize,
        metadata: &BTreeMap<String, String>,
    ) -> Result<ByteSink, CallError> {
        self.received.lock().metadata = metadata.clone();
        let received = self.received.clone();
        let (to, mut from) = tokio::sync::mpsc::channel::<Bytes>(4);
        received.lock().opened += 1;
        if received.lock().stalls {
            let stalled = async move {
                let _open = from;
                std::future::pending().await
            };
            return Ok(ByteSink::new(to, stalled.boxed()));
        }
        let taking = task::spawn("client", async move {
            while let Some(chunk) = from.recv().await {
                received.lock().file.extend_from_slice(&chunk);
            }
            Ok(())
        });
        Ok(ByteSink::new(to, taking.boxed()))
    }

    async fn send_tree(
        &self,
        _exporter: usize,
        _multi_platform: bool,
    ) -> Result<PacketStream, CallError> {
        let (ours, theirs) = PacketStream::pair();
        self.received.lock().trees += 1;
        self.received.lock().opened += 1;
        if self.received.lock().stalls {
            let open = task::spawn("client", async move {
                let _open = theirs;
                std::future::pending::<()>().await;
            });
            open.detach();
            return Ok(ours);
        }
        let root = Root::open(&self.dir).unwrap();
        task::spawn("client", async move {
            let options = ReceiveOptions {
                merge: true,
                ..ReceiveOptions::default()
            };
            receive(theirs, root, options).await.unwrap();
        })
        .detach();
        Ok(ours)
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
    async fn secret(&self, _id: &str) -> Result<Option<Secret>, CallError> {
        Ok(None)
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
    async fn upload(&self, _target: UploadTarget) -> Result<ByteStream, CallError> {
        unsupported()
    }
}

#[async_trait]
impl ContentStore for Client {
    async fn content_info(&self, _store: &str, _digest: &Digest) -> Result<BlobInfo, CallError> {
        unsupported()
    }

    async fn content_read(
        &self,
        _store: &str,
        _digest: &Digest,
        _offset: u64,
        _size: u64,
    ) -> Result<ByteStream, CallError> {
        unsupported()
    }

    async fn content_write(
        &self,
        store: &str,
        blob: BlobWrite,
        mut bytes: ByteStream,
    ) -> Result<(), CallError> {
        assert_eq!(store, "export");
        let mut all = Vec::new();
        while let Some(chunk) = bytes.next().await {
            all.extend_from_slice(&chunk?);
        }
        assert_eq!(
            (Digest::sha256(&all), all.len() as u64),
            (blob.digest.clone(), blob.size)
        );
        self.received.lock().blobs.push((blob.digest, blob.size));
        Ok(())
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

/// A store, and a client to export to.
pub(crate) struct World {
    pub(crate) store: Arc<Store>,
    pub(crate) ctx: ExportContext,
    pub(crate) received: Arc<Mutex<Received>>,
    pub(crate) dir: tempfile::TempDir,
    _registered: Registration,
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
        for name in ["state", "out"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let store = Store::open(Config::new(dir.path().join("state"))).unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let manager = SessionManager::new();
        let client = Client {
            id: "client".into(),
            dir: dir.path().join("out"),
            received: received.clone(),
        };
        let registered = manager.register(Arc::new(client)).unwrap();
        let sessions = Group::new(manager, ["client"]);
        let ctx = ExportContext {
            sessions,
            progress: writer(),
            inline_cache: None,
        };
        Some(Self {
            store,
            ctx,
            received,
            dir,
            _registered: registered,
        })
    }

    /// A layer with these files on top of another.
    pub(crate) fn layer(
        &self,
        parent: Option<&ImmutableRef>,
        description: &str,
        files: &[(&str, &str)],
    ) -> ImmutableRef {
        let options = RefOptions {
            description: description.into(),
            ..RefOptions::default()
        };
        let mutable = self.store.new_mutable(parent, options).unwrap();
        let root = mutable.root().unwrap();
        for (path, text) in files {
            if let Some((folder, _)) = path.rsplit_once('/') {
                root.mkdir_all(folder, 0o755, None, None).unwrap();
            }
            root.create(path, 0o644)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        drop(root);
        mutable.commit().unwrap()
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

pub(crate) fn single(reference: ImmutableRef, config: &str) -> ExportSource {
    let metadata = BTreeMap::from([(
        "containerimage.config".to_owned(),
        config.as_bytes().to_vec(),
    )]);
    ExportSource {
        single: Some(reference),
        metadata,
        ..ExportSource::default()
    }
}
