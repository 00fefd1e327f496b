//! Repairs at the start of a store.
//!
//! | looked for                                                      | when           | what happens to it                     |
//! |-----------------------------------------------------------------|----------------|----------------------------------------|
//! | half-written blobs                                              | at every start | deleted                                |
//! | blobs and snapshots without a row                               | at every start | deleted                                |
//! | rows of blobs without a file                                    | at every start | forgotten; layers made here are packed again when asked for |
//! | mutable records without `retain`                                | at every start | dropped                                |
//! | records without their snapshot, and what stands on them         | at every start | dropped                                |
//! | rows that name records that are gone                            | at every start | dropped                                |
//! | what was not forced to disk                                     | after the machine went down | dropped, with what stands on it |
//! | blobs of another length than their row says                     | after a kill   | deleted, then as without a file        |
//! | snapshots without their directory of files                      | after a kill   | as without a snapshot                  |
//! | patches that are gone                                           | after a kill   | forgotten, and made again when needed  |
//! | damaged rows: see [`crate::damage`]                             | after a kill   | dropped                                |
//! | pins of blobs that are gone, keys that lead to no result        | after a kill   | dropped                                |
//!
//! "After a kill" is a start that does not find the flag `clean`, which closing in order sets and opening clears; [`crate::fsck`]
//! clears it too when it finds something that such a start repairs. That check costs a few system calls for each record and each
//! blob, and reads no contents: a blob whose bytes changed and whose length did not is found by `fsck` with `deep` only.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params};

use crate::damage;
use crate::error::StoreError;
use crate::format;
use crate::key_rows;
use crate::refs::{ORIGIN_KEY, PATCH_KEY};
use crate::store::Store;

/// Repairs that the log lists one by one.
const MAX_LOGGED: usize = 50;

/// How the last process that had the directory open ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastEnd {
    ClosedInOrder,
    Killed,
    /// With the whole machine: what was never forced to disk may be torn.
    MachineDown,
}

impl LastEnd {
    fn read(c: &Connection, boot: &str) -> Result<Self, StoreError> {
        let info = |key: &str| -> Result<Option<String>, StoreError> {
            let mut s = c.prepare("SELECT value FROM info WHERE key = ?1")?;
            Ok(s.query_row([key], |r| r.get(0)).optional()?)
        };
        let (clean, last_boot) = (info("clean")?, info("boot")?);
        // An index without either is new.
        if clean.as_deref() == Some("1") || (clean.is_none() && last_boot.is_none()) {
            return Ok(Self::ClosedInOrder);
        }
        let is_same_boot = !boot.is_empty() && last_boot.as_deref() == Some(boot);
        Ok(if is_same_boot {
            Self::Killed
        } else {
            Self::MachineDown
        })
    }
}

/// Counts the repairs and logs them.
#[derive(Debug, Default)]
struct Repairs {
    count: usize,
}

impl Repairs {
    fn add(&mut self, subject: &str, problem: &str) {
        self.count += 1;
        if self.count <= MAX_LOGGED {
            tracing::warn!(subject, problem, "repaired the state directory");
        }
    }

    fn log_rest(&self) {
        if self.count > MAX_LOGGED {
            let unlisted = self.count - MAX_LOGGED;
            tracing::warn!(unlisted, "repaired the state directory in more places");
        }
    }
}

impl Store {
    /// Drops rows that cannot be trusted or used, then files that no row names. Blocks.
    pub(crate) fn recover(&self) -> Result<(), StoreError> {
        let boot = format::boot_id();
        let dirs = self.snapshot_dirs()?;
        let files = self.blob_files()?;
        let mut repairs = Repairs::default();
        let referenced = self.write(|c| {
            let end = LastEnd::read(c, &boot)?;
            if end == LastEnd::MachineDown {
                drop_unsynced(c)?;
            }
            set_info(c, "boot", &boot)?;
            set_info(c, "clean", "0")?;
            // Mutables without `retain` belong to steps, which ended with the process.
            c.execute("DELETE FROM refs WHERE mutable = 1 AND retain = 0", [])?;
            self.drop_broken_blobs(c, &files, end, &mut repairs)?;
            let mut usable = dirs.clone();
            if end != LastEnd::ClosedInOrder {
                usable.retain(|id| self.snapshots().is_whole(id));
                drop_damage(c, &usable, &mut repairs)?;
            }
            drop_without_files(c, &usable, &mut repairs)?;
            drop_doomed(c)?;
            if end != LastEnd::ClosedInOrder {
                drop_dead_keys(c)?;
                let count = |sql: &str| c.query_row(sql, [], |r| r.get::<_, i64>(0));
                tracing::info!(
                    records = count("SELECT count(*) FROM refs")?,
                    blobs = count("SELECT count(*) FROM blobs")?,
                    repairs = repairs.count,
                    "checked the state directory, which was not closed in order"
                );
            }
            repairs.log_rest();
            ReferencedFiles::read(c)
        })?;
        let orphans: Vec<String> = dirs
            .into_iter()
            .filter(|id| !referenced.snapshots.contains(id))
            .collect();
        self.drop_snapshots(&orphans);
        self.drop_stray_files(files, &referenced);
        if self.is_short() {
            self.take_out_trash()?;
        } else {
            self.note_trash();
        }
        let is_unsynced = self.db().read(|c| {
            let mut s = c.prepare("SELECT 1 FROM refs WHERE synced = 0")?;
            Ok(s.exists([])?)
        })?;
        if is_unsynced {
            self.note_unsynced();
        }
        Ok(())
    }

