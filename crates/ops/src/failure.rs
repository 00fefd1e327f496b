//! Errors of ops.

pub(crate) mod nested;

use std::error::Error;

use crate::trust::TrustError;
use executor::ExecError;
use fstree::PathError;
use fstree::action::ActionError;
use session::SessionError;
use store::{StoreError, StoreResult as Ref};

pub use nested::NestedBuildError;

/// Why an op failed. Sentences are BuildKit's where its clients and suites compare them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each variant has its sentence, and the fields are the values in it"
)]
pub enum OpFailure {
    #[error("{source}")]
    Store {
        #[from]
        source: StoreError,
    },
    #[error(transparent)]
    Source(Box<::source::SourceError>),
    #[error("failed to calculate checksum of ref {reference}: {}", oci::error::chain(source.as_ref()))]
    Checksum {
        reference: String,
        input: Ref,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("process {args:?} did not complete successfully: {reason}")]
    Process {
        args: String,
        code: u32,
        reason: String,
    },
    #[error("process {args:?} did not complete successfully: {source}")]
    Start {
        args: String,
        source: Box<ExecError>,
    },
    /// A step failed; clients can look at its inputs and mounts.
    #[error("{source}")]
    Exec {
        source: Box<OpFailure>,
        inputs: Vec<Ref>,
        mounts: Vec<Ref>,
    },
    /// The action at `index` of a file op failed.
    #[error("{source}")]
    Action {
        index: usize,
        source: Box<OpFailure>,
    },
    #[error(transparent)]
    File(Box<ActionError>),
    #[error(transparent)]
    Tree(Box<PathError>),
    #[error(transparent)]
    Session(Box<SessionError>),
    #[error(transparent)]
    Denied(Box<executor::Denied>),
    #[error("CDI device injection failed: {0}")]
    Devices(#[from] executor::cdi::DeviceError),
    #[error(transparent)]
    Mode(Box<executor::UnknownMode>),
    #[error("{feature} are not supported by rbuild yet: {detail}")]
    NotBuilt {
        feature: &'static str,
        detail: String,
    },
    #[error(
        "cannot run a step for {platform}: this host has neither the architecture nor an emulator registered for it; install one with binfmt_misc and start again"
    )]
    Emulation { platform: String },
    #[error("invalid extra host {host:?}: {ip:?} is not an IP address")]
    ExtraHost { host: String, ip: String },
    #[error("secret ID missing for {name:?} environment variable")]
    SecretIdMissing { name: String },
    #[error("secret ID missing from mount options")]
    SecretMountId,
    #[error("secret {id}: not found")]
    SecretNotFound { id: String },
    #[error(
        "secret `{id}` is not valid UTF-8 and cannot be an environment variable; mount it as a file"
    )]
    SecretNotText { id: String },
    #[error(
        "secret `{id}` has a zero byte and cannot be an environment variable; mount it as a file"
    )]
    SecretZeroByte { id: String },
    #[error("proxy network provider is not available")]
    NoProxy,
    #[error("cannot give a step its proxy: {0}")]
    ProxyAuthority(#[source] Box<proxy::ProxyError>),
    #[error("failed to inject proxy CA: {0}")]
    Trust(#[source] Box<TrustError>),
    #[error(
        "process {args:?} did not complete successfully: failed to clean up proxy CA: {source}"
    )]
    ProxyCa {
        args: String,
        source: Box<TrustError>,
    },
    #[error(transparent)]
    Bounds(Box<ExecError>),
    #[error("no SSH key {id:?} forwarded from the client")]
    NoSshKey { id: String },
    #[error("cannot forward the agent {id:?}: {}", oci::error::errno_text(source))]
    SshSocket { id: String, source: std::io::Error },
    #[error("invalid {kind} mount options")]
    MountOptions { kind: &'static str },
    #[error("mount type {0} not implemented")]
    UnknownMountType(i32),
    #[error("invalid cache sharing option: {0}")]
    UnknownSharing(i32),
    #[error("invalid mount cache content {0}")]
    UnknownContentCache(i32),
    #[error(
        "invalid mount cache content of {dest}: the mount can be written beside what it selects"
    )]
    ContentCacheUnsafe { dest: String },
    #[error("invalid mount type {kind} for /")]
    RootMount { kind: String },
    #[error("mount {dest} has no input")]
    NoMountInput { dest: String },
    #[error("exec op has no root mount")]
    NoRoot,
    #[error("missing input {0}")]
    MissingInput(i64),
    #[error("invalid input index {index}, {inputs} provided")]
    InvalidInput { index: i64, inputs: usize },
    #[error("invalid user index {0}")]
    InvalidUserIndex(i64),
    #[error("duplicate output {0}")]
    DuplicateOutput(usize),
    #[error("missing output index {0}")]
    MissingOutput(usize),
    #[error("no outputs specified")]
    NoOutputs,
    #[error("loop from index {0}")]
    Loop(usize),
    #[error("invalid nil action")]
    NoAction,
    #[error("invalid exec op with no meta")]
    NoMeta,
    #[error("invalid nil op")]
    NoOp,
    #[error(transparent)]
    Nested(#[from] NestedBuildError),
    #[error("vertex {0} does not come from a definition")]
    Foreign(String),
}

impl OpFailure {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        let mut failure = self;
        while let Self::Exec { source, .. } | Self::Action { source, .. } = failure {
            failure = source;
        }
        match failure {
            Self::Store { source } => source.kind(),
            Self::Source(error) => error.kind(),
            Self::Checksum { source, .. } => ErrorKind::of_causes(source.as_ref()),
            Self::Process { .. } => ErrorKind::Failed,
            Self::Start { source, .. } => source.kind(),
            Self::File(error) => error.kind(),
            Self::Tree(error) => error.kind(),
            Self::Session(error) => error.kind(),
            Self::Denied(_) => ErrorKind::Denied,
            Self::Devices(error) => error.kind(),
            Self::Nested(error) => error.kind(),
            Self::Bounds(error) => error.kind(),
            Self::ProxyAuthority(error) => error.kind(),
            Self::Trust(_) | Self::ProxyCa { .. } => ErrorKind::Failed,
            Self::NoProxy | Self::NotBuilt { .. } => ErrorKind::Unsupported,
            Self::Emulation { .. } => ErrorKind::Failed,
            Self::SecretNotFound { .. } | Self::NoSshKey { .. } => ErrorKind::NotFound,
            Self::SshSocket { source, .. } => ErrorKind::of_host(source),
            Self::Mode(_)
            | Self::ExtraHost { .. }
            | Self::SecretIdMissing { .. }
            | Self::SecretMountId
            | Self::SecretNotText { .. }
            | Self::SecretZeroByte { .. }
            | Self::MountOptions { .. }
            | Self::UnknownMountType(_)
            | Self::UnknownSharing(_)
            | Self::UnknownContentCache(_)
            | Self::ContentCacheUnsafe { .. }
            | Self::RootMount { .. }
            | Self::NoMountInput { .. }
            | Self::NoRoot
            | Self::MissingInput(_)
            | Self::InvalidInput { .. }
            | Self::InvalidUserIndex(_)
            | Self::DuplicateOutput(_)
            | Self::MissingOutput(_)
            | Self::NoOutputs
            | Self::Loop(_)
            | Self::NoAction
            | Self::NoMeta
            | Self::NoOp => ErrorKind::Invalid,
            Self::Foreign(_) => ErrorKind::Bug,
            Self::Exec { .. } | Self::Action { .. } => ErrorKind::Failed,
        }
    }
}
