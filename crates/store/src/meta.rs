//! Metadata of records: values by key, by which records are found.

use rusqlite::{OptionalExtension, params};

use crate::error::StoreError;
use crate::id::RefId;
use crate::store::Store;

impl Store {
    /// Returns the value kept under `key` for a record.
    pub fn meta(&self, id: &RefId, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.db().read(|c| {
            let mut s = c.prepare_cached("SELECT value FROM meta WHERE ref = ?1 AND key = ?2")?;
            Ok(s.query_row(params![id.as_str(), key], |r| r.get(0))
                .optional()?)
        })
    }

    /// Keeps a value under `key` for a record, in place of an earlier one. Values of up to 512 bytes can be found by
    /// [`Store::find_meta`].
    pub fn set_meta(&self, id: &RefId, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.later(|c| {
            let mut s = c.prepare_cached(
                "INSERT INTO meta(ref, key, value) VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?;
            s.execute(params![id.as_str(), key, value])?;
            Ok(())
        })
    }

    /// Forgets the value kept under `key` for a record.
    pub fn clear_meta(&self, id: &RefId, key: &str) -> Result<(), StoreError> {
        self.later(|c| {
            c.prepare_cached("DELETE FROM meta WHERE ref = ?1 AND key = ?2")?
                .execute(params![id.as_str(), key])?;
            Ok(())
        })
    }

    /// Returns the records whose value under `key` is `value`, most recently used first.
    pub fn find_meta(&self, key: &str, value: &[u8]) -> Result<Vec<RefId>, StoreError> {
        self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT meta.ref FROM meta JOIN refs ON refs.id = meta.ref
                 WHERE meta.key = ?1 AND meta.value = ?2 AND length(meta.value) <= 512
                 ORDER BY coalesce(refs.used, refs.created) DESC, meta.ref",
            )?;
            let rows = s.query_map(params![key, value], |r| r.get::<_, String>(0))?;
            let mut out = Vec::new();
            for id in rows {
                out.push(RefId::parse(&id?)?);
            }
            Ok(out)
        })
    }

    /// Returns the records whose value under `key` begins with `prefix`.
    pub fn find_meta_below(&self, key: &str, prefix: &[u8]) -> Result<Vec<RefId>, StoreError> {
        let length = i64::try_from(prefix.len()).unwrap_or(i64::MAX);
        self.db().read(|c| {
            let mut s = c.prepare_cached(
                "SELECT ref FROM meta WHERE key = ?1 AND substr(value, 1, ?3) = ?2 AND length(value) <= 512 ORDER BY ref",
            )?;
            let rows = s.query_map(params![key, prefix, length], |r| r.get::<_, String>(0))?;
            let mut out = Vec::new();
            for id in rows {
                out.push(RefId::parse(&id?)?);
            }
            Ok(out)
        })
    }
}
