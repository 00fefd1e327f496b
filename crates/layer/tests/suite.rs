//! Tests of packing and unpacking on disk. Those that need to be root say so and pass when they are not.

mod applying;
mod creating;
mod hostile;
mod support;
