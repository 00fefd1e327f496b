//! One solve, start to finish.

pub mod api;
