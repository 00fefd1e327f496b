//! The command rbuild: buildctl-compatible commands and progress display.

fn main() {}
