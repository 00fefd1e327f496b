//! Disk usage and pruning: which records may be deleted, and in which order.
//!
//! A record may be deleted if no handle and no other record needs it. A mutable and its twin count as one record: the twin is
//! listed while it is held, the mutable otherwise, and both are deleted together.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::error::StoreError;
use crate::filter::Filters;
use crate::id::RefId;
use crate::kind::RecordType;
use crate::policy::{DiskStat, GcPolicy, PruneOptions};
use crate::refs::delete_rows;
use crate::store::Store;
use crate::store::record::Record;
use crate::usage::{UsageRecord, from_nanos};

#[derive(Debug, Clone)]
/// A record as `du` lists it, with what pruning needs.
struct UsageLine {
    usage: UsageRecord,
    snapshot: Option<String>,
    /// The mutable whose files this one shows.
    twin: Option<RefId>,
    children: usize,
}

fn read_lines(c: &Connection) -> Result<HashMap<RefId, UsageLine>, StoreError> {
    let mut lines = HashMap::new();
    let mut s = c.prepare_cached(
        "SELECT id, mutable, snapshot, twin, record_type, description, created, used, uses, size FROM refs",
    )?;
    let mut rows = s.query([])?;
    while let Some(r) = rows.next()? {
        let id = RefId::parse(&r.get::<_, String>(0)?)?;
        let usage = UsageRecord {
            id: id.clone(),
            mutable: r.get(1)?,
            in_use: false,
            size: r.get(9)?,
            parents: Vec::new(),
            created: from_nanos(r.get(6)?),
            last_used: r.get::<_, Option<i64>>(7)?.map(from_nanos),
            usage_count: r.get(8)?,
            description: r.get(5)?,
            record_type: RecordType::parse(&r.get::<_, String>(4)?),
            shared: false,
        };
        let twin = r
            .get::<_, Option<String>>(3)?
            .and_then(|t| RefId::parse(&t).ok());
        lines.insert(
            id,
            UsageLine {
                usage,
                snapshot: r.get(2)?,
                twin,
                children: 0,
            },
        );
    }
    let mut s = c.prepare_cached("SELECT child, parent FROM parents ORDER BY child, position")?;
    let mut rows = s.query([])?;
    while let Some(r) = rows.next()? {
        let (child, parent) = (
            RefId::parse(&r.get::<_, String>(0)?)?,
            RefId::parse(&r.get::<_, String>(1)?)?,
        );
        if let Some(line) = lines.get_mut(&child) {
            line.usage.parents.push(parent.clone());
        }
        if let Some(line) = lines.get_mut(&parent) {
            line.children += 1;
        }
    }
    Ok(lines)
}

impl Store {
    /// All records, of each pair of twins the one that is to be shown. The number of children of the hidden one is added.
    fn lines(&self) -> Result<HashMap<RefId, UsageLine>, StoreError> {
        let live: Vec<Arc<Record>> = self.live().lock().all();
        let mut lines = self.db().read(read_lines)?;
        for record in &live {
            let body = record.body.lock().clone();
            let line = lines
                .entry(record.id().clone())
                .or_insert_with(|| UsageLine {
                    usage: UsageRecord {
                        id: record.id().clone(),
                        mutable: body.mutable,
                        in_use: true,
                        size: body.size,
                        parents: record
                            .parents()
                            .into_iter()
                            .map(|p| p.id().clone())
                            .collect(),
                        created: body.created,
                        last_used: None,
                        usage_count: 0,
                        description: body.description.clone(),
                        record_type: body.record_type.clone(),
                        shared: false,
                    },
                    snapshot: body.snapshot.clone(),
                    twin: None,
                    children: 0,
                });
            line.usage.in_use = true;
        }
        drop(live);
        let twins: Vec<(RefId, RefId)> = lines
            .iter()
            .filter_map(|(id, l)| l.twin.clone().map(|m| (id.clone(), m)))
            .collect();
        for (immutable, mutable) in twins {
            let shown = lines.get(&immutable).is_some_and(|l| l.usage.in_use);
            let hidden = if shown {
                lines.remove(&mutable)
            } else {
                lines.remove(&immutable)
            };
            let shown = if shown { immutable } else { mutable };
            if let (Some(hidden), Some(shown)) = (hidden, lines.get_mut(&shown)) {
                shown.children += hidden.children;
                shown.usage.in_use |= hidden.usage.in_use;
                shown.usage.last_used = shown.usage.last_used.max(hidden.usage.last_used);
                shown.usage.usage_count += hidden.usage.usage_count;
            }
        }
        Ok(lines)
    }

    /// The size of a record, measured if it is not known; a record that is being written counts as 0.
    fn line_size(&self, line: &UsageLine) -> i64 {
        if line.usage.mutable && line.usage.in_use {
            return 0;
        }
        if line.usage.size >= 0 {
            return line.usage.size;
        }
        let id = line.usage.id.as_str();
        match crate::refs::measure(self, id, line.snapshot.as_deref()) {
            Ok(size) => {
                let stored = self.later(|c| {
                    c.prepare_cached("UPDATE refs SET size = ?2 WHERE id = ?1 AND size < 0")?
                        .execute(rusqlite::params![id, size])?;
                    Ok(())
                });
                if let Err(e) = stored {
                    tracing::debug!(id, error = %e, "size not kept");
                }
                size
            }
            // The record was deleted meanwhile.
            Err(e) => {
                tracing::debug!(id, error = %e, "cannot measure");
                0
            }
        }
    }

