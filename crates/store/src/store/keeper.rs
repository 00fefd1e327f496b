//! Requests to the keeper thread and to the thread that empties the trash.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Pause between the first request and emptying the trash: deleting competes with steps for the same directories.
pub(crate) const EMPTY_AFTER: Duration = Duration::from_millis(500);

/// The pending requests, with the time of the first; `None` where there is no such request.
#[derive(Debug, Default)]
pub(crate) struct KeeperState {
    pub(crate) closing: bool,
    pub(crate) lazy_since: Option<Instant>,
    pub(crate) unsynced_since: Option<Instant>,
    /// When the log of the index was last left longer than an idle daemon keeps it.
    pub(crate) untidy_since: Option<Instant>,
    pub(crate) trash_since: Option<Instant>,
}

/// The requests, and the signal that wakes the threads.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    pub(crate) state: Mutex<KeeperState>,
    pub(crate) wake: Condvar,
}
