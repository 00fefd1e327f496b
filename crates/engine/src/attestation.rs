//! Statements about results: their provenance and their packages.
//!
//! | module | what it does |
//! |---|---|
//! | [`calls`] | calls of frontends in one build, with their results and sources |
//! | [`limits`] | limits on the requests of a build |
//! | [`provenance`] | provenance of results, finished when all layers are known |
//! | [`sbom`] | runs a scanner over results |
//! | [`statements`] | statements of frontends and of the daemon, as exporters ask for them |
//! | [`environment`] | values that the daemon's owner adds to provenance |
//!
//! Who imports whom: `statements` → `provenance` → `calls` → `limits`, and `statements` → `sbom`.

mod calls;
mod environment;
mod limits;
mod provenance;
mod sbom;
mod statements;

pub(crate) use calls::{CallScope, Calls, call_by_client};
pub use environment::provenance_env;
pub(crate) use provenance::{Subject, for_record};
pub(crate) use sbom::{Scanner, scan};
pub(crate) use statements::collect;
