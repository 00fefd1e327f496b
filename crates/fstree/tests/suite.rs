//! Tests of trees on disk. Those that need to be root say so and pass when they are not.

mod support;

mod copying;
mod diffing;
mod hashing;
mod rooted;
mod walking;
