//! The state of a running daemon for operators, and draining.

use std::sync::Arc;

use oci::Digest;
use solver::{KeyStore, KeyStoreError, WaitGraph};

use crate::api::{
    CacheParentLine, CacheRecordLine, CacheRecordLines, Failure, FailureKind, RunningBuild,
    StoreSize,
};
use crate::engine::Engine;

/// Number of cache records that one answer lists.
const MAX_CACHE_RECORDS: usize = 10_000;

impl Engine {
    /// The running builds, oldest first.
    #[must_use]
    pub fn running(&self) -> Vec<RunningBuild> {
        self.services().history.running()
    }

    /// The steps that are being built and those that wait for others.
    #[must_use]
    pub fn waits(&self) -> WaitGraph {
        self.services().solver.waits()
    }

    /// Refuses new builds; running ones continue.
    pub fn refuse_builds(&self) {
        self.services().history.refuse();
    }

    /// Returns when no build runs and all records are written.
    pub async fn idle(&self) {
        self.services().history.idle().await;
    }

    /// Measures the state directory.
    pub async fn store_size(&self) -> Result<StoreSize, Failure> {
        let collector = Arc::clone(&self.services().collector);
        Ok(task::blocking("measure the state directory", move || collector.size()).await?)
    }

    /// Collects garbage by the rules, now.
    pub async fn collect_garbage(&self) {
        let collector = Arc::clone(&self.services().collector);
        task::blocking("collect garbage", move || collector.collect_now()).await;
    }

    /// The cache keys; with a digest, those that are derived from it.
    pub async fn cache_records(&self, of: Option<Digest>) -> Result<CacheRecordLines, Failure> {
        let keys = self.services().parts.store.key_store();
        let read = move || cache_records(&*keys, of.as_ref());
        let read = task::blocking("read cache keys", read).await;
        read.map_err(|error| Failure::new(FailureKind::Internal, error))
    }
}

fn cache_records(
    keys: &dyn KeyStore,
    of: Option<&Digest>,
) -> Result<CacheRecordLines, KeyStoreError> {
    let mut lines = CacheRecordLines::default();
    for key in keys.keys()? {
        let parents: Vec<CacheParentLine> = keys
            .backlinks(&key)?
            .into_iter()
            .map(|(from, link)| CacheParentLine {
                input: link.input,
                key: from,
                digest: link.digest,
                selector: link.selector,
            })
            .collect();
        let is_of = |digest: &Digest| {
            key == digest.as_str()
                || parents.iter().any(|parent| {
                    parent.digest == *digest
                        || parent.selector.as_ref() == Some(digest)
                        || parent.key == digest.as_str()
                })
        };
        if !of.is_none_or(is_of) {
            continue;
        }
        if lines.records.len() >= MAX_CACHE_RECORDS {
            lines.has_more = true;
            break;
        }
        let results = keys.results(&key)?.into_iter();
        lines.records.push(CacheRecordLine {
            results: results.map(|r| (r.id, r.created_at)).collect(),
            key,
            parents,
        });
    }
    lines.records.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use solver::{KeyLink, MemoryKeyStore, StoredResult};

    use super::*;

    #[test]
    fn cache_keys_are_listed_by_the_digests_that_they_are_derived_from() {
        let keys = MemoryKeyStore::new();
        let digest = |text: &str| Digest::sha256(text);
        let root = digest("root").to_string();
        let result = |id: &str| StoredResult {
            id: id.into(),
            created_at: UNIX_EPOCH,
        };
        keys.add_result(&root, &result("r1")).unwrap();
        keys.add_result("child", &result("r2")).unwrap();
        let link = KeyLink {
            input: 0,
            output: 0,
            digest: digest("op"),
            selector: Some(digest("part")),
        };
        keys.add_link(&root, &link, "child").unwrap();
        let list = |of: Option<&str>| -> Vec<String> {
            let of = of.map(digest);
            let lines = cache_records(&keys, of.as_ref()).unwrap();
            assert!(!lines.has_more);
            lines.records.into_iter().map(|line| line.key).collect()
        };
        assert_eq!(list(None).len(), 2);
        assert_eq!(list(Some("root")), ["child".to_owned(), root]);
        assert_eq!(list(Some("part")), ["child"]);
        assert_eq!(list(Some("other")), [""; 0]);
        let child = cache_records(&keys, Some(&digest("part"))).unwrap();
        assert_eq!(child.records[0].results, [("r2".to_owned(), UNIX_EPOCH)]);
        let of_op = child.records[0].parents[0].digest.clone();
        assert_eq!(cache_records(&keys, Some(&of_op)).unwrap().records.len(), 1);
    }
}
