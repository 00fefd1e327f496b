//! Content digests of records, cached in memory and in the index.
//!
//! The digests belong to a snapshot, so that a mutable and its immutable twin share them. The keeper writes them to the index, as
//! does dropping them from memory; to lose them costs time only.

use std::sync::Arc;

use fstree::hash::TreeHashes;
use rusqlite::{OptionalExtension, params};

use crate::error::StoreError;
use crate::store::Store;
use crate::store::record::Record;

impl Store {
    fn tree_hashes(&self, key: &str) -> Result<Arc<TreeHashes>, StoreError> {
        if let Some(hashes) = self.hashes.get(key) {
            return Ok(hashes);
        }
        let stored: Option<Vec<u8>> = self.db().read(|c| {
            let mut s = c.prepare_cached("SELECT data FROM content_hashes WHERE key = ?1")?;
            Ok(s.query_row([key], |r| r.get(0)).optional()?)
        })?;
        // Digests that cannot be decoded are computed again.
        let tree = stored
            .and_then(|bytes| TreeHashes::decode(&bytes).ok())
            .unwrap_or_default();
        let (tree, evicted) = self.hashes.put(key, Arc::new(tree));
        if let Some((key, evicted)) = evicted {
            self.save_hashes(&key, &evicted)?;
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
            Some((key, evicted)) => self.save_hashes(&key, &evicted),
            None => Ok(()),
        }
    }

    /// Writes the digests that are new since the last time.
    pub(crate) fn save_all_hashes(&self) -> Result<(), StoreError> {
        for (key, tree) in self.hashes.all() {
            self.save_hashes(&key, &tree)?;
        }
        Ok(())
    }

    pub(crate) fn forget_hashes(&self, key: &str) {
        self.hashes.forget(key);
        let queued = self.later(|c| {
            c.prepare_cached("DELETE FROM content_hashes WHERE key = ?1")?
                .execute([key])?;
            Ok(())
        });
        if let Err(e) = queued {
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

    /// Drops the digests, because the files have changed.
    pub(crate) fn forget_hashes(&self) {
        self.store().forget_hashes(&self.hash_key());
    }
}
