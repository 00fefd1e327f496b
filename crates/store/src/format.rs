//! The layout's version, and the lock that says who owns the directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::db::SCHEMA_VERSION;
use crate::error::OpenError;

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    kind: String,
    version: u32,
}

const KIND: &str = "rbuild-state";

/// Directories directly under the root.
pub(crate) const DIRS: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "ingest",
    "snapshots",
    "trash",
    "empty",
];

fn io_error(what: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { what, path, source }
}

/// Takes the lock of the directory, checks or writes its format, and makes its subdirectories.
pub(crate) fn claim(root: &Path) -> Result<File, OpenError> {
    fs::create_dir_all(root).map_err(io_error("create", root.to_owned()))?;
    let path = root.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", path.clone()))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(OpenError::InUse {
                root: root.to_owned(),
            });
        }
        Err(e) => return Err(io_error("lock", path)(e.into())),
    }
    check(root)?;
    for dir in DIRS {
        let path = root.join(dir);
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io_error("create", path)(e)),
        }
    }
    Ok(lock)
}

/// Checks the format file; writes it where the directory is new.
fn check(root: &Path) -> Result<(), OpenError> {
    let path = root.join("format.json");
    match fs::read(&path) {
        Ok(bytes) => {
            let format: Format =
                serde_json::from_slice(&bytes).map_err(|_| OpenError::Foreign {
                    root: root.to_owned(),
                })?;
            if format.kind != KIND {
                return Err(OpenError::Foreign {
                    root: root.to_owned(),
                });
            }
            if format.version != SCHEMA_VERSION {
                let (found, known) = (format.version, SCHEMA_VERSION);
                return Err(OpenError::Format {
                    root: root.to_owned(),
                    found,
                    known,
                });
            }
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if root.join("index.db").exists()
                || root.join("snapshots").exists()
                || root.join("blobs").exists()
            {
                return Err(OpenError::Foreign {
                    root: root.to_owned(),
                });
            }
            let format = Format {
                kind: KIND.to_owned(),
                version: SCHEMA_VERSION,
            };
            let write = || {
                let new = root.join("format.json.new");
                let mut file = File::create(&new)?;
                file.write_all(&serde_json::to_vec(&format)?)?;
                file.sync_all()?;
                fs::rename(new, &path)
            };
            write().map_err(io_error("write", path.clone()))
        }
        Err(e) => Err(io_error("read", path)(e)),
    }
}

/// Names this boot of the machine.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |s| s.trim().to_owned())
}
