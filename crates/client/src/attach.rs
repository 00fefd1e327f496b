//! What the daemon may ask of us during a build.

pub(crate) mod content;
pub(crate) mod filesend;
pub(crate) mod filesync;
pub(crate) mod health;
pub(crate) mod secrets;
pub(crate) mod ssh;
pub(crate) mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use session::diffcopy::Stat;
use tokio::io::AsyncRead;

use crate::auth::DockerConfig;

/// What a session offers to the daemon.
#[derive(Debug, Default)]
pub struct Attachables {
    /// Folders by name: `context`, `dockerfile` and those of `--build-context`.
    pub folders: BTreeMap<String, Folder>,
    /// Where results go, by the exporter's place in the request.
    pub targets: BTreeMap<usize, Target>,
    /// Owner of the files that are written into folders.
    pub owner: Option<(u32, u32)>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Sockets of ssh agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Streams handed over once, by id.
    pub uploads: BTreeMap<String, Upload>,
    /// Image layouts by the names that the daemon knows them by.
    pub stores: BTreeMap<String, PathBuf>,
    /// The logins of registries that the daemon may use.
    pub docker_config: DockerConfig,
}

/// A folder that the daemon may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    /// The path of the folder on this machine.
    pub path: PathBuf,
    /// Only these files of it, and what links in them lead to; all of it when empty. What the daemon asks for does not
    /// matter then.
    pub only: Vec<String>,
}

impl From<PathBuf> for Folder {
    fn from(path: PathBuf) -> Self {
        Self {
            path,
            only: Vec::new(),
        }
    }
}

/// Where the client writes the files of an exporter.
#[derive(Debug, Clone)]
pub enum Target {
    /// The exporter sends a tree, which is written into a folder.
    Folder(FolderTarget),
    /// The exporter sends bytes, such as an archive.
    Bytes(FileTarget),
}

/// A folder that a tree is written into; it is made if needed.
#[derive(Debug, Clone, Default)]
pub struct FolderTarget {
    /// The path of the folder on this machine.
    pub path: PathBuf,
    /// Whether files of the folder that the tree does not have are removed.
    pub mirror: bool,
    /// Device files, set-user-id and set-group-id bits and file capabilities are written as they come.
    pub special: bool,
    /// Counts the files of the tree that were not written.
    pub left_out: LeftOut,
}

/// What was left out of a tree that came from a daemon. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LeftOut(Arc<Mutex<LeftOutFiles>>);

/// How many files of a tree were left out or changed, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOutFiles {
    /// How many device files were left out.
    pub devices: u64,
    /// Files that would have run as somebody else, and have lost that.
    pub privileged: u64,
    /// The path of the first file that was left out.
    pub first: Option<PathBuf>,
}

impl LeftOut {
    /// The files left out so far.
    #[must_use]
    pub fn files(&self) -> LeftOutFiles {
        self.0.lock().clone()
    }

    /// Takes out of a file's metadata by what it would get rights on this machine; `false` when nothing is left.
    pub(crate) fn take_from(&self, stat: &mut Stat) -> bool {
        use session::diffcopy::stat::{MODE_DEVICE, MODE_SETGID, MODE_SETUID, MODE_SYMLINK};
        if stat.is_dir() || stat.mode & MODE_SYMLINK != 0 {
            return true;
        }
        let is_device = stat.mode & MODE_DEVICE != 0;
        let mut privileged = stat.mode & (MODE_SETUID | MODE_SETGID) != 0;
        stat.mode &= !(MODE_SETUID | MODE_SETGID);
        stat.xattrs.retain(|name, _| {
            let rights = name.starts_with("security.") || name.starts_with("trusted.");
            privileged |= name == "security.capability";
            !rights
        });
        if is_device || privileged {
            let mut files = self.0.lock();
            files.devices += u64::from(is_device);
            files.privileged += u64::from(privileged && !is_device);
            files.first.get_or_insert_with(|| stat.path.clone());
        }
        !is_device
    }
}

/// Where the bytes of an exporter are written.
#[derive(Debug, Clone)]
pub enum FileTarget {
    /// A new file; what is there is replaced when everything has come.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard input of a program.
    Program(Vec<String>),
}

/// Where the value of a secret comes from.
#[derive(Clone)]
pub enum SecretSource {
    /// A file, which is read at each request of the daemon.
    File(PathBuf),
    /// The value itself.
    Value(Vec<u8>),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(..)"),
        }
    }
}

/// A stream handed over once.
pub struct Upload(pub Box<dyn AsyncRead + Send + Unpin>);

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upload(..)")
    }
}
