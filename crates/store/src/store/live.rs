//! The table of records in memory.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::id::RefId;
use crate::store::record::Record;

/// Records that a handle or another record holds. Dead entries are swept when the table has doubled.
#[derive(Debug, Default)]
pub(crate) struct LiveRecords {
    records: HashMap<RefId, Weak<Record>>,
    sweep_at: usize,
}

impl LiveRecords {
    /// Returns the record if it is live.
    pub(crate) fn get(&self, id: &RefId) -> Option<Arc<Record>> {
        self.records.get(id).and_then(Weak::upgrade)
    }

    /// Returns whether the record is live.
    pub(crate) fn has(&self, id: &RefId) -> bool {
        self.records.get(id).is_some_and(|w| w.strong_count() > 0)
    }

    /// Enters a record.
    pub(crate) fn put(&mut self, record: &Arc<Record>) {
        self.records
            .insert(record.id().clone(), Arc::downgrade(record));
        if self.records.len() > self.sweep_at {
            self.records.retain(|_, w| w.strong_count() > 0);
            self.sweep_at = (self.records.len() * 2).max(64);
        }
    }

    /// All that is live.
    pub(crate) fn all(&self) -> Vec<Arc<Record>> {
        self.records.values().filter_map(Weak::upgrade).collect()
    }
}
