//! Why a build within a build did not give its result.

/// How many builds may be within each other.
pub const MAX_NESTED_BUILDS: usize = 16;
/// The name of the input that has the definition, and of the file in it.
pub(crate) const DEFINITION: &str = "buildkit.llb.definition";

/// Why a build within a build did not give its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NestedBuildError {
    /// The op names an input as its builder.
    #[error("only LLB builder is currently allowed")]
    Builder,
    /// The op names no input for the definition.
    #[error("no llb definition input {DEFINITION} found")]
    NoInput,
    /// The input is empty.
    #[error("open {file}: no such file or directory")]
    NoFile {
        /// The file that was to hold the definition.
        file: String,
    },
    /// The file holds no definition.
    #[error("{file} holds no definition: {}", oci::error::chain(source.as_ref()))]
    Decode {
        /// The file.
        file: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its definition contains itself.
    #[error("the definition of a nested build leads back to the same build")]
    Circular,
    /// It is within too many others.
    #[error("more than {MAX_NESTED_BUILDS} builds are within each other")]
    TooDeep,
    /// Nobody wants it any more.
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
