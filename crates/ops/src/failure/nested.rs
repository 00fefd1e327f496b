//! Errors of nested builds.

/// Number of builds that may be nested in each other.
pub const MAX_NESTED_BUILDS: usize = 16;
/// The name of the input with the definition, and of the file in it.
pub(crate) const DEFINITION: &str = "buildkit.llb.definition";

/// Why a nested build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NestedBuildError {
    /// The op names one of its inputs as builder.
    #[error("only LLB builder is currently allowed")]
    Builder,
    /// The op has no input with the definition.
    #[error("no llb definition input {DEFINITION} found")]
    NoInput,
    /// The input is scratch.
    #[error("open {file}: no such file or directory")]
    NoFile {
        /// File of the definition.
        file: String,
    },
    /// The file does not contain a definition.
    #[error("{file} holds no definition: {}", oci::error::chain(source.as_ref()))]
    Decode {
        /// File of the definition.
        file: String,
        /// The error of decoding.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The definition of a nested build contains the same nested build.
    #[error("the definition of a nested build leads back to the same build")]
    Circular,
    /// Too many builds are nested in each other.
    #[error("more than {MAX_NESTED_BUILDS} builds are within each other")]
    TooDeep,
    /// The build that wanted it has ended.
    #[error("the build around a nested build is over")]
    BuildIsOver,
}

impl NestedBuildError {
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        use oci::ErrorKind;
        match self {
            Self::Builder
            | Self::NoInput
            | Self::Decode { .. }
            | Self::Circular
            | Self::TooDeep => ErrorKind::Invalid,
            Self::NoFile { .. } => ErrorKind::NotFound,
            Self::BuildIsOver => ErrorKind::Cancelled,
        }
    }
}
