//! Chores: codegen, dependency table, docs, sizes.

fn main() {}
