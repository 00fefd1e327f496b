//! Build records, kept as opaque bytes with the columns needed to list and expire them.

use std::time::SystemTime;

use oci::Digest;
use rusqlite::{OptionalExtension, Row, params};

use crate::blob::BlobInfo;
use crate::error::StoreError;
use crate::store::Store;
use crate::usage::{from_nanos, to_nanos};

/// The record of one build, encoded by the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// The build's id.
    pub id: String,
    /// When the build started.
    pub created: SystemTime,
    /// When the build ended; `None` while it runs.
    pub completed: Option<SystemTime>,
    /// Whether the record is exempt from expiry.
    pub pinned: bool,
    /// The encoded record.
    pub record: Vec<u8>,
}

fn decode(row: &Row<'_>) -> rusqlite::Result<HistoryRecord> {
    Ok(HistoryRecord {
        id: row.get(0)?,
        created: from_nanos(row.get(1)?),
        completed: row.get::<_, Option<i64>>(2)?.map(from_nanos),
        pinned: row.get(3)?,
        record: row.get(4)?,
    })
}

impl Store {
    /// Writes a build record, in place of an earlier one of the same name.
    pub fn put_history(&self, record: &HistoryRecord) -> Result<(), StoreError> {
        self.write(|c| {
            let mut s = c.prepare_cached(
                "INSERT INTO history(id, created, completed, pinned, record) VALUES(?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET created = excluded.created, completed = excluded.completed,
                 pinned = excluded.pinned, record = excluded.record",
            )?;
            let completed = record.completed.map(to_nanos);
            s.execute(params![record.id, to_nanos(record.created), completed, record.pinned, record.record])?;
            Ok(())
        })
    }

    /// Returns one build record.
    pub fn history(&self, id: &str) -> Result<Option<HistoryRecord>, StoreError> {
        self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT id, created, completed, pinned, record FROM history WHERE id = ?1",
            )?;
            Ok(s.query_row([id], decode).optional()?)
        })
    }

    /// Returns up to `limit` build records, newest first: those after the one of this time and name, or from the newest on.
    pub fn list_history(
        &self,
        after: Option<(SystemTime, &str)>,
        limit: u32,
    ) -> Result<Vec<HistoryRecord>, StoreError> {
        let (created, id) = after.map_or((i64::MAX, ""), |(at, id)| (to_nanos(at), id));
        self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT id, created, completed, pinned, record FROM history
                 WHERE created <= ?1 AND (created < ?1 OR id > ?2) ORDER BY created DESC, id LIMIT ?3",
            )?;
            Ok(s.query_map(params![created, id, limit], decode)?
                .collect::<Result<_, _>>()?)
        })
    }

    /// Returns the names of up to `limit` build records that ended before `before` and are not among the `keep` that ended last; those
    /// that are exempt do not count. The records themselves are not read.
    pub fn expired_history(
        &self,
        keep: u32,
        before: SystemTime,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT id FROM (SELECT id, completed FROM history WHERE NOT pinned
                 ORDER BY completed DESC LIMIT -1 OFFSET ?1) WHERE completed < ?2 LIMIT ?3",
            )?;
            Ok(
                s.query_map(params![keep, to_nanos(before), limit], |r| r.get(0))?
                    .collect::<Result<_, _>>()?,
            )
        })
    }

    /// Sets whether a build record is exempt from expiry; false if there is none.
    pub fn pin_history(&self, id: &str, pinned: bool) -> Result<bool, StoreError> {
        self.write(|c| {
            Ok(
                c.prepare_cached("UPDATE history SET pinned = ?2 WHERE id = ?1")?
                    .execute(params![id, pinned])?
                    > 0,
            )
        })
    }

    /// Returns up to `limit` blobs whose digests follow `after`, in order: what clients list.
    pub fn list_blobs(&self, after: &str, limit: u32) -> Result<Vec<BlobInfo>, StoreError> {
        let rows: Vec<(String, i64, i64)> = self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT digest, size, created FROM blobs WHERE digest > ?1 ORDER BY digest LIMIT ?2",
            )?;
            Ok(s.query_map(params![after, limit], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?))
            })?
            .collect::<Result<_, _>>()?)
        })?;
        Ok(rows
            .into_iter()
            .filter_map(|(digest, size, created)| {
                Some(BlobInfo {
                    digest: Digest::parse(&digest).ok()?,
                    size: size.unsigned_abs(),
                    created: from_nanos(created),
                })
            })
            .collect())
    }

    /// Deletes a build record and the pins its name owns; false if there is none.
    pub fn delete_history(&self, id: &str) -> Result<bool, StoreError> {
        self.write(|c| {
            c.prepare_cached("DELETE FROM pins WHERE owner = ?1")?
                .execute([format!("history:{id}")])?;
            Ok(c.prepare_cached("DELETE FROM history WHERE id = ?1")?
                .execute([id])?
                > 0)
        })
    }
}
