//! Bringing a record's files into being.

use std::sync::Arc;

use crate::error::StoreError;
use crate::refs::record::Record;

impl Record {
    pub(crate) fn can_fetch(&self) -> bool {
        !self.providers.lock().is_empty()
    }

    pub(crate) async fn ensure(self: &Arc<Self>) -> Result<(), StoreError> {
        Err(StoreError::NotBuilt { feature: "unpacking" })
    }

    pub(crate) fn size(&self) -> Result<i64, StoreError> {
        Err(StoreError::NotBuilt { feature: "sizes" })
    }
}
