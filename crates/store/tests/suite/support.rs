//! A store in a temporary directory, and short words for what tests do with it.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use fstree::{Kind, Root};
use oci::{Descriptor, Digest};
use store::{
    BlobProvider, BlobSink, CompressionSpec, Config, FetchError, ImmutableRef, MutableRef,
    RefOptions, Shown, Store,
};
use tokio::sync::Notify;

/// Copies a state directory. No program is started for it: between fork and exec it would hold the locks of other tests' stores.
pub(crate) fn copy_state(from: &Path, to: &Path) {
    let action = fstree::action::Copy {
        src: "/".into(),
        dest: "/".into(),
        dir: fstree::action::DirCopy::Contents,
        ..fstree::action::Copy::default()
    };
    let (from, to) = (Root::open(from).unwrap(), Root::open(to).unwrap());
    fstree::action::copy(&from, &to, &action, None).unwrap();
}

pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<Store>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config::new(dir.path())).unwrap();
        Self { dir, store }
    }

    /// Ends the store in order and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { dir, store } = self;
        store.close().unwrap();
        assert_eq!(Arc::strong_count(&store), 1, "a handle outlives the store");
        drop(store);
        let store = Store::open(Config::new(dir.path())).unwrap();
        Self { dir, store }
    }

    /// A copy of the state directory as it is now: what a process leaves that is killed at this moment.
    pub(crate) fn killed(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_state(self.dir.path(), dir.path());
        let store = Store::open(Config::new(dir.path())).unwrap();
        Self { dir, store }
    }

    pub(crate) fn snapshots(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("snapshots"))
            .unwrap()
            .count()
    }

    /// Makes a step on `parent`: each word is `path=contents`, `-path` to delete, or `path/` for a directory.
    pub(crate) fn step(&self, parent: Option<&ImmutableRef>, words: &[&str]) -> ImmutableRef {
        let mutable = self
            .store
            .new_mutable(parent, RefOptions::described(words.join(" ")))
            .unwrap();
        write(&mutable, words);
        mutable.commit().unwrap()
    }

    pub(crate) fn layer_of(&self, words: &[&str]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        apply(&root, words);
        let mut out = Vec::new();
        layer::create(&root, None, &layer::CreateOptions::default(), &mut out).unwrap();
        out
    }
}

fn apply(root: &Root, words: &[&str]) {
    for word in words {
        if let Some(path) = word.strip_prefix('-') {
            root.remove_all(path).unwrap();
        } else if let Some(path) = word.strip_suffix('/') {
            let (dir, name) = root.named("create", Path::new(path)).unwrap();
            dir.create_dir(&name, 0o755).unwrap();
        } else {
            let (path, text) = word.split_once('=').unwrap();
            if root.lstat_opt(path).unwrap().is_some() {
                root.remove_all(path).unwrap();
            }
            root.create(path, 0o644)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
    }
}

pub(crate) fn write(mutable: &MutableRef, words: &[&str]) {
    apply(&mutable.root().unwrap(), words);
}

/// All files of a tree as `path=contents`, directories as `path/`, sorted.
pub(crate) fn list(root: &Root) -> String {
    fn below(root: &Root, path: &Path, out: &mut Vec<String>) {
        for entry in root.dir(path).unwrap().entries().unwrap() {
            let path = path.join(&entry.name);
            let shown = path.strip_prefix("/").unwrap().display().to_string();
            match entry.kind {
                Kind::Dir => {
                    out.push(format!("{shown}/"));
                    below(root, &path, out);
                }
                Kind::File => {
                    let bytes = root.read(&path, 1 << 20).unwrap();
                    out.push(format!("{shown}={}", String::from_utf8_lossy(&bytes)));
                }
                kind @ (Kind::Symlink | Kind::Block | Kind::Char | Kind::Fifo | Kind::Socket) => {
                    out.push(format!("{shown}:{kind:?}"));
                }
            }
        }
    }
    let mut out = Vec::new();
    below(root, Path::new("/"), &mut out);
    out.join(" ")
}

pub(crate) async fn tree(r: &ImmutableRef) -> String {
    r.ensure().await.unwrap();
    list(&r.root().unwrap())
}

/// The tree that unpacking a record's blobs one after another gives.
pub(crate) async fn unpacked(r: &ImmutableRef) -> String {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    for blob in r.blobs(CompressionSpec::default()).await.unwrap() {
        let options = layer::ApplyOptions {
            whiteouts: layer::Whiteouts::Remove,
            ..layer::ApplyOptions::default()
        };
        let mut file = blob.open().await.unwrap();
        layer::apply(&mut file, &root, &options).unwrap();
    }
    list(&root)
}

/// Serves one blob, counting how often.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fetched: AtomicUsize,
}

impl Shelf {
    pub(crate) fn of(bytes: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            bytes: bytes.to_vec(),
            fetched: AtomicUsize::new(0),
        })
    }

    pub(crate) fn times(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl BlobProvider for Shelf {
    async fn fetch(&self, _desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        for chunk in self.bytes.chunks(1000) {
            tokio::task::yield_now().await;
            sink.write(Bytes::copy_from_slice(chunk)).await?;
        }
        Ok(())
    }
}

/// Serves one blob from the second time on. The first time it breaks off after some bytes: it fails, or never goes on.
#[derive(Debug)]
pub(crate) struct SecondTime {
    shelf: Arc<Shelf>,
    breaks_after: usize,
    hangs: bool,
    began: Arc<Notify>,
    ended: Arc<Notify>,
}

impl SecondTime {
    pub(crate) fn of(bytes: &[u8], breaks_after: usize, hangs: bool) -> Arc<Self> {
        Arc::new(Self {
            shelf: Shelf::of(bytes),
            breaks_after,
            hangs,
            began: Arc::default(),
            ended: Arc::default(),
        })
    }

    /// Waits until an unpacking has begun.
    pub(crate) async fn began(&self) {
        self.began.notified().await;
    }

    /// Waits until an unpacking has ended, well or not.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }
}

#[async_trait]
impl BlobProvider for SecondTime {
    async fn fetch(&self, desc: &Descriptor, sink: &mut dyn BlobSink) -> Result<(), FetchError> {
        if self.shelf.times() > 0 {
            return self.shelf.fetch(desc, sink).await;
        }
        self.shelf.fetched.fetch_add(1, Ordering::SeqCst);
        sink.write(Bytes::copy_from_slice(
            &self.shelf.bytes[..self.breaks_after],
        ))
        .await?;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err("the line is down".into())
    }

    fn unpacking(&self, _desc: &Descriptor) -> Shown {
        struct Tell(Arc<Notify>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        self.began.notify_one();
        Box::new(Tell(self.ended.clone()))
    }
}

pub(crate) fn describe(bytes: &[u8]) -> store::LayerDesc {
    let descriptor = Descriptor::new(
        oci::media_type::OCI_LAYER_GZIP,
        Digest::sha256(bytes),
        bytes.len() as u64,
    );
    store::LayerDesc::new(descriptor, Digest::sha256(plain(bytes)), "pulled")
}

/// The tar of a layer.
pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut layer::compress::decompress(bytes).unwrap(), &mut plain)
        .unwrap();
    plain
}
