//! The reference's own corpus, when it lies in the Go module cache, and ours.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

mod columns;
mod corpus;
mod fuzz;
mod host;
mod hostile;
mod large;
mod line_ends;
mod mutate;
mod platforms;
mod rules;
