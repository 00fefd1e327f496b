//! What the store promises, tried on real directories and real overlay mounts. Needs root.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

mod attacks;
mod blobs;
mod budget;
mod conformance;
mod covers;
mod crashes;
mod damage;
mod history;
mod keys;
mod layers;
mod lazy;
mod native;
mod opening;
mod policies;
mod pruning;
mod records;
mod tar_layers;
