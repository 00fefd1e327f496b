//! Offline check of a state directory: compares the index with the files on the disk.
//!
//! Nothing is repaired here. If a start after a kill would repair a finding, the next start is marked to do so: see `recover`.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;

use oci::{Digest, Digester};
use rusqlite::Connection;

use crate::damage;
use crate::db::Db;
use crate::error::OpenError;

/// One fault of a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of the record, the digest of the blob, or the path of the file.
    pub subject: String,
    /// The fault, in words.
    pub problem: String,
    /// Whether opening the store repairs it.
    pub heals: bool,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsckReport {
    /// Records that were checked.
    pub records: usize,
    /// Blobs that were checked.
    pub blobs: usize,
    /// The faults, in no order that matters.
    pub findings: Vec<Finding>,
}

impl FsckReport {
    /// Returns whether there is a fault that opening the store does not repair.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|f| !f.heals)
    }

    fn add(&mut self, heals: bool, subject: impl Into<String>, problem: impl Into<String>) {
        self.findings.push(Finding {
            subject: subject.into(),
            problem: problem.into(),
            heals,
        });
    }
}

/// Checks a state directory that no process has open. With `deep`, reads every blob and compares its digest.
pub fn fsck(root: &Path, deep: bool) -> Result<FsckReport, OpenError> {
    // Taking the lock keeps a daemon from starting meanwhile.
    let _lock = crate::format::claim(root)?;
    let mut report = FsckReport::default();
    let index = root.join("index.db");
    if !index.exists() {
        return Ok(report);
    }
    let c = Db::inspect(&index)?;
    let health: String = c.query_row("PRAGMA integrity_check(10)", [], |r| r.get(0))?;
    if health != "ok" {
        report.add(false, "index.db", health);
    }
    check_records(&c, root, deep, &mut report)?;
    check_blobs(&c, root, deep, &mut report)?;
    if report.findings.iter().any(|finding| finding.heals) {
        c.execute("UPDATE info SET value = '0' WHERE key = 'clean'", [])?;
    }
    Ok(report)
}

fn names(root: &Path, dir: &str) -> Result<HashSet<String>, OpenError> {
    let path = root.join(dir);
    let list = fs::read_dir(&path).map_err(|source| OpenError::Io {
        what: "list",
        path,
        source,
    })?;
    Ok(list
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect())
}

fn strings(c: &Connection, sql: &str) -> Result<Vec<String>, OpenError> {
    let mut s = c.prepare(sql)?;
    let rows = s.query_map([], |r| r.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Records with a snapshot: their id, the snapshot's, and the digest of the uncompressed layer where it is recorded.
fn snapshots(c: &Connection) -> Result<Vec<(String, String, Option<String>)>, OpenError> {
    let mut s = c.prepare("SELECT id, snapshot, diff_id FROM refs WHERE snapshot IS NOT NULL")?;
    let rows = s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn check_records(
    c: &Connection,
    root: &Path,
    deep: bool,
    report: &mut FsckReport,
) -> Result<(), OpenError> {
    report.records = strings(c, "SELECT id FROM refs")?.len();
    let mut dirs = names(root, "snapshots")?;
    for (id, snapshot, diff_id) in snapshots(c)? {
        let dir = root.join("snapshots").join(&snapshot);
        let files = sys::path::open_dir(dir.as_path()).ok();
        let is_tar_layer = files.as_ref().is_some_and(crate::tar_layer::is_whole);
        if is_tar_layer {
            let diff_id = diff_id
                .filter(|_| deep)
                .and_then(|text| Digest::parse(&text).ok());
            let problem = files.and_then(|dir| crate::tar_layer::problem(dir, diff_id.as_ref()));
            if let Some(problem) = problem {
                report.add(false, &id, format!("its layer is damaged: {problem}"));
            }
        } else if !dir.join("fs").is_dir() {
            report.add(
                true,
                id,
                format!(
                    "its snapshot {snapshot} is missing; it and what stands on it will be dropped"
                ),
            );
        }
        dirs.remove(&snapshot);
    }
    for (id, patch) in damage::patches(c)? {
        if !dirs.remove(&patch) {
            report.add(true, id, "its patch is missing; will be made again");
        }
    }
    for dir in dirs {
        report.add(true, dir, "snapshot without a record; will be removed");
    }
    for (id, problem) in damage::broken_records(c)? {
        report.add(true, id, format!("{problem}; will be dropped"));
    }
    for (name, problem) in damage::nameless(c)? {
        report.add(true, name, format!("{problem}; will be dropped"));
    }
    Ok(())
}

fn check_blobs(
    c: &Connection,
    root: &Path,
    deep: bool,
    report: &mut FsckReport,
) -> Result<(), OpenError> {
    let mut s = c.prepare("SELECT digest, size FROM blobs")?;
    let rows: HashMap<String, i64> = s
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    report.blobs = rows.len();
    for (text, size) in &rows {
        let Ok(digest) = Digest::parse(text) else {
            continue;
        };
        let path = root.join("blobs/sha256").join(digest.hex());
        let Ok(meta) = fs::metadata(&path) else {
            report.add(true, text, "its file is missing; will be forgotten");
            continue;
        };
        if i64::try_from(meta.len()) != Ok(*size) {
            report.add(
                true,
                text,
                format!(
                    "has {} bytes, {size} are recorded; will be deleted",
                    meta.len()
                ),
            );
        } else if deep {
            match File::open(&path).and_then(Digester::of_reader) {
                Ok((got, _)) if got == digest => {}
                Ok((got, _)) => report.add(false, text, format!("its bytes have the digest {got}")),
                Err(e) => report.add(false, text, format!("cannot be read: {e}")),
            }
        }
    }
    for name in names(root, "blobs/sha256")? {
        if !rows.contains_key(&format!("sha256:{name}")) {
            report.add(true, name, "blob without a row; will be removed");
        }
    }
    let trash = root.join("trash");
    for name in crate::trash::given_up(&trash).map_err(|source| OpenError::Io {
        what: "list",
        path: trash,
        source,
    })? {
        report.add(
            false,
            format!("trash/{name}"),
            "could not be deleted several times and is left alone; delete it by hand",
        );
    }
    for name in names(root, "ingest")? {
        report.add(true, name, "half-written blob; will be removed");
    }
    Ok(())
}
