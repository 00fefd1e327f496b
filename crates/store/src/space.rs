//! The budget: counts everything in the state directory against the rules.
//!
//! Rules name amounts of bytes. Not only records count against them, but everything in the directory:
//!
//! | counted                                | how                                         |
//! |----------------------------------------|---------------------------------------------|
//! | layers, patches and their blobs        | the sizes of records                        |
//! | blobs that no record names             | rows of blobs: of history, of leases        |
//! | blobs that are being written           | files in `ingest`                           |
//! | directories that are being deleted     | trees in `trash`                            |
//! | index, its log, its reserve            | files directly under the root               |
//! | bundles of git that are being unpacked | folders in `git`; mounts there are records  |
//!
//! Collection runs a little after a build, and [`Store::make_room`] before a step: a step that begins on a full budget waits
//! for it. What running builds hold is never taken from them, so a build may pass the budget until it ends.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use fstree::Root;

use crate::budget::limit;
use crate::error::StoreError;
use crate::id::RefId;
use crate::patch::disk_size;
use crate::policy::{DiskStat, GcPolicy};
use crate::refs::measure;
use crate::store::Store;

/// Bytes that the files directly in a directory take.
fn files(dir: &Path) -> i64 {
    let mut total = 0_u64;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // A file that is deleted meanwhile takes no space.
        if let Ok(meta) = entry.metadata()
            && meta.is_file()
        {
            total = total.saturating_add(meta.blocks().saturating_mul(512));
        }
    }
    i64::try_from(total).unwrap_or(i64::MAX)
}

fn tree(dir: &Path) -> i64 {
    Root::open(dir)
        .ok()
        .and_then(|root| disk_size(&root).ok())
        .unwrap_or(0)
}

impl Store {
    /// Bytes on disk that belong to no record.
    pub(crate) fn overhead(&self) -> Result<i64, StoreError> {
        let root = self.root();
        let loose: i64 = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT coalesce(sum(size), 0) FROM blobs WHERE size > 0 AND digest NOT IN (SELECT digest FROM layer_blobs)",
            )?;
            Ok(s.query_row([], |r| r.get(0))?)
        })?;
        let mut total = loose
            .saturating_add(files(root))
            .saturating_add(files(&root.join("ingest")))
            .saturating_add(tree(&root.join("trash")));
        for entry in std::fs::read_dir(root.join("git"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().as_encoded_bytes().starts_with(b"bundle") {
                total = total.saturating_add(tree(&entry.path()));
            }
        }
        Ok(total)
    }

    /// Bytes on disk of everything in the state directory. Measures what was not measured yet. Blocks.
    pub fn used(&self) -> Result<i64, StoreError> {
        self.budget.changed.store(false, Ordering::Relaxed);
        // Of a pair of twins the mutable one is counted.
        let unknown: Vec<(String, Option<String>, bool)> = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT id, snapshot, mutable FROM refs WHERE size < 0 AND twin IS NULL",
            )?;
            let rows = s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        for (id, snapshot, is_mutable) in unknown {
            // What is being written is counted when its writer is done.
            if is_mutable && RefId::parse(&id).is_ok_and(|id| self.live().lock().has(&id)) {
                continue;
            }
            // It may have gone meanwhile.
            let Ok(size) = measure(self, &id, snapshot.as_deref()) else {
                continue;
            };
            self.later(|c| {
                c.prepare_cached("UPDATE refs SET size = ?2 WHERE id = ?1 AND size < 0")?
                    .execute(rusqlite::params![id, size])?;
                Ok(())
            })?;
        }
        let records: i64 = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT coalesce(sum(size), 0) FROM refs WHERE size > 0 AND twin IS NULL",
            )?;
            Ok(s.query_row([], |r| r.get(0))?)
        })?;
        let used = records.saturating_add(self.overhead()?);
        let mut count = self.budget.count.lock();
        count.used = used;
        count.counted = Some(task::clock::monotonic());
        Ok(used)
    }

    /// Bytes that `rules` hold the directory to; none if no rule does.
    #[must_use]
    pub fn limit(&self, rules: &[GcPolicy]) -> Option<i64> {
        limit(rules, DiskStat::of(self.root()))
    }

    /// Bytes by which the directory is over what `rules` allow, 0 if it is not. Blocks.
    pub fn excess(&self, rules: &[GcPolicy]) -> Result<i64, StoreError> {
        match limit(rules, DiskStat::of(self.root())) {
            Some(limit) => Ok(self.used()?.saturating_sub(limit).max(0)),
            None => Ok(0),
        }
    }

    /// Returns whether the limits of `rules` on space are kept, as far as that shows without reading all records. Limits on time are
    /// not checked. Blocks.
    pub fn keeps_to(&self, rules: &[GcPolicy]) -> Result<bool, StoreError> {
        let disk = DiskStat::of(self.root());
        let holds = rules.iter().map(|rule| rule.to_prune(disk)).all(|o| {
            let is_measured = o.filters.is_empty() && o.max_used_space > 0;
            o.min_free_space <= disk.free && (is_measured || !o.keep_duration.is_zero())
        });
        Ok(holds && self.excess(rules)? == 0)
    }
}
