//! Tests of trees on disk. Those that need to be root say so and pass when they are not.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

mod copying;
mod diffing;
mod hashing;
mod rooted;
mod walking;
