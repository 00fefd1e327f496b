//! A build definition, decoded, checked, and addressed.
//!
//! | module | what it does |
//! |---|---|
//! | [`definition`] | bytes from a client → a checked graph; digests of the bytes as received |
//! | [`validate`] | structural rules of single ops |
//! | [`source_id`] | source identifiers and their attributes, typed |
//! | [`git_url`] | addresses of git repositories |
//! | [`caps`] | what this daemon's LLB and gateway understand |
//! | [`build`] | states → definition, byte for byte as BuildKit's client marshals |
//!
//! The wire's messages are in [`pb`]: an op is data, and its typed view is the message itself. Rules on sources are in
//! [`sourcepolicy`].

pub mod build;
pub mod caps;
pub mod definition;
pub mod git_url;
pub mod source_id;
pub mod validate;

pub use definition::{DefinitionError, Graph};
pub use proto::{pb, sourcepolicy};
