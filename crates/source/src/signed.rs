//! What sources that have to be signed share.

use std::time::UNIX_EPOCH;

use signature::{ExpiryJudgedAt, Policy};

/// Whether an attribute says yes.
pub(crate) fn is_true(value: &str) -> bool {
    value == "true"
}

/// The rule at this moment.
pub(crate) fn policy(expiry: ExpiryJudgedAt) -> Policy {
    let now = task::Clock::real().system().duration_since(UNIX_EPOCH);
    // A clock before 1970 makes every signature one of the future.
    let now = now.map_or(0, |now| now.as_secs());
    Policy { expiry, now }
}
