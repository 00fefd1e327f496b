//! What operators may look at.

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
    /// When it began.
    pub started: Option<SystemTime>,
}

/// The space of a state directory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// On disk, everything in it.
    pub used: i64,
    /// What the rules of collection hold it to; 0 for no limit.
    pub limit: i64,
    /// What the disk has free.
    pub disk_free: i64,
}

/// A cache key and what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecordLine {
    /// The key's id: a digest for a key of an op without inputs, else random.
    pub key: String,
    /// Names of its results, with when they were made.
    pub results: Vec<(String, SystemTime)>,
    /// The keys that it follows from.
    pub parents: Vec<CacheParentLine>,
}

/// A way from the key of an input to a cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheParentLine {
    /// Which input.
    pub input: usize,
    /// The key of the input.
    pub key: String,
    /// The digest of the op's cache map, with the output's number.
    pub digest: Digest,
    /// What of the input is read.
    pub selector: Option<Digest>,
}

/// Cache keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheRecordLines {
    /// By key.
    pub records: Vec<CacheRecordLine>,
    /// There are more than are told.
    pub has_more: bool,
}
