//! Tests of trees on disk. Those that need root are reported as skipped without it.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking"
)]

mod support;

mod actions;
mod copying;
mod deep;
mod diffing;
mod excluding;
mod handles;
mod hashing;
mod owners;
mod pairs;
mod rooted;
mod walking;
mod walks;
