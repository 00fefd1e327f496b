//! Content digests of records, remembered in memory and in the index.
//!
//! What is remembered belongs to a snapshot, so that a mutable and its immutable twin share it. It is written to the index by
//! the keeper and when it falls out of memory; losing it costs time, nothing else.

use std::sync::Arc;

use fstree::hash::TreeHashes;
use oci::Digest;
use parking_lot::Mutex;
use rusqlite::{OptionalExtension, params};

use crate::error::StoreError;
use crate::refs::ImmutableRef;
use crate::refs::record::Record;
use crate::store::Store;

/// What of a tree a digest covers.
pub use fstree::hash::Options as HashOptions;

/// How many trees are remembered in memory.
const TREES: usize = 12;

/// Digests of recently asked trees, the most recent last.
#[derive(Debug, Default)]
pub(crate) struct HashMemory(Mutex<Vec<(String, Arc<TreeHashes>)>>);

impl HashMemory {
    fn get(&self, key: &str) -> Option<Arc<TreeHashes>> {
        let mut trees = self.0.lock();
        let at = trees.iter().position(|(k, _)| k == key)?;
        let found = trees.remove(at);
        let tree = found.1.clone();
        trees.push(found);
        Some(tree)
    }

    /// Remembers a tree unless it is known already; returns the one that is known now and the one that had to go.
    fn put(
        &self,
        key: &str,
        tree: Arc<TreeHashes>,
    ) -> (Arc<TreeHashes>, Option<(String, Arc<TreeHashes>)>) {
        let mut trees = self.0.lock();
        if let Some((_, known)) = trees.iter().find(|(k, _)| k == key) {
            return (known.clone(), None);
        }
        let gone = if trees.len() >= TREES {
            Some(trees.remove(0))
        } else {
            None
        };
        trees.push((key.to_owned(), tree.clone()));
        (tree, gone)
    }

    pub(crate) fn forget(&self, key: &str) {
        self.0.lock().retain(|(k, _)| k != key);
    }

    fn all(&self) -> Vec<(String, Arc<TreeHashes>)> {
        self.0.lock().clone()
    }
}

impl Store {
    fn tree_hashes(&self, key: &str) -> Result<Arc<TreeHashes>, StoreError> {
        if let Some(known) = self.hashes.get(key) {
            return Ok(known);
        }
        let stored: Option<Vec<u8>> = self.db().read(|c| {
            let mut s = c.prepare_cached("SELECT data FROM content_hashes WHERE key = ?1")?;
            Ok(s.query_row([key], |r| r.get(0)).optional()?)
        })?;
        // What cannot be decoded is computed again.
        let tree = stored
            .and_then(|bytes| TreeHashes::decode(&bytes).ok())
            .unwrap_or_default();
        let (tree, gone) = self.hashes.put(key, Arc::new(tree));
        if let Some((key, gone)) = gone {
            self.save_hashes(&key, &gone)?;
        }
        Ok(tree)
    }

    fn save_hashes(&self, key: &str, tree: &TreeHashes) -> Result<(), StoreError> {
        if !tree.is_dirty() {
            return Ok(());
        }
        let bytes = tree.encode();
        self.db().write_later(|c| {
            c.prepare_cached("INSERT OR REPLACE INTO content_hashes(key, data) VALUES(?1, ?2)")?
                .execute(params![key, bytes])?;
            Ok(())
        })
    }

    fn adopt_hashes(&self, key: &str, tree: Arc<TreeHashes>) -> Result<(), StoreError> {
        self.hashes.forget(key);
        match self.hashes.put(key, tree).1 {
            Some((key, gone)) => self.save_hashes(&key, &gone),
            None => Ok(()),
        }
    }

    /// Writes what was learned since the last time.
    pub(crate) fn save_all_hashes(&self) -> Result<(), StoreError> {
        for (key, tree) in self.hashes.all() {
            self.save_hashes(&key, &tree)?;
        }
        Ok(())
    }

    pub(crate) fn forget_hashes(&self, key: &str) {
        self.hashes.forget(key);
        let done = self.later(|c| {
            c.prepare_cached("DELETE FROM content_hashes WHERE key = ?1")?
                .execute([key])?;
            Ok(())
        });
        if let Err(e) = done {
            tracing::warn!(key, error = %e, "content digests not removed");
        }
    }
}

impl Record {
    fn hash_key(&self) -> String {
        self.body
            .lock()
            .snapshot
            .clone()
            .unwrap_or_else(|| self.id().to_string())
    }

    /// The digests known of this record's tree.
    pub(crate) fn hashes(&self) -> Result<Arc<TreeHashes>, StoreError> {
        self.store().tree_hashes(&self.hash_key())
    }

    pub(crate) fn adopt_hashes(&self, tree: Arc<TreeHashes>) -> Result<(), StoreError> {
        self.store().adopt_hashes(&self.hash_key(), tree)
    }

    /// Its files have changed behind the back of what is remembered.
    pub(crate) fn forget_hashes(&self) {
        self.store().forget_hashes(&self.hash_key());
    }
}

impl ImmutableRef {
    /// Returns the content digest of `path`, remembering what was learned on the way. Unpacks lazy layers.
    pub async fn content_hash(
        &self,
        path: &str,
        options: HashOptions,
    ) -> Result<Digest, StoreError> {
        self.ensure().await?;
        let this = self.clone();
        let path = path.to_owned();
        task::blocking("content-hash", move || {
            let tree = this.record().hashes()?;
            let digest =
                tree.checksum(&this.root()?, &path, &options)
                    .map_err(|e| StoreError::Hash {
                        source: Arc::new(e),
                    })?;
            this.store().note_unsynced();
            Ok(digest)
        })
        .await
    }

    /// Gives the record digests that were made while its files arrived.
    pub fn set_hashes(&self, tree: Arc<TreeHashes>) -> Result<(), StoreError> {
        self.record().adopt_hashes(tree)
    }

    /// Returns the digests known of its tree.
    pub fn hashes(&self) -> Result<Arc<TreeHashes>, StoreError> {
        self.record().hashes()
    }
}
