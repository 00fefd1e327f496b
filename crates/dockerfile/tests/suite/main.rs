//! The reference's own corpus, when it lies in the Go module cache, and ours.

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
