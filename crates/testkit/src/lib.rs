//! Doubles and conformance suites for tests of the other crates; never a dependency of what is shipped.
//!
//! | module | holds |
//! |---|---|
//! | [`mod@skip`] | [`requires!`]: a test that cannot run here is reported as skipped |
//! | [`executor`] | an executor that follows a script, and keeps what each step was given |
//! | [`session`] | a client in this process |
//! | [`registry`] | a registry that answers as the test says, wrongly if wanted |
//! | [`conformance`] | what every implementation of a trait must do, as functions that its tests call |
//!
//! A double is stricter than what it stands for: the executor fails a step that the script does not have.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

pub mod conformance;
pub mod executor;
pub mod registry;
pub mod session;
pub mod skip;

use std::time::{Duration, SystemTime};

/// The time at which [`clock`] begins: 2024-01-01T00:00:00Z.
pub fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200)
}

/// A clock that stands at [`start`] until the test moves it with `advance`.
pub fn clock() -> task::Clock {
    task::Clock::paused(start())
}
