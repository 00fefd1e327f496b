//! How much the store may keep: rules of collection and the amounts of disk in them.

use std::path::Path;
use std::time::Duration;

const GB: i64 = 1_000_000_000;
/// Used when the size of the disk is not known, in bytes.
const UNKNOWN_DISK: i64 = 2 * GB;

/// Size of the filesystem that holds the state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskStat {
    /// Bytes of the filesystem.
    pub total: i64,
    /// Free bytes, those reserved for root included.
    pub free: i64,
    /// Free bytes that ordinary users can use.
    pub available: i64,
}

impl DiskStat {
    /// Asks the filesystem at `path`; zeros if it does not answer.
    pub fn of(path: &Path) -> Self {
        let Ok(s) = rustix::fs::statvfs(path) else {
            return Self::default();
        };
        let bytes =
            |blocks: u64| i64::try_from(blocks.saturating_mul(s.f_frsize)).unwrap_or(i64::MAX);
        Self {
            total: bytes(s.f_blocks),
            free: bytes(s.f_bfree),
            available: bytes(s.f_bavail),
        }
    }
}

/// An amount of disk, absolute or relative to its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskSpace {
    /// Bytes; wins over the percentage unless zero.
    pub bytes: i64,
    /// Percent of the whole disk.
    pub percentage: i64,
}

impl DiskSpace {
    /// An absolute amount.
    pub const fn bytes(bytes: i64) -> Self {
        Self {
            bytes,
            percentage: 0,
        }
    }

    /// A part of the disk.
    pub const fn percent(percentage: i64) -> Self {
        Self {
            bytes: 0,
            percentage,
        }
    }

    /// Returns the amount in bytes. Percentages are rounded up to whole gigabytes the way clients have always seen them:
    /// counted in units of 2^30 and paid out in units of 10^9.
    pub fn as_bytes(self, disk: DiskStat) -> i64 {
        if self.bytes != 0 {
            return self.bytes;
        }
        if self.percentage == 0 {
            return 0;
        }
        if disk.total == 0 {
            return UNKNOWN_DISK;
        }
        let part = i128::from(disk.total) * i128::from(self.percentage) / 100;
        i64::try_from((part / (1 << 30) + 1) * i128::from(GB)).unwrap_or(i64::MAX)
    }
}

/// One rule of garbage collection. Rules run in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GcPolicy {
    /// The records that it applies to; see [`crate::Filters`].
    pub filters: Vec<String>,
    /// Whether internal and frontend records may go as well.
    pub all: bool,
    /// Records used within this time stay.
    pub keep_duration: Duration,
    /// Space that records may always take.
    pub reserved: DiskSpace,
    /// The most space that records may take.
    pub max_used: DiskSpace,
    /// Space that should stay free on the disk.
    pub min_free: DiskSpace,
}

impl GcPolicy {
    /// Returns what to prune by this rule on a disk of that size.
    pub fn to_prune(&self, disk: DiskStat) -> PruneOptions {
        PruneOptions {
            filters: self.filters.clone(),
            all: self.all,
            keep_duration: self.keep_duration,
            reserved_space: self.reserved.as_bytes(disk),
            max_used_space: self.max_used.as_bytes(disk),
            min_free_space: self.min_free.as_bytes(disk),
        }
    }
}

/// What to prune. An amount or a duration of zero sets no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneOptions {
    /// The records that may be deleted; see [`crate::Filters`].
    pub filters: Vec<String>,
    /// Whether internal and frontend records may be deleted as well.
    pub all: bool,
    /// Records used within this time stay.
    pub keep_duration: Duration,
    /// Bytes that are kept in any case.
    pub reserved_space: i64,
    /// Bytes to shrink to.
    pub max_used_space: i64,
    /// Bytes that should be free on the disk.
    pub min_free_space: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_follow_the_disk() {
        let disk = DiskStat {
            total: 1_000_000_000_000,
            ..DiskStat::default()
        };
        let small = DiskStat {
            total: 50_000_000_000,
            ..DiskStat::default()
        };
        let of = |space: DiskSpace| [disk, small, DiskStat::default()].map(|d| space.as_bytes(d));
        assert_eq!(of(DiskSpace::percent(20)), [187 * GB, 10 * GB, 2 * GB]);
        assert_eq!(of(DiskSpace::bytes(7)), [7; 3]);
        assert_eq!(of(DiskSpace::default()), [0; 3]);
    }
}
