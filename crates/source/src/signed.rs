//! Attributes and policy that the signatures of git and http sources share.

use std::time::UNIX_EPOCH;

use signature::{ExpiryJudgedAt, Policy};

/// Whether an attribute is `true`.
pub(crate) fn is_true(value: &str) -> bool {
    value == "true"
}

/// The policy for signatures, with the time of now.
pub(crate) fn policy(expiry: ExpiryJudgedAt) -> Policy {
    let now = task::Clock::real().system().duration_since(UNIX_EPOCH);
    // With a clock before 1970 every signature is in the future.
    let now = now.map_or(0, |now| now.as_secs());
    Policy { expiry, now }
}
