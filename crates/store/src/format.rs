//! The version of the layout, and the lock of the state directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::OpenError;

/// The contents of `format.json`.
#[derive(Debug, Serialize, Deserialize)]
struct FormatFile {
    kind: String,
    version: u32,
}

/// The version of the layout and of the index's tables, kept in `format.json`.
const SCHEMA_VERSION: u32 = 1;

const KIND: &str = "rbuild-state";

/// Directories directly under the root, with their modes. The empty tree is shown to steps as it is.
const DIRS: &[(&str, u32)] = &[
    ("blobs", PRIVATE_MODE),
    ("blobs/sha256", PRIVATE_MODE),
    ("ingest", PRIVATE_MODE),
    ("snapshots", PRIVATE_MODE),
    ("trash", PRIVATE_MODE),
    ("git", PRIVATE_MODE),
    ("empty", 0o755),
];
/// Directories of others under the root: of agents' sockets, of networks, of OCI runtimes, whose bundles have steps' secrets.
const FOREIGN_DIRS: &[&str] = &["agents", "net", "runtime"];
/// Mode of directories that only the daemon's user may read.
const PRIVATE_MODE: u32 = 0o700;

fn io_error(what: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { what, path, source }
}

/// Takes the lock of the directory, checks or writes its format, and makes its subdirectories.
pub(crate) fn claim(root: &Path) -> Result<File, OpenError> {
    let is_ours = make_root(root).map_err(io_error("create", root.to_owned()))?;
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
    if is_ours {
        restrict_root(root)?;
    } else {
        tracing::warn!(
            root = %root.display(),
            "the state directory has files of others in it and stays open to them; give the daemon one of its own"
        );
    }
    for (dir, mode) in DIRS {
        let path = root.join(dir);
        match fs::DirBuilder::new().mode(*mode).create(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io_error("create", path)(e)),
        }
        restrict(&path, *mode)?;
    }
    for dir in FOREIGN_DIRS {
        let path = root.join(dir);
        if path.is_dir() {
            restrict(&path, PRIVATE_MODE)?;
        }
    }
    restrict_files(root)?;
    Ok(lock)
}

/// Creates the state directory if it is missing. Returns whether it holds nothing but the daemon's files.
fn make_root(root: &Path) -> io::Result<bool> {
    if let Some(parent) = root.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(PRIVATE_MODE).create(root) {
        Ok(()) => return Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    if root.join("format.json").exists() {
        return Ok(true);
    }
    // A shared directory such as `/tmp` must stay open to others.
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        // Networks are there before the state is.
        let expected = ["lost+found", "lock", "net", "workerid"];
        if !expected.iter().any(|expected| name == *expected) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets the mode of a file or directory of the daemon, whatever the mask is.
fn restrict(path: &Path, mode: u32) -> Result<(), OpenError> {
    let result = (|| {
        if fs::symlink_metadata(path)?.permissions().mode() & 0o7777 != mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    })();
    result.map_err(io_error("restrict", path.to_owned()))
}

/// Closes the state directory to others, unless it belongs to somebody else: volumes of pods that the daemon of an ordinary user is given
/// are root's and open to all. What is made below it is closed all the same.
fn restrict_root(root: &Path) -> Result<(), OpenError> {
    let owner = fs::metadata(root)
        .map_err(io_error("look at", root.to_owned()))?
        .uid();
    match restrict(root, PRIVATE_MODE) {
        Err(OpenError::Io { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied
                && owner != rustix::process::geteuid().as_raw() =>
        {
            tracing::warn!(
                root = %root.display(),
                owner,
                "the state directory belongs to another user and stays as open as that user made it"
            );
            Ok(())
        }
        outcome => outcome,
    }
}

/// Closes the index and what lies beside it to others.
fn restrict_files(root: &Path) -> Result<(), OpenError> {
    let list = fs::read_dir(root).map_err(io_error("list", root.to_owned()))?;
    for entry in list.flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| {
            name.starts_with("index.") || matches!(name, "format.json" | "lock" | "workerid")
        });
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            restrict(&entry.path(), 0o600)?;
        }
    }
    Ok(())
}

/// Checks the format file; writes it where the directory is new.
fn check(root: &Path) -> Result<(), OpenError> {
    let path = root.join("format.json");
    match fs::read(&path) {
        Ok(bytes) => {
            let format: FormatFile =
                serde_json::from_slice(&bytes).map_err(|source| OpenError::FormatFile {
                    path: path.clone(),
                    source,
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
            let format = FormatFile {
                kind: KIND.to_owned(),
                version: SCHEMA_VERSION,
            };
            let write = || {
                let new = root.join("format.json.new");
                let mut file = private_file().create(true).truncate(true).open(&new)?;
                file.write_all(&serde_json::to_vec(&format)?)?;
                file.sync_all()?;
                fs::rename(new, &path)
            };
            write().map_err(io_error("write", path.clone()))
        }
        Err(e) => Err(io_error("read", path)(e)),
    }
}

/// Options that create a file that only the daemon's user can read.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = File::options();
    options.write(true).mode(0o600);
    options
}

/// The kernel's id of this boot; empty if it cannot be read.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |s| s.trim().to_owned())
}