    /// Lists what the store holds, smallest first. Records used within `age_limit` (if not zero) are left out. Blocks.
    pub fn disk_usage(
        &self,
        filters: &[String],
        age_limit: Duration,
    ) -> Result<Vec<UsageRecord>, StoreError> {
        let filter = Filters::parse(filters)?;
        let cutoff = task::clock::wall().checked_sub(age_limit);
        let mut out = Vec::new();
        for line in self.lines()?.into_values() {
            if !filter.matches(|field| line.usage.field(field)) {
                continue;
            }
            if !age_limit.is_zero() && line.usage.last_used > cutoff {
                continue;
            }
            let size = self.line_size(&line);
            out.push(UsageRecord { size, ..line.usage });
        }
        out.sort_by(|a, b| a.size.cmp(&b.size).then_with(|| a.id.cmp(&b.id)));
        Ok(out)
    }

    /// Deletes records by the options, and calls `on_freed` for each deleted one. Blocks.
    pub fn prune(
        &self,
        options: &PruneOptions,
        on_freed: &mut dyn FnMut(UsageRecord),
    ) -> Result<(), StoreError> {
        self.prune_beside(options, 0, on_freed)
    }

    /// As [`Self::prune`], where `overhead` bytes are used besides the records.
    fn prune_beside(
        &self,
        options: &PruneOptions,
        overhead: i64,
        on_freed: &mut dyn FnMut(UsageRecord),
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.pruning.lock();
        let filter = Filters::parse(&options.filters)?;
        self.db().make_room();
        let mut lines = self.lines()?;
        let is_limited = options.max_used_space != 0
            || options.reserved_space != 0
            || options.min_free_space != 0;
        let mut total = overhead;
        if is_limited {
            for line in lines.values_mut() {
                line.usage.size = self.line_size(line);
                total = total.saturating_add(line.usage.size);
            }
        }
        let free = if options.min_free_space == 0 {
            0
        } else {
            DiskStat::of(self.root()).free
        };
        let keep = bytes_to_keep(total, free, options);
        let cutoff = task::clock::wall().checked_sub(options.keep_duration);
        let mut freed_any = false;
        loop {
            if keep != 0 && total < keep {
                break;
            }
            let mut candidates: Vec<&UsageRecord> = lines
                .values()
                .filter(|line| {
                    let u = &line.usage;
                    let is_internal =
                        matches!(u.record_type, RecordType::Internal | RecordType::Frontend);
                    let is_recent = !options.keep_duration.is_zero() && u.last_used > cutoff;
                    !u.in_use
                        && line.children == 0
                        && (options.all || !is_internal)
                        && !is_recent
                        && filter.matches(|field| u.field(field))
                })
                .map(|line| &line.usage)
                .collect();
            if keep == 0 {
                candidates.sort_by(|a, b| a.id.cmp(&b.id));
            } else {
                order_for_eviction(&mut candidates);
                candidates.truncate(1);
            }
            let batch: Vec<RefId> = candidates.into_iter().map(|u| u.id.clone()).collect();
            if batch.is_empty() {
                break;
            }
            for id in batch {
                let Some(mut line) = lines.remove(&id) else {
                    continue;
                };
                line.usage.size = self.line_size(&line);
                if !self.delete_idle(&id)? {
                    // A build uses it by now.
                    continue;
                }
                for parent in &line.usage.parents {
                    if let Some(parent) = lines.get_mut(parent) {
                        parent.children = parent.children.saturating_sub(1);
                    }
                }
                total = total.saturating_sub(line.usage.size);
                freed_any = true;
                on_freed(line.usage);
            }
        }
        if freed_any || options.all {
            self.sweep_blobs()?;
            self.note_written();
        }
        Ok(())
    }

    /// Prunes by each rule in turn, and calls `on_freed` for each deleted record. Their files are off the disk afterwards. Blocks.
    ///
    /// DIFFERS: BuildKit holds the sizes of records to the limits; here everything in the state directory counts.
    pub fn collect(
        &self,
        rules: &[GcPolicy],
        on_freed: &mut dyn FnMut(UsageRecord),
    ) -> Result<(), StoreError> {
        self.take_out_trash()?;
        if self.excess(rules)? > 0 {
            self.sweep_blobs()?;
        }
        for rule in rules {
            let disk = DiskStat::of(self.root());
            self.prune_beside(&rule.to_prune(disk), self.overhead()?, on_freed)?;
            self.take_out_trash()?;
        }
        Ok(())
    }

