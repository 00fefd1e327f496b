//! What the store promises, tried on real directories and real overlay mounts. Needs root.

mod support;

mod blobs;
mod crashes;
mod layers;
mod pruning;
mod records;
