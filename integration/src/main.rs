//! `rbuild-integration`: the reference's own test suites, run against our daemon.

fn main() {}
