//! Tests of packing and unpacking on disk. Those that need root are reported as skipped without it.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking and count small numbers"
)]

mod applying;
mod archives;
mod creating;
mod hostile;
mod indexing;
mod kinds;
mod overlaying;
mod support;
