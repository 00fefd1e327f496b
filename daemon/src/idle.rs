//! What an idle daemon gives back: code that only starting or building needs, and freed memory that the allocator keeps.

use std::time::Duration;

/// How long after the start it gives back what only the start needed.
const STARTED: Duration = Duration::from_millis(300);
/// How often it looks whether it is idle.
const LOOK: Duration = Duration::from_secs(5);
/// Using less than this between two looks is being idle.
const IDLE: Duration = Duration::from_millis(50);
/// Only after using more than this is there anything to give back again.
const WORKED: Duration = Duration::from_millis(200);

/// Runs until dropped.
pub(crate) async fn give_back() {
    tokio::time::sleep(STARTED).await;
    let mut given = release().await;
    let mut seen = given;
    loop {
        tokio::time::sleep(LOOK).await;
        let used = sys::memory::processor_time();
        let is_idle = used.saturating_sub(seen) < IDLE;
        seen = used;
        if is_idle && used.saturating_sub(given) > WORKED {
            given = release().await;
            seen = given;
        }
    }
}

/// Gives back; returns the processor time used by then.
async fn release() -> Duration {
    task::blocking("give memory back", || {
        sys::memory::trim_heap();
        if let Err(error) = sys::memory::release_text() {
            tracing::debug!(%error, "pages of code are kept");
        }
        sys::memory::processor_time()
    })
    .await
}
