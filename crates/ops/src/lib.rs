//! The ops of builds, and their cache maps.
//!
//! | module | op |
//! |---|---|
//! | [`exec`] | a process in a container, over mounts of its inputs |
//! | [`file`] | copies, folders, files, links, removals |
//! | [`source`](mod@source_op) | the roots of the graph |
//! | [`combine`] | merge, diff and passthrough |
//! | [`nested`] | a nested build |
//!
//! The module of each op's key opens with the table of the digest's inputs. [`OpResolver`] creates the op of a vertex;
//! [`Results`] stores results under the ids of their refs.
//!
//! Invariants: an op never reads the clock or the environment; secrets have no part in keys; a container is only made
//! with the rights that [`BuildRights`] grant.

mod admission;
mod cache_mounts;
pub mod callers;
pub mod combine;
pub mod content;
mod domain;
pub mod environment;
pub mod exec;
mod failure;
pub mod file;
mod gojson;
mod key_plan;
pub mod nested;
mod nesting;
mod parts;
mod resolver;
mod results;
pub mod source_op;
pub mod telemetry;
mod trace;
mod trust;

pub use admission::MemoryBudget;
pub use cache_mounts::{BuildCacheMounts, CacheMounts};
pub use domain::{
    BuildDomain, BuildOp, BuildRights, JobValue, LayerHint, LoaderSlot, NestedLoader, OpSys,
    ProgressSink, Ref, RequestPolicySlot, Slot,
};
pub use failure::nested::MAX_NESTED_BUILDS;
pub use failure::{NestedBuildError, OpFailure};
pub use fstree::{PathError, Root};
pub use key_plan::{DepPlan, KeyPlan};
pub use parts::{Parts, StepLimits};
pub use resolver::OpResolver;
pub use results::Results;
pub use trace::StepTrace;
pub use trust::TrustError;