    fn snapshot_dirs(&self) -> Result<HashSet<String>, StoreError> {
        let list = self.snapshots().list();
        let list = list.map_err(|e| StoreError::io("list", self.root().join("snapshots"), e))?;
        Ok(list.into_iter().collect())
    }

    /// The names of the files of blobs.
    fn blob_files(&self) -> Result<HashSet<String>, StoreError> {
        let dir = self.root().join("blobs/sha256");
        let list = std::fs::read_dir(&dir).map_err(|e| StoreError::io("list", &dir, e))?;
        let mut files = HashSet::new();
        for entry in list {
            let name = entry.map_err(|e| StoreError::io("list", &dir, e))?;
            files.insert(name.file_name().to_string_lossy().into_owned());
        }
        Ok(files)
    }

    /// Forgets blobs without a file, and after a kill those whose file has another length.
    fn drop_broken_blobs(
        &self,
        c: &Connection,
        files: &HashSet<String>,
        end: LastEnd,
        repairs: &mut Repairs,
    ) -> Result<(), StoreError> {
        let dir = self.root().join("blobs/sha256");
        let rows: Vec<(String, i64)> = c
            .prepare("SELECT CAST(digest AS TEXT), CAST(size AS INTEGER) FROM blobs")?
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut forget = c.prepare("DELETE FROM blobs WHERE CAST(digest AS TEXT) = ?1")?;
        for (digest, size) in rows {
            let name = digest.strip_prefix("sha256:").unwrap_or_default();
            let problem = if !files.contains(name) {
                Some("its file is missing; forgotten")
            } else if end == LastEnd::ClosedInOrder {
                None
            } else {
                let length = std::fs::symlink_metadata(dir.join(name)).map(|meta| meta.len());
                let is_whole = length.is_ok_and(|length| i64::try_from(length) == Ok(size));
                (!is_whole).then_some("its file has another length than recorded; deleted")
            };
            if let Some(problem) = problem {
                repairs.add(&digest, problem);
                forget.execute([&digest])?;
            }
        }
        Ok(())
    }

    /// Deletes half-written blobs and blobs without a row.
    fn drop_stray_files(&self, files: HashSet<String>, referenced: &ReferencedFiles) {
        let ingest = std::fs::read_dir(self.root().join("ingest"));
        let half_written = ingest.into_iter().flatten().flatten();
        let blobs = self.root().join("blobs/sha256");
        let nameless = files
            .into_iter()
            .filter(|name| !referenced.blobs.contains(&format!("sha256:{name}")))
            .map(|name| blobs.join(name));
        for path in half_written.map(|entry| entry.path()).chain(nameless) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a file that nothing names");
            }
        }
    }
}

/// The snapshots and blobs that rows refer to.
#[derive(Debug, Default)]
struct ReferencedFiles {
    snapshots: HashSet<String>,
    blobs: HashSet<String>,
}

impl ReferencedFiles {
    fn read(c: &Connection) -> Result<Self, StoreError> {
        let strings = |sql: &str| -> Result<HashSet<String>, StoreError> {
            let mut s = c.prepare(sql)?;
            Ok(s.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?)
        };
        let mut snapshots =
            strings("SELECT CAST(snapshot AS TEXT) FROM refs WHERE snapshot IS NOT NULL")?;
        snapshots.extend(damage::patches(c)?.into_iter().map(|(_, patch)| patch));
        Ok(Self {
            snapshots,
            blobs: strings("SELECT CAST(digest AS TEXT) FROM blobs")?,
        })
    }
}

