//! Whether this process lives in a user namespace that somebody made.

use std::fs;
use std::sync::atomic::{AtomicU8, Ordering};

/// The inode number of the machine's own user namespace: `PROC_USER_INIT_INO` of linux/proc_ns.h.
const INITIAL: u64 = 0xEFFF_FFFD;

/// What [`is_nested`] has read: 0 nothing yet, 1 no, 2 yes.
static NESTED: AtomicU8 = AtomicU8::new(0);

/// Whether this process lives in a user namespace that somebody made: its root is then not the machine's, it makes no devices, and what
/// it mounts is marked by attributes of users. namespaces(7).
pub fn is_nested() -> bool {
    match NESTED.load(Ordering::Relaxed) {
        0 => {
            // Without procfs nothing can be said, and everything of ours fails for other reasons.
            let nested =
                rustix::fs::stat("/proc/self/ns/user").is_ok_and(|at| at.st_ino != INITIAL);
            NESTED.store(if nested { 2 } else { 1 }, Ordering::Relaxed);
            nested
        }
        kept => kept == 2,
    }
}

/// Forgets what [`is_nested`] has read: this process has changed its user namespace.
pub(crate) fn forget() {
    NESTED.store(0, Ordering::Relaxed);
}

/// Whether this process may not choose its groups: a namespace that an ordinary user mapped alone. user_namespaces(7).
pub fn setgroups_denied() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|word| word.trim() == "deny")
}
