//! States → definition, byte for byte as BuildKit's client marshals.
//!
//! A [`State`] is an output of a vertex together with the settings that later steps inherit (environment, directory, user, …). It is
//! a value: every change gives a new state. [`marshal`] walks from an output to the sources and writes ops in the order,
//! with the defaults, and in the encoding of BuildKit's Go client, so that vertex digests are equal to its own.
//!
//! | decides a digest | defined in |
//! |---|---|
//! | field order: plain fields by number, then the `oneof` | [`encode`] |
//! | every op carries an empty constraints message | [`encode`] |
//! | platform: exec and image sources only | [`exec`], [`source`] |
//! | mounts sorted by target, equal inputs shared | [`exec`] |
//! | inputs of a file op: base, then copy sources, in order of actions | [`file`] |
//! | capabilities, names, progress groups | not in the digest: metadata |

pub mod encode;
pub mod encoded;
pub mod env;
pub mod exec;
pub mod file;
pub mod git;
pub mod marshal;
pub mod merge;
pub mod source;
pub mod state;
pub mod vertex;

pub use encoded::state_from_definition;
pub use env::Env;
pub use exec::{Mount, MountContent, Run, Secret, Sharing, Ssh};
pub use file::{Chmod, Chown, CopyInfo, FileChain, MissingPath, RmPath, UserOpt};
pub use git::{GitOpts, git};
pub use marshal::{MarshalOptions, marshal};
pub use merge::{diff, merge};
pub use source::{
    HttpOpts, ImageOpts, LocalOpts, OciLayoutOpts, ResolveMode, http, image, local, oci_layout,
    source,
};
pub use state::State;
pub use vertex::{Constraints, Late, Output, SourceMap};

use std::sync::Arc;

use oci::ErrorKind;

use crate::definition::DefinitionError;

/// Why a graph cannot be marshalled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A process has no arguments.
    #[error("arguments are required")]
    NoArgs,
    /// A process has no working directory.
    #[error("working directory is required")]
    NoDir,
    /// A file op has no actions.
    #[error("action is required")]
    NoAction,
    /// A tmpfs mount has a source.
    #[error("tmpfs mounts must use scratch")]
    TmpfsSource,
    /// The output of a mount without output is used.
    #[error("mount {target} can't be used as a parent")]
    NoOutput {
        /// Path of the mount in the container.
        target: String,
    },
    /// A postponed output was never set.
    #[error("an output was not set before the definition was marshaled")]
    Unset,
    /// An image reference cannot be parsed.
    #[error("{0}")]
    Reference(#[source] oci::ReferenceError),
    /// An input's definition is invalid.
    #[error("{0}")]
    Definition(#[source] Arc<DefinitionError>),
    /// The definition exceeds the size limit of daemons.
    #[error(
        "the steps of the build take more than {} bytes as a definition",
        crate::definition::MAX_BYTES
    )]
    TooLarge,
}

impl BuildError {
    /// What kind of error it is: `Bug` where whoever built the graph had to know better.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoArgs
            | Self::NoDir
            | Self::NoAction
            | Self::TmpfsSource
            | Self::NoOutput { .. }
            | Self::Reference(_) => ErrorKind::Invalid,
            Self::Unset => ErrorKind::Bug,
            Self::Definition(error) => error.kind(),
            Self::TooLarge => ErrorKind::Hostile,
        }
    }
}
