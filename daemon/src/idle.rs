//! What an idle daemon gives back: code that only starting or building needs, and freed memory that the allocator keeps.

use std::time::Duration;

/// How long after the start it gives back what only the start needed.
const FIRST_RELEASE_AFTER: Duration = Duration::from_millis(300);
/// How often it looks whether it has worked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it looks whether it is idle again, when it has.
const CLOSE_LOOK_EVERY: Duration = Duration::from_millis(300);
/// Using less than this between two close looks is being idle.
const IDLE_PROCESSOR_TIME: Duration = Duration::from_millis(5);
/// Only after using more than this is there anything to give back again.
const WORKED_PROCESSOR_TIME: Duration = Duration::from_millis(200);

/// The most heaps that threads share: with more, each keeps little that is used and much that is free.
const MAX_HEAPS: usize = 16;
/// Buffers of this many bytes are given back when they are freed.
const LARGE_BUFFER_BYTES: usize = 1 << 20;

/// Bounds what the allocator keeps. As early as can be: heaps that threads have by then stay theirs.
pub(crate) fn bound_heaps() {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    sys::memory::bound_heaps(processors.clamp(2, MAX_HEAPS), LARGE_BUFFER_BYTES);
}

/// A daemon that is never idle hands freed memory back after this many close looks.
const BUSY_LOOKS: u32 = 33;

/// Runs until dropped.
pub(crate) async fn give_back() {
    task::clock::sleep(FIRST_RELEASE_AFTER).await;
    loop {
        let released_at = release().await;
        let mut last_time = released_at;
        while last_time.saturating_sub(released_at) < WORKED_PROCESSOR_TIME {
            task::clock::sleep(LOOK_EVERY).await;
            last_time = sys::memory::processor_time();
        }
        for look in 1_u32.. {
            task::clock::sleep(CLOSE_LOOK_EVERY).await;
            let used = sys::memory::processor_time();
            if used.saturating_sub(last_time) < IDLE_PROCESSOR_TIME {
                break;
            }
            if look % BUSY_LOOKS == 0 {
                task::blocking("hand freed memory back", sys::memory::trim_heap).await;
            }
            last_time = used;
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
