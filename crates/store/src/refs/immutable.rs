//! Records that do not change any more.

use std::sync::Arc;
use std::time::SystemTime;

use fstree::Root;
use fstree::hash::TreeHashes;
use oci::Digest;

use crate::error::StoreError;
use crate::id::RefId;
use crate::kind::{RecordType, RefKind};
use crate::provider::BlobProvider;
use crate::snapshot::MountFd;
use crate::store::Store;
use crate::store::record::Record;

/// The part of a tree that a digest covers.
pub use fstree::hash::Options as HashOptions;

/// A handle of an immutable record, which protects the record and all it stands on. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ImmutableRef {
    record: Arc<Record>,
}

impl PartialEq for ImmutableRef {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for ImmutableRef {}

impl ImmutableRef {
    pub(crate) fn new(record: Arc<Record>) -> Self {
        record.mark_used();
        Self { record }
    }

    /// A handle that does not count as a use.
    pub(crate) fn quiet(record: Arc<Record>) -> Self {
        Self { record }
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Returns the record's name.
    pub fn id(&self) -> &RefId {
        self.record.id()
    }

    /// Returns the store it is in.
    pub fn store(&self) -> &Arc<Store> {
        self.record.store()
    }

    /// Returns what the record is composed of.
    pub fn kind(&self) -> RefKind {
        self.record.kind()
    }

    /// Returns what made it.
    pub fn description(&self) -> String {
        self.record.body.lock().description.clone()
    }

    /// Returns the type of its content.
    pub fn record_type(&self) -> RecordType {
        self.record.body.lock().record_type.clone()
    }

    /// Changes the type, for instance when an image turns out to be a frontend.
    pub fn set_record_type(&self, record_type: RecordType) -> Result<(), StoreError> {
        self.store().later(|c| {
            c.prepare_cached("UPDATE refs SET record_type = ?2 WHERE id = ?1")?
                .execute([self.id().as_str(), record_type.as_str()])?;
            Ok(())
        })?;
        self.record.body.lock().record_type = record_type;
        Ok(())
    }

    /// Returns when it was made.
    pub fn created_at(&self) -> SystemTime {
        self.record.body.lock().created
    }

    /// Returns the layers its tree is stacked from, base first.
    pub fn chain(&self) -> Vec<Self> {
        self.record
            .layers()
            .into_iter()
            .map(|record| Self { record })
            .collect()
    }

    /// Returns what it stands on directly: the parent; the merged; lower and upper.
    pub fn parents(&self) -> Vec<Self> {
        self.record
            .parents()
            .into_iter()
            .map(|r| Self { record: r.clone() })
            .collect()
    }

    /// Returns the digest over the diff ids of its chain, for layers that came from images.
    pub fn chain_id(&self) -> Option<Digest> {
        self.record.body.lock().chain_id.clone()
    }

    /// Returns whether some layer of it is not unpacked yet.
    pub fn is_lazy(&self) -> bool {
        self.record.layers().iter().any(|r| r.body.lock().lazy)
    }

    /// Returns whether every layer is in the store or has a provider that could fetch it.
    pub fn is_reachable(&self) -> bool {
        self.record
            .layers()
            .iter()
            .all(|r| !r.body.lock().lazy || r.can_fetch())
    }

    /// Adds a provider that can fetch a lazy layer's blob.
    pub fn add_provider(&self, digest: &Digest, provider: Arc<dyn BlobProvider>) {
        self.record.add_provider(digest, provider);
    }

    /// Fetches and unpacks lazy layers, and makes what else a mount of the tree needs; returns at once if nothing is missing.
    /// Dropping the future is safe: complete layers stay, others leave nothing behind.
    pub async fn ensure(&self) -> Result<(), StoreError> {
        self.record.ensure().await
    }

    /// Mounts its tree read-only, attached nowhere. Call [`Self::ensure`] first.
    pub fn mount(&self) -> Result<MountFd, StoreError> {
        self.mount_for(None)
    }

    /// The same for a container with the user namespace of `ids`.
    pub fn mount_for(&self, ids: Option<&sys::userns::IdMapping>) -> Result<MountFd, StoreError> {
        let (stack, plain) = self.record.stack_and_plain()?;
        self.store().snapshots().view_for(&stack, plain, ids)
    }

    /// Returns its tree, read-only. Call [`Self::ensure`] first.
    pub fn root(&self) -> Result<Root, StoreError> {
        let mount = self.mount()?;
        Root::from_fd(mount.into())
            .map_err(|e| StoreError::layer("open tree of", self.id().as_str(), e))
    }

    /// Returns the directory of its own layer, whiteouts included.
    pub fn upper(&self) -> Result<Root, StoreError> {
        let snapshot = self.record.body.lock().snapshot.clone();
        let snapshot = snapshot.ok_or(StoreError::Unfit {
            id: self.id().clone(),
            why: "has no files of its own",
        })?;
        let fd = self.store().snapshots().upper(&snapshot)?;
        Root::from_fd(fd).map_err(|e| StoreError::layer("open files of", self.id().as_str(), e))
    }

    /// Returns the bytes on disk of what it adds; counted once, then remembered. Blocks while counting.
    pub fn size(&self) -> Result<i64, StoreError> {
        self.record.size()
    }

    /// Returns the value kept under `key`.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store().meta(self.id(), key)
    }

    /// Keeps a value under `key`; see [`Store::find_meta`].
    pub fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.store().set_meta(self.id(), key, value)
    }

    /// Returns the content digest of `path`, and caches the digests computed for it. Unpacks lazy layers.
    pub async fn content_hash(
        &self,
        path: &str,
        options: HashOptions,
    ) -> Result<Digest, StoreError> {
        self.ensure().await?;
        let reference = self.clone();
        let path = path.to_owned();
        task::blocking("content-hash", move || {
            let tree = reference.record().hashes()?;
            let digest = tree
                .checksum(&reference.root()?, &path, &options)
                .map_err(|e| StoreError::Hash {
                    source: Arc::new(e),
                })?;
            reference.store().note_unsynced();
            Ok(digest)
        })
        .await
    }

    /// Stores digests that were computed while the files arrived.
    pub fn set_hashes(&self, tree: Arc<TreeHashes>) -> Result<(), StoreError> {
        self.record().adopt_hashes(tree)
    }

    /// Returns the digests known of its tree.
    pub fn hashes(&self) -> Result<Arc<TreeHashes>, StoreError> {
        self.record().hashes()
    }
}
