//! What a start does with what an earlier owner left behind.

use std::path::PathBuf;

use rusqlite::{OptionalExtension, params};

use crate::error::StoreError;
use crate::format;
use crate::refs::PATCH_KEY;
use crate::store::Store;

impl Store {
    /// Rows that must not be trusted or have nobody to go on with them are dropped, then files that no row names.
    pub(crate) fn recover(&self) -> Result<(), StoreError> {
        let boot = format::boot_id();
        let dirs: std::collections::HashSet<String> = self
            .snapshots()
            .list()
            .map_err(|e| StoreError::io("list", self.root().join("snapshots"), e))?
            .into_iter()
            .collect();
        let named = self.write(|c| {
            let info = |key: &str| -> Result<Option<String>, StoreError> {
                Ok(c.query_row("SELECT value FROM info WHERE key = ?1", [key], |r| r.get(0)).optional()?)
            };
            let same_boot = !boot.is_empty() && info("boot")?.as_deref() == Some(boot.as_str());
            let clean = info("clean")?.as_deref() == Some("1");
            if !same_boot && !clean {
                // Files that a kept mutable shares may have been written to since any sync; of those only cache mounts and
                // the like, whose owners expect any contents, are kept.
                let lost = c.execute(
                    "UPDATE refs SET lazy = 2 WHERE (synced = 0 AND mutable = 0) OR twin IS NOT NULL
                       OR (mutable = 1 AND record_type = 'source.local')", [])?;
                if lost > 0 {
                    tracing::warn!(records = lost, "the machine went down before these reached the disk; dropped");
                }
                c.execute("UPDATE blobs SET size = -1 WHERE synced = 0", [])?;
            }
            c.execute("INSERT INTO info VALUES('boot', ?1) ON CONFLICT DO UPDATE SET value = ?1", [&boot])?;
            c.execute("INSERT INTO info VALUES('clean', '0') ON CONFLICT DO UPDATE SET value = '0'", [])?;
            // A mutable that nobody wanted kept died with its step.
            c.execute("DELETE FROM refs WHERE mutable = 1 AND retain = 0", [])?;
            // A record whose files are gone is worth nothing, nor what stands on it.
            let mut snapshots = c.prepare("SELECT id, snapshot FROM refs WHERE snapshot IS NOT NULL")?;
            let rows = snapshots.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?)))?;
            let mut gone = Vec::new();
            for row in rows {
                let (id, snapshot) = row?;
                if !dirs.contains(&snapshot) {
                    gone.push(id);
                }
            }
            for id in gone {
                c.execute("UPDATE refs SET lazy = 2 WHERE id = ?1", [id])?;
            }
            c.execute_batch(
                "CREATE TEMP TABLE doomed AS
                   WITH RECURSIVE d(id) AS (
                     SELECT id FROM refs WHERE lazy = 2
                     UNION SELECT child FROM parents WHERE parent NOT IN (SELECT id FROM refs)
                     UNION SELECT child FROM parents JOIN d ON parents.parent = d.id)
                   SELECT id FROM d;
                 DELETE FROM refs WHERE id IN (SELECT id FROM doomed);
                 DROP TABLE doomed;
                 DELETE FROM parents WHERE child NOT IN (SELECT id FROM refs);
                 DELETE FROM meta WHERE ref NOT IN (SELECT id FROM refs);
                 DELETE FROM layer_blobs WHERE ref NOT IN (SELECT id FROM refs);
                 DELETE FROM content_hashes WHERE key NOT IN (SELECT id FROM refs)
                   AND key NOT IN (SELECT snapshot FROM refs WHERE snapshot IS NOT NULL);
                 DELETE FROM key_results WHERE result <> '' AND result NOT IN (SELECT id FROM refs);
                 DELETE FROM blobs WHERE size < 0
                   OR (digest NOT IN (SELECT digest FROM layer_blobs) AND digest NOT IN (SELECT digest FROM pins));",
            )?;
            let mut named: std::collections::HashSet<String> = c
                .prepare("SELECT snapshot FROM refs WHERE snapshot IS NOT NULL")?
                .query_map([], |r| r.get(0))?
                .collect::<Result<_, _>>()?;
            let patches = c
                .prepare("SELECT CAST(value AS TEXT) FROM meta WHERE key = ?1")?
                .query_map(params![PATCH_KEY], |r| r.get::<_, String>(0))?
                .collect::<Result<Vec<_>, _>>()?;
            named.extend(patches);
            Ok(named)
        })?;
        let orphans: Vec<String> = dirs.into_iter().filter(|d| !named.contains(d)).collect();
        self.drop_snapshots(&orphans);
        self.sweep_files()?;
        if self.is_short() {
            self.take_out_trash()?;
        } else {
            self.note_trash();
        }
        if self.db().read(|c| {
            Ok(c.query_row(
                "SELECT EXISTS(SELECT 1 FROM refs WHERE synced = 0)",
                [],
                |r| r.get::<_, bool>(0),
            )?)
        })? {
            self.note_unsynced();
        }
        Ok(())
    }

    /// Half-written blobs go, blobs without a row go, rows without a blob go.
    fn sweep_files(&self) -> Result<(), StoreError> {
        let each = |dir: &str, f: &mut dyn FnMut(String, PathBuf)| {
            let dir = self.root().join(dir);
            let list = std::fs::read_dir(&dir).map_err(|e| StoreError::io("list", dir, e))?;
            for entry in list.flatten() {
                f(
                    entry.file_name().to_string_lossy().into_owned(),
                    entry.path(),
                );
            }
            Ok::<_, StoreError>(())
        };
        each("ingest", &mut |_, path| {
            let _gone = std::fs::remove_file(path);
        })?;
        let mut rows: std::collections::HashSet<String> = self.db().read(|c| {
            Ok(c.prepare("SELECT digest FROM blobs")?
                .query_map([], |r| r.get(0))?
                .collect::<Result<_, _>>()?)
        })?;
        each("blobs/sha256", &mut |name, path| {
            if !rows.remove(&format!("sha256:{name}")) {
                let _gone = std::fs::remove_file(path);
            }
        })?;
        self.db().write(|c| {
            for digest in &rows {
                c.execute("DELETE FROM blobs WHERE digest = ?1", [digest])?;
            }
            Ok(())
        })
    }
}
