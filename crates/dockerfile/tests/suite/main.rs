//! Recorded answers of the reference, its own corpus when it lies in the Go module cache, and files of ours with what they come to.

mod additions;
mod bases;
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
mod settings;
mod stages;
mod subrequests;
mod variables;
mod words;
mod world;
