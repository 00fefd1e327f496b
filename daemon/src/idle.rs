//! What an idle daemon gives back: code that only starting or building needs, and freed memory that the allocator keeps.

use std::time::Duration;

/// How long after the start it gives back what only the start needed.
const FIRST_RELEASE_AFTER: Duration = Duration::from_millis(300);
/// How often the daemon checks whether it has worked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How often the daemon checks whether it is idle again after it has worked.
const BUSY_CHECK_INTERVAL: Duration = Duration::from_millis(300);
/// A daemon that uses less processor time than this between two such checks is idle.
const IDLE_PROCESSOR_TIME: Duration = Duration::from_millis(5);
/// A daemon that has used more processor time than this since it last gave back memory has worked.
const WORKED_PROCESSOR_TIME: Duration = Duration::from_millis(200);

/// The most heaps that the allocator makes for threads: with more, each keeps much free memory.
const MAX_HEAPS: usize = 16;
/// Buffers of at least this many bytes go back to the kernel when they are freed.
const LARGE_BUFFER_BYTES: usize = 1 << 20;

/// Bounds what the allocator keeps. As early as can be: heaps that threads have by then stay theirs.
pub(crate) fn bound_heaps() {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    sys::memory::bound_heaps(processors.clamp(2, MAX_HEAPS), LARGE_BUFFER_BYTES);
}

/// A daemon that is never idle gives freed memory back after this many checks.
const MAX_BUSY_CHECKS: u32 = 33;

/// Gives memory back whenever the daemon becomes idle, until dropped.
pub(crate) async fn give_back() {
    task::clock::sleep(FIRST_RELEASE_AFTER).await;
    loop {
        let released_at = release().await;
        let mut last_time = released_at;
        while last_time.saturating_sub(released_at) < WORKED_PROCESSOR_TIME {
            task::clock::sleep(CHECK_INTERVAL).await;
            last_time = sys::memory::processor_time();
        }
        for look in 1_u32.. {
            task::clock::sleep(BUSY_CHECK_INTERVAL).await;
            let used = sys::memory::processor_time();
            if used.saturating_sub(last_time) < IDLE_PROCESSOR_TIME {
                break;
            }
            if look % MAX_BUSY_CHECKS == 0 {
                task::blocking("hand freed memory back", sys::memory::trim_heap).await;
            }
            last_time = used;
        }
    }
}

/// Gives memory back; returns the processor time that the process has used by then.
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
