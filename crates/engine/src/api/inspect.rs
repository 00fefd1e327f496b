//! The state of a running daemon, for operators.

use std::time::SystemTime;

use oci::Digest;

use super::BuildRef;

/// A build that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningBuild {
    /// The client's name for it.
    pub build: BuildRef,
    /// The frontend; empty for a definition or a frontend in the client.
    pub frontend: String,
    /// Start of the build.
    pub started: Option<SystemTime>,
}

/// The space of a state directory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Bytes on disk of everything in the state directory.
    pub used: i64,
    /// Limit that the rules of collection keep it to; 0 for no limit.
    pub limit: i64,
    /// Free space of the disk that it is on.
    pub disk_free: i64,
}

/// A cache key with its results and the keys that it follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecordLine {
    /// The key's id: a digest for a key of an op without inputs, else random.
    pub key: String,
    /// Ids of its results, each with the time it was created.
    pub results: Vec<(String, SystemTime)>,
    /// Keys of inputs that lead to it.
    pub parents: Vec<CacheParentLine>,
}

/// A link from the key of an input to a cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheParentLine {
    /// Index of the input.
    pub input: usize,
    /// The key of the input.
    pub key: String,
    /// The digest of the op's cache map, with the output's number.
    pub digest: Digest,
    /// Digest of the selector: the path of the input that counts.
    pub selector: Option<Digest>,
}

/// A list of cache keys, cut at a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheRecordLines {
    /// One entry per key.
    pub records: Vec<CacheRecordLine>,
    /// Whether there are more keys than are listed.
    pub has_more: bool,
}
