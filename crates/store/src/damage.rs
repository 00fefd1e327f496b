//! Finds damaged rows of the index. A start after a kill drops them; `fsck` reports them.

use rusqlite::Connection;

use oci::{Descriptor, Digest};

use crate::id::RefId;
use crate::refs::PATCH_KEY;

/// Queries for broken records, each with the problem that it finds.
const BROKEN_RECORDS: &[(&str, &str)] = &[
    (
        "has columns of the wrong type",
        "SELECT id FROM refs WHERE typeof(kind) <> 'integer' OR typeof(mutable) <> 'integer' OR typeof(retain) <> 'integer'
           OR typeof(record_type) <> 'text' OR typeof(description) <> 'text' OR typeof(created) <> 'integer'
           OR typeof(used) NOT IN ('integer', 'null') OR typeof(uses) <> 'integer' OR typeof(size) <> 'integer'
           OR typeof(lazy) <> 'integer' OR typeof(snapshot) NOT IN ('text', 'null') OR typeof(twin) NOT IN ('text', 'null')",
    ),
    (
        "is of an unknown kind",
        "SELECT id FROM refs WHERE kind NOT IN (0, 1, 2)",
    ),
    (
        "stands on a record that is gone",
        "SELECT DISTINCT child FROM parents WHERE parent NOT IN (SELECT id FROM refs) AND child IN (SELECT id FROM refs)",
    ),
    (
        "unpacked layer without a snapshot",
        "SELECT id FROM refs WHERE kind = 0 AND lazy = 0 AND snapshot IS NULL",
    ),
    (
        "lazy layer without a blob",
        "SELECT id FROM refs WHERE lazy = 1 AND id NOT IN (SELECT ref FROM layer_blobs)",
    ),
    // A record that stands on itself is never reached from the records without parents.
    (
        "stands on itself",
        "WITH RECURSIVE good(id) AS (
           SELECT id FROM refs WHERE id NOT IN (SELECT child FROM parents)
           UNION SELECT child FROM parents JOIN good ON parents.parent = good.id)
         SELECT id FROM refs WHERE id NOT IN (SELECT id FROM good)
           AND id NOT IN (SELECT child FROM parents WHERE parent NOT IN (SELECT id FROM refs))",
    ),
];

fn strings(c: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut s = c.prepare(sql)?;
    s.query_map([], |r| r.get(0))?.collect()
}

/// Records that cannot be used, with the reason. A record may be listed more than once.
pub(crate) fn broken_records(c: &Connection) -> rusqlite::Result<Vec<(String, &'static str)>> {
    let mut broken = Vec::new();
    for (problem, sql) in BROKEN_RECORDS {
        broken.extend(strings(c, sql)?.into_iter().map(|id| (id, *problem)));
    }
    Ok(broken)
}

/// Records, blobs and forms of layers whose names are malformed.
pub(crate) fn nameless(c: &Connection) -> rusqlite::Result<Vec<(String, &'static str)>> {
    let mut rows = Vec::new();
    for id in strings(c, "SELECT CAST(id AS TEXT) FROM refs")? {
        if RefId::parse(&id).is_err() {
            rows.push((id, "not the name of a record"));
        }
    }
    for digest in strings(c, "SELECT CAST(digest AS TEXT) FROM blobs")? {
        if Digest::parse(&digest).is_err() {
            rows.push((digest, "not a digest"));
        }
    }
    let mut s = c.prepare(
        "SELECT CAST(digest AS TEXT), CAST(descriptor AS TEXT), CAST(diff_id AS TEXT) FROM layer_blobs",
    )?;
    let mut forms = s.query([])?;
    while let Some(form) = forms.next()? {
        let (digest, descriptor, diff_id): (String, String, String) =
            (form.get(0)?, form.get(1)?, form.get(2)?);
        let is_good = serde_json::from_str::<Descriptor>(&descriptor)
            .is_ok_and(|descriptor| descriptor.digest.as_str() == digest)
            && Digest::parse(&diff_id).is_ok();
        if !is_good {
            rows.push((digest, "form of a layer that cannot be read"));
        }
    }
    Ok(rows)
}

/// Deletes what [`nameless`] finds, and returns it.
pub(crate) fn drop_nameless(c: &Connection) -> rusqlite::Result<Vec<(String, &'static str)>> {
    let rows = nameless(c)?;
    for (name, _) in &rows {
        for sql in [
            "DELETE FROM refs WHERE CAST(id AS TEXT) = ?1",
            "DELETE FROM blobs WHERE CAST(digest AS TEXT) = ?1",
            "DELETE FROM layer_blobs WHERE CAST(digest AS TEXT) = ?1",
        ] {
            c.execute(sql, [name])?;
        }
    }
    Ok(rows)
}

/// Records and the snapshots of their patches. Layers that need no patch are left out.
pub(crate) fn patches(c: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut s = c.prepare(
        "SELECT ref, CAST(value AS TEXT) FROM meta WHERE key = ?1 AND length(value) > 0",
    )?;
    s.query_map([PATCH_KEY], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect()
}
