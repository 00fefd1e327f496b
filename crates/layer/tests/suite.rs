//! Tests of packing and unpacking on disk. Those that need to be root say so and pass when they are not.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod applying;
mod creating;
mod hostile;
mod support;
