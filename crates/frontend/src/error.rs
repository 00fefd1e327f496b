//! Why a frontend gave no result.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use llb::pb;

/// A place in a source file, for clients to print the failing lines.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLocation {
    /// The file.
    pub info: pb::SourceInfo,
    /// Where in it.
    pub ranges: Vec<pb::Range>,
}

/// What kind of failure the bridge met, as far as frontends care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A file, image or ref that is not there.
    NotFound,
    /// The request is wrong.
    InvalidArgument,
    /// The solve was cancelled.
    Canceled,
    /// The daemon does not do this.
    Unimplemented,
    /// Anything else.
    Other,
}

/// A failure of the bridge. The engine's own error is kept inside and can be had back with [`BridgeError::inner`].
#[derive(Clone)]
pub struct BridgeError {
    fault: Fault,
    inner: Arc<dyn Error + Send + Sync>,
}

impl BridgeError {
    /// Wraps the engine's error.
    pub fn new(fault: Fault, inner: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { fault, inner: Arc::from(inner.into()) }
    }

    /// An error that is only a sentence.
    pub fn message(text: impl Into<String>) -> Self {
        Self::new(Fault::Other, text.into())
    }

    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The engine's error.
    pub fn inner(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.inner
    }
}

impl fmt::Debug for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BridgeError({:?}, {:?})", self.fault, self.inner)
    }
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl Error for BridgeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.inner)
    }
}

/// Why a frontend gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontendError {
    /// The bridge failed; `context` says what for, empty when the bridge's words suffice.
    #[error("{}{source}", prefix(context))]
    Bridge {
        /// What the frontend was doing.
        context: String,
        /// What failed.
        source: BridgeError,
        /// Where in the build definition, if known.
        at: Vec<SourceLocation>,
    },
    /// The build definition or an option is wrong.
    #[error("{message}")]
    Definition {
        /// What is wrong.
        message: String,
        /// Where.
        at: Vec<SourceLocation>,
    },
    /// An option has a value it cannot have.
    #[error("{message}")]
    Option {
        /// What is wrong.
        message: String,
    },
    /// The subrequest is not known.
    #[error("unsupported request {name}")]
    UnsupportedSubrequest {
        /// Its name.
        name: String,
    },
    /// The client demands a capability of the frontend that it has not.
    #[error("unsupported frontend capability {name}")]
    UnsupportedCapability {
        /// Its name.
        name: String,
    },
    /// The build definition wants a frontend from an image.
    #[error(
        "frontend {image} cannot be run: frontends from images (gateway.v0) are not supported; remove the syntax line or use a stable docker/dockerfile version"
    )]
    GatewayFrontend {
        /// The image that was asked for.
        image: String,
        /// Where it was asked for.
        at: Vec<SourceLocation>,
    },
}

impl FrontendError {
    /// Places in sources that the error is about, outermost last.
    pub fn locations(&self) -> &[SourceLocation] {
        match self {
            Self::Bridge { at, .. } | Self::Definition { at, .. } | Self::GatewayFrontend { at, .. } => at,
            Self::Option { .. } | Self::UnsupportedSubrequest { .. } | Self::UnsupportedCapability { .. } => &[],
        }
    }

    /// The bridge's failure, when that is the cause.
    pub fn bridge(&self) -> Option<&BridgeError> {
        match self {
            Self::Bridge { source, .. } => Some(source),
            Self::Definition { .. }
            | Self::Option { .. }
            | Self::UnsupportedSubrequest { .. }
            | Self::UnsupportedCapability { .. }
            | Self::GatewayFrontend { .. } => None,
        }
    }
}

impl From<BridgeError> for FrontendError {
    fn from(source: BridgeError) -> Self {
        Self::Bridge { context: String::new(), source, at: Vec::new() }
    }
}

fn prefix(context: &str) -> String {
    if context.is_empty() { String::new() } else { format!("{context}: ") }
}
