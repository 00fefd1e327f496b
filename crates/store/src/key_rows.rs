//! SQL statements for the rows of cache keys.

use std::collections::BTreeSet;

use oci::Digest;
use rusqlite::{Connection, Row, params};
use solver::{KeyLink, StoredResult};

use crate::error::StoreError;
use crate::usage::{from_nanos, to_nanos};

/// Deletes a result, and the keys that lead only to it.
pub(crate) fn release(c: &Connection, result: &str) -> Result<(), StoreError> {
    let keys = strings(c, "SELECT key FROM key_results WHERE result = ?1", result)?;
    if keys.is_empty() {
        return Ok(());
    }
    c.prepare_cached("DELETE FROM key_results WHERE result = ?1")?
        .execute([result])?;
    forget_useless(c, keys.into_iter().collect())
}

/// Deletes the links to those keys that lead to no result any more, and so on upwards.
pub(crate) fn forget_useless(c: &Connection, keys: BTreeSet<String>) -> Result<(), StoreError> {
    let mut todo = keys;
    while let Some(key) = todo.pop_first() {
        let useful = c
            .prepare_cached(
                "SELECT 1 WHERE EXISTS(SELECT 1 FROM key_results WHERE key = ?1) OR EXISTS(SELECT 1 FROM key_links WHERE key = ?1)",
            )?
            .exists([&key])?;
        if !useful {
            todo.extend(strings(
                c,
                "SELECT DISTINCT key FROM key_links WHERE target = ?1",
                &key,
            )?);
            c.prepare_cached("DELETE FROM key_links WHERE target = ?1")?
                .execute([&key])?;
        }
    }
    Ok(())
}

pub(crate) fn strings(c: &Connection, sql: &str, arg: &str) -> Result<Vec<String>, StoreError> {
    Ok(c.prepare_cached(sql)?
        .query_map([arg], |r| r.get(0))?
        .collect::<Result<_, _>>()?)
}

pub(crate) fn index(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn stored(row: &Row<'_>) -> rusqlite::Result<StoredResult> {
    Ok(StoredResult {
        id: row.get(0)?,
        created_at: from_nanos(row.get(1)?),
    })
}

pub(crate) fn put_result(
    c: &Connection,
    key: &str,
    result: &StoredResult,
) -> Result<(), StoreError> {
    c.prepare_cached(
        "INSERT OR REPLACE INTO key_results(key, result, created) VALUES(?1, ?2, ?3)",
    )?
    .execute(params![key, result.id, to_nanos(result.created_at)])?;
    Ok(())
}

pub(crate) fn put_link(
    c: &Connection,
    key: &str,
    link: &KeyLink,
    target: &str,
) -> Result<(), StoreError> {
    let mut s = c.prepare_cached(
        "INSERT OR IGNORE INTO key_links(key, input, output, digest, selector, target) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let selector = link.selector.as_ref().map_or("", Digest::as_str);
    s.execute(params![
        key,
        index(link.input),
        index(link.output),
        link.digest.as_str(),
        selector,
        target
    ])?;
    Ok(())
}
