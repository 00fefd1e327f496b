//! Why a call failed, in words of the domain.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use attest::IncompleteMaterial;
use bytes::Bytes;
use frontend::BridgeError;
use llb::pb;
use oci::{Digest, ErrorKind};

/// What kind of failure, for a client's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailureKind {
    /// No better kind is known: a step that failed, a bad Dockerfile.
    #[default]
    Unknown,
    /// The build was cancelled.
    Canceled,
    /// The request is wrong.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// What was asked for is not there.
    NotFound,
    /// What was to be made is there already.
    AlreadyExists,
    /// It is not allowed.
    PermissionDenied,
    /// The disk or another resource is used up.
    ResourceExhausted,
    /// The daemon does not do this.
    Unimplemented,
    /// A broken invariant.
    Internal,
    /// The daemon is stopping.
    Unavailable,
}

impl FailureKind {
    /// What a call answers whose error is of this kind.
    #[must_use]
    pub fn of_call(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failed | ErrorKind::Hostile | ErrorKind::System => Self::Unknown,
            ErrorKind::Invalid => Self::InvalidArgument,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Exists => Self::AlreadyExists,
            ErrorKind::Denied => Self::PermissionDenied,
            ErrorKind::Exhausted => Self::ResourceExhausted,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::TimedOut => Self::DeadlineExceeded,
            ErrorKind::Cancelled => Self::Canceled,
            ErrorKind::Unsupported => Self::Unimplemented,
            ErrorKind::Bug => Self::Internal,
        }
    }

    /// What a build answers that fails with an error of this kind.
    ///
    /// The reference answers most of them as unknown (`grpcerrors.Code`: only errors that carry a code, and those of a system
    /// that is used up, have another), and its clients print every other code before the sentence.
    #[must_use]
    pub fn of_build(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failed
            | ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Denied
            | ErrorKind::Hostile
            | ErrorKind::Unavailable
            | ErrorKind::TimedOut
            | ErrorKind::System => Self::Unknown,
            ErrorKind::Exhausted => Self::ResourceExhausted,
            ErrorKind::Cancelled => Self::Canceled,
            ErrorKind::Unsupported => Self::Unimplemented,
            ErrorKind::Bug => Self::Internal,
        }
    }

    /// The kind of an error of which only this is known.
    fn cause(self) -> ErrorKind {
        match self {
            Self::Unknown => ErrorKind::Failed,
            Self::Canceled => ErrorKind::Cancelled,
            Self::InvalidArgument => ErrorKind::Invalid,
            Self::DeadlineExceeded => ErrorKind::TimedOut,
            Self::NotFound => ErrorKind::NotFound,
            Self::AlreadyExists => ErrorKind::Exists,
            Self::PermissionDenied => ErrorKind::Denied,
            Self::ResourceExhausted => ErrorKind::Exhausted,
            Self::Unimplemented => ErrorKind::Unsupported,
            Self::Internal => ErrorKind::Bug,
            Self::Unavailable => ErrorKind::Unavailable,
        }
    }
}

/// Why a call failed: the error that says so with all its causes, and facts that clients print or act on.
///
/// The sentence is rendered where it leaves: as a client's status, as a line of the log, in a record.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", oci::error::chain(source.as_ref()))]
pub struct Failure {
    /// What kind of failure, for the client's program.
    pub kind: FailureKind,
    /// What kind of error it was here: it decides who is to look, and what the log says.
    pub cause: ErrorKind,
    /// The error, shared by all who wait for the same result.
    source: Arc<dyn Error + Send + Sync>,
    /// The facts, from the outermost to the innermost.
    pub details: Vec<Detail>,
}

/// What was being done when an error came.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", oci::error::chain(source.as_ref()))]
struct During {
    what: String,
    source: Arc<dyn Error + Send + Sync>,
}

impl Failure {
    /// A failure of a kind, without facts. `error` is the error, or a sentence where there is none.
    #[must_use]
    pub fn new(kind: FailureKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            cause: kind.cause(),
            source: Arc::from(error.into()),
            details: Vec::new(),
        }
    }

    /// The failure of a call, from its error and the kind of that.
    #[must_use]
    pub fn of_call(cause: ErrorKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            cause,
            ..Self::new(FailureKind::of_call(cause), error)
        }
    }

    /// The failure of a build, from its error and the kind of that.
    #[must_use]
    pub fn of_build(cause: ErrorKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            cause,
            ..Self::new(FailureKind::of_build(cause), error)
        }
    }

    /// What the bridge of a frontend says: the engine's own failure where it is one.
    #[must_use]
    pub fn of_bridge(error: &BridgeError) -> Self {
        match error.inner().downcast_ref::<Self>() {
            Some(failure) => failure.clone(),
            None => Self::of_call(error.kind(), error.clone()),
        }
    }

    /// A feature that is not built; the sentence names it.
    #[must_use]
    pub fn not_built(feature: &str) -> Self {
        Self::new(
            FailureKind::Unimplemented,
            format!("{feature} is not supported by this daemon"),
        )
    }

    /// The sentence with every cause, as clients show it.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// The error, for those who look for its type among the causes.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.source
    }

    /// Says what was being done: `what: the sentence`.
    #[must_use]
    pub fn during(mut self, what: impl Into<String>) -> Self {
        self.source = Arc::new(During {
            what: what.into(),
            source: self.source,
        });
        self
    }

    /// The same failure with another error, which has the former one among its causes or replaces it.
    #[must_use]
    pub fn with_error(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Arc::from(error.into());
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }
}

impl From<Failure> for BridgeError {
    /// A client is told less than a frontend, which has to know that a file or its owner is not there.
    fn from(failure: Failure) -> Self {
        let kind = if failure.kind == FailureKind::Unknown {
            failure.cause
        } else {
            failure.kind.cause()
        };
        Self::new(kind, failure)
    }
}

/// A fact on a failure.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Detail {
    /// The vertex that failed.
    Vertex {
        /// Its digest.
        digest: Digest,
    },
    /// Where in the user's files; clients print these lines.
    Source {
        /// The file with its text.
        info: pb::SourceInfo,
        /// The lines.
        ranges: Vec<pb::Range>,
    },
    /// The op that failed and what it worked on.
    Solve {
        /// Refs of the inputs, usable in later requests of the build.
        inputs: Vec<String>,
        /// Refs of the mounts as the step left them.
        mounts: Vec<String>,
        /// The op.
        op: Option<Box<pb::Op>>,
        /// Its description.
        description: BTreeMap<String, String>,
        /// Which file action failed.
        file_action: Option<i64>,
        /// Which input's content could not be digested.
        content_input: Option<i64>,
    },
    /// The exit code of a process.
    Exit {
        /// The code.
        code: u32,
    },
    /// The frontend that failed.
    Frontend {
        /// Its name.
        name: String,
        /// The image it came from.
        source: String,
    },
    /// A capability that the frontend lacks.
    FrontendCap {
        /// Its name.
        name: String,
    },
    /// A subrequest that the frontend lacks.
    Subrequest {
        /// Its name.
        name: String,
    },
    /// A feature that the wanted compatibility version lacks.
    CompatibilityFeature {
        /// The version.
        version: i64,
        /// The feature.
        feature: String,
    },
    /// What is not known of a build of which all materials were asked for.
    IncompleteMaterials {
        /// Sources and requests of steps.
        materials: Vec<IncompleteMaterial>,
    },
    /// A fact from elsewhere (a client's own error), as it came.
    Raw {
        /// Its type.
        type_url: String,
        /// Its bytes.
        value: Bytes,
    },
}
