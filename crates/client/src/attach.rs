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

use tokio::io::AsyncRead;

use crate::auth::DockerConfig;

/// What the daemon may ask of us.
#[derive(Debug, Default)]
pub struct Attachables {
    /// Folders by name: `context`, `dockerfile` and those of `--build-context`.
    pub folders: BTreeMap<String, PathBuf>,
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
    /// Logins of registries.
    pub docker_config: DockerConfig,
}

/// Where a result goes.
#[derive(Debug, Clone)]
pub enum Target {
    /// A tree into a folder, which is made if needed.
    Folder(PathBuf),
    /// A tree in the place of what is in a folder.
    Mirror(PathBuf),
    /// Bytes.
    Bytes(FileTarget),
}

/// Where bytes go.
#[derive(Debug, Clone)]
pub enum FileTarget {
    /// A new file; what is there is replaced when everything has come.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard input of a program.
    Program(Vec<String>),
}

/// Where a secret is.
#[derive(Clone)]
pub enum SecretSource {
    /// In a file, read when it is asked for.
    File(PathBuf),
    /// Here.
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
