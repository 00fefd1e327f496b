//! Attestations: provenance of builds, and in-toto statements.
//!
//! ```text
//!   ops of a result ──► Capture ─┐
//!   requests         ──► Request ┼─► Provenance (SLSA v1, v0.2) ──► predicate ──► Statement (in-toto)
//!   definition       ──► steps  ─┘
//! ```
//!
//! Everything here is a value: nothing is read, resolved or run. Documents have the fields, and the order of fields, that
//! the reference writes.

mod capture;
mod error;
mod op_json;
mod options;
mod predicate;
mod purl;
mod request;
mod sources;
mod statement;
mod steps;
mod usage;

pub use capture::Capture;
pub use error::AttestError;
pub use oci::address::redact;
pub use options::{
    Attests, Carriers, Mode, ProvenanceOptions, Reproducibility, SbomOptions, SlsaVersion,
    UnknownMaterials, UsageSamples,
};
pub use predicate::{Layers, Provenance, Run};
pub use purl::{PurlKind, of_image};
pub use request::{ConfigSource, Parameters, RequestProvenance, filter_args, is_credential};
pub use sources::{Image, IncompleteMaterial, Secret};
pub use statement::{Statement, Subject, SubjectKind, SubjectSpec};
pub use steps::{BuildConfig, Steps, build_config};
pub use usage::UsageValue;