    /// Deletes a record and its twin; false if a handle or another record needs one of them by now.
    fn delete_idle(&self, id: &RefId) -> Result<bool, StoreError> {
        let live = self.live().lock();
        if live.has(id) {
            return Ok(false);
        }
        let twins = self.db().read(|c| {
            let mut s = c.prepare_cached("SELECT id FROM refs WHERE twin = ?1 UNION SELECT twin FROM refs WHERE id = ?1 AND twin IS NOT NULL")?;
            let ids = s.query_map([id.as_str()], |r| r.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(ids.iter().map(|t| RefId::parse(t)).collect::<Result<Vec<_>, _>>()?)
        })?;
        if twins.iter().any(|t| live.has(t)) {
            return Ok(false);
        }
        let gone = self.write(|c| {
            for one in std::iter::once(id).chain(&twins) {
                if c.prepare_cached("SELECT 1 FROM parents WHERE parent = ?1")?
                    .exists([one.as_str()])?
                {
                    return Ok(None);
                }
            }
            let mut gone = Vec::new();
            for one in std::iter::once(id).chain(&twins) {
                gone.extend(delete_rows(c, one.as_str())?);
            }
            Ok(Some(gone))
        })?;
        drop(live);
        let Some(gone) = gone else { return Ok(false) };
        self.drop_snapshots(&gone);
        Ok(true)
    }
}

/// Bytes that may stay; zero for no limit.
fn bytes_to_keep(total: i64, free: i64, o: &PruneOptions) -> i64 {
    if o.max_used_space == 0 && o.reserved_space == 0 && o.min_free_space == 0 {
        return 0;
    }
    let mut keep = o.max_used_space;
    let excess = o.min_free_space.saturating_sub(free);
    if excess > 0 {
        let less = total.saturating_sub(excess);
        keep = if keep == 0 { less } else { keep.min(less) };
    } else if o.min_free_space != 0 && keep == 0 {
        // Enough is free already.
        keep = i64::MAX;
    }
    keep.max(o.reserved_space)
}

/// Puts first what was used longest ago and least often: the sum of both ranks, each relative to the number of distinct ranks.
fn order_for_eviction(list: &mut Vec<&UsageRecord>) {
    fn ranks<K: Ord + Copy>(
        list: &[&UsageRecord],
        first: Option<K>,
        key: impl Fn(&UsageRecord) -> K,
    ) -> (Vec<f64>, f64) {
        let mut order: Vec<usize> = (0..list.len()).collect();
        order.sort_by_key(|&i| list.get(i).map(|u| key(u)));
        let mut out = vec![0.0; list.len()];
        let (mut rank, mut last) = (1.0, first);
        for i in order {
            let Some(now) = list.get(i).map(|u| key(u)) else {
                continue;
            };
            if last.is_none_or(|l| now > l) {
                last = Some(now);
                rank += 1.0;
            }
            if let Some(slot) = out.get_mut(i) {
                *slot = rank;
            }
        }
        (out, rank)
    }
    // A record never used, or used no time, has the lowest rank without opening a new one.
    let (used, used_max) = ranks(list, Some(None), |u| u.last_used);
    let (count, count_max) = ranks(list, Some(0), |u| u.usage_count);
    let mut scored: Vec<(f64, &UsageRecord)> = list
        .iter()
        .zip(used.iter().zip(&count))
        .map(|(u, (a, b))| (a / used_max + b / count_max, *u))
        .collect();
    scored.sort_by(|(a, x), (b, y)| {
        a.partial_cmp(b)
            .unwrap_or(Ordering::Equal)
            .then_with(|| x.created.cmp(&y.created))
    });
    *list = scored.into_iter().map(|(_, u)| u).collect();
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_to_keep_follows_the_limits() {
        let keep = |max, reserved, min_free, total, free| {
            let o = PruneOptions {
                max_used_space: max,
                reserved_space: reserved,
                min_free_space: min_free,
                ..PruneOptions::default()
            };
            bytes_to_keep(total, free, &o)
        };
        assert_eq!(keep(0, 0, 0, 100, 5), 0);
        assert_eq!(keep(50, 0, 0, 100, 5), 50);
        assert_eq!(keep(50, 70, 0, 100, 5), 70);
        assert_eq!(keep(0, 0, 20, 100, 30), i64::MAX);
        assert_eq!(keep(0, 0, 20, 100, 5), 85);
        assert_eq!(keep(50, 0, 80, 100, 5), 25);
        assert_eq!(keep(0, 10, 200, 100, 5), 10);
    }

    #[test]
    fn the_oldest_and_least_used_goes_first() {
        let line = |id: &str, used: u64, uses| UsageRecord {
            id: RefId::parse(id).unwrap(),
            mutable: false,
            in_use: false,
            size: 1,
            parents: Vec::new(),
            created: SystemTime::UNIX_EPOCH,
            last_used: (used > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(used)),
            usage_count: uses,
            description: String::new(),
            record_type: RecordType::Regular,
            shared: false,
        };
        let all = [
            line("often", 50, 9),
            line("new", 90, 1),
            line("old", 10, 1),
            line("never", 0, 0),
        ];
        let mut list: Vec<&UsageRecord> = all.iter().collect();
        order_for_eviction(&mut list);
        let order: Vec<&str> = list.iter().map(|u| u.id.as_str()).collect();
        assert_eq!(order, ["never", "old", "new", "often"]);
    }
}
