//! Refs: results that are computed when they are used, and the files in them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use llb::pb;

use crate::error::BridgeError;

/// A result that may not have been computed yet.
#[async_trait]
pub trait Ref: Send + Sync + fmt::Debug {
    /// The definition this ref stands for, none for an empty (scratch) result.
    fn definition(&self) -> Option<Arc<pb::Definition>>;

    /// Computes the result.
    async fn evaluate(&self) -> Result<(), BridgeError>;

    /// Reads (a part of) a file; computes the result first.
    async fn read_file(&self, path: &str, range: Option<FileRange>) -> Result<Bytes, BridgeError>;

    /// Lists a directory; `include` is a pattern on names, empty for all.
    async fn read_dir(&self, path: &str, include: &str) -> Result<Vec<FileStat>, BridgeError>;

    /// Returns the metadata of one file; a symlink at the end of the path is not followed.
    async fn stat_file(&self, path: &str) -> Result<FileStat, BridgeError>;

    /// For the engine, which downcasts to its own type.
    fn as_any(&self) -> &dyn Any;
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange {
    /// First byte.
    pub offset: u64,
    /// How many bytes to read at most; zero reads to the end.
    pub length: u64,
}

/// Portable metadata of one file, as fsutil has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStat {
    /// The requested path, or the name in the listed directory.
    pub path: String,
    /// Go `os.FileMode` bits.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Length in bytes.
    pub size: i64,
    /// Modification time in nanoseconds since the epoch.
    pub mod_time: i64,
    /// Target of a symlink.
    pub linkname: String,
    /// Device major number.
    pub devmajor: i64,
    /// Device minor number.
    pub devminor: i64,
    /// Values of the extended attributes, by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}
