//! The reference's own corpus, when it lies in the Go module cache, and ours.

mod columns;
mod copies;
mod corpus;
mod dump;
mod files;
mod findings;
mod fuzz;
mod host;
mod hostile;
mod images;
mod large;
mod line_ends;
mod mutate;
mod platforms;
mod rules;
mod runs;
mod stages;
mod subrequests;
mod variables;
mod words;
mod world;