fn set_info(c: &Connection, key: &str, value: &str) -> Result<(), StoreError> {
    c.execute(
        "INSERT INTO info VALUES(?1, ?2) ON CONFLICT DO UPDATE SET value = ?2",
        [key, value],
    )?;
    Ok(())
}

/// Marks a record to be dropped with all that stands on it.
const MARK_DOOMED: &str = "UPDATE refs SET lazy = 2 WHERE id = ?1";

fn drop_unsynced(c: &Connection) -> Result<(), StoreError> {
    // Files that a kept mutable shares may have been written to since any sync; of those only cache mounts and
    // the like, whose owners expect any contents, are kept.
    let lost = c.execute(
        "UPDATE refs SET lazy = 2 WHERE (synced = 0 AND mutable = 0) OR twin IS NOT NULL
           OR (mutable = 1 AND record_type = 'source.local')",
        [],
    )?;
    if lost > 0 {
        tracing::warn!(
            records = lost,
            "the machine went down before these reached the disk; dropped"
        );
    }
    c.execute("DELETE FROM blobs WHERE synced = 0", [])?;
    Ok(())
}

/// Marks records whose files are missing: they and what stands on them cannot be used.
fn drop_without_files(
    c: &Connection,
    usable: &HashSet<String>,
    repairs: &mut Repairs,
) -> Result<(), StoreError> {
    let rows: HashMap<String, String> = c
        .prepare("SELECT CAST(id AS TEXT), CAST(snapshot AS TEXT) FROM refs WHERE snapshot IS NOT NULL AND lazy <> 2")?
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (id, snapshot) in rows {
        if !usable.contains(&snapshot) {
            repairs.add(&id, "its files are gone; dropped with what stands on it");
            c.execute(MARK_DOOMED, [id])?;
        }
    }
    Ok(())
}

/// Drops rows that a kill, or an edit by hand, can have damaged.
fn drop_damage(
    c: &Connection,
    usable: &HashSet<String>,
    repairs: &mut Repairs,
) -> Result<(), StoreError> {
    for (subject, problem) in damage::drop_nameless(c)? {
        repairs.add(&subject, problem);
    }
    for (id, problem) in damage::broken_records(c)? {
        repairs.add(&id, problem);
        c.execute(MARK_DOOMED, [id])?;
    }
    for (id, patch) in damage::patches(c)? {
        if !usable.contains(&patch) {
            repairs.add(&id, "its patch is gone; forgotten");
            c.execute(
                "DELETE FROM meta WHERE ref = ?1 AND key = ?2",
                [id.as_str(), PATCH_KEY],
            )?;
        }
    }
    c.execute(
        "UPDATE refs SET twin = NULL WHERE twin IS NOT NULL AND twin NOT IN (SELECT id FROM refs WHERE lazy <> 2)",
        [],
    )?;
    let pins = c.execute(
        "DELETE FROM pins WHERE digest NOT IN (SELECT digest FROM blobs)",
        [],
    )?;
    if pins > 0 {
        repairs.add("pins", "of blobs that are gone; dropped");
    }
    Ok(())
}

/// Drops the marked records with all that stands on them, and rows that refer to nothing any more.
fn drop_doomed(c: &Connection) -> Result<(), StoreError> {
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
         DELETE FROM blobs WHERE digest NOT IN (SELECT digest FROM layer_blobs) AND digest NOT IN (SELECT digest FROM pins);",
    )?;
    // The blob of a layer that was made here, and whose files are here, is made again: its row would say that others have it.
    c.execute(
        "DELETE FROM layer_blobs WHERE digest NOT IN (SELECT digest FROM blobs)
           AND ref IN (SELECT meta.ref FROM meta JOIN refs ON refs.id = meta.ref
                       WHERE meta.key = ?1 AND refs.snapshot IS NOT NULL)",
        params![ORIGIN_KEY],
    )?;
    Ok(())
}

/// Drops links of cache keys that lead to no result.
fn drop_dead_keys(c: &Connection) -> Result<(), StoreError> {
    let dead: BTreeSet<String> = c
        .prepare(
            "SELECT DISTINCT target FROM key_links WHERE target NOT IN (SELECT key FROM key_results)
               AND target NOT IN (SELECT key FROM key_links)",
        )?
        .query_map([], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    key_rows::forget_useless(c, dead)
}
