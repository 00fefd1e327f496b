//! Unique names of temporary files and folders.

use std::sync::atomic::{AtomicU64, Ordering};

/// A name that no other part of this process uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(
        "{prefix}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
