//! Errors of frontends and of the bridge.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use dockerfile::lower::LowerError;
use llb::build::SourceMap;
use oci::ErrorKind;

use crate::places::{SourceLocation, wire_ranges};

/// A failure of the bridge. [`BridgeError::inner`] returns the engine's own error.
#[derive(Clone)]
pub struct BridgeError {
    kind: ErrorKind,
    inner: Arc<dyn Error + Send + Sync>,
}

impl BridgeError {
    /// Wraps the engine's error.
    pub fn new(kind: ErrorKind, inner: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            inner: Arc::from(inner.into()),
        }
    }

    /// An error that is only a sentence.
    pub fn message(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, text.into())
    }

    /// What kind of failure it is. Frontends distinguish missing files and features that the daemon does not build.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The engine's error.
    pub fn inner(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.inner
    }
}

impl fmt::Debug for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BridgeError({:?}, {:?})", self.kind, self.inner)
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

/// An error of any type.
pub(crate) type Cause = Box<dyn Error + Send + Sync>;

/// Why a frontend failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontendError {
    /// The bridge failed; `context` says at what, and is empty when the bridge's sentence suffices.
    #[error("{}{source}", prefix(context))]
    Bridge {
        /// The action of the frontend that failed.
        context: String,
        /// The bridge's failure.
        source: BridgeError,
        /// Places in the build definition, if known.
        at: Vec<SourceLocation>,
    },
    /// The Dockerfile cannot be lowered; [`FrontendError::bridge`] has the bridge's failure if that is the cause.
    #[error("{source}")]
    Lower {
        /// The error of lowering.
        source: Box<LowerError>,
        /// Places in the Dockerfile.
        at: Vec<SourceLocation>,
    },
    /// The build definition is wrong.
    #[error("{}{}", prefix(context), oci::error::chain(source.as_ref()))]
    Definition {
        /// The action of the frontend; empty when the cause's sentence suffices.
        context: String,
        /// The error, or a sentence where there is no error value.
        source: Cause,
        /// Places in the build definition, if known.
        at: Vec<SourceLocation>,
    },
    /// An option has a value it cannot have.
    #[error("{}{}", prefix(context), oci::error::chain(source.as_ref()))]
    Option {
        /// The option or the action of the frontend; empty when the cause's sentence suffices.
        context: String,
        /// The error, or a sentence where there is no error value.
        source: Cause,
    },
    /// The subrequest is unknown.
    #[error("unsupported request {name}")]
    UnsupportedSubrequest {
        /// Value of the option `requestid`.
        name: String,
    },
    /// The client demands a capability that the frontend lacks.
    #[error("unsupported frontend capability {name}")]
    UnsupportedCapability {
        /// Capability as the client names it.
        name: String,
    },
    /// The build definition names a frontend from an image, which this daemon does not run.
    #[error(
        "frontend {image} cannot be run: frontends from images (gateway.v0) are not supported; remove the syntax line or use a stable docker/dockerfile version"
    )]
    GatewayFrontend {
        /// Reference of the image.
        image: String,
        /// Places that name it.
        at: Vec<SourceLocation>,
    },
}

/// The beginning of the sentence when metadata of the source `identifier` cannot be resolved.
#[must_use]
pub fn resolving(identifier: &str) -> String {
    let text = identifier
        .strip_prefix("docker-image://")
        .or_else(|| identifier.strip_prefix("oci-layout://"))
        .unwrap_or(identifier);
    format!("failed to resolve source metadata for {text}")
}

impl FrontendError {
    /// A failure of the bridge during `context`.
    pub fn bridge_failed(context: &str, source: BridgeError) -> Self {
        Self::Bridge {
            context: context.to_owned(),
            source,
            at: Vec::new(),
        }
    }

    /// The build definition is wrong: `error`, or a sentence.
    pub(crate) fn definition(error: impl Into<Cause>) -> Self {
        Self::definition_while("", error)
    }

    /// The build definition is wrong: `error` came while doing `context`.
    pub(crate) fn definition_while(context: impl Into<String>, error: impl Into<Cause>) -> Self {
        Self::Definition {
            context: context.into(),
            source: error.into(),
            at: Vec::new(),
        }
    }

    /// An option is wrong: `error`, or a sentence.
    pub(crate) fn option(error: impl Into<Cause>) -> Self {
        Self::option_while("", error)
    }

    /// An option is wrong: `error` came while doing `context`.
    pub(crate) fn option_while(context: impl Into<String>, error: impl Into<Cause>) -> Self {
        Self::Option {
            context: context.into(),
            source: error.into(),
        }
    }

    /// A failure to lower, with its places in the file.
    pub fn from_lower(error: LowerError, map: Option<&Arc<SourceMap>>) -> Self {
        let at = map.map_or_else(Vec::new, |map| {
            let place = |ranges: &Vec<_>| SourceLocation {
                info: map.to_info(),
                ranges: wire_ranges(ranges),
            };
            error.locations.iter().map(place).collect()
        });
        Self::Lower {
            source: Box::new(error),
            at,
        }
    }

    /// Puts the action of the frontend before the sentence.
    #[must_use]
    pub(crate) fn within(self, action: &str) -> Self {
        match self {
            Self::Bridge {
                context,
                source,
                at,
            } => Self::Bridge {
                context: join(action, &context),
                source,
                at,
            },
            Self::Definition {
                context,
                source,
                at,
            } => Self::Definition {
                context: join(action, &context),
                source,
                at,
            },
            Self::Lower { .. }
            | Self::Option { .. }
            | Self::UnsupportedSubrequest { .. }
            | Self::UnsupportedCapability { .. }
            | Self::GatewayFrontend { .. } => self,
        }
    }

    /// What kind of error it is: that of the bridge's failure, where one is the cause.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bridge { source, .. } => source.kind(),
            Self::Lower { .. } => self.bridge().map_or(ErrorKind::Invalid, BridgeError::kind),
            Self::Definition { .. } | Self::Option { .. } => ErrorKind::Invalid,
            Self::UnsupportedSubrequest { .. }
            | Self::UnsupportedCapability { .. }
            | Self::GatewayFrontend { .. } => ErrorKind::Unsupported,
        }
    }

    /// Places in sources that the error is about, the outermost last.
    pub fn locations(&self) -> &[SourceLocation] {
        match self {
            Self::Bridge { at, .. }
            | Self::Lower { at, .. }
            | Self::Definition { at, .. }
            | Self::GatewayFrontend { at, .. } => at,
            Self::Option { .. }
            | Self::UnsupportedSubrequest { .. }
            | Self::UnsupportedCapability { .. } => &[],
        }
    }

    /// The bridge's failure, when that is the cause.
    pub fn bridge(&self) -> Option<&BridgeError> {
        match self {
            Self::Bridge { source, .. } => Some(source),
            Self::Lower { source, .. } => source.host()?.downcast_ref::<Self>()?.bridge(),
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
        Self::Bridge {
            context: String::new(),
            source,
            at: Vec::new(),
        }
    }
}

fn join(action: &str, context: &str) -> String {
    if context.is_empty() {
        action.to_owned()
    } else {
        format!("{action}: {context}")
    }
}

fn prefix(context: &str) -> String {
    if context.is_empty() {
        String::new()
    } else {
        format!("{context}: ")
    }
}
