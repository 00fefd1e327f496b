//! Pruning: which records may go, and in which order.

use std::time::Duration;

use crate::error::StoreError;
use crate::store::Store;
use crate::usage::UsageRecord;

/// What to prune. Zero amounts and durations mean that they do not limit anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneOptions {
    /// Which records it is about; see [`crate::Filters`].
    pub filters: Vec<String>,
    /// Internal and frontend records as well.
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

impl Store {
    /// Lists what the store holds.
    pub fn disk_usage(&self, filters: &[String], age_limit: Duration) -> Result<Vec<UsageRecord>, StoreError> {
        let _ = (filters, age_limit);
        Err(StoreError::NotBuilt { feature: "du" })
    }

    /// Deletes what may go; calls `on_freed` for each record that went. Blocks.
    pub fn prune(&self, options: &PruneOptions, on_freed: &mut dyn FnMut(UsageRecord)) -> Result<(), StoreError> {
        let _ = (options, on_freed);
        Err(StoreError::NotBuilt { feature: "prune" })
    }
}
